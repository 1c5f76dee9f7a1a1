"""All numbers of a scale hyperprior, from which its graph is built (``published_form``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Layer(NamedTuple):
    """A convolution."""

    kernel: Floats
    """(height, width, inputs, outputs)."""
    bias: Floats | None
    """(outputs,)."""


class Norm(NamedTuple):
    """Parameters of GDN."""

    beta: Floats
    """(channels,)."""
    gamma: Floats
    """(inputs, outputs)."""


class IntegerLayer(NamedTuple):
    """``clip((convolution(x) + bias + divisor // 2) / divisor)``, all integers.

    The quotient is truncated. The convolution is exact in float32 as long as its sums stay below
    2 ** 24.
    """

    kernel: Floats
    bias: NDArray[np.int32]
    divisor: NDArray[np.int32]


class PaddedRows(NamedTuple):
    """Rows of tensorflow-compression 1: cumulative counts, each row padded with zeros."""

    cdf: NDArray[np.int32]
    """(rows, length)."""
    size: NDArray[np.int32]
    """Entries of each row that count, (rows,)."""
    offset: NDArray[np.int32]
    """Smallest symbol of each row, (rows,)."""


@dataclass(frozen=True)
class Parameters:
    """All numbers of a codec."""

    g_a: Sequence[Layer]
    """Four, 5x5, stride 2: correlations."""
    gdn: Sequence[Norm]
    g_s: Sequence[Layer]
    """Four, 5x5, stride 2 up: convolutions."""
    igdn: Sequence[Norm]
    h_a: Sequence[Layer]
    """Three, 3x3, then 5x5 of stride 2: correlations."""
    h_s: Sequence[IntegerLayer]
    """Two 5x5 of stride 2 up, convolutions; one 3x3, a correlation."""
    median: Floats
    """(N,), subtracted from z before it is rounded."""
    z_offset: NDArray[np.int32]
    """(N,), added to z's symbols before h_s."""
    y_rows: PaddedRows
    z_rows: PaddedRows
    norm: Literal["square", "abs"] = "square"
    """GDN divides by ``sqrt(beta + gamma x^2)``, as published, or by ``beta + gamma |x|``."""
