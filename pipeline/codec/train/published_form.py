"""A scale hyperprior as a graph of the form that the published codecs have.

Every name, dtype and shape is that of the public tensor listings of
``bmshj2018-hyperprior-{msssim,mse}-{1..8}`` (docs/published-codecs.md). The sender range-codes z
and decodes it again before it derives the scale index from it, in loops of TensorFlow 1::

    input_image -> g_a -> y -> floor(y + 1/2) --------------------> y_hat -> channel
                          |                                           ^
                         |y| -> h_a -> z -> floor(z + 1/2 - median)   | scale index
                                            -> z_hat -> channel       |
                                                -> decoded -> h_s ----'

The receiver's inputs are the sender's own outputs. ``h_s`` is a network of integers (Balle,
Johnston, Minnen: "Integer networks for data compression with latent-variable models", ICLR 2019),
so that the scale index is the same on every CPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentset.pipeline.tensorflow_setup import tf, tfc

PRECISION = 16
"""Bits of a probability."""
_scope = tf.compat.v1.name_scope
Floats = NDArray[np.float32]


class Layer(NamedTuple):
    """A convolution: kernel (height, width, inputs, outputs), bias (outputs,)."""

    kernel: Floats
    bias: Floats | None


class Norm(NamedTuple):
    """Parameters of GDN: beta (channels,), gamma (inputs, outputs)."""

    beta: Floats
    gamma: Floats


class IntegerLayer(NamedTuple):
    """``clip((convolution(x) + bias + divisor // 2) / divisor)``, all integers; truncated."""

    kernel: Floats
    bias: NDArray[np.int32]
    divisor: NDArray[np.int32]


class PaddedRows(NamedTuple):
    """Rows of tensorflow-compression 1, int32: each has its smallest symbol as offset."""

    cdf: NDArray[np.int32]
    """Cumulative counts, (rows, length), each row padded with zeros behind its size."""
    size: NDArray[np.int32]
    offset: NDArray[np.int32]


@dataclass(frozen=True)
class Parameters:
    """All numbers of a codec; layers down are correlations, layers up convolutions."""

    g_a: Sequence[Layer]
    """Four, 5x5, stride 2, as in g_s."""
    gdn: Sequence[Norm]
    g_s: Sequence[Layer]
    igdn: Sequence[Norm]
    h_a: Sequence[Layer]
    """Three, 3x3, then 5x5 of stride 2."""
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


def build_metagraph(parameters: Parameters) -> Any:
    """Return the codec as a ``tf.compat.v1.MetaGraphDef``.

    ``sender``: ``input_image`` uint8 (B, H, W, 3) to ``channel:0`` strings of y (B,), ``channel:1``
    strings of z (B,), ``channel:2`` to ``channel:4`` the int32 (2,) sizes of image, y and z.
    ``receiver``: those five to ``output_image`` float32 (B, H, W, 3), 0 to 255, not clipped.
    """
    with tf.Graph().as_default() as graph, _loops_of_tensorflow_1():
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "input_image")
        channels, output = _build(parameters, image)
    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.graph_def.CopyFrom(graph.as_graph_def())
    for node in metagraph.graph_def.node:
        tensor = node.attr["value"].tensor
        if tensor.dtype == tf.int32.as_datatype_enum and len(tensor.tensor_content) > 1024:
            # In as many bytes as each integer needs: the rows are mostly small ones.
            tensor.int_val.extend(tf.make_ndarray(tensor).ravel().tolist())
            tensor.ClearField("tensor_content")
    metagraph.meta_info_def.tensorflow_version = tf.__version__
    metagraph.meta_info_def.tags.append("serve")
    sender, receiver = (metagraph.signature_def[key] for key in ("sender", "receiver"))
    _describe(sender.inputs["input_image"], image)
    for i, tensor in enumerate(channels):
        _describe(sender.outputs[f"channel:{i}"], tensor)
        _describe(receiver.inputs[f"channel:{i}"], tensor)
    _describe(receiver.outputs["output_image"], output)
    return metagraph


def _describe(info: Any, tensor: tf.Tensor) -> None:
    info.name = tensor.name
    info.dtype = tensor.dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(tensor.shape.as_proto())


@contextmanager
def _loops_of_tensorflow_1() -> Iterator[None]:
    """Build loops of Enter, Merge, Switch, NextIteration and Exit, not as functions."""
    v2 = tf.compat.v1.control_flow_v2_enabled()
    tf.compat.v1.disable_control_flow_v2()
    try:
        yield
    finally:
        if v2:
            tf.compat.v1.enable_control_flow_v2()


def _build(parameters: Parameters, image: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Build the sender's channels and the receiver's image."""
    N = len(parameters.median)
    y = _analysis(parameters, image)
    z = _hyper_analysis(parameters, tf.abs(y, "Abs"))
    x_size, y_size, z_size = (
        _slice(tf.shape(tensor, name=f"Shape{end}"), 1, 3, f"strided_slice{end}")
        for tensor, end in ((image, ""), (y, "_1"), (z, "_2"))
    )

    side = "side_entropy_model"
    z_coder = _Coder(
        tf.constant(parameters.z_rows.cdf, name=f"{side}/{side}/pmf_to_cdf/stack"),
        tf.constant(parameters.z_rows.size, name=f"{side}/{side}/add_26"),
        tf.constant(parameters.z_rows.offset, name=f"{side}/{side}/Neg"),
        fixed=True,
    )
    with _scope(f"{side}/{side}_2"):
        half = tf.constant(np.float32(0.5) - parameters.median.reshape(1, 1, 1, N), name="sub")
        z_symbols = _floor_to_int(z, half)
        shape = _slice(tf.shape(z_symbols, name="Shape"), 1, None, "strided_slice_1")
        index = _channel_index(shape, N, ("strided_slice_2", "strided_slice_3", "strided_slice_4"))
        z_string = z_coder.map("encode", z_symbols, index)
    shape = tf.concat([z_size, [N]], 0, name=f"{side}/concat")
    with _scope(f"{side}/{side}_3"):
        index = _channel_index(shape, N, ("strided_slice", "strided_slice_1", "strided_slice_2"))
        decoded = z_coder.map("decode", z_string, index)
        offset = tf.constant(parameters.z_offset.reshape(1, 1, 1, N), name="Cast")
        z_hat = tf.add(decoded, offset, name="add_1")

    index = _crop(_hyper_synthesis(parameters, z_hat), y_size, "GridAlign", 3)
    model = "entropy_model"
    y_coder = _Coder(
        tf.constant(parameters.y_rows.cdf, name=f"{model}/{model}/pmf_to_cdf/stack"),
        parameters.y_rows.size,
        tf.constant(parameters.y_rows.offset, name=f"{model}/{model}/Const_12"),
        fixed=False,
    )
    with _scope(f"{model}/{model}_2"):
        y_symbols = _floor_to_int(y, tf.constant(0.5, name="Const"))
        y_string = y_coder.map("encode", y_symbols, index)
    with _scope(f"{model}/{model}_3"):
        y_hat = tf.cast(y_coder.map("decode", y_string, index), tf.float32, "Cast")
    output = _crop(_synthesis(parameters, y_hat), x_size, "GridAlign_1", 5)
    return [y_string, z_string, x_size, y_size, z_size], output


def _analysis(parameters: Parameters, image: tf.Tensor) -> tf.Tensor:
    """g_a: uint8 (B, H, W, 3) to y (B, h, w, M)."""
    with _scope("analysis"):
        x = tf.truediv(tf.cast(image, tf.float32, "Cast"), 255.0, "truediv")
        for i, layer in enumerate(parameters.g_a):
            with _scope(f"layer_{i}"):
                x = _down(x, layer, stride=2)
                if i < len(parameters.gdn):
                    x = _normalize(x, parameters.gdn[i], parameters.norm, i, inverse=False)
    return x


def _hyper_analysis(parameters: Parameters, y: tf.Tensor) -> tf.Tensor:
    """h_a: |y| to z (B, h / 4, w / 4, N)."""
    with _scope("hyper_analysis"):
        for i, (layer, stride) in enumerate(zip(parameters.h_a, (1, 2, 2), strict=True)):
            with _scope(f"layer_{i}"):
                y = _down(y, layer, stride)
                if i < 2:
                    y = tf.nn.relu(y, "Relu")
    return y


def _hyper_synthesis(parameters: Parameters, z_hat: tf.Tensor) -> tf.Tensor:
    """h_s: int32 z_hat to the scale index, int32 (B, 4 hz, 4 wz, M)."""
    x = z_hat
    last = len(parameters.h_s) - 1
    with _scope("hyper_synthesis"):
        for i, layer in enumerate(parameters.h_s):
            with _scope(f"layer_{i}"):
                x = _correlate_integers(x, layer) if i == last else _up_integers(x, layer)
                x = _add_bias(x, layer.bias, "Cast_2")
                with _scope(f"q_re_lu_{i}" if i else "q_re_lu"):
                    half = tf.constant(layer.divisor // 2, name="floordiv")
                    divisor = tf.constant(layer.divisor, name="Cast")
                    x = tf.truncatediv(tf.add(x, half, name="add"), divisor, "TruncateDiv")
                    top = len(parameters.y_rows.size) - 1 if i == last else 255
                    x = tf.clip_by_value(x, 0, top, "clip_by_value")
                    if i < last:
                        x = tf.cast(x, tf.uint8, "Cast_1")
    return x


def _synthesis(parameters: Parameters, y_hat: tf.Tensor) -> tf.Tensor:
    """g_s: y_hat (B, h, w, M) to the image (B, 16 h, 16 w, 3), 0 to 255."""
    x = y_hat
    with _scope("synthesis"):
        for i, layer in enumerate(parameters.g_s):
            with _scope(f"layer_{i}"):
                x = _crop_up(_transpose(_pad(x, 1), layer.kernel, ("mul", "mul_1")))
                x = _add_bias(x, layer.bias, "BiasAdd/ReadVariableOp")
                if i < len(parameters.igdn):
                    x = _normalize(x, parameters.igdn[i], parameters.norm, i + 3, inverse=True)
        return tf.multiply(x, 255.0, "mul")


def _down(x: tf.Tensor, layer: Layer, stride: int) -> tf.Tensor:
    kernel = tf.constant(layer.kernel, name="Reshape")
    x = tf.nn.conv2d(_pad(x, len(layer.kernel) // 2), kernel, stride, "VALID", name="convolution")
    return x if layer.bias is None else _add_bias(x, layer.bias, "BiasAdd/ReadVariableOp")


def _add_bias(x: tf.Tensor, bias: Any, name: str) -> tf.Tensor:
    return tf.nn.bias_add(x, tf.constant(bias, name=name), name="BiasAdd")


def _normalize(x: tf.Tensor, norm: Norm, form: str, number: int, inverse: bool) -> tf.Tensor:
    """GDN, or its inverse: (B, H, W, C) to the same shape."""
    with _scope(f"gdn_{number}" if number else "gdn"):
        kernel = tf.constant(norm.gamma[None, None], name="Reshape")
        beta = tf.constant(norm.beta, name="sub")
        powers = tf.square(x, "Square_2") if form == "square" else tf.abs(x, "Abs")
        total = tf.nn.conv2d(powers, kernel, 1, "VALID", name="convolution")
        total = tf.nn.bias_add(total, beta, name="BiasAdd")
        if form == "square":
            factor = tf.sqrt(total, "Sqrt") if inverse else tf.math.rsqrt(total, "Rsqrt")
            return tf.multiply(x, factor, "mul")
        return tf.multiply(x, total, "mul") if inverse else tf.truediv(x, total, "truediv")


def _up_integers(x: tf.Tensor, layer: IntegerLayer) -> tf.Tensor:
    x = tf.cast(_pad(x, 1), tf.float32, "Cast")
    x = tf.round(_transpose(x, layer.kernel, ("mul_1", "mul_2")), "Round_2")
    return _crop_up(tf.cast(x, tf.int32, "Cast_1"))


def _correlate_integers(x: tf.Tensor, layer: IntegerLayer) -> tf.Tensor:
    kernel = tf.constant(layer.kernel, name="strided_slice")
    x = tf.cast(_pad(x, len(layer.kernel) // 2), tf.float32, "Cast")
    x = tf.nn.conv2d(x, kernel, 1, "VALID", name="convolution")
    return tf.cast(tf.round(x, "Round_2"), tf.int32, "Cast_1")


def _pad(x: tf.Tensor, pixels: int) -> tf.Tensor:
    paddings = np.array([[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]], np.int32)
    return tf.raw_ops.Pad(input=x, paddings=tf.constant(paddings, name="Pad/paddings"), name="Pad")


def _transpose(x: tf.Tensor, kernel: Floats, products: tuple[str, str]) -> tf.Tensor:
    """Put a zero behind every value of a padded x and convolve it; the margin is included."""
    support, _, _, filters = kernel.shape
    shape = tf.shape(x, name="Shape")
    sizes = [_item(shape, 0, "strided_slice")]
    for k, (product, total) in enumerate(zip(products, ("add", "add_1"), strict=True), 1):
        doubled = tf.multiply(_item(shape, k, f"strided_slice_{k}"), 2, product)
        sizes.append(tf.add(doubled, support - 1, name=total))
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[*sizes, filters],
        filter=tf.constant(kernel.transpose(0, 1, 3, 2), name="transpose"),
        out_backprop=x,
        strides=[1, 2, 2, 1],
        padding="VALID",
        name="Conv2DBackpropInput",
    )


def _crop_up(x: tf.Tensor) -> tf.Tensor:
    """Cut the margin: two of the kernel and two of the padding at each side."""
    whole = 0b1001  # bits of the axes that are kept
    return _strided_slice(
        x, [0, 4, 4, 0], [0, -4, -4, 0], "strided_slice_3", begin_mask=whole, end_mask=whole
    )


class _Coder(NamedTuple):
    """The range coder's rows as tensors of the graph."""

    cdf: tf.Tensor
    size: tf.Tensor | NDArray[np.int32]
    """An array becomes a constant within the loop."""
    offset: tf.Tensor
    fixed: bool
    """Whether the index is that of every image."""

    def map(
        self, direction: Literal["encode", "decode"], data: tf.Tensor, index: tf.Tensor
    ) -> tf.Tensor:
        """Code each image, as TensorFlow 1's ``map_fn`` did: int32 (B, h, w, C), strings (B,)."""
        op = getattr(tfc.python.ops.gen_ops, f"unbounded_index_range_{direction}")
        name, dtype = {"encode": ("compress", tf.string), "decode": ("decompress", tf.int32)}[
            direction
        ]
        settings = {"precision": PRECISION, "overflow_width": 4, "debug_level": 0}
        with _scope(name):
            count = _item(tf.shape(data, name="Shape"), 0, "strided_slice")
            batches = [data] if self.fixed else [data, index]
            arrays = [tf.TensorArray(batch.dtype, count) for batch in batches]
            arrays = [a.unstack(batch) for a, batch in zip(arrays, batches, strict=True)]
            first, results = tf.constant(0, name="Const"), tf.TensorArray(dtype, count)

            def body(i: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
                one = [array.read(i) for array in arrays] + [index] * self.fixed
                rows = (self.cdf, self.size, self.offset)
                return i + 1, results.write(i, op(*one, *rows, **settings))

            _, results = tf.while_loop(
                lambda i, _: i < count, body, (first, results), maximum_iterations=count
            )
            with _scope("TensorArrayStack"):
                handle, flow = results.handle, results.flow
                size = tf.raw_ops.TensorArraySizeV3(
                    handle=handle, flow_in=flow, name="TensorArraySizeV3"
                )
                return results.gather(tf.range(0, size))


def _channel_index(shape: tf.Tensor, channels: int, names: Sequence[str]) -> tf.Tensor:
    """The row of each symbol of z, which is its channel: int32 (h, w, N)."""
    before, after, index = names
    sizes = [_slice(shape, 0, 2, before), [1], _slice(shape, 3, None, after)]
    row = tf.constant(np.arange(channels, dtype=np.int32)[None, None], name=index)
    return tf.tile(row, tf.concat(sizes, 0, name="concat"), "Tile")


def _floor_to_int(x: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(tf.add(x, shift, name="add"), "Floor"), tf.int32, "Cast")


def _crop(x: tf.Tensor, size: tf.Tensor, name: str, number: int) -> tf.Tensor:
    """Cut a grid to its height and width, which are slices called by ``number`` and the next."""
    height, width = (_item(size, k, f"strided_slice_{number + k}") for k in (0, 1))
    with _scope(name):
        end = [0, tf.add(0, height, name="add"), tf.add(0, width, name="add_1"), 0]
        end = tf.stack(end, name="strided_slice/stack_1")
        return _strided_slice(x, [0] * 4, end, "strided_slice", begin_mask=0b1111, end_mask=0b1001)


def _item(x: tf.Tensor, index: int, name: str) -> tf.Tensor:
    return _strided_slice(x, [index], [index + 1], name, shrink_axis_mask=1)


def _slice(x: tf.Tensor, begin: int, end: int | None, name: str) -> tf.Tensor:
    return _strided_slice(x, [begin], [end or 0], name, end_mask=int(end is None))


def _strided_slice(x: tf.Tensor, begin: list[int], end: Any, name: str, **masks: int) -> tf.Tensor:
    """Slice with steps of one; as Python's brackets, but under a name."""
    stack, stack_1, stack_2 = (
        value if isinstance(value, tf.Tensor) else tf.constant(value, name=f"{name}/{part}")
        for value, part in ((begin, "stack"), (end, "stack_1"), ([1] * len(begin), "stack_2"))
    )
    return tf.raw_ops.StridedSlice(
        input=x, begin=stack, end=stack_1, strides=stack_2, name=name, **masks
    )
