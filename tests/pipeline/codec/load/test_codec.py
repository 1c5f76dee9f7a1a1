"""A loaded codec against latents computed by hand from the known weights."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentset.datasets.errors import CodecGraphError, FetchError
from latentset.pipeline.codec.catalogue import shipped_codecs
from latentset.pipeline.codec.load.codec import Codec, load_codec
from latentset.pipeline.codec.load.metagraph import parse_codec_file
from latentset.pipeline.codec.load.program import Latents
from tests.makers import by_hand, graphs

Images = NDArray[np.uint8]


@pytest.fixture(scope="module", params=["v1", "v2"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def codec(form: str, v1_path: Path, v2_path: Path) -> Codec:
    return load_codec(str({"v1": v1_path, "v2": v2_path}[form]))


def _string_bits(codec: Codec, image: Images) -> int:
    strings = [a for a in codec.sender(image) if a.dtype.kind == "O"]
    return sum(8 * len(s) for a in strings for s in a.ravel())


def _assert_equal(a: Latents, b: Latents) -> None:
    np.testing.assert_array_equal(a.y_hat, b.y_hat)
    np.testing.assert_array_equal(a.scale_index, b.scale_index)
    np.testing.assert_array_equal(a.z_hat, b.z_hat)


def test_latents_are_those_of_the_weights(
    codec: Codec, form: str, weights: by_hand.Weights, images: Images
) -> None:
    latents = codec.encode(images)
    assert latents.y_hat.shape == latents.scale_index.shape == (8, 5, 8, by_hand.M)
    assert latents.z_hat.shape == (8, 2, 2, by_hand.N)
    certain = []
    for i, image in enumerate(images):
        y_hat, z_hat = by_hand.encode_by_hand(weights, image, v1=form == "v1")
        index = by_hand.scale_index_by_hand(weights, latents.z_hat[i], (5, 8), v1=form == "v1")
        y_hat.check(latents.y_hat[i])
        z_hat.check(latents.z_hat[i])
        index.check(latents.scale_index[i])
        certain += [y_hat.certain, z_hat.certain, index.certain]
    assert np.mean(certain) > 0.99  # few are near a rounding boundary
    assert len(np.unique(latents.scale_index)) > 20
    assert np.abs(latents.z_hat).max() > 3


def test_dtypes_fit_the_store(codec: Codec, images: Images) -> None:
    latents = codec.encode(images[:1])
    assert latents.y_hat.dtype == latents.scale_index.dtype == latents.z_hat.dtype == np.int32
    assert latents.scale_index.min() >= 0
    assert latents.scale_index.max() <= 63


def test_info(codec: Codec, form: str, weights: by_hand.Weights, v1_path: Path) -> None:
    info = codec.info
    assert info.name == f"tiny-{form}"
    assert info.form == {"v1": "tfc1", "v2": "tfc2"}[form]
    assert (info.channels, info.z_channels) == (by_hand.M, by_hand.N)
    assert (info.y_downsampling, info.z_downsampling) == (16, 64)
    assert len(info.scale_table) == 64
    assert info.scale_table[0] == pytest.approx(0.11)
    assert info.scale_table[1] == pytest.approx(0.11 * (256 / 0.11) ** (1 / 63), rel=1e-6)
    assert info.scale_table[-1] == pytest.approx(256)
    np.testing.assert_allclose(info.z_offset, weights.z_offset, atol=1e-6)


@pytest.mark.parametrize("sizes", [[1] * 8, [3, 5], [1, 2, 5]])
def test_latents_do_not_depend_on_the_batch(codec: Codec, images: Images, sizes: list[int]) -> None:
    assert codec.free_batch
    whole = codec.encode(images)
    parts = [codec.encode(part) for part in np.split(images, np.cumsum(sizes)[:-1])]
    keys = ("y_hat", "scale_index", "z_hat")
    _assert_equal(whole, Latents(*(np.concatenate([getattr(p, k) for p in parts]) for k in keys)))


def test_latents_do_not_depend_on_threads(
    codec: Codec, form: str, v1_path: Path, v2_path: Path, images: Images
) -> None:
    path = {"v1": v1_path, "v2": v2_path}[form]
    other = load_codec(str(path), threads=4, self_check=False)
    _assert_equal(codec.encode(images), other.encode(images))


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (1, 1), (17, 100), (65, 129)])
def test_sizes_round_up(codec: Codec, size: tuple[int, int]) -> None:
    height, width = size
    image = np.full((1, height, width, 3), 90, np.uint8)
    latents = codec.encode(image)
    assert latents.y_hat.shape[1:3] == (-(-height // 16), -(-width // 16))
    assert latents.z_hat.shape[1:3] == (-(-height // 64), -(-width // 64))


def test_rate_is_that_of_the_strings(codec: Codec, images: Images) -> None:
    bits = codec.rate_bits(codec.encode(images))
    assert bits.shape == (8,)
    assert bits.dtype == np.float64
    for i, image in enumerate(images):
        real = _string_bits(codec, image)
        # Two strings, each up to two bytes longer than what it says.
        assert bits[i] - 16 <= real <= bits[i] + 32


def test_receiver_takes_what_the_sender_sends(
    codec: Codec, images: Images, form: str, weights: by_hand.Weights
) -> None:
    decoded = codec.receiver(codec.sender(images[0]))
    y_hat = codec.encode(images[:1]).y_hat[0, :, :, :3]
    expected = np.clip(128 + 4 * y_hat, 0, 255).repeat(16, 0).repeat(16, 1)[:75, :118]
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (64, 64, 3)])
def test_what_is_no_image_is_refused(codec: Codec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected images uint8"):
        codec.encode(np.zeros(shape, np.uint8))


def test_floats_are_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match="got float64"):
        codec.encode(np.zeros((1, 64, 64, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("functional", "bake_batch"), [(True, False), (False, True)], ids=["functional", "bake_batch"]
)
def test_other_forms_of_the_first_generation(
    weights: by_hand.Weights, images: Images, v1_path: Path, functional: bool, bake_batch: bool
) -> None:
    metagraph = graphs.build_v1(weights, functional=functional, bake_batch=bake_batch)
    codec = Codec(parse_codec_file(metagraph.SerializeToString(), "other"))
    assert codec.free_batch is not bake_batch
    assert codec.self_check is not None
    _assert_equal(codec.encode(images[:3]), load_codec(str(v1_path)).encode(images[:3]))


def test_functions_in_the_library(weights: by_hand.Weights, images: Images, v2_path: Path) -> None:
    metagraph = graphs.build_v2(weights, calls=True)
    assert any(n.op == "StatefulPartitionedCall" for n in metagraph.graph_def.node)
    codec = Codec(parse_codec_file(metagraph.SerializeToString(), "calls"))
    _assert_equal(codec.encode(images[:3]), load_codec(str(v2_path)).encode(images[:3]))
    np.testing.assert_array_equal(
        codec.receiver(codec.sender(images[0]))[::16, ::16],
        np.clip(128 + 4 * codec.encode(images[:1]).y_hat[0, :, :, :3], 0, 255),
    )


def test_named_tensors_override(codec: Codec, form: str, v1_path: Path, v2_path: Path) -> None:
    path = str({"v1": v1_path, "v2": v2_path}[form])
    names = {k: codec.info.tensors[k] for k in ("y_hat", "scale_index", "z_hat")}
    again = load_codec(path, tensors=names)
    assert again.info == codec.info
    # y_hat as a float, before it became a symbol: the same numbers under another name.
    node = next(
        n
        for n in parse_codec_file(Path(path).read_bytes(), "x").metagraph.graph_def.node
        if n.name == codec.info.tensors["y_hat"].partition(":")[0]
    )
    other = load_codec(path, tensors={"y_hat": node.input[0]})
    assert other.info.tensors["y_hat"] != codec.info.tensors["y_hat"]
    image = np.full((1, 64, 64, 3), 77, np.uint8)
    _assert_equal(other.encode(image), codec.encode(image))


def test_wrong_names_are_refused(v1_path: Path, codec: Codec) -> None:
    with pytest.raises(CodecGraphError, match="tiny-v1: the graph has no node 'nowhere'"):
        load_codec(str(v1_path), tensors={"y_hat": "nowhere:0"})
    with pytest.raises(CodecGraphError, match="unknown tensor 'sigma': expected one of y_hat"):
        load_codec(str(v1_path), tensors={"sigma": "Cast_2:0"})


def test_a_tensor_that_is_another_fails_the_self_check(v2_path: Path) -> None:
    found = load_codec(str(v2_path)).info.tensors
    with pytest.raises(CodecGraphError, match=r"tiny-v2: self-check: .* imply .* bits"):
        load_codec(str(v2_path), tensors={"y_hat": found["scale_index"]})


def test_a_tensor_of_fractions_is_refused(weights: by_hand.Weights, v1_path: Path) -> None:
    graph = parse_codec_file(v1_path.read_bytes(), "x").metagraph.graph_def
    floor = load_codec(str(v1_path)).info.tensors["y_hat"].partition(":")[0]
    nodes = {n.name: n for n in graph.node}
    before = nodes[nodes[nodes[floor].input[0]].input[0]].name
    with pytest.raises(CodecGraphError, match="expected y_hat to hold integers"):
        load_codec(str(v1_path), tensors={"y_hat": before})


def test_a_file_that_is_not_the_one_fetched_is_refused(v2_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.metagraph"
    path.write_bytes(v2_path.read_bytes())
    (tmp_path / "mine.metagraph.sha256").write_text("0" * 64 + "  mine.metagraph\n")
    with pytest.raises(FetchError, match=r"is not the file that was fetched: expected .* 0000"):
        load_codec("mine", cache=tmp_path)


@pytest.mark.parametrize("name", sorted(shipped_codecs()))
def test_shipped_codecs_on_kodak(name: str, real_images: Path) -> None:
    codec = load_codec(name)
    implied = real = 0.0
    for path in sorted((real_images / "kodak").iterdir())[::4]:
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
        bits = float(codec.rate_bits(codec.encode(image[np.newaxis]))[0])
        strings = codec.sender(image)
        implied += bits
        real += _string_bits(codec, image)
        assert codec.receiver(strings).shape == image.shape
    assert real == pytest.approx(implied, rel=0.02)
    # What is measured: strings are 0 to 5 bytes longer, of some thousands.
    assert 0 <= real - implied < 6 * 40
