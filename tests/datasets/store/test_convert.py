"""`latentset convert`: both ways, after a kill, and never over something else."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.location import Folder, open_location
from latentset.datasets.store import Store, layout, open_store
from latentset.datasets.store.convert import compare, convert
from latentset.datasets.store.formats import Format, choose_format
from latentset.datasets.store.verify import verify
from latentset.datasets.store.zarr.writer import shard_objects
from tests.makers.forging import seal
from tests.makers.synthetic import write_synthetic_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Samples of three sizes in several shards, some failed, one whole shard of failures."""
    path = tmp_path_factory.mktemp("source") / "store.zarr"
    return open_store(
        write_synthetic_store(
            path,
            samples=30,
            sizes=((64, 64), (100, 50), (30, 170)),
            failed=(2, 7),
            shard_bytes=1 << 10,
        )
    )


def objects(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def test_there_and_back_is_the_same_byte_for_byte(source: Store, tmp_path: Path) -> None:
    hdf5 = convert(source, Folder(tmp_path / "a.h5"), "hdf5")
    assert hdf5.header == source.header
    assert hdf5.fingerprint == source.fingerprint
    assert hdf5.samples.equals(source.samples)
    back = convert(hdf5, Folder(tmp_path / "b.zarr"), "zarr")
    assert isinstance(source.location, Folder)
    assert objects(tmp_path / "b.zarr") == objects(source.location.path)
    again = convert(back, Folder(tmp_path / "c.h5"), "hdf5")
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    assert again.samples.equals(source.samples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.zarr", "c.h5"]


@pytest.mark.parametrize("name", ["b.zarr", "b.h5"])
def test_shards_of_another_size_hold_the_same(
    source: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SMALL_SHARDS", 2)
    format: Format = "hdf5" if name.endswith("h5") else "zarr"
    larger = convert(source, Folder(tmp_path / name), format, shard_bytes=1 << 14)
    before, after = source.header.layout, larger.header.layout
    assert before.shards > 4 * after.shards > 0
    assert verify(tmp_path / name).outcome == "sound"
    assert larger.fingerprint == source.fingerprint
    moved = ["first_row", "z_first_row", "shard"]
    assert larger.samples.drop_columns(moved).equals(source.samples.drop_columns(moved))
    for k in range(30):
        if k not in (2, 7):
            for array, values in source.read_sample(k).items():
                np.testing.assert_array_equal(larger.read_sample(k)[array], values)
    monkeypatch.undo()
    back = convert(larger, Folder(tmp_path / "c.zarr"), "zarr", shard_bytes=1 << 10)
    assert isinstance(source.location, Folder)
    assert objects(tmp_path / "c.zarr") == objects(source.location.path)
    assert back.samples.equals(source.samples)


def test_shards_of_another_size_on_the_command_line(source: Store, tmp_path: Path) -> None:
    command = ["convert", str(source.location), str(tmp_path / "b.zarr"), "--shard-bytes"]
    done = CliRunner().invoke(app, [*command, "256MiB"])
    assert done.exit_code == 0, done.output
    assert "read back, and equal to it" in done.output
    assert open_store(tmp_path / "b.zarr").header.layout.target_shard_bytes == 256 << 20
    done = CliRunner().invoke(app, [*command, "2GiB"])
    assert done.exit_code == 2
    assert "expected 1MiB to 1GiB, got '2GiB'" in done.output
    done = CliRunner().invoke(app, [*command, "large"])
    assert "expected bytes, for instance 256MiB" in done.output


def test_comparing_finds_one_symbol(source: Store, tmp_path: Path) -> None:
    other = open_store(
        write_synthetic_store(
            tmp_path / "other.zarr",
            samples=30,
            sizes=((64, 64), (100, 50), (30, 170)),
            failed=(2, 7),
            shard_bytes=1 << 10,
            seed=1,
        )
    )
    assert compare(source, other) == ["the headers differ"]
    alike = type(other)(other.location, source.header, source.samples, other.manifest)
    found = compare(source, alike)
    assert "y_hat differs in shard 0" in found
    assert "z_hat differs in shard 3" in found


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_nothing_is_written_over(format: Format, source: Store, tmp_path: Path) -> None:
    target = tmp_path / "target.h5"
    target.write_text("mine")
    with pytest.raises(StoreError, match=r"target\.h5 exists: nothing was changed there"):
        convert(source, Folder(target), format)
    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]
    target.unlink()
    convert(source, Folder(target), format)
    with pytest.raises(StoreError, match=r"target\.h5 exists: nothing was changed there"):
        convert(source, Folder(target), format)


def test_an_unfinished_encode_job_is_left_alone(source: Store, tmp_path: Path) -> None:
    (tmp_path / "store.zarr.job" / "abc").mkdir(parents=True)
    (tmp_path / "store.zarr.job" / "abc" / "plan.json").write_text("{}")
    with pytest.raises(StoreError, match=r"store\.zarr\.job holds abc/plan\.json: nothing"):
        convert(source, Folder(tmp_path / "store.zarr"), "zarr")


def test_the_source_is_no_target(source: Store) -> None:
    assert isinstance(source.location, Folder)
    with pytest.raises(StoreError, match="is the source itself"):
        convert(source, source.location, "zarr")


def test_an_incomplete_source_is_refused(source: Store, tmp_path: Path) -> None:
    incomplete = type(source)(source.location, source.header, source.samples, None)
    with pytest.raises(StoreError, match="is not complete: finish its encode job"):
        convert(incomplete, Folder(tmp_path / "a.h5"), "hdf5")


def test_a_damaged_source_leaves_no_target(tmp_path: Path) -> None:
    path = write_synthetic_store(tmp_path / "s.zarr", samples=8, shard_bytes=1 << 9)
    shard = path / "y_hat" / "c" / "3" / "0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(bytes(content))
    for format, name in (("hdf5", "t.h5"), ("zarr", "t.zarr")):
        with pytest.raises(StoreCorruptError, match=r"y_hat/c/3/0 differs from its sha256"):
            convert(open_store(path), Folder(tmp_path / name), format)  # type: ignore[arg-type]
        assert [found.name for found in tmp_path.iterdir()] == ["s.zarr"]


def test_a_stale_shard_whose_checksums_fit_is_not_copied(
    store: Path,
    tmp_path: Path,
    read_manifest: Callable[[Path], dict[str, Any]],
    write_manifest: Callable[[Path, dict[str, Any]], None],
) -> None:
    opened, manifest = open_store(store), read_manifest(store)
    rows = opened.read_shard(1)
    rows["y_hat"] = rows["y_hat"] + 1
    content = shard_objects(opened.header, 1, rows)["y_hat/c/1/0"]
    (store / "y_hat/c/1/0").write_bytes(content)
    for item in manifest["objects"]:
        if item["path"] == "y_hat/c/1/0":
            item["bytes"] = len(content)
    write_manifest(store, manifest)
    formats: tuple[Format, ...] = ("zarr", "hdf5")
    for format in formats:
        with pytest.raises(StoreCorruptError, match=r"y_hat/c/1/0 differs from its sha256"):
            convert(open_store(store), Folder(tmp_path / format), format)
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


def test_damage_whose_checksum_fits_is_not_copied(source: Store, tmp_path: Path) -> None:
    convert(source, Folder(tmp_path / "s.h5"), "hdf5")
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["y_hat"][3, 1] += 1  # HDF5 writes the chunk's checksum anew
    with pytest.raises(StoreCorruptError, match="is damaged: the file differs from the sha256"):
        convert(open_store(tmp_path / "s.h5"), Folder(tmp_path / "copy"), "zarr")
    # The file's own digest made anew, the manifest's not.
    (tmp_path / "s.h5").write_bytes(seal((tmp_path / "s.h5").read_bytes()))
    with pytest.raises(StoreCorruptError, match="is damaged: y_hat differs from its sha256"):
        convert(open_store(tmp_path / "s.h5"), Folder(tmp_path / "copy"), "zarr")
    assert not (tmp_path / "copy").exists()


def test_what_is_not_ours_is_not_taken_away(source: Store, tmp_path: Path) -> None:
    def fail(what: str, done: int, total: int) -> None:
        if what == "converting" and done == 2:
            (tmp_path / "t" / "y_hat" / "mine").write_text("mine")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, Folder(tmp_path / "t"), "zarr", fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "t/y_hat/mine"]


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_two_at_once(format: Format, source: Store, tmp_path: Path) -> None:
    target = Folder(tmp_path / "t")

    def second(what: str, done: int, total: int) -> None:
        if what == "converting" and done == 1:
            with pytest.raises(StoreError, match=r"another latentset convert is at work on .*/t"):
                convert(source, target, format)

    assert compare(source, convert(source, target, format, second)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_target_inside_a_store(source: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is inside the store"):
        convert(source, source.location / "sub", "zarr")
    with pytest.raises(StoreError, match="is inside the store"):
        convert(source, source.location / "sub.h5", "hdf5")


def test_the_source_by_another_name(source: Store, tmp_path: Path) -> None:
    assert isinstance(source.location, Folder)
    path = source.location.path
    (tmp_path / "link.zarr").symlink_to(path)
    for name in (tmp_path / "link.zarr", path.parent / "nonexistent" / ".." / path.name):
        for target in (open_location(name), Folder(name)):
            with pytest.raises(StoreError, match="is the source itself"):
                convert(source, target, "zarr")


def test_a_link_to_a_target_stays_one(source: Store, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.h5").symlink_to(tmp_path / "disk" / "b.h5")
    convert(source, open_location(tmp_path / "a.h5"), "hdf5")
    assert (tmp_path / "a.h5").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["b.h5"]


KILLED = """
import os, signal, sys
from pathlib import Path
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.storage.location import Folder
source, target, format, stage, at = sys.argv[1:]
def report(what, done, total):
    if what == stage and done == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
convert(open_store(source), Folder(Path(target)), format, report)
"""


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
@pytest.mark.parametrize(("stage", "at"), [("converting", 2), ("comparing", 1)])
def test_after_a_kill_the_same_command_works(
    format: Format, stage: str, at: int, source: Store, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    assert isinstance(source.location, Folder)
    program = [sys.executable, "-c", KILLED, str(source.location.path), str(target)]
    done = subprocess.run([*program, format, stage, str(at)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "target.job" / "conversion.json").is_file()
    other: Format = "hdf5" if format == "zarr" else "zarr"
    with pytest.raises(StoreError, match="is what another conversion started"):
        convert(source, Folder(target), other)
    written = convert(source, Folder(target), format)
    assert compare(source, written) == []
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    if format == "zarr":
        assert objects(target) == objects(source.location.path)


def test_the_command(source: Store, tmp_path: Path) -> None:
    assert isinstance(source.location, Folder)
    run = CliRunner().invoke
    first = run(app, ["convert", str(source.location.path), str(tmp_path / "a.h5")])
    assert first.exit_code == 0, first.output
    assert "30 samples in" in first.output
    assert "read back, and equal to it" in first.output
    assert (tmp_path / "a.h5").read_bytes()[512:520] == b"\x89HDF\r\n\x1a\n"
    second = run(app, ["convert", str(tmp_path / "a.h5"), str(tmp_path / "b")])
    assert second.exit_code == 0, second.output
    assert objects(tmp_path / "b") == objects(source.location.path)
    third = run(app, ["convert", str(tmp_path / "b"), str(tmp_path / "c"), "--format", "hdf5"])
    assert third.exit_code == 0, third.output
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a.h5").read_bytes()


@pytest.mark.parametrize("name", ["c.tfrecord", "c.ZIP", "c.hdf", "c.tar.gz", "c.npz"])
def test_endings_of_other_formats_are_refused(name: str, source: Store, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(source.location), str(tmp_path / name)])
    assert isinstance(result.exception, StoreError)
    assert "there are two: Zarr (such as NAME.zarr) and HDF5" in str(result.exception)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "wanted", "chosen"),
    [
        ("store", None, "zarr"),
        ("store.v2", None, "zarr"),
        ("store-1.0", None, "zarr"),
        ("a.zarr", None, "zarr"),
        ("a.H5", None, "hdf5"),
        ("a.hdf5", None, "hdf5"),
        ("a.zip", "zarr", "zarr"),
        ("a.nc", "hdf5", "hdf5"),
    ],
)
def test_the_name_chooses_the_format(
    name: str, wanted: Format | None, chosen: str, tmp_path: Path
) -> None:
    assert choose_format(open_location(tmp_path / name), wanted) == chosen
