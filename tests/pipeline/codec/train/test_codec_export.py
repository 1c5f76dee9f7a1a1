"""The exported metagraph: its form, its bitstreams, and receiver(sender(x))."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.codec.train import codec_export
from latentset.pipeline.codec.train.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.train.codec_export import export_metagraph
from latentset.pipeline.tensorflow_setup import tf
from tests.makers.published import build_published

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
    export_metagraph(model, path, [noise(256, 256)])
    return path


@pytest.fixture(scope="module")
def metagraph(path: Path) -> Any:
    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.ParseFromString(path.read_bytes())
    return metagraph


Function = Callable[..., list[NDArray[Any]]]


@pytest.fixture(scope="module")
def signatures(metagraph: Any) -> Iterator[tuple[Function, Function]]:
    """Sender and receiver, on arrays."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(metagraph)
    session = tf.compat.v1.Session(graph=graph)  # not as a context: its graph would be the default

    def function(key: str) -> Function:
        signature = metagraph.signature_def[key]
        inputs, outputs = (
            [ports[k].name for k in sorted(ports)]
            for ports in (signature.inputs, signature.outputs)
        )

        def run(*values: NDArray[Any]) -> list[NDArray[Any]]:
            feeds = dict(zip(inputs, values, strict=True))
            found: list[NDArray[Any]] = session.run(outputs, feeds)
            return found

        return run

    yield function("sender"), function("receiver")
    session.close()


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """One image of independent pixels, uint8 (1, H, W, 3)."""
    shape = (1, height, width, 3)
    return np.random.default_rng(height * 1000 + width).integers(0, 256, shape, dtype=np.uint8)


def test_graph_is_that_of_the_published_codecs(metagraph: Any) -> None:
    """But for the form of GDN; every tensor of it is compared with the listings elsewhere."""
    nodes = {node.name: node.op for node in metagraph.graph_def.node}
    published = build_published(4, 6).graph_def
    norms = re.compile(r"gdn|synthesis/layer_\d/mul")
    differing = nodes.items() ^ {node.name: node.op for node in published.node}.items()
    assert not [name for name, _ in differing if not norms.search(name)]
    assert len(metagraph.graph_def.library.function) == 0
    sender, receiver = (metagraph.signature_def[key] for key in ("sender", "receiver"))
    channels = [f"channel:{i}" for i in range(5)]
    assert sorted(sender.inputs) == ["input_image"]
    assert sorted(receiver.outputs) == ["output_image"]
    assert sorted(sender.outputs) == sorted(receiver.inputs) == channels


def test_integer_h_s_is_near_the_trained_one(tmp_path: Path) -> None:
    tf.keras.utils.set_random_seed(12)
    model = ScaleHyperprior(4, 6)
    for layer, gain in ((model.g_a.layers[-1], 7.5), (model.h_a.layers[-1], 40.0)):
        layer.kernel_parameter.assign(gain * layer.kernel_parameter)
    model.h_s.layers[-1].bias_parameter.assign([SIGMA_INDEX] * 6)
    image = noise(8, 8).repeat(32, 1).repeat(32, 2)
    export_metagraph(model, tmp_path / "codec.metagraph", [image])
    latents = load_codec(str(tmp_path / "codec.metagraph")).encode(image)
    index = np.clip(model.h_s(latents.z_hat.astype(np.float32)).numpy(), 0, 63)
    # Half a step for the index itself, and what 255 steps of two hidden layers leave open.
    assert np.abs(latents.scale_index - index).max() < 1
    assert len(np.unique(latents.scale_index)) > 5


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (1, 1), (17, 300)], ids=str)
def test_receiver_of_sender_is_the_transforms_of_rounded_latents(
    model: ScaleHyperprior,
    signatures: tuple[Function, Function],
    size: tuple[int, int],
) -> None:
    sender, receiver = signatures
    image = noise(*size)
    channels = sender(image)
    (output,) = receiver(*channels)
    assert output.dtype == np.float32

    y_hat = tf.round(model.g_a(image.astype(np.float32) / 255))
    x_hat = 255 * model.g_s(y_hat)[:, : size[0], : size[1]]
    assert x_hat.numpy().std() > 1 or size == (1, 1)
    np.testing.assert_allclose(output, x_hat, atol=0.01)  # other order of sums

    grid = [math.ceil(s / 16) for s in size]
    assert channels[2].tolist() == list(size)
    assert channels[3].tolist() == grid
    assert channels[4].tolist() == [math.ceil(g / 4) for g in grid]


def test_string_of_y_is_as_long_as_the_gaussians_say(
    model: ScaleHyperprior, signatures: tuple[Function, Function]
) -> None:
    image = noise(512, 512)
    y_string, z_string = (c[0] for c in signatures[0](image)[:2])
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
    signatures: tuple[Function, Function],
) -> None:
    sender, receiver = signatures
    images = np.concatenate([noise(64, 48), 255 - noise(64, 48)])
    (together,) = receiver(*sender(images))
    for image, output in zip(images, together, strict=True):
        (alone,) = receiver(*sender(image[None]))
        np.testing.assert_array_equal(output, alone[0])


def test_same_weights_make_the_same_bytes(model: ScaleHyperprior, path: Path) -> None:
    again = path.with_name("again.metagraph")
    export_metagraph(model, again, [noise(256, 256)])
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

    monkeypatch.setattr(codec_export, "build_metagraph", lambda _: metagraph)
    monkeypatch.setattr(codec_export, "parameters_of", lambda *_: None)
    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        export_metagraph(model, target, [])
    assert target.read_bytes() == b"old"


def test_48_and_72_filters_make_at_most_4_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.metagraph"
    export_metagraph(ScaleHyperprior(48, 72), path, [noise(64, 64)])
    # 4 bytes a weight, and some for the graph and the tables.
    weights = sum(math.prod(v.shape) for v in ScaleHyperprior(48, 72).trainable_variables)
    assert 2_500_000 < path.stat().st_size < min(4_000_000, 4 * weights + 350_000)
