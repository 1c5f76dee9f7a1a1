"""Images that cannot be read, or are not what they were: a status each, and no hang."""

import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.images import read_image
from latentset.pipeline.jobs.tasks import JobResult

Run = Callable[..., JobResult]


def records_of(store: Path) -> list[Path]:
    return sorted(store.with_name(f"{store.name}.job").glob("*/shards/[0-9]*.json"))


def bomb(side: int) -> bytes:
    """A PNG that is small and says that it has side x side pixels."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        )

    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(bytes(100)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, parts))


def test_what_cannot_be_read_gets_a_status_and_holds_up_nothing(
    run: Run, mixed: Source, row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mixed.folder / "a"
    (folder / "bomb.png").write_bytes(bomb(60_000))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    shutil.copy(folder / "000.png", folder / "denied.png")
    shutil.copy(folder / "000.png", folder / "sector.png")
    (folder / "folder.jpg").mkdir()
    names = ["a/000.png", *(f"a/{path.name}" for path in folder.glob("*[a-z].*"))]
    table = "path,label\n" + "".join(f"{name},x\n" for name in names)
    (mixed.folder / "list.csv").write_text(table)
    opened = Path.open

    def open_or_fail(self: Path, *arguments: Any, **more: Any) -> Any:
        if self.name == "denied.png":  # root may read everything
            raise PermissionError(13, "Permission denied")
        if self.name == "sector.png":
            raise OSError(5, "Input/output error")
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", open_or_fail)
    store = run(open_source(mixed.folder / "list.csv"), tmp_path / "store").store
    found = {r["id"]: (r["status"], r["reason"]) for r in store.samples.to_pylist()}
    assert found.pop("a/000.png") == ("ok", "")
    assert {name: status for name, (status, _) in found.items()} == {
        "a/bomb.png": "too_large",
        "a/pipe.jpg": "unreadable",
        "a/loop.jpg": "unreadable",
        "a/denied.png": "unreadable",
        "a/sector.png": "unreadable",
        "a/folder.jpg": "unreadable",
    }
    assert "Permission denied" in found["a/denied.png"][1]
    assert "not a regular file" in found["a/pipe.jpg"][1]


def test_an_image_that_becomes_something_else_after_planning_gets_a_status(
    run: Run, mixed: Source, row: Any, tmp_path: Path
) -> None:
    """Planned, then replaced by a pipe, by a bomb of the same size in bytes."""
    store = tmp_path / "store"
    (mixed.folder / "a" / "big.png").write_bytes(bomb(64) + bytes(10))
    source = open_source(mixed.folder)
    run(source, store)
    for path in records_of(store):
        path.unlink()
    (store / "manifest.json").unlink()
    (mixed.folder / "a" / "000.png").unlink()
    os.mkfifo(mixed.folder / "a" / "000.png")
    (mixed.folder / "a" / "big.png").write_bytes(bomb(60_000) + bytes(10))
    result = run(source, store)
    assert row(result.store, "a/000.png")["status"] == "unreadable"
    assert row(result.store, "a/big.png")["status"] in ("too_large", "changed")


def test_an_image_of_the_same_size_with_other_content_is_recorded_as_it_was_encoded(
    run: Run, standin: Any, row: Any, tmp_path: Path
) -> None:
    """The plan knows sizes only; the digest in the samples table says what was encoded."""
    standin.write_images(tmp_path / "few", ((64, 64),), 4)
    path = tmp_path / "few" / "a" / "x.bmp"
    Image.new("RGB", (64, 64), (10, 20, 30)).save(path)
    source, store = open_source(tmp_path / "few"), tmp_path / "store"
    before = row(run(source, store).store, "a/x.bmp")
    for record in records_of(store):
        record.unlink()
    (store / "manifest.json").unlink()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(path)
    after = row(run(source, store).store, "a/x.bmp")
    assert after["status"] == "ok"
    assert after["source_bytes"] == before["source_bytes"]
    assert after["source_sha256"] == digest_of(path)
    assert after["source_sha256"] != before["source_sha256"]
    expected = standin.StandIn("standin").encode(read_image(path)[None]).y_hat
    sample = run(source, store).store
    number = sample.samples["id"].to_pylist().index("a/x.bmp")
    np.testing.assert_array_equal(sample.read_sample(number)["y_hat"], expected[0])


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
