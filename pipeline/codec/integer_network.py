"""h_s as a network of integers: how a trained one becomes one, and how one is known.

A layer computes ``clip((convolution(x) + bias + divisor // 2) / divisor)``. The convolution runs in
float32, which adds integers up to 2 ** 24 without rounding, in any order: as long as its sums stay
below that, the layer gives the same integers on every device.

Source:
    Balle, Johnston, Minnen: "Integer networks for data compression with latent-variable models",
    ICLR 2019.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.pipeline.codec.graph import Graph, TensorRef
from latentset.pipeline.codec.published_form import IntegerLayer, Layer
from latentset.pipeline.tensorflow_setup import tf

EXACT = 1 << 24
"""Integers that float32 holds, and adds, exactly."""
LARGEST_INPUT = 255
"""Of any layer: hidden activations are uint8, and z_hat stays below it."""


def quantize(layers: Sequence[Layer], ceilings: Sequence[NDArray[Any]]) -> list[IntegerLayer]:
    """Turn trained layers into integers, as finely as exact sums allow.

    Args:
        layers: Of h_s: two of stride 2 up, one of stride 1; its output is the scale index.
        ceilings: Largest activation of each hidden channel; what is above is clipped.

    Returns:
        The layers, whose sums are exact for inputs up to ``LARGEST_INPUT``.
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
        room = EXACT - 1 - LARGEST_INPUT * _largest_sums(np.ones_like(kernel), stride) / 2
        divisor = np.floor(room / (LARGEST_INPUT * _largest_sums(kernel, stride)))
        divisor = np.clip(divisor, 1, EXACT >> 4)
        quantized.append(
            IntegerLayer(
                np.round(kernel * divisor).astype(np.float32),
                np.round(bias * divisor).astype(np.int32),
                divisor.astype(np.int32),
            )
        )
        step_in = step
    return quantized


def _largest_sums(kernel: NDArray[Any], stride: int) -> NDArray[np.float64]:
    """Largest sum of magnitudes that meet in one output of each channel, (outputs,).

    A convolution of stride 2 up has four kinds of outputs, each of which meets every other tap.
    """
    parts = [
        np.abs(kernel[i::stride, j::stride]).sum(axis=(0, 1, 2), dtype=np.float64)
        for i in range(stride)
        for j in range(stride)
    ]
    largest: NDArray[np.float64] = np.max(parts, axis=0)
    return largest


_DATA_INPUT = {"Conv2D": 0, "Conv2DBackpropInput": 2}
"""Convolutions, and which of their inputs is convolved."""
_KERNEL_INPUT = 1
_ROUND = ("Round", "Rint")
_KEEP_ORDER = frozenset(["Pad", "StridedSlice", "Identity"])
"""Ops that change no value: between a convolution and what rounds it, or casts its input."""


def is_integer_network(graph: Graph, symbols: TensorRef, index: TensorRef) -> bool:
    """Say whether h_s passes on integers: convolutions alone are floats, and rounded.

    Args:
        graph: A flat graph in which the index follows from the symbols of z.
        symbols: The symbols of z.
        index: The scale index.
    """
    path = graph.find_between(symbols, index)
    return any(node.op in _DATA_INPUT for node in path) and all(
        _keeps_integers(graph, node) for node in path
    )


def _keeps_integers(graph: Graph, node: Any) -> bool:
    if node.op in _DATA_INPUT:
        return bool(_data(graph, node).op == "Cast")
    if node.op == "Cast":
        if not _is_float(node.attr["SrcT"].type):
            return True
        return _before(graph, graph.inputs(node.name)[0]).op in _ROUND
    return node.op in _ROUND or node.op in _KEEP_ORDER or not _is_float(node.attr["T"].type)


def find_exact_limit(graph: Graph, symbols: TensorRef, index: TensorRef) -> int | None:
    """Find up to which magnitude of z_hat the scale index is exact in any order of summation.

    Args:
        graph: As for ``is_integer_network``.
        symbols: The symbols of z.
        index: The scale index.

    Returns:
        The largest magnitude of z_hat; None where h_s computes with fractions, or its sums may
        pass 2 ** 24.
    """
    if not is_integer_network(graph, symbols, index):
        return None
    limit = EXACT
    for node in graph.find_between(symbols, index):
        if node.op not in _DATA_INPUT:
            continue
        kernel = graph.node(graph.inputs(node.name)[_KERNEL_INPUT].node)
        if kernel.op != "Const":
            return None
        taps, stride = tf.make_ndarray(kernel.attr["value"].tensor), 1
        if node.op == "Conv2DBackpropInput":
            taps, stride = taps.transpose(0, 1, 3, 2), node.attr["strides"].list.i[1]
        if (taps != np.round(taps)).any():
            return None
        largest = int((EXACT - 1) // max(1.0, _largest_sums(taps, stride).max()))
        source = _data(graph, node)
        if source.attr["SrcT"].type == tf.uint8.as_datatype_enum:
            if largest < LARGEST_INPUT:
                return None
        elif _follows_convolution(graph, symbols, source):
            return None  # its inputs have no known bound
        else:
            limit = min(limit, largest)
    return limit


def _follows_convolution(graph: Graph, symbols: TensorRef, node: Any) -> bool:
    path = graph.find_between(symbols, TensorRef(node.name, 0))
    return any(other.op in _DATA_INPUT for other in path)


def _data(graph: Graph, convolution: Any) -> Any:
    """Return the node that computed what is convolved, before it was padded."""
    return _before(graph, graph.inputs(convolution.name)[_DATA_INPUT[convolution.op]])


def _before(graph: Graph, ref: TensorRef) -> Any:
    """Return the node that computed a value, before it was padded or cropped."""
    node = graph.node(ref.node)
    while node.op in _KEEP_ORDER:
        node = graph.node(graph.inputs(node.name)[0].node)
    return node


def _is_float(dtype: int) -> bool:
    return bool(tf.dtypes.as_dtype(dtype).is_floating)
