"""The exported metagraph: its form, its strings, and receiver(sender(x))."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.pipeline.codec import export
from latentset.pipeline.codec.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.export import export_metagraph
from latentset.pipeline.tensorflow_setup import tf

SIGMA_INDEX = 25.0


@pytest.fixture(scope="module")
def model() -> ScaleHyperprior:
    """Random weights whose y, on noise, has a standard deviation of about one to four."""
    tf.keras.utils.set_random_seed(11)
    model = ScaleHyperprior(4, 6)
    last = model.g_a.layers[-1]
    last.kernel_parameter.assign(7.5 * last.kernel_parameter)
    model.h_s.layers[-1].bias_parameter.assign([SIGMA_INDEX] * 6)
    return model


@pytest.fixture(scope="module")
def path(model: ScaleHyperprior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "small.metagraph"
    export_metagraph(model, path)
    return path


@pytest.fixture(scope="module")
def metagraph(path: Path) -> Any:
    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.ParseFromString(path.read_bytes())
    return metagraph


@pytest.fixture(scope="module")
def signatures(metagraph: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Sender and receiver, taken as tfci.py takes those of the published files."""
    imported = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.train.import_meta_graph(metagraph), []
    )
    functions = []
    for key in ("sender", "receiver"):
        definition = metagraph.signature_def[key]
        inputs = [definition.inputs[k].name for k in sorted(definition.inputs)]
        outputs = [definition.outputs[k].name for k in sorted(definition.outputs)]
        element = imported.graph.as_graph_element
        functions.append(
            imported.prune([element(n) for n in inputs], [element(n) for n in outputs])
        )
    sender, receiver = functions
    return sender, receiver


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """One image of independent pixels, uint8 (1, H, W, 3)."""
    shape = (1, height, width, 3)
    return np.random.default_rng(height * 1000 + width).integers(0, 256, shape, dtype=np.uint8)


def test_signatures_are_those_of_the_published_files(metagraph: Any) -> None:
    sender, receiver = (metagraph.signature_def[key] for key in ("sender", "receiver"))
    channels = [f"channel:{i}" for i in range(5)]
    assert sorted(sender.inputs) == ["input_image"]
    assert sorted(sender.outputs) == channels
    assert sorted(receiver.inputs) == channels
    assert sorted(receiver.outputs) == ["output_image"]
    image = sender.inputs["input_image"]
    assert image.dtype == tf.uint8.as_datatype_enum
    assert [d.size for d in image.tensor_shape.dim] == [-1, -1, -1, 3]
    for ports in (sender.outputs, receiver.inputs):
        types = [tf.as_dtype(ports[c].dtype) for c in channels]
        assert types == [tf.string, tf.string, tf.int32, tf.int32, tf.int32]
    assert receiver.outputs["output_image"].dtype == tf.uint8.as_datatype_enum


def test_graph_is_flat_and_without_variables(metagraph: Any) -> None:
    ops = {node.op for node in metagraph.graph_def.node}
    assert not [op for op in ops if "Var" in op or "If" in op or "While" in op or "Call" in op]
    assert len(metagraph.graph_def.library.function) == 0
    # What the range coder of each needs, once.
    names = [node.op for node in metagraph.graph_def.node]
    for op in ("EntropyEncodeIndex", "EntropyEncodeChannel", "EntropyDecodeIndex"):
        assert names.count(op) == 1
    # Shared weights are in the file once: h_s serves sender and receiver.
    constants = [n.name for n in metagraph.graph_def.node if n.op == "Const"]
    kernels = [name for name in constants if re.search(r"/kernel(_\d+)?$", name)]
    assert len(kernels) == 4 + 4 + 3 + 3


