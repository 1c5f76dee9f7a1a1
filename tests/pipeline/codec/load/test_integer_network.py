"""h_s as a network of integers: what it computes, and what is claimed of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.codec import Codec, load_codec
from latentset.pipeline.codec.train.published_form import Parameters, build_metagraph
from latentset.pipeline.tensorflow_setup import tf
from tests.makers.published import (
    Z_HAT_OUT,
    copy_metagraph,
    load_published,
    make_parameters,
)


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    return make_parameters()


@pytest.fixture(scope="module")
def metagraph(parameters: Parameters) -> Any:
    return build_metagraph(parameters)


@pytest.fixture(scope="module")
def codec(metagraph: Any) -> Codec:
    return load_published(metagraph)


def test_scale_index_follows_from_z_hat_in_exact_integers(
    codec: Codec, parameters: Parameters, images: NDArray[np.uint8]
) -> None:
    latents = codec.encode(images)
    for z_hat, index in zip(latents.z_hat, latents.scale_index, strict=True):
        x = z_hat.astype(np.int64) + parameters.z_offset
        for i, layer in enumerate(parameters.h_s):
            up = i < 2
            x = _convolve(x, layer.kernel.astype(np.int64), up) + layer.bias + layer.divisor // 2
            x = np.sign(x) * (np.abs(x) // layer.divisor)  # the quotient is truncated
            x = np.clip(x, 0, 255 if up else 63)
        np.testing.assert_array_equal(index, x[: index.shape[0], : index.shape[1]])


def test_up_to_which_z_hat_the_integers_are_exact(codec: Codec, parameters: Parameters) -> None:
    ones = np.ones((9, 9, 6), np.int64)
    largest = _convolve(ones, np.abs(parameters.h_s[0].kernel).astype(np.int64), up=True).max()
    assert codec.info.h_s_exact_to == (2**24 - 1) // largest
    assert codec.report.facts.integer_h_s


def _with_a_fraction(parameters: Parameters) -> Any:
    first = parameters.h_s[0]
    first = first._replace(kernel=first.kernel + np.float32(0.5))
    return build_metagraph(replace(parameters, h_s=[first, *parameters.h_s[1:]]))


def _with_large_sums(parameters: Parameters) -> Any:
    first, second, third = parameters.h_s
    kernel = np.round(second.kernel * (2**24 / 255 / np.abs(second.kernel).sum((0, 1, 2)).min()))
    layers = [first, second._replace(kernel=4 * kernel), third]
    return build_metagraph(replace(parameters, h_s=layers))


def _with_unbounded_activations(parameters: Parameters) -> Any:
    metagraph = build_metagraph(parameters)
    nodes = {node.name: node for node in metagraph.graph_def.node}
    integer = tf.int32.as_datatype_enum
    nodes["hyper_synthesis/layer_0/q_re_lu/Cast_1"].attr["DstT"].type = integer
    nodes["hyper_synthesis/layer_1/Pad"].attr["T"].type = integer
    nodes["hyper_synthesis/layer_1/Cast"].attr["SrcT"].type = integer
    return metagraph


@pytest.mark.parametrize("build", [_with_a_fraction, _with_large_sums, _with_unbounded_activations])
def test_integers_that_may_not_be_exact(
    build: Callable[[Parameters], Any], parameters: Parameters
) -> None:
    codec = load_published(build(parameters))
    assert codec.report.facts.integer_h_s
    assert codec.info.h_s_exact_to is None


def test_a_network_with_fractions(v1_path: Path, v2_path: Path) -> None:
    for path in (v1_path, v2_path):
        codec = load_codec(str(path), self_check=False)
        assert not codec.report.facts.integer_h_s
        assert codec.info.h_s_exact_to is None


def _convolve(x: NDArray[np.int64], kernel: NDArray[np.int64], up: bool) -> NDArray[np.int64]:
    """A 3x3 correlation; or a convolution of a grid with a zero behind each value."""
    height, width, _ = x.shape
    if up:
        doubled = np.zeros((2 * height, 2 * width, x.shape[2]), np.int64)
        doubled[::2, ::2] = x
        x, kernel = doubled, kernel[::-1, ::-1]
        height, width = 2 * height, 2 * width
    margin = len(kernel) // 2
    padded = np.pad(x, [(margin, margin), (margin, margin), (0, 0)])
    total = np.zeros((height, width, kernel.shape[3]), np.int64)
    for i, j in np.ndindex(kernel.shape[:2]):
        total += padded[i : i + height, j : j + width] @ kernel[i, j]
    return total


def _multiply_z(changed: Any, nodes: dict[str, Any]) -> None:
    """h_s takes z_hat times itself: no bound of z_hat bounds its sums."""
    node = changed.graph_def.node.add(name="times", op="Mul", input=[Z_HAT_OUT, Z_HAT_OUT])
    node.attr["T"].type = tf.int32.as_datatype_enum
    pad = nodes["hyper_synthesis/layer_0/Pad"]
    pad.input[0] = "times"


def _pad_with_much(changed: Any, nodes: dict[str, Any]) -> None:
    value = changed.graph_def.node.add(name="much", op="Const")
    value.attr["dtype"].type = tf.int32.as_datatype_enum
    value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(40_000, tf.int32))
    pad = nodes["hyper_synthesis/layer_0/Pad"]
    pad.op = "PadV2"
    pad.input.append("much")


def _let_y_have_a_say(changed: Any, nodes: dict[str, Any]) -> None:
    """The index follows from z_hat and from y besides."""
    add = changed.graph_def.node.add(name="both", op="AddV2")
    add.attr["T"].type = tf.int32.as_datatype_enum
    crop = nodes["GridAlign/strided_slice"]
    copy = changed.graph_def.node.add()
    copy.CopyFrom(crop)
    copy.name = "cropped"
    zero = changed.graph_def.node.add(
        name="nothing", op="Sub", input=["entropy_model/entropy_model_2/Cast"] * 2
    )
    zero.attr["T"].type = tf.int32.as_datatype_enum
    add.input.extend(["cropped", "nothing"])
    for node in changed.graph_def.node:
        if node.name not in ("cropped", "both"):
            node.input[:] = ["both" if n == "GridAlign/strided_slice" else n for n in node.input]


@pytest.mark.parametrize("change", [_multiply_z, _pad_with_much, _let_y_have_a_say])
def test_exactness_is_claimed_of_nothing_else(
    change: Callable[[Any, dict[str, Any]], None], metagraph: Any
) -> None:
    changed, nodes = copy_metagraph(metagraph)
    change(changed, nodes)
    try:
        info = load_published(changed, self_check=False).info
    except CodecGraphError:
        return  # refused for another reason
    assert info.h_s_exact_to is None
