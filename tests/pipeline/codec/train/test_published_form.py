"""Codecs of the published form: what is found in them, and what is computed of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import STOCK_OPS
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.program import Latents
from latentset.pipeline.codec.train.published_form import Parameters, build_metagraph
from latentset.pipeline.tensorflow_setup import tf
from tests.makers.published import (
    Z_HAT_OUT,
    build_published,
    copy_metagraph,
    load_published,
    make_parameters,
)

Y_HAT = "entropy_model/entropy_model_2/Cast:0"
SCALE_INDEX = "GridAlign/strided_slice:0"
Z_HAT = "side_entropy_model/side_entropy_model_2/Cast:0"
Y_BEFORE = "entropy_model/entropy_model_2/add:0"
Z_BEFORE = "side_entropy_model/side_entropy_model_2/add:0"

ROUNDING_ROOM = 1e-4
"""A value this close to a whole number may be rounded to either side: of values of about ten,
after four layers of a thousand products each, float32 leaves that much open (measured: 1e-5). The
graph's own Rsqrt and the exact division that replaces it differ by less."""


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    return make_parameters()


@pytest.fixture(scope="module")
def metagraph(parameters: Parameters) -> Any:
    return build_metagraph(parameters)


@pytest.fixture(scope="module")
def codec(metagraph: Any) -> Codec:
    return load_published(metagraph)


def fetch(metagraph: Any, image: NDArray[np.uint8], *names: str) -> list[Any]:
    """Run the graph as it is, range coders included, and fetch tensors of it by name."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(metagraph)
        with tf.compat.v1.Session(graph=graph) as session:
            values: list[Any] = session.run(names, {"input_image:0": image})
    return values


def assert_same_symbols(found: Latents, metagraph: Any, images: NDArray[np.uint8]) -> None:
    """The graph's own tensors, but for values that lie on the edge between two symbols."""
    for k, image in enumerate(images):
        names = (Y_HAT, Z_HAT, SCALE_INDEX, Y_BEFORE, Z_BEFORE)
        y, z, index, y_before, z_before = fetch(metagraph, image[None], *names)
        z_differs = found.z_hat[k] != z[0]
        for own, ours, before in ((y, found.y_hat, y_before), (z, found.z_hat, z_before)):
            on_edge = np.abs(before[0] - np.round(before[0])) < ROUNDING_ROOM
            assert not ((own[0] != ours[k]) & ~on_edge).any()
        if not z_differs.any():
            np.testing.assert_array_equal(found.scale_index[k], index[0])


def test_what_is_found(codec: Codec, parameters: Parameters) -> None:
    info = codec.info
    assert info.form == "tfc1"
    assert info.tensors == {
        "input_image": "input_image:0",
        "y_hat": Y_HAT,
        "scale_index": SCALE_INDEX,
        "z_hat": Z_HAT,
    }
    assert (info.channels, info.z_channels) == (8, 6)
    assert (info.y_downsampling, info.z_downsampling) == (16, 64)
    assert info.z_offset == tuple(parameters.z_offset.tolist())
    assert any(info.z_offset)
    np.testing.assert_allclose(
        info.scale_table, 0.11 * (256 / 0.11) ** (np.arange(64) / 63), rtol=1e-6
    )
    assert codec.free_batch
    assert codec.self_check is not None


def test_latents_are_the_senders_own_tensors(
    codec: Codec, metagraph: Any, images: NDArray[np.uint8]
) -> None:
    latents = codec.encode(images)
    assert_same_symbols(latents, metagraph, images)
    # What would hide a fault: a constant index, or symbols that are all within their rows.
    assert len(np.unique(latents.scale_index)) > 20
    assert np.abs(latents.z_hat).max() > 6
    assert np.abs(latents.y_hat).max() > 3


