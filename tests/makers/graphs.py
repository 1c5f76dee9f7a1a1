"""Metagraphs of a tiny codec, in the forms that exist in the wild.

``build_v2`` and ``build_v1`` make them as tensorflow-compression 2 and 1 do, from the numbers of
``by_hand``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from latentset.pipeline.codec.train.codec_export import gaussian_rows, pad_rows, quantize_row
from latentset.pipeline.codec.train.published_form import PaddedRows
from latentset.pipeline.tensorflow_setup import tf, tfc
from tests.makers.by_hand import SCALES, Array, M, N, Weights


def _const(value: Any) -> Any:
    return tf.constant(np.asarray(value, np.float32))


def _tf_gdn(x: Any, beta: Array, gamma: Array, v1: bool) -> Any:
    channels = len(beta)
    kernel = _const(gamma.reshape(1, 1, channels, channels))
    if v1:
        norm = tf.sqrt(tf.nn.bias_add(tf.nn.conv2d(tf.square(x), kernel, 1, "VALID"), _const(beta)))
    else:
        norm = tf.nn.bias_add(tf.nn.conv2d(tf.abs(x), kernel, 1, "VALID"), _const(beta))
    return x / norm


def _tf_upsample_conv(x: Any, kernel: Array) -> Any:
    shape = tf.shape(x)
    # A transposed convolution correlates with the kernel flipped.
    flipped = _const(kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    return tf.nn.conv2d_transpose(
        x,
        flipped,
        [shape[0], 2 * shape[1], 2 * shape[2], kernel.shape[3]],
        strides=2,
        padding=[(0, 0), (2, 1), (2, 1), (0, 0)],
    )


def _g_a(weights: Weights, image: Any, v1: bool) -> Any:
    x = tf.cast(image, tf.float32) / 255.0
    for i in range(4):
        x = tf.nn.conv2d(x, _const(weights.g_a[i]), 2, "SAME")
        x = tf.nn.bias_add(x, _const(weights.g_a_bias[i]))
        if i < 3:
            x = _tf_gdn(x, weights.beta[i], weights.gamma[i], v1)
    return x


def _h_a(weights: Weights, y: Any) -> Any:
    z = tf.nn.relu(tf.nn.conv2d(tf.abs(y), _const(weights.h_a[0]), 1, "SAME"))
    z = tf.nn.relu(tf.nn.conv2d(z, _const(weights.h_a[1]), 2, "SAME"))
    return tf.nn.conv2d(z, _const(weights.h_a[2]), 2, "SAME")


def _h_s(weights: Weights, z_hat: Any, y_shape: Any) -> Any:
    h = tf.nn.relu(_tf_upsample_conv(z_hat, weights.h_s[0]))
    h = tf.nn.relu(_tf_upsample_conv(h, weights.h_s[1]))
    h = tf.nn.conv2d(h, _const(weights.h_s[2]), 1, "SAME")
    return tf.nn.bias_add(h, _const(weights.h_s_bias))[:, : y_shape[0], : y_shape[1], :]


def _g_s(y_hat: Any, x_shape: Any) -> Any:
    """Not much of a synthesis: three channels of y_hat, each a flat square of 16x16 pixels."""
    size = 16 * tf.shape(y_hat)[1:3]
    x = tf.image.resize(128.0 + 4.0 * y_hat[..., :3], size, "nearest")
    return tf.saturate_cast(tf.round(x[:, : x_shape[0], : x_shape[1], :]), tf.uint8)


# ---------------------------------------------------------------- tensorflow-compression 2


Receiver = Literal["plain", "uses z", "uses strings", "checks strings"]


class _ModelV2(tf.Module):  # type: ignore[misc]
    """The entropy models of the second generation, with the codec's functions around them."""

    def __init__(self, weights: Weights, receiver: Receiver) -> None:
        super().__init__()
        self.receiver = receiver
        tf.random.set_seed(7)
        self.weights = weights
        step = float(np.log(256.0 / 0.11) / 63)
        self.y_model = tfc.LocationScaleIndexedEntropyModel(
            tfc.NoisyNormal,
            64,
            lambda i: tf.exp(np.log(0.11) + step * i),
            coding_rank=3,
            compression=True,
        )
        self.z_model = tfc.ContinuousBatchedEntropyModel(
            tfc.NoisyLogistic(loc=tf.zeros(N), scale=tf.linspace(1.0, 3.0, N)),
            coding_rank=3,
            compression=True,
            quantization_offset=_const(weights.z_offset),
        )

    def send(self, image: Any) -> tuple[Any, ...]:
        y = _g_a(self.weights, image, v1=False)
        z = _h_a(self.weights, y)
        x_shape, y_shape, z_shape = (tf.shape(t)[1:3] for t in (image, y, z))
        index = _h_s(self.weights, self.z_model.quantize(z), y_shape)
        strings = self.y_model.compress(y, index), self.z_model.compress(z)
        return (*strings, x_shape, y_shape, z_shape)

    def receive(self, y: Any, z: Any, x_shape: Any, y_shape: Any, z_shape: Any) -> Any:
        z_hat = self.z_model.decompress(z, z_shape)
        index = _h_s(self.weights, z_hat, y_shape)
        y_hat = self.y_model.decompress(y, index)
        if self.receiver == "uses z":
            y_hat += 3 * tf.reduce_mean(z_hat)
        if self.receiver == "checks strings":
            with tf.control_dependencies([tf.debugging.assert_positive(tf.strings.length(z))]):
                y_hat = tf.identity(y_hat) + 0.0
        if self.receiver == "uses strings":
            y_hat += tf.cast(tf.strings.length(z), tf.float32)[0]
        return _g_s(y_hat, x_shape)


