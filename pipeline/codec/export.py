"""Export of a trained scale hyperprior as one MetaGraphDef file in the published form."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentset.pipeline.codec.bmshj2018 import (
    GDN,
    SCALE_COUNT,
    ScaleHyperprior,
    normalize,
    scale_of_index,
)
from latentset.pipeline.tensorflow_setup import tf, tfc

RANGE_CODER_PRECISION = 12
"""Bits of a quantized probability; tensorflow-compression's default."""


def export_metagraph(model: ScaleHyperprior, path: Path) -> None:
    """Write a codec as a MetaGraphDef with the signatures ``sender`` and ``receiver``.

    Both signatures live in one graph and share its constants: weights and range-coder tables.
    There are no variables, so that ``tf.compat.v1.train.import_meta_graph`` needs no saver.

    ``sender``: ``input_image`` uint8 (B, H, W, 3) to ``channel:0`` strings of y (B,),
    ``channel:1`` strings of z (B,), ``channel:2`` to ``channel:4`` the int32 (2,) sizes of x, y
    and z.  ``receiver``: those five to ``output_image`` uint8 (B, H, W, 3).

    Args:
        model: Trained model.
        path: File to write, under a temporary name first.

    Source:
        tensorflow/compression, ``models/tfci.py``: names of signatures and their keys.
    """
    metagraph = build_metagraph(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(metagraph.SerializeToString(deterministic=True))
    temporary.replace(path)


def build_metagraph(model: ScaleHyperprior) -> Any:
    """Return the codec as a ``tf.compat.v1.MetaGraphDef``; see ``export_metagraph``."""
    tables = _range_coder_tables(model)
    transforms = (model.g_a, model.g_s, model.h_a, model.h_s)
    parameters = [[_layer_values(layer) for layer in t.layers] for t in transforms]
    # Not tf.Graph: a Keras layer made in one breaks every layer made outside, the model's too.
    graph = tf.__internal__.FuncGraph("codec")
    with graph.as_default():
        frozen = [_frozen_transform(t, p) for t, p in zip(transforms, parameters, strict=True)]
        codec = _FrozenCodec(frozen, tables)
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), name="input_image")
        sent = codec.compress(image)
        received = [
            tf.compat.v1.placeholder(tensor.dtype, tensor.shape, name=f"received_{i}")
            for i, tensor in enumerate(sent)
        ]
        output = codec.decompress(*received)
        metagraph = tf.compat.v1.MetaGraphDef()
        metagraph.graph_def.CopyFrom(graph.as_graph_def())
    metagraph.meta_info_def.tensorflow_version = tf.__version__
    metagraph.meta_info_def.tags.append("serve")
    sender, receiver = (metagraph.signature_def[key] for key in ("sender", "receiver"))
    _describe(sender.inputs["input_image"], image)
    _describe(receiver.outputs["output_image"], output)
    for i, (sent_channel, received_channel) in enumerate(zip(sent, received, strict=True)):
        _describe(sender.outputs[f"channel:{i}"], sent_channel)
        _describe(receiver.inputs[f"channel:{i}"], received_channel)
    return metagraph


def _describe(info: Any, tensor: tf.Tensor) -> None:
    """Fill a ``TensorInfo`` of a signature."""
    info.name = tensor.name
    info.dtype = tensor.dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(tensor.shape.as_proto())


class _Tables(NamedTuple):
    """Range-coder tables of one entropy model."""

    cdf: NDArray[np.int32]
    """All rows one after the other, each begun by its negative precision."""
    cdf_offset: NDArray[np.int32]
    """Smallest symbol of each row."""


def _range_coder_tables(model: ScaleHyperprior) -> tuple[_Tables, _Tables]:
    """Compute the tables of y (one row a scale) and z (one row a channel), once for all."""

    # Compiled: the search for the tails of z takes hundreds of steps, each some ms when eager.
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def compute() -> Any:
        options = {
            "coding_rank": 3,
            "compression": True,
            "stateless": True,
            "range_coder_precision": RANGE_CODER_PRECISION,
        }
        y_model = tfc.LocationScaleIndexedEntropyModel(
            tfc.NoisyNormal, SCALE_COUNT, scale_of_index, **options
        )
        z_model = tfc.ContinuousBatchedEntropyModel(
            model.hyperprior, offset_heuristic=False, **options
        )
        return [(m.cdf, m.cdf_offset) for m in (y_model, z_model)]

    y_tables, z_tables = (_Tables(*(t.numpy() for t in pair)) for pair in compute())
    return y_tables, z_tables


