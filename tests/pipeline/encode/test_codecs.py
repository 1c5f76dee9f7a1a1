"""Several codecs in one pass: the stores of separate runs, each image decoded once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.images import decode_image
from latentset.pipeline.encode import encode_task as decoding
from latentset.pipeline.jobs.tasks import JobResult

Run = Callable[..., JobResult]
RunAll = Callable[..., list[JobResult]]
Content = Callable[[Path], dict[str, bytes]]


def test_the_stores_are_those_of_separate_runs(
    run: Run, run_all: RunAll, mixed: Source, content: Content, tmp_path: Path
) -> None:
    (mixed.folder / "a" / "000.png").write_bytes(b"no image")
    codecs = {tmp_path / "a": "standin", tmp_path / "b": "standin:other"}
    results = run_all(mixed, codecs)
    assert [(r.encoded, r.reused, r.was_complete) for r in results] == [(40, 0, False)] * 2
    for store, codec in codecs.items():
        run(mixed, tmp_path / "alone" / store.name, codec=codec)
        assert content(store) == content(tmp_path / "alone" / store.name)
    assert content(tmp_path / "a") != content(tmp_path / "b")


def test_each_image_is_decoded_once(
    run_all: RunAll, mixed: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoded = []
    decode = decode_image

    def count(content: bytes) -> Any:
        decoded.append(len(content))
        return decode(content)

    monkeypatch.setattr(decoding, "decode_image", count)
    run_all(mixed, {tmp_path / "a": "standin", tmp_path / "b": "standin:other"})
    assert len(decoded) == 40


def test_one_store_that_lacks_a_shard_gets_it_and_the_other_is_kept(
    run_all: RunAll, mixed: Source, content: Content, tmp_path: Path
) -> None:
    codecs = {tmp_path / "a": "standin", tmp_path / "b": "standin:other"}
    run_all(mixed, codecs)
    before = {store: content(store) for store in codecs}
    for store in codecs:
        (store / "manifest.json").unlink()
    (tmp_path / "b" / "y_hat/c/2/0").unlink()
    first, second = run_all(mixed, codecs)
    assert (first.encoded, first.reused) == (0, 40)
    assert second.encoded > 0
    assert second.encoded + second.reused == 40
    assert {store: content(store) for store in codecs} == before


def test_a_store_that_is_complete_is_left_alone(
    run: Run, run_all: RunAll, mixed: Source, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "a")
    first, second = run_all(mixed, {tmp_path / "a": "standin", tmp_path / "b": "standin:other"})
    assert first.was_complete
    assert second.encoded == 40


def test_a_codec_with_fewer_channels_gets_the_shards_of_the_other(
    run_all: RunAll, uniform: Source, tmp_path: Path
) -> None:
    stores = {tmp_path / "wide": "standin:wide", tmp_path / "plain": "standin"}
    wide, plain = run_all(uniform, stores, shard_bytes=1 << 12)
    assert wide.store.header.content.channels > plain.store.header.content.channels
    assert wide.store.samples["shard"] == plain.store.samples["shard"]
    for k in (0, 17, 31):
        y_hat = wide.store.read_sample(k)["y_hat"]
        assert (y_hat[..., :6] == plain.store.read_sample(k)["y_hat"]).all()


def test_a_complete_store_is_no_folder_for_others(
    run: Run, run_all: RunAll, mixed: Source, content: Content, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "done.zarr")
    before = content(tmp_path / "done.zarr")
    inside = {tmp_path / "done.zarr" / name: name for name in ("standin", "standin:other")}
    with pytest.raises(StoreError, match=r"is inside"):
        run_all(mixed, inside)
    assert content(tmp_path / "done.zarr") == before


def test_stores_that_were_begun_apart_with_other_images_are_refused(
    run: Run, run_all: RunAll, mixed: Source, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    Image.new("RGB", (90, 90)).save(mixed.folder / "a" / "000.png")
    with pytest.raises(JobError, match="encode them one at a time"):
        run_all(
            open_source(mixed.folder), {tmp_path / "a": "standin", tmp_path / "b": "standin:other"}
        )
