"""The decode job, with the stand-in codec: grey squares of the mean of 16x16 pixels."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, log10
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import (
    CodecError,
    StoreError,
)
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Folder, open_location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.verify import verify
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.tasks import JobResult

Decode = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]
FAILED = "a/004.png"
KEPT = ("id", "path", "label", "split", "height", "width", "rate_bpp", "source_bytes")


def silence(what: str, done: int, total: int) -> None:
    pass


def read(path: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(path).convert("RGB"))


def squares(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By hand: each 16x16 square gets the mean of its pixels; the edge is repeated outwards."""
    height, width = image.shape[:2]
    made = np.zeros_like(image)
    for top in range(0, height, 16):
        for left in range(0, width, 16):
            total = 0
            for i in range(top, top + 16):
                for j in range(left, left + 16):
                    total += int(image[min(i, height - 1), min(j, width - 1)].sum())
            made[top : top + 16, left : left + 16] = total // (3 * 16 * 16)
    return made


def number_of(store: Store, name: str) -> int:
    return int(store.samples["id"].to_pylist().index(name))


def test_images_come_back_in_the_size_that_was_encoded(
    decode_it: Decode, latents: Path, mixed: Source, tmp_path: Path
) -> None:
    result = decode_it(latents, tmp_path / "pixels")
    store, before = result.store, open_store(latents)
    assert (result.was_complete, result.encoded, result.reused) == (False, 40, 0)
    assert store.header.layout.shards > 4
    for name in ("a/000.png", "b/001.png", "a/002.png", "b/039.png"):
        image = read(mixed.folder / name)
        found = store.read_sample(number_of(store, name))["pixels"]
        assert found.shape == image.shape
        assert np.array_equal(found, squares(image))
    for column in (*KEPT, "source_sha256", "status", "reason"):
        assert store.samples[column] == before.samples[column]
    assert set(store.samples["z_first_row"].to_pylist()) == {-1}
    assert verify(tmp_path / "pixels", silence).outcome == "sound"


def test_the_header_says_where_they_come_from(
    decode_it: Decode, latents: Path, tmp_path: Path
) -> None:
    store, before = decode_it(latents, tmp_path / "pixels").store, open_store(latents)
    header = store.header
    assert header.pixels is not None
    assert header.pixels.latents is not None
    assert header.pixels.kind == "decoded"
    assert header.codec == before.header.codec
    assert header.source == before.header.source
    assert header.pixels.latents.fingerprint == before.fingerprint
    assert header.pixels.latents.provenance == before.header.provenance
    assert header.pixels.latents.measured is False
    assert store.samples["psnr_db"].null_count == 40
    assert store.samples["ms_ssim"].null_count == 40


def test_a_sample_without_latents_keeps_its_status(
    decode_it: Decode, latents: Path, tmp_path: Path
) -> None:
    store = decode_it(latents, tmp_path / "pixels").store
    (row,) = store.samples.slice(number_of(store, FAILED), 1).to_pylist()
    assert (row["status"], row["first_row"], row["rate_bpp"]) == ("not_an_image", -1, None)
    assert row["reason"].startswith("not an image of a known format")
    assert store.manifest is not None
    assert (store.manifest.samples.ok, store.manifest.samples.failed) == (39, 1)