def test_tables_have_a_row_a_scale_and_a_row_a_channel(metagraph: Any) -> None:
    def rows(name: str) -> int:
        (node,) = [n for n in metagraph.graph_def.node if n.name == name]
        return int(tf.make_ndarray(node.attr["value"].tensor).size)

    assert rows("y_cdf_offset") == 64
    assert rows("z_cdf_offset") == 4


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (1, 1), (17, 300)], ids=str)
def test_receiver_of_sender_is_the_transforms_of_rounded_latents(
    model: ScaleHyperprior,
    signatures: tuple[Callable[..., Any], Callable[..., Any]],
    size: tuple[int, int],
) -> None:
    sender, receiver = signatures
    image = noise(*size)
    channels = sender(tf.constant(image))
    (output,) = receiver(*channels)
    assert output.dtype == tf.uint8

    y_hat = tf.round(model.g_a(image.astype(np.float32) / 255))
    x_hat = 255 * model.g_s(y_hat)[:, : size[0], : size[1]]
    expected = np.clip(np.round(x_hat.numpy()), 0, 255)
    assert expected.std() > 1 or size == (1, 1)
    assert np.abs(output.numpy() - expected).max() <= 1  # one level: other order of sums

    grid = [math.ceil(s / 16) for s in size]
    assert channels[2].numpy().tolist() == list(size)
    assert channels[3].numpy().tolist() == grid
    assert channels[4].numpy().tolist() == [math.ceil(g / 4) for g in grid]


def test_string_of_y_is_as_long_as_the_gaussians_say(
    model: ScaleHyperprior, signatures: tuple[Callable[..., Any], Callable[..., Any]]
) -> None:
    image = noise(512, 512)
    y_string, z_string = (c.numpy()[0] for c in signatures[0](tf.constant(image))[:2])
    y = model.g_a(image.astype(np.float32) / 255)
    z_hat = tf.round(model.h_a(tf.abs(y)))
    index = np.round(np.clip(model.h_s(z_hat).numpy(), 0, 63))
    sigma = 0.11 * (256 / 0.11) ** (index / 63)
    y_hat = np.round(y.numpy())
    assert 0.5 < y_hat.std() < 20
    phi = np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2)))
    density = phi((y_hat + 0.5) / sigma) - phi((y_hat - 0.5) / sigma)
    expected_bits = -np.log2(np.maximum(density, 2.0**-16)).sum()
    assert expected_bits > 8_000
    assert 8 * len(y_string) == pytest.approx(expected_bits, rel=0.03)
    assert 0 < len(z_string) < len(y_string)


def test_several_images_at_once(
    signatures: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    sender, receiver = signatures
    images = np.concatenate([noise(64, 48), 255 - noise(64, 48)])
    (together,) = receiver(*sender(tf.constant(images)))
    for image, output in zip(images, together.numpy(), strict=True):
        (alone,) = receiver(*sender(tf.constant(image[None])))
        np.testing.assert_array_equal(output, alone.numpy()[0])


def test_damaged_string_is_refused(
    signatures: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    sender, receiver = signatures
    y_string, *others = sender(tf.constant(noise(64, 64)))
    longer = tf.constant([y_string.numpy()[0] + b"\x5a" * 8])
    with pytest.raises(tf.errors.InvalidArgumentError, match="string of y is damaged"):
        receiver(longer, *others)


def test_same_weights_make_the_same_bytes(model: ScaleHyperprior, path: Path) -> None:
    again = path.with_name("again.metagraph")
    export_metagraph(model, again)
    assert again.read_bytes() == path.read_bytes()


def test_interrupted_export_leaves_the_old_file(
    model: ScaleHyperprior, metagraph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "codec.metagraph"
    target.write_bytes(b"old")
    write_bytes = Path.write_bytes

    def fill_the_disk(self: Path, data: bytes) -> int:
        write_bytes(self, data[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "build_metagraph", lambda _: metagraph)
    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        export_metagraph(model, target)
    assert target.read_bytes() == b"old"


def test_48_and_72_filters_make_at_most_4_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.metagraph"
    export_metagraph(ScaleHyperprior(48, 72), path)
    # 4 bytes a weight, and some for the graph and the tables.
    weights = sum(math.prod(v.shape) for v in ScaleHyperprior(48, 72).trainable_variables)
    assert 2_500_000 < path.stat().st_size < min(4_000_000, 4 * weights + 200_000)
