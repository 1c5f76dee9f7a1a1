"""Export of a trained scale hyperprior as one MetaGraphDef file in the published form."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.storage.atomic import write_atomically
from latentset.pipeline.codec.load.code_tables import SCALE_COUNT, log_spaced_scales
from latentset.pipeline.codec.load.integer_network import EXACT, LARGEST_INPUT, largest_sums
from latentset.pipeline.codec.train.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.train.published_form import (
    PRECISION,
    IntegerLayer,
    Layer,
    Norm,
    PaddedRows,
    Parameters,
    build_metagraph,
)
from latentset.pipeline.tensorflow_setup import tf, tfc

TAIL_MASS = 2**-8
"""Probability that a row leaves to the escape, as in the published codecs."""


def export_metagraph(
    model: ScaleHyperprior, path: Path, images: Iterable[NDArray[np.uint8]]
) -> None:
    """Write a codec as a MetaGraphDef without variables (``published_form``).

    The range of h_s's activations is measured on ``images``, batches (B, H, W, 3).
    """
    metagraph = build_metagraph(parameters_of(model, images))
    write_atomically(path, metagraph.SerializeToString(deterministic=True))


def parameters_of(model: ScaleHyperprior, images: Iterable[NDArray[np.uint8]]) -> Parameters:
    """Return all numbers of a codec, h_s as integers; see ``export_metagraph``."""
    g_a, g_s, h_a, h_s = (
        [
            Layer(layer.kernel.numpy(), layer.bias.numpy() if layer.use_bias else None)
            for layer in transform.layers
        ]
        for transform in (model.g_a, model.g_s, model.h_a, model.h_s)
    )
    gdn, igdn = (
        [
            Norm(layer.activation.beta().numpy(), layer.activation.gamma().numpy())
            for layer in transform.layers[:-1]
        ]
        for transform in (model.g_a, model.g_s)
    )
    # The last one has no stride, and is a correlation in the published form.
    h_s[-1] = Layer(h_s[-1].kernel[::-1, ::-1], h_s[-1].bias)
    return Parameters(
        g_a=g_a,
        gdn=gdn,
        g_s=g_s,
        igdn=igdn,
        h_a=h_a,
        h_s=quantize_layers(h_s, measure_ceilings(model, images)),
        median=np.zeros(model.N, np.float32),
        z_offset=np.zeros(model.N, np.int32),
        y_rows=gaussian_rows(log_spaced_scales(SCALE_COUNT)),
        z_rows=_z_rows(model),
        norm="abs",
    )


def measure_ceilings(
    model: ScaleHyperprior, images: Iterable[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    """Return the largest activation of each hidden channel of h_s on some images."""
    hidden = model.h_s.layers[:-1]
    ceilings = [np.zeros(model.N, np.float32) for _ in hidden]
    for batch in images:
        y = model.g_a(tf.cast(batch, tf.float32) / 255.0)
        x = tf.floor(model.h_a(tf.abs(y)) + 0.5)
        for ceiling, layer in zip(ceilings, hidden, strict=True):
            x = layer(x)
            np.maximum(ceiling, tf.reduce_max(x, (0, 1, 2)).numpy(), out=ceiling)
    return ceilings


def quantize_layers(
    layers: Sequence[Layer], ceilings: Sequence[NDArray[Any]]
) -> list[IntegerLayer]:
    """Turn the layers of h_s into integers, as fine as sums are exact up to ``LARGEST_INPUT``.

    Args:
        layers: Two of stride 2 up, one of stride 1, whose output is the scale index.
        ceilings: Largest activation of each hidden channel; what is above is clipped.
    """
    quantized = []
    step_in = np.ones(layers[0].kernel.shape[2])
    strides = [2] * len(ceilings) + [1]
    steps = [np.maximum(c, 1e-3) / LARGEST_INPUT for c in ceilings]
    for layer, stride, step in zip(layers, strides, [*steps, np.ones(1)], strict=True):
        # In units of the output's step, for inputs in units of theirs.
        kernel = layer.kernel.astype(np.float64) * step_in[:, None] / step
        bias = np.zeros(kernel.shape[3]) if layer.bias is None else layer.bias / step
        # Rounding adds half a unit at most to each of the values that are summed.
        room = EXACT - 1 - LARGEST_INPUT * largest_sums(np.ones_like(kernel), stride) / 2
        divisor = np.floor(room / (LARGEST_INPUT * largest_sums(kernel, stride)))
        divisor = np.clip(divisor, 1, EXACT >> 4)
        quantized.append(
            IntegerLayer(
                np.round(kernel * divisor).astype(np.float32),
                # A channel that is never active may have any bias below zero.
                np.clip(np.round(bias * divisor), -(1 << 30), 1 << 30).astype(np.int32),
                divisor.astype(np.int32),
            )
        )
        step_in = step
    return quantized


def gaussian_rows(scales: NDArray[np.float64], tail_mass: float = TAIL_MASS) -> PaddedRows:
    """Return the range coder's rows of zero-mean Gaussians.

    Source:
        tensorflow/compression 1.3, ``layers/entropy_models.py``, ``SymmetricConditional.build``.
    """
    quantile = -float(tf.math.ndtri(tf.constant(tail_mass / 2, tf.float64)))
    center = np.ceil(scales * quantile).astype(np.int32)
    rows = []
    for sigma, half in zip(scales, center, strict=True):
        edges = (np.arange(-half, half + 2) - 0.5) / sigma
        cumulative = 0.5 * tf.math.erfc(-edges / np.sqrt(2)).numpy()
        rows.append(quantize_row(np.diff(cumulative)))
    return pad_rows(rows, -center)


def quantize_row(pmf: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the cumulative counts of probabilities; what they lack of 1 goes to the escape."""
    whole = np.append(pmf, max(1 - pmf.sum(), 0.0)).astype(np.float32)
    cdf: NDArray[np.int32] = tfc.pmf_to_quantized_cdf(whole, precision=PRECISION).numpy()
    return cdf


def pad_rows(rows: list[NDArray[np.int32]], offset: NDArray[np.int32]) -> PaddedRows:
    """Put rows of cumulative counts into one matrix."""
    cdf = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for padded, row in zip(cdf, rows, strict=True):
        padded[: len(row)] = row
    return PaddedRows(cdf, np.array([len(r) for r in rows], np.int32), offset.astype(np.int32))


def _z_rows(model: ScaleHyperprior) -> PaddedRows:
    # Compiled: the search for the tails of z takes hundreds of steps, each some ms when eager.
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def compute() -> Any:
        z_model = tfc.ContinuousBatchedEntropyModel(
            model.hyperprior,
            coding_rank=3,
            compression=True,
            stateless=True,
            offset_heuristic=False,
            range_coder_precision=PRECISION,
        )
        return z_model.cdf, z_model.cdf_offset

    cdf, offset = (tensor.numpy() for tensor in compute())
    # Rows one after the other, each led by its negative precision.
    starts = np.flatnonzero(cdf == -PRECISION)
    return pad_rows([row[1:] for row in np.split(cdf, starts[1:])], offset)