def test_both_resize_rules_are_followed(
    run: Callable[..., JobResult],
    decode_it: Decode,
    mixed: Source,
    tmp_path: Path,
) -> None:
    run(mixed, tmp_path / "latents", resize=ResizeRule.parse("short:48"))
    store = decode_it(
        tmp_path / "latents", tmp_path / "pixels", resize=ResizeRule.parse("exact:20x24")
    ).store
    assert store.header.resize == "exact:20x24"
    assert store.header.pixels is not None
    assert store.header.pixels.coded_resize == "short:48"
    first = Image.open(mixed.folder / "b" / "001.png").convert("RGB")  # 48x100: stays as it is
    made = Image.fromarray(squares(np.array(first)))
    expected = np.array(made.resize((24, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(store.read_sample(number_of(store, "b/001.png"))["pixels"], expected)
    assert store.header.layout.chunk_rows == 20 * 24
    assert verify(tmp_path / "pixels", silence).problems == []


def test_psnr_is_that_of_the_formula(
    run: Callable[..., JobResult],
    decode_it: Decode,
    mixed: Source,
    tmp_path: Path,
) -> None:
    Image.new("RGB", (64, 64), (90, 90, 90)).save(mixed.folder / "a" / "000.png")
    run(mixed, tmp_path / "latents")
    store = decode_it(
        tmp_path / "latents",
        tmp_path / "pixels",
        originals=mixed.folder,
        resize=ResizeRule.parse("exact:16"),
    ).store
    assert store.header.pixels is not None
    assert store.header.pixels.latents is not None
    assert store.header.pixels.latents.measured is True
    measured = dict(zip(*(store.samples[c].to_pylist() for c in ("id", "psnr_db")), strict=True))
    assert measured["a/000.png"] == inf
    for name in ("b/001.png", "a/002.png"):
        image = read(mixed.folder / name)
        error = image.astype(float) - squares(image)
        expected = 20 * log10(255) - 10 * log10((error**2).sum() / error.size)
        assert measured[name] == pytest.approx(expected, abs=1e-9)
    # All have a side below 161 pixels.
    assert store.samples["ms_ssim"].null_count == 40
    assert verify(tmp_path / "pixels", silence).problems == []


def test_images_are_compared_after_the_stores_resize_rule(
    run: Callable[..., JobResult],
    decode_it: Decode,
    mixed: Source,
    tmp_path: Path,
) -> None:
    run(mixed, tmp_path / "latents", resize=ResizeRule.parse("exact:32"))
    store = decode_it(tmp_path / "latents", tmp_path / "pixels", originals=mixed.folder).store
    image = Image.open(mixed.folder / "a" / "002.png").convert("RGB")
    small = np.array(image.resize((32, 32), Image.Resampling.BILINEAR))
    error = small.astype(float) - squares(small)
    expected = 20 * log10(255) - 10 * log10((error**2).mean())
    found = store.samples["psnr_db"][number_of(store, "a/002.png")].as_py()
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_both_formats_hold_the_same(
    format: str, decode_it: Decode, latents: Path, mixed: Source, tmp_path: Path
) -> None:
    expected = decode_it(latents, tmp_path / "pixels", originals=mixed.folder).store
    source = tmp_path / f"latents.{'h5' if format == 'zarr' else 'zarr'}"
    convert(open_store(latents), Folder(source), "hdf5" if format == "zarr" else "zarr", silence)
    other = decode_it(source, tmp_path / "other", format=format, originals=mixed.folder).store
    assert other.samples == expected.samples
    for k in (0, 1, 39):
        assert np.array_equal(other.read_sample(k)["pixels"], expected.read_sample(k)["pixels"])
    assert verify(tmp_path / "other", silence).problems == []


def test_batch_and_shards_change_no_pixel(
    decode_it: Decode, latents: Path, content: Content, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "one", batch=1)
    decode_it(latents, tmp_path / "many", batch=32)
    assert content(tmp_path / "one") == content(tmp_path / "many")
    large = decode_it(latents, tmp_path / "large", shard_bytes=1 << 14).store
    small = open_store(tmp_path / "one")
    assert large.header.layout.shards > small.header.layout.shards
    for k in (0, 17, 39):
        assert np.array_equal(large.read_sample(k)["pixels"], small.read_sample(k)["pixels"])


def test_a_complete_store_is_left_alone(
    decode_it: Decode, latents: Path, content: Content, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "pixels")
    before = content(tmp_path / "pixels")
    again = decode_it(latents, tmp_path / "pixels")
    assert again.was_complete
    assert content(tmp_path / "pixels") == before


def test_an_image_that_the_second_rule_makes_too_large_is_recorded(
    run: Callable[..., JobResult], decode_it: Decode, tmp_path: Path
) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (2000, 16)).save(tmp_path / "images" / "a" / "long.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "a" / "small.png")
    run(open_source(tmp_path / "images"), tmp_path / "latents")
    rule = ResizeRule.parse("short:1500")  # 1500 x 187500 pixels
    store = decode_it(tmp_path / "latents", tmp_path / "pixels", resize=rule).store
    long, small = store.samples.to_pylist()
    assert (long["status"], long["first_row"], long["rate_bpp"]) == ("too_large", -1, None)
    assert "16x2000 pixels become 1500x187500 by short:1500" in long["reason"]
    assert (small["status"], small["latent_height"]) == ("ok", 1500)
    assert verify(tmp_path / "pixels", silence).problems == []


def test_to_and_from_object_storage(
    decode_it: Decode, latents: Path, content: Content, s3: str, tmp_path: Path
) -> None:
    convert(open_store(latents), open_location(f"{s3}/latents"), "zarr", silence)
    decode_it(f"{s3}/latents", f"{s3}/pixels")
    decode_it(latents, tmp_path / "near")
    location = open_location(f"{s3}/pixels")
    assert {path: location.read(path) for path in location.sizes() or {}} == content(
        tmp_path / "near"
    )


@pytest.mark.usefixtures("wide_terminal")
def test_pixels_are_not_encoded_again(
    decode_it: Decode, latents: Path, mixed: Source, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "pixels")
    arguments = ["verify", str(tmp_path / "pixels"), "--recompute", "2"]
    done = CliRunner().invoke(app, [*arguments, "--source", str(mixed.folder)])
    assert done.exit_code == 2
    assert "--recompute is for stores of latents" in done.output


def test_latents_that_came_later_are_told_of(
    run: Callable[..., JobResult],
    decode_it: Decode,
    latents: Path,
    mixed: Source,
    standin: Any,
    tmp_path: Path,
) -> None:
    decode_it(latents, tmp_path / "pixels")
    Image.new("RGB", (64, 64)).save(mixed.folder / FAILED)
    run(mixed, latents, retry_failed=True)
    said: list[str] = []

    class View(ProgressView):
        def say(self, text: str) -> None:
            said.append(text)

    again = decode_it(latents, tmp_path / "pixels", view=View())
    assert again.was_complete
    (text,) = said
    assert text.startswith("1 samples of ")
    assert "Name another PIXELS to decode all again" in text
    everything = decode_it(latents, tmp_path / "all").store
    assert everything.read_sample(number_of(everything, FAILED))["pixels"].shape == (64, 64, 3)


def test_a_codec_that_cannot_decode_is_refused_before_anything_is_written(
    decode_it: Decode, latents: Path, tmp_path: Path, standin: Any
) -> None:
    class NoReceiver(standin.StandIn):  # type: ignore[misc]
        def check_decoding(self) -> None:
            raise CodecError("decodes otherwise than its receiver")

    engine = replace(standin.ENGINE, load=lambda name, *, self_check: NoReceiver(name))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CodecError, match="decodes otherwise than its receiver"):
        decode_it(latents, tmp_path / "pixels", engine=engine)
    assert sorted(tmp_path.iterdir()) == before


def test_the_latents_themselves_are_no_target(
    decode_it: Decode, latents: Path, content: Content
) -> None:
    before = content(latents)
    for same in (latents, latents / ".." / latents.name):
        with pytest.raises(StoreError, match="is the store of latents itself: name another PIXELS"):
            decode_it(latents, same)
    assert content(latents) == before
