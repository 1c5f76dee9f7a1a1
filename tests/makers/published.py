"""Codecs of the published form with random numbers, for any number of filters."""

from typing import Any, Literal

import numpy as np

from latentset.pipeline.codec.load.code_tables import log_spaced_scales
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.metagraph import parse_codec_file
from latentset.pipeline.codec.train.codec_export import gaussian_rows, pad_rows, quantize_row
from latentset.pipeline.codec.train.published_form import (
    IntegerLayer,
    Layer,
    Norm,
    PaddedRows,
    Parameters,
    build_metagraph,
)

Median = Literal["rounded", "truncated", "whole"]


def make_parameters(
    N: int = 6,
    M: int = 8,
    *,
    z_width: int = 12,
    median: Median = "rounded",
    tail_mass: float = 2**-8,
    seed: int = 5,
) -> Parameters:
    """Make the numbers of a codec.

    Args:
        N: Filters.
        M: Channels of y.
        z_width: Entries of a row of z's table: few, so that symbols overflow.
        median: How the integer offset comes from z's median; ``whole``: the median is one.
        tail_mass: Of the rows of y.
        seed: Of everything that is random.
    """
    random = np.random.default_rng(seed)

    def kernel(support: int, inputs: int, outputs: int, gain: float) -> Any:
        scale = gain / np.sqrt(support * support * inputs)
        size = (support, support, inputs, outputs)
        return random.normal(scale=scale, size=size).astype(np.float32)

    def layer(support: int, inputs: int, outputs: int, gain: float) -> Layer:
        bias = random.normal(scale=0.1, size=outputs).astype(np.float32)
        return Layer(kernel(support, inputs, outputs, gain), bias)

    def norm() -> Norm:
        gamma = 0.1 * np.eye(N) + 0.1 / N * random.random((N, N))
        return Norm((1 + 0.1 * random.random(N)).astype(np.float32), gamma.astype(np.float32))

    def integers(support: int, inputs: int, outputs: int, size: float, mean: int) -> IntegerLayer:
        """Outputs are ``mean`` give or take a third of it, for inputs of this size."""
        weights = np.round(random.normal(scale=12, size=(support, support, inputs, outputs)))
        spread = 12 * size * np.sqrt(support * support * inputs / (4 if support == 5 else 1))
        divisor = np.maximum(np.round(3 * spread / mean * (1 + random.random(outputs))), 1)
        bias = np.round(mean * divisor + random.normal(scale=divisor))
        return IntegerLayer(
            weights.astype(np.float32), bias.astype(np.int32), divisor.astype(np.int32)
        )

    medians = random.uniform(-3, 3, N).astype(np.float32)
    if median == "whole":
        medians = np.round(medians)
    offset = (np.trunc if median == "truncated" else np.round)(medians).astype(np.int32)
    return Parameters(
        g_a=[layer(5, 3, N, 6), layer(5, N, N, 3), layer(5, N, N, 3), layer(5, N, M, 3)],
        gdn=[norm() for _ in range(3)],
        g_s=[layer(5, M, N, 0.3), layer(5, N, N, 1), layer(5, N, N, 1), layer(5, N, 3, 0.5)],
        igdn=[norm() for _ in range(3)],
        h_a=[
            layer(3, M, N, 2),
            layer(5, N, N, 2),
            layer(5, N, N, 2)._replace(bias=None),
        ],
        h_s=[
            integers(5, N, N, 3, 120),
            integers(5, N, N, 120, 120),
            integers(3, N, M, 120, 30),
        ],
        median=medians,
        z_offset=offset,
        y_rows=gaussian_rows(log_spaced_scales(64), tail_mass),
        z_rows=_logistic_rows(N, z_width),
    )


def _logistic_rows(channels: int, width: int) -> PaddedRows:
    """Rows of logistic distributions of growing width, around 0."""
    first = -(width - 2) // 2
    edges = np.arange(first, first + width - 1) - 0.5
    rows = [
        quantize_row(np.diff(1 / (1 + np.exp(-edges / scale))))
        for scale in np.linspace(1, 3, channels)
    ]
    return pad_rows(rows, np.full(channels, first))


def build_published(N: int = 6, M: int = 8, **options: Any) -> Any:
    """Make a metagraph of the published form; see ``make_parameters``."""
    return build_metagraph(make_parameters(N, M, **options))


Z_HAT_OUT = "side_entropy_model/side_entropy_model_3/add_1"
"""z_hat as h_s takes it."""


def load_published(metagraph: Any, **options: Any) -> Codec:
    """Load a codec from a metagraph."""
    return Codec(parse_codec_file(metagraph.SerializeToString(), "published"), **options)


def copy_metagraph(metagraph: Any) -> tuple[Any, dict[str, Any]]:
    """Copy a metagraph; also return its nodes by name."""
    copied = type(metagraph)()
    copied.CopyFrom(metagraph)
    return copied, {node.name: node for node in copied.graph_def.node}
