"""What the decode job refuses, and that nothing is lost."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentset.datasets.errors import (
    CodecError,
    JobError,
    SettingsChangedError,
    StoreCorruptError,
    StoreError,
    StoreIncompleteError,
)
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.pipeline.jobs.tasks import JobResult

Decode = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"resize": ResizeRule.parse("exact:20")}, "resize: none before, exact:20 now"),
        ({"shard_bytes": 1 << 14}, "target_shard_bytes: 33554432 before, 16384 now"),
    ],
)
def test_other_settings_are_refused(
    options: dict[str, Any],
    difference: str,
    decode_it: Decode,
    latents: Path,
    content: Content,
    tmp_path: Path,
) -> None:
    decode_it(latents, tmp_path / "pixels")
    before = content(tmp_path / "pixels")
    with pytest.raises(SettingsChangedError, match=difference):
        decode_it(latents, tmp_path / "pixels", **options)
    assert content(tmp_path / "pixels") == before


def test_measuring_later_is_refused(
    decode_it: Decode, latents: Path, mixed: Source, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "pixels")
    with pytest.raises(SettingsChangedError, match="measured: False before, True now"):
        decode_it(latents, tmp_path / "pixels", originals=mixed.folder)


def test_other_latents_are_refused(
    run: Callable[..., JobResult],
    decode_it: Decode,
    latents: Path,
    mixed: Source,
    tmp_path: Path,
) -> None:
    decode_it(latents, tmp_path / "pixels")
    run(mixed, tmp_path / "others", resize=ResizeRule.parse("exact:32"))
    with pytest.raises(SettingsChangedError, match=r"pixels\.latents\.fingerprint: "):
        decode_it(tmp_path / "others", tmp_path / "pixels")


def test_a_store_of_latents_is_no_target(
    decode_it: Decode, latents: Path, content: Content, tmp_path: Path
) -> None:
    shutil.copytree(latents, tmp_path / "copy")
    before = content(tmp_path / "copy")
    with pytest.raises(SettingsChangedError, match="made with other settings"):
        decode_it(latents, tmp_path / "copy")
    with pytest.raises(StoreError, match="is inside the store"):
        decode_it(latents, latents / "pixels2")
    assert content(tmp_path / "copy") == before


def test_another_codec_is_refused_before_it_is_loaded(
    decode_it: Decode, latents: Path, tmp_path: Path, standin: Any
) -> None:
    def fail(name: str, *, self_check: bool) -> Any:
        raise AssertionError(name)

    engine = replace(standin.ENGINE, load=fail)
    with pytest.raises(CodecError, match=r"was encoded by standin with sha256 .* give the codec's"):
        decode_it(latents, tmp_path / "pixels", codec="standin:other", engine=engine)
    assert not (tmp_path / "pixels").exists()


def test_an_incomplete_store_is_refused(decode_it: Decode, latents: Path, tmp_path: Path) -> None:
    (latents / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match="run the same latentset encode again"):
        decode_it(latents, tmp_path / "pixels")
    assert not (tmp_path / "pixels").exists()


def test_pixels_are_not_decoded(decode_it: Decode, latents: Path, tmp_path: Path) -> None:
    decode_it(latents, tmp_path / "pixels")
    with pytest.raises(StoreError, match="expected a store of latents, got one of pixels"):
        decode_it(tmp_path / "pixels", tmp_path / "again")


@pytest.mark.parametrize("array", ["y_hat", "z_hat"])
def test_damaged_latents_stop_the_job_and_lose_nothing(
    array: str, decode_it: Decode, latents: Path, content: Content, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "undisturbed")
    shard = latents / array / "c" / "0" / "0"
    good = shard.read_bytes()
    shard.write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])
    with pytest.raises(StoreCorruptError, match=rf"{array}, rows from \d+: .*An object was"):
        decode_it(latents, tmp_path / "pixels")
    assert not (tmp_path / "pixels" / "manifest.json").exists()
    shard.write_bytes(good)
    decode_it(latents, tmp_path / "pixels")
    assert content(tmp_path / "pixels") == content(tmp_path / "undisturbed")


def test_other_images_are_refused_at_once(decode_it: Decode, latents: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(JobError, match=r"a/000\.png: no such file: give the root that the latents"):
        decode_it(latents, tmp_path / "pixels", originals=tmp_path / "elsewhere")
    assert not (tmp_path / "pixels").exists()
    assert not (tmp_path / "pixels.job").exists()


def test_an_image_that_changed_stops_the_job_and_loses_nothing(
    decode_it: Decode, latents: Path, mixed: Source, content: Content, tmp_path: Path
) -> None:
    decode_it(latents, tmp_path / "undisturbed", originals=mixed.folder)
    image = mixed.folder / "b" / "039.png"
    good = image.read_bytes()
    Image.new("RGB", (64, 64)).save(image)
    with pytest.raises(JobError, match=r"b/039\.png: expected the image that was encoded"):
        decode_it(latents, tmp_path / "pixels", originals=mixed.folder)
    image.write_bytes(good)
    result = decode_it(latents, tmp_path / "pixels", originals=mixed.folder)
    assert result.reused > 20
    assert content(tmp_path / "pixels") == content(tmp_path / "undisturbed")


def test_a_codec_that_cannot_decode_names_the_samples(
    run: Callable[..., JobResult], decode_it: Decode, mixed: Source, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "latents")
    Image.new("RGB", (64, 64), (255, 255, 255)).save(mixed.folder / "a" / "000.png")
    run(mixed, tmp_path / "white")
    decode_it(tmp_path / "latents", tmp_path / "fine", codec="standin:graph")
    with pytest.raises(JobError, match=r"samples 'a/000\.png' to .* cannot be decoded: expec"):
        decode_it(tmp_path / "white", tmp_path / "pixels", codec="standin:graph")


def test_other_software_on_a_worker_stops_the_job(
    decode_it: Decode, latents: Path, standin: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    asked = 0

    def environment() -> dict[str, str]:
        nonlocal asked
        asked += 1
        return {**standin.environment, "device": "CPU" if asked == 1 else "a GPU"}

    with pytest.raises(JobError, match=r"this worker has .*a GPU.*Pixels could differ"):
        decode_it(
            latents, tmp_path / "pixels", engine=replace(standin.ENGINE, environment=environment)
        )