class _FrozenCodec:
    """The codec with constants for weights, built inside the default graph."""

    def __init__(
        self, transforms: Sequence[Callable[..., tf.Tensor]], tables: tuple[_Tables, _Tables]
    ) -> None:
        self.g_a, self.g_s, self.h_a, self.h_s = transforms
        y_tables, z_tables = tables
        self.y_cdf, self.y_offset = self._constants(y_tables, "y")
        self.z_cdf, self.z_offset = self._constants(z_tables, "z")

    @staticmethod
    def _constants(tables: _Tables, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            tf.constant(tables.cdf, name=f"{name}_cdf"),
            tf.constant(tables.cdf_offset, name=f"{name}_cdf_offset"),
        )

    def scale_index(self, z_hat: tf.Tensor, y_shape: tf.Tensor) -> tf.Tensor:
        """Return the integer scale index of each element of y, int32 (B, h, w, M)."""
        index = self.h_s(z_hat)[:, : y_shape[0], : y_shape[1], :]
        # To the nearest scale.  tensorflow-compression truncates, which codes with scales that
        # are too small by 6 % in the mean.
        return tf.cast(tf.round(tf.clip_by_value(index, 0.0, SCALE_COUNT - 1.0)), tf.int32)

    def compress(self, image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Encode uint8 (B, H, W, 3) to the five channels of the sender."""
        x = tf.cast(image, tf.float32)
        y = self.g_a(x / 255.0)
        z = self.h_a(tf.abs(y))
        x_shape, y_shape, z_shape = (tf.shape(t)[1:-1] for t in (x, y, z))
        batch = tf.shape(image)[:1]

        z_symbols = tf.cast(tf.round(z), tf.int32, name="z_symbols")
        handle = tfc.create_range_encoder(batch, self.z_cdf)
        handle = tfc.entropy_encode_channel(handle, z_symbols - self.z_offset)
        z_string = tfc.entropy_encode_finalize(handle)

        index = self.scale_index(tf.cast(z_symbols, tf.float32), y_shape)
        y_symbols = tf.cast(tf.round(y), tf.int32, name="y_symbols")
        handle = tfc.create_range_encoder(batch, self.y_cdf)
        handle = tfc.entropy_encode_index(
            handle, index, y_symbols - tf.gather(self.y_offset, index)
        )
        y_string = tfc.entropy_encode_finalize(handle)
        return y_string, z_string, x_shape, y_shape, z_shape

    def decompress(
        self,
        y_string: tf.Tensor,
        z_string: tf.Tensor,
        x_shape: tf.Tensor,
        y_shape: tf.Tensor,
        z_shape: tf.Tensor,
    ) -> tf.Tensor:
        """Decode the five channels to uint8 (B, H, W, 3)."""
        channels = tf.size(self.z_offset)
        handle = tfc.create_range_decoder(z_string, self.z_cdf)
        handle, symbols = tfc.entropy_decode_channel(
            handle, tf.concat([z_shape, [channels]], 0), tf.int32
        )
        z_symbols = _checked(handle, symbols, "z") + self.z_offset
        z_symbols = tf.ensure_shape(z_symbols, (None, None, None, self.z_channels))

        index = self.scale_index(tf.cast(z_symbols, tf.float32), y_shape)
        handle = tfc.create_range_decoder(y_string, self.y_cdf)
        handle, symbols = tfc.entropy_decode_index(handle, index, tf.shape(index)[1:], tf.int32)
        y_symbols = _checked(handle, symbols, "y") + tf.gather(self.y_offset, index)

        x_hat = self.g_s(tf.cast(y_symbols, tf.float32))[:, : x_shape[0], : x_shape[1], :]
        return tf.saturate_cast(tf.round(x_hat * 255.0), tf.uint8)

    @property
    def z_channels(self) -> int:
        """Channels of z, as a static number."""
        return int(self.z_offset.shape[0])


def _checked(handle: tf.Tensor, symbols: tf.Tensor, name: str) -> tf.Tensor:
    intact = tfc.entropy_decode_finalize(handle)
    message = f"the string of {name} is damaged, or from another codec"
    check = tf.debugging.Assert(tf.reduce_all(intact), [message])
    with tf.control_dependencies([check]):
        return tf.identity(symbols)


def _layer_values(layer: Any) -> dict[str, Any]:
    values = {"kernel": layer.kernel.numpy()}
    if layer.use_bias:
        values["bias"] = layer.bias.numpy()
    if isinstance(layer.activation, GDN):
        values["beta"] = layer.activation.beta().numpy()
        values["gamma"] = layer.activation.gamma().numpy()
    return values


def _frozen_transform(transform: Any, parameters: list[dict[str, Any]]) -> Any:
    """Copy a transform into the default graph with its parameters as constants."""
    frozen = []
    for layer, values in zip(transform.layers, parameters, strict=True):
        scope = f"{transform.name}/{layer.name}"
        constants = {k: tf.constant(v, name=f"{scope}/{k}") for k, v in values.items()}
        activation = layer.activation
        if isinstance(activation, GDN):
            activation = functools.partial(
                normalize,
                beta=constants["beta"],
                gamma=constants["gamma"],
                inverse=activation.inverse,
            )
        frozen.append(
            tfc.SignalConv2D(
                layer.filters,
                layer.kernel_support,
                corr=layer.corr,
                strides_down=layer.strides_down,
                strides_up=layer.strides_up,
                padding=layer.padding,
                extra_pad_end=layer.extra_pad_end,
                use_bias=layer.use_bias,
                activation=activation,
                kernel_parameter=constants["kernel"],
                bias_parameter=constants.get("bias", "variable"),
                name=f"{transform.name}_{layer.name}",
            )
        )

    def apply(x: tf.Tensor) -> tf.Tensor:
        for layer in frozen:
            x = layer(x)
        return x

    return apply
