"""h_s as a network of integers: how one is recognised, and up to which z_hat it is exact.

A layer computes ``clip((convolution(x) + bias + divisor // 2) / divisor)``. The convolution runs in
float32, which adds integers up to 2 ** 24 without rounding, in any order: as long as its sums stay
below that, the layer gives the same integers on every CPU. A GPU's library may take an algorithm
(Winograd's, or Fourier transforms) whose intermediate values are no integers.

Source:
    Balle, Johnston, Minnen: "Integer networks for data compression with latent-variable models",
    ICLR 2019.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.pipeline.codec.load.graph import SHAPE_OPS, Graph, TensorRef
from latentset.pipeline.tensorflow_setup import tf

EXACT = 1 << 24
"""Integers that float32 holds, and adds, exactly."""
LARGEST_INPUT = 255
"""Of a hidden layer, whose activations are uint8; of z_hat in the codecs that are exported."""

_DATA_INPUT = {"Conv2D": 0, "Conv2DBackpropInput": 2}
"""Convolutions, and which of their inputs is convolved; the kernel is input 1."""
_ROUND = ("Round", "Rint")
_KEEP_ORDER = frozenset(["Pad", "StridedSlice", "Identity"])
"""Ops that change no value: between a convolution and what rounds it, or casts its input."""


def largest_sums(kernel: NDArray[Any], stride: int) -> NDArray[np.float64]:
    """Return the largest sum of magnitudes that meet in one output of each channel, (outputs,).

    A convolution of stride 2 up has four kinds of outputs, each of which meets every other tap.
    """
    phases = [kernel[i::stride, j::stride] for i in range(stride) for j in range(stride)]
    sums = [np.abs(taps).sum(axis=(0, 1, 2), dtype=np.float64) for taps in phases]
    largest: NDArray[np.float64] = np.max(sums, axis=0)
    return largest


def is_integer_network(graph: Graph, symbols: TensorRef, index: TensorRef) -> bool:
    """Return whether h_s, from symbols to index, passes integers on: only sums are floats."""
    path = graph.find_between(symbols, index)
    return any(node.op in _DATA_INPUT for node in path) and all(
        _keeps_integers(graph, node) for node in path
    )


def find_exact_limit(
    graph: Graph, symbols: TensorRef, index: TensorRef, image: TensorRef, offset: TensorRef | None
) -> int | None:
    """Find the largest magnitude of z_hat with an exact scale index, in any order of summation.

    ``offset`` is added to the symbols. None where h_s computes with fractions, where its sums may
    pass 2 ** 24, or where the image decides the index otherwise than through the symbols of z.
    """
    if not is_integer_network(graph, symbols, index):
        return None
    ends = (symbols.node, image.node)
    sources = graph.find_upstream(index, lambda node: node.name in ends or node.op in SHAPE_OPS)
    if any(node.name == image.node for node in sources):
        return None
    limit = EXACT
    for node in graph.find_between(symbols, index):
        if node.op not in _DATA_INPUT:
            continue
        kernel = graph.node(graph.inputs(node.name)[1].node)
        if kernel.op != "Const" or node.attr["T"].type != tf.float32.as_datatype_enum:
            return None
        taps, stride = tf.make_ndarray(kernel.attr["value"].tensor), 1
        if node.op == "Conv2DBackpropInput":
            taps, stride = taps.transpose(0, 1, 3, 2), node.attr["strides"].list.i[1]
        if (taps != np.round(taps)).any():
            return None
        largest = int((EXACT - 1) // max(1.0, largest_sums(taps, stride).max()))
        source = _data(graph, node)
        if source.attr["SrcT"].type == tf.uint8.as_datatype_enum:
            if largest < LARGEST_INPUT:
                return None
        elif not _is_z_hat(graph, source, symbols, offset):
            return None  # its inputs have no known bound
        else:
            limit = min(limit, largest)
    return limit


def _keeps_integers(graph: Graph, node: Any) -> bool:
    if node.op in _DATA_INPUT:
        return bool(_data(graph, node).op == "Cast")
    if node.op == "Cast":
        rounded = graph.op(graph.skip(graph.inputs(node.name)[0], _KEEP_ORDER)) in _ROUND
        return rounded or not tf.dtypes.as_dtype(node.attr["SrcT"].type).is_floating
    if node.op in _ROUND or node.op in _KEEP_ORDER:
        return True
    return "T" in node.attr and not tf.dtypes.as_dtype(node.attr["T"].type).is_floating


def _is_z_hat(graph: Graph, cast: Any, symbols: TensorRef, offset: TensorRef | None) -> bool:
    """Return whether a cast takes the symbols of z and their offset, padded by zeros at most."""
    ref, left = graph.inputs(cast.name)[0], offset
    while ref != symbols:
        node, inputs = graph.node(ref.node), graph.inputs(ref.node)
        if node.op in ("Add", "AddV2") and left in inputs:
            ref = next(other for other in inputs if other != left)
            left = None
        elif node.op in _KEEP_ORDER and ref != inputs[0]:
            ref = inputs[0]
        else:
            return False
    return left is None


def _data(graph: Graph, convolution: Any) -> Any:
    """Return the node that computed what is convolved, before it was padded."""
    ref = graph.inputs(convolution.name)[_DATA_INPUT[convolution.op]]
    return graph.node(graph.skip(ref, _KEEP_ORDER).node)