@pytest.mark.parametrize("size", [(1, 1), (16, 64), (65, 129), (75, 118)])
def test_sizes(codec: Codec, metagraph: Any, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    latents = codec.encode(image)
    assert latents.y_hat.shape[1:3] == tuple(-(-side // 16) for side in size)
    assert_same_symbols(latents, metagraph, image)


def test_what_is_run_holds_stock_ops_alone(codec: Codec) -> None:
    assert set(codec.report.op_counts) <= STOCK_OPS
    loops = {"Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "TensorArrayV3"}
    assert not set(codec.report.op_counts) & loops


def test_images_are_those_of_the_receiver(codec: Codec, images: NDArray[np.uint8]) -> None:
    latents = codec.encode(images)
    decoded = codec.decode(latents.y_hat, latents.z_hat, (75, 118))
    assert decoded.std() > 10
    for image, one in zip(images, decoded, strict=True):
        np.testing.assert_array_equal(one, codec.receiver(codec.sender(image)))


def test_rate_is_that_of_the_strings(codec: Codec, images: NDArray[np.uint8]) -> None:
    for image, bits in zip(images, codec.rate_bits(codec.encode(images)), strict=True):
        strings = [c for c in codec.sender(image) if c.dtype.kind == "O"]
        real = sum(8 * len(s) for c in strings for s in c.ravel())
        assert bits - 16 <= real <= bits + 32


# ------------------------------------------------- what the listings do not show


def _turn_channels_around(metagraph: Any) -> None:
    sender, receiver = (metagraph.signature_def[key] for key in ("sender", "receiver"))
    for ports in (sender.outputs, receiver.inputs):
        infos = [
            type(ports[f"channel:{i}"]).FromString(ports[f"channel:{i}"].SerializeToString())
            for i in range(5)
        ]
        for i, info in enumerate(reversed(infos)):
            ports[f"channel:{i}"].CopyFrom(info)


def _move_sizes_out_of_the_loop(metagraph: Any) -> None:
    """A constant within a loop waits for the loop; without that edge it enters from outside."""
    for node in list(metagraph.graph_def.node):
        if node.name.endswith("/cdf_size"):
            folded = metagraph.graph_def.node.add()
            folded.CopyFrom(node)
            folded.name = f"{node.name}/folded"
            del folded.input[:]
            sibling = node.name.removesuffix("cdf_size") + "Enter"
            (enter,) = [n for n in metagraph.graph_def.node if n.name == sibling]
            name = node.name
            node.CopyFrom(enter)
            node.name = name
            node.input[:] = [folded.name]


def _add_control_edges_to_constants(metagraph: Any) -> None:
    """As folding leaves them where what it folded waited for something; the sender's alone."""
    for node in metagraph.graph_def.node:
        if node.op == "Const" and node.name.startswith(("analysis", "hyper_analysis")):
            node.input.append("^input_image")


def _use_add_of_tensorflow_1(metagraph: Any) -> None:
    for node in metagraph.graph_def.node:
        if node.op == "AddV2":
            node.op = "Add"


def _swap_operands_of_sums(metagraph: Any) -> None:
    for node in metagraph.graph_def.node:
        if node.op == "AddV2" and "while" not in node.name:
            first, second = node.input[:2]
            node.input[0], node.input[1] = second, first


def _pass_symbols_on(metagraph: Any) -> None:
    """Identities behind the decoded symbols of z, as gradients or assertions leave them."""
    gather = "side_entropy_model/side_entropy_model_3/decompress/TensorArrayStack/"
    gather += "TensorArrayGatherV3"
    node = metagraph.graph_def.node.add(name="passed", op="Identity", input=[gather])
    node.attr["T"].type = tf.int32.as_datatype_enum
    for user in metagraph.graph_def.node:
        if user.name != "passed":
            inputs = ["passed" if name == gather else name for name in user.input]
            del user.input[:]
            user.input.extend(inputs)


@pytest.mark.parametrize(
    "change",
    [
        _turn_channels_around,
        _move_sizes_out_of_the_loop,
        _add_control_edges_to_constants,
        _use_add_of_tensorflow_1,
        _swap_operands_of_sums,
        _pass_symbols_on,
    ],
)
def test_other_readings_of_the_listings(
    change: Callable[[Any], None], metagraph: Any, codec: Codec, images: NDArray[np.uint8]
) -> None:
    changed = type(metagraph)()
    changed.CopyFrom(metagraph)
    change(changed)
    assert changed != metagraph
    other = load_published(changed)
    assert other.info.tensors == codec.info.tensors
    assert other.info.z_offset == codec.info.z_offset
    found, expected = other.encode(images[:2]), codec.encode(images[:2])
    for key in ("y_hat", "scale_index", "z_hat"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))
    decoded = other.decode(found.y_hat, found.z_hat, (75, 118))
    np.testing.assert_array_equal(decoded[0], other.receiver(other.sender(images[0])))


@pytest.mark.parametrize("median", ["rounded", "truncated", "whole"])
@pytest.mark.parametrize("tail_mass", [2**-8, 2**-4, 1e-9])
def test_medians_and_tails(median: Any, tail_mass: float, images: NDArray[np.uint8]) -> None:
    metagraph = build_published(median=median, tail_mass=tail_mass)
    codec = load_published(metagraph)
    assert_same_symbols(codec.encode(images[:2]), metagraph, images[:2])
    offset = make_parameters(median=median).z_offset
    assert codec.info.z_offset == tuple(offset.tolist())


@pytest.mark.parametrize("op", ["Sub", "BiasAdd", "Mul"])
def test_what_is_done_to_z_besides_is_not_passed_over(op: str, metagraph: Any) -> None:
    """Taken for no offset, the header would say that z_hat is something else."""
    changed, nodes = copy_metagraph(metagraph)
    nodes[Z_HAT_OUT].op = op
    with pytest.raises(CodecGraphError, match=f"one constant to be added .* found {op} "):
        load_published(changed)


def test_two_offsets_are_refused(metagraph: Any) -> None:
    changed, nodes = copy_metagraph(metagraph)
    second = changed.graph_def.node.add()
    second.CopyFrom(nodes[Z_HAT_OUT])
    second.name = "second"
    second.input[0] = Z_HAT_OUT
    for node in changed.graph_def.node:
        if node.name != "second":
            node.input[:] = ["second" if name == Z_HAT_OUT else name for name in node.input]
    with pytest.raises(CodecGraphError, match="found AddV2 'second'"):
        load_published(changed)


def test_a_cycle_is_refused(metagraph: Any) -> None:
    changed, _ = copy_metagraph(metagraph)
    gather = "side_entropy_model/side_entropy_model_3/decompress/TensorArrayStack/"
    gather += "TensorArrayGatherV3"
    for name, before in (("round", "about"), ("about", "round")):
        node = changed.graph_def.node.add(name=name, op="Identity", input=[before])
        node.attr["T"].type = tf.int32.as_datatype_enum
    for node in changed.graph_def.node:
        node.input[:] = ["round" if name == gather else name for name in node.input]
    with pytest.raises(CodecGraphError, match="published: the graph has a cycle: "):
        load_published(changed)