_CHANNELS = (tf.string, tf.string, tf.int32, tf.int32, tf.int32)


def build_v2(
    weights: Weights,
    *,
    calls: bool = False,
    batch: int | None = 1,
    receiver: Receiver = "plain",
) -> Any:
    """Make a metagraph as tensorflow-compression 2 does.

    Args:
        weights: Numbers.
        calls: Leave the sender and the receiver as functions in the library.
        batch: Size of the first axis of the sender's placeholder.
        receiver: What the image depends on besides ``y_hat``.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = _ModelV2(weights, receiver)
    shapes = [(None,), (None,), (2,), (2,), (2,)]
    sender, receiving = (
        convert_variables_to_constants_v2(tf.function(f).get_concrete_function(*specs))
        for f, specs in (
            (model.send, [tf.TensorSpec((batch, None, None, 3), tf.uint8)]),
            (
                model.receive,
                [tf.TensorSpec(s, t) for s, t in zip(shapes, _CHANNELS, strict=True)],
            ),
        )
    )
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (batch, None, None, 3), "input_image")
        received = _received(shapes)
        if calls:
            sent = sender(image)
            (output,) = receiving(*received)
        else:
            sent = _import(sender, [image])
            (output,) = _import(receiving, received)
        return metagraph_of(graph, image, sent, received, output)


def _import(function: Any, arguments: list[Any]) -> list[Any]:
    names = [tensor.name for tensor in function.inputs]
    elements: list[Any] = tf.import_graph_def(
        function.graph.as_graph_def(),
        input_map=dict(zip(names, arguments, strict=True)),
        return_elements=[tensor.name for tensor in function.outputs],
        name="model",
    )
    return elements


def _received(shapes: list[Any]) -> list[Any]:
    return [
        tf.compat.v1.placeholder(dtype, shape, f"received_{i}")
        for i, (dtype, shape) in enumerate(zip(_CHANNELS, shapes, strict=True))
    ]


def metagraph_of(graph: Any, image: Any, sent: Any, received: Any, output: Any) -> Any:
    """Export a graph with the signatures of the published files."""
    describe = tf.compat.v1.saved_model.build_tensor_info
    signatures = {
        "sender": tf.compat.v1.saved_model.build_signature_def(
            {"input_image": describe(image)},
            {f"channel:{i}": describe(tensor) for i, tensor in enumerate(sent)},
        ),
        "receiver": tf.compat.v1.saved_model.build_signature_def(
            {f"channel:{i}": describe(tensor) for i, tensor in enumerate(received)},
            {"output_image": describe(output)},
        ),
    }
    metagraph = tf.compat.v1.train.export_meta_graph(graph=graph)
    for name, signature in signatures.items():
        metagraph.signature_def[name].CopyFrom(signature)
    return metagraph


# ---------------------------------------------------------------- tensorflow-compression 1


@contextlib.contextmanager
def _control_flow(v1: bool) -> Iterator[None]:
    """Build loops as TensorFlow 1 did (Enter, Merge, Switch, ...), or as functions."""
    if v1:
        tf.compat.v1.disable_control_flow_v2()
    try:
        yield
    finally:
        tf.compat.v1.enable_control_flow_v2()


def z_tables_v1() -> PaddedRows:
    """Rows of logistic distributions of growing width, too short on purpose: symbols overflow."""
    rows = []
    for width in np.linspace(1.0, 3.0, N):
        edges = 1 / (1 + np.exp(-(np.arange(-3, 5) - 0.5) / width))
        rows.append(quantize_row(np.diff(edges)))
    return pad_rows(rows, np.full(N, -3))


def _encode_v1(symbols: Any, index: Any, tables: PaddedRows, *, per_image_index: bool) -> Any:
    from tensorflow_compression.python.ops import gen_ops

    cdf, size, offset = (
        tf.identity(tf.constant(v)) for v in (tables.cdf, tables.size, tables.offset)
    )

    def body(args: Any) -> Any:
        return gen_ops.unbounded_index_range_encode(
            args[0],
            args[1] if per_image_index else index,
            cdf,
            size,
            offset,
            precision=16,
            overflow_width=4,
            debug_level=0,
        )

    elements = (symbols, index) if per_image_index else (symbols,)
    return tf.compat.v1.map_fn(body, elements, dtype=tf.string, back_prop=False, name="compress")


def _decode_v1(strings: Any, index: Any, tables: PaddedRows, *, per_image_index: bool) -> Any:
    from tensorflow_compression.python.ops import gen_ops

    def body(args: Any) -> Any:
        return gen_ops.unbounded_index_range_decode(
            args[0],
            args[1] if per_image_index else index,
            tables.cdf,
            tables.size,
            tables.offset,
            precision=16,
            overflow_width=4,
            debug_level=0,
        )

    elements = (strings, index) if per_image_index else (strings,)
    return tf.compat.v1.map_fn(body, elements, dtype=tf.int32, back_prop=False, name="decompress")


def compared_scales() -> Any:
    """Return the scales that sigma is compared with: all but the last."""
    return tf.constant(SCALES, tf.float32)[:-1]


def _compute_indexes(sigma: Any) -> Any:
    start = tf.fill(tf.shape(sigma), tf.constant(63, tf.int32))
    return tf.compat.v1.foldr(
        lambda indexes, scale: indexes - tf.cast(sigma <= scale, tf.int32),
        compared_scales(),
        initializer=start,
        back_prop=False,
        name="compute_indexes",
    )


def _sigma(weights: Weights, z_hat: Any, y_shape: Any) -> Any:
    h = _h_s(weights, z_hat, y_shape)
    return tf.maximum(tf.exp(h / 7.0 - 2.5), tf.constant(SCALES[0], tf.float32))


def _channel_index(shape: Any) -> Any:
    return tf.tile(tf.range(N)[None, None, :], tf.concat([shape, [1]], 0))


def build_v1(
    weights: Weights,
    *,
    functional: bool = False,
    bake_batch: bool = False,
    factorized: bool = False,
    mean_scale: bool = False,
    plant: Callable[[Any], Any] | None = None,
) -> Any:
    """Make a metagraph as tensorflow-compression 1 does, with a batch of 1.

    Args:
        weights: Numbers.
        functional: Loops as functions of the library, not as TensorFlow 1 has them.
        bake_batch: Let a reshape hold the batch size 1 as a constant.
        factorized: Code y with fixed probabilities, without a hyperprior.
        mean_scale: Code the difference of y to something that depends on the image.
        plant: Called with the image; the op that it returns runs before y is computed.
    """
    y_tables, z_tables = gaussian_rows(SCALES), z_tables_v1()
    with tf.Graph().as_default() as graph, _control_flow(v1=not functional):
        image = tf.compat.v1.placeholder(tf.uint8, (1, None, None, 3), "input_image")
        planted = [] if plant is None else [plant(image)]
        with tf.control_dependencies(planted):
            y = _g_a(weights, image, v1=True)
        if bake_batch:
            y = tf.reshape(y, tf.concat([[1], tf.shape(y)[1:]], 0))
        z = _h_a(weights, y)
        x_shape, y_shape, z_shape = (tf.shape(t)[1:3] for t in (image, y, z))
        half = tf.constant(0.5)
        # As EntropyBottleneck did: once for h_s, once for the symbols.
        median = tf.stop_gradient(tf.constant(weights.z_offset, tf.float32))
        z_hat = tf.floor(z + (half - median)) + median
        z_symbols = tf.cast(tf.floor(z + (half - median)), tf.int32)
        coded = y - tf.reduce_mean(z) if mean_scale else y
        y_symbols = tf.cast(tf.floor(coded + half), tf.int32)
        if factorized:
            padded = tf.tile(tf.range(M)[None, None, :], tf.concat([y_shape, [1]], 0))
            sent = [
                _encode_v1(y_symbols, padded, y_tables, per_image_index=False),
                x_shape,
                y_shape,
            ]
            return metagraph_of(graph, image, sent, [], image)
        index = _compute_indexes(_sigma(weights, z_hat, y_shape))
        channel = _channel_index(z_shape)
        sent = [
            _encode_v1(y_symbols, index, y_tables, per_image_index=True),
            _encode_v1(z_symbols, channel, z_tables, per_image_index=False),
            x_shape,
            y_shape,
            z_shape,
        ]
        received = _received([(1,), (1,), (2,), (2,), (2,)])
        x_shape, y_shape, z_shape = received[2:]
        decoded = _decode_v1(received[1], _channel_index(z_shape), z_tables, per_image_index=False)
        decoded = tf.ensure_shape(decoded, (1, None, None, N))
        z_hat = tf.cast(decoded, tf.float32) + median
        index = _compute_indexes(_sigma(weights, z_hat, y_shape))
        decoded = _decode_v1(received[0], index, y_tables, per_image_index=True)
        decoded = tf.ensure_shape(decoded, (1, None, None, M))
        output = _g_s(tf.cast(decoded, tf.float32), x_shape)
        return metagraph_of(graph, image, sent, received, output)
