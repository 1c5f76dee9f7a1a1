"""HDF5 files that somebody altered on purpose, their digests made to agree: refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.contents import contents_of
from latentset.datasets.store.convert import convert
from latentset.datasets.store.hdf5.writer import encode_shard, write_hdf5
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """8 samples of 64x64 pixels in 7 shards, one failed."""
    made = write_synthetic_store(tmp_path / "s.zarr", samples=8, failed=(3,), shard_bytes=1 << 9)
    path = tmp_path / "store.h5"
    convert(open_store(made), Folder(path), "hdf5")
    return path


def seal(path: Path) -> None:
    """Write the user block by the words of the specification, as a forger would."""
    content = path.read_bytes()
    line = {
        "format": "latentset-hdf5",
        "format_version": "1.0",
        "bytes": len(content),
        "sha256": hashlib.sha256(content[512:]).hexdigest(),
    }
    path.write_bytes((json.dumps(line) + "\n").encode().ljust(512, b"\0") + content[512:])


def alter(path: Path, change: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "r+", libver=("v110", "v110")) as opened:
        change(opened)
    seal(path)
    return path


def replace(name: str, make: Callable[[h5py.File, Any], object]) -> Callable[[h5py.File], None]:
    """Put something else in the place of a dataset."""

    def change(opened: h5py.File) -> None:
        values = opened[name][...]
        del opened[name]
        make(opened, values)

    return change


GOOD = {"compression": "gzip", "compression_opts": 4}

FORGERIES: dict[str, tuple[str, Callable[[h5py.File], object]]] = {
    "a soft link": (
        "got a link",
        replace("y_hat", lambda f, v: f.__setitem__("y_hat", h5py.SoftLink("/scale_index"))),
    ),
    "an external link": (
        "got a link",
        replace("y_hat", lambda f, v: f.__setitem__("y_hat", h5py.ExternalLink("/etc/x", "/y"))),
    ),
    "contiguous": (
        "expected chunks inside the file",
        replace("y_hat", lambda f, v: f.create_dataset("y_hat", data=v)),
    ),
    "external storage": (
        r"expected no links, types or attributes but those of the writer \(HDF5's message 7\)",
        replace(
            "y_hat",
            lambda f, v: f.create_dataset(
                "y_hat", v.shape, v.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            ),
        ),
    ),
    "a virtual dataset": (
        "expected chunks inside the file",
        replace(
            "y_hat",
            lambda f, v: f.create_virtual_dataset("y_hat", h5py.VirtualLayout(v.shape, v.dtype)),
        ),
    ),
    "another filter": (
        r"filters deflate and fletcher32: expected .*, got \[32000, 3\]",
        replace(
            "y_hat",
            lambda f, v: f.create_dataset(
                "y_hat", data=v, chunks=(8, 16), compression="lzf", fletcher32=True
            ),
        ),
    ),
    "other chunks": (
        r"chunks: expected \(8, 16\), got \(8, 32\)",
        replace("y_hat", lambda f, v: _create(f, v, (8, 32))),
    ),
    "another shape": (
        r"shape: expected \(8, \d+\), got \(8, 1000000\)",
        replace("y_hat", lambda f, v: _create(f, v, (8, 16), (8, 10**6))),
    ),
    "another type": (
        "expected int16, got int64",
        replace("y_hat", lambda f, v: _create(f, v.astype("<i8"), (8, 16))),
    ),
    "the other byte order": (
        "expected int16, got >i2",
        replace("y_hat", lambda f, v: _create(f, v.astype(">i2"), (8, 16))),
    ),
    "a group": (
        "cannot be opened|expected",
        replace("y_hat", lambda f, v: f.create_group("y_hat")),
    ),
    "missing chunks": (
        "chunks are missing",
        replace("y_hat", lambda f, v: _create(f, v[:, :16], (8, 16), v.shape)),
    ),
}


def _create(
    opened: h5py.File,
    values: Any,
    chunks: tuple[int, ...],
    shape: tuple[int, ...] | None = None,
) -> None:
    """A dataset with the right filters in the right order."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk(chunks)
    settings.set_deflate(4)
    settings.set_fletcher32()
    space = h5py.h5s.create_simple(shape or values.shape)
    kind = h5py.h5t.py_create(values.dtype)
    dataset = h5py.Dataset(h5py.h5d.create(opened.id, b"y_hat", kind, space, settings))
    if shape is None:
        dataset[...] = values
    else:
        dataset[tuple(slice(n) for n in values.shape)] = values


def test_an_index_of_another_kind_is_not_walked(file: Path) -> None:
    """The old B-tree, here with a circle in it: HDF5 would run into it until its stack ends."""
    with h5py.File(file, "r+") as opened:
        values = opened["y_hat"][...]
        del opened["y_hat"]
        _create(opened, np.tile(values, 100), (8, 16))
    content = bytearray(file.read_bytes())
    node = content.index(b"TREE\x01\x01")  # of chunks; its level is 1: beneath are nodes
    first_child = node + 24 + 32
    content[first_child : first_child + 8] = (node - 512).to_bytes(8, "little")
    file.write_bytes(content)
    seal(file)
    with pytest.raises(StoreError, match=r"expected .* HDF5 1\.10"):
        open_store(file).array("y_hat")
    assert verify(file).outcome == "damaged"


def test_a_group_of_another_kind_is_not_walked(file: Path) -> None:
    with h5py.File(file, "r+", libver="earliest") as opened:
        opened.move("samples", "others")
        group = opened.create_group("samples")
        for name in opened["others"]:
            opened.copy(opened["others"][name], group, name)
        del opened["others"]
    seal(file)
    with pytest.raises(StoreError, match=r"expected an object as HDF5 1\.10"):
        open_store(file)
    assert verify(file).outcome == "damaged"


@pytest.mark.parametrize("first", range(0, 44, 3))
def test_a_superblock_that_was_altered(file: Path, first: int) -> None:
    content = bytearray(file.read_bytes())
    content[512 + first] ^= 0xFF
    file.write_bytes(content)
    seal(file)
    with pytest.raises(StoreError):
        open_store(file)
    assert verify(file).outcome != "sound"


def test_a_circle_of_continuations_has_an_end(file: Path) -> None:
    content = bytearray(file.read_bytes())
    block = content.index(b"OCHK") - 512
    at = content.index(block.to_bytes(8, "little"))  # the message that leads there
    size = int.from_bytes(content[at + 8 : at + 16], "little")
    content[512 + block + 4 : 512 + block + 24] = (
        bytes([16, 16, 0, 0]) + block.to_bytes(8, "little") + size.to_bytes(8, "little")
    )
    file.write_bytes(content)
    seal(file)
    with pytest.raises(StoreCorruptError, match="its object header has no end"):
        open_store(file)


def test_a_table_of_many_rows_and_few_bytes_is_refused(file: Path, tmp_path: Path) -> None:
    opened = open_store(file)
    contents = contents_of(opened)
    source = contents.header.source.model_copy(update={"samples": 2_000_000})
    header = contents.header.model_copy(update={"source": source})
    write_hdf5(
        tmp_path / "swollen.h5",
        header,
        (encode_shard(header, contents.read_shard(k)) for k in range(len(contents.shards))),
        fingerprint=opened.fingerprint,
        samples=contents.samples,
        summaries=contents.shards,
    )
    with pytest.raises(StoreCorruptError, match=r"expected at most 32 times its .* in memory"):
        open_store(tmp_path / "swollen.h5")


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_arrays_are_refused(what: str, file: Path) -> None:
    message, change = FORGERIES[what]
    store = open_store(alter(file, change))
    with pytest.raises(StoreError, match=message):
        store.array("y_hat")


def test_a_chunk_beyond_the_file_is_refused(file: Path) -> None:
    # The index of chunks says where each lies; here it says so of a file that lost its end.
    content = file.read_bytes()
    with h5py.File(file) as opened:
        size = opened["y_hat"].shape[1]
    assert size
    file.write_bytes(content[: len(content) // 2])
    seal(file)
    with pytest.raises(StoreError):
        open_store(file).array("y_hat")


@pytest.mark.parametrize("name", ["latentset", "manifest"])
def test_texts_of_variable_length_are_refused(name: str, file: Path) -> None:
    def change(opened: h5py.File) -> None:
        text = bytes(opened.attrs[name]).decode()
        del opened.attrs[name]
        opened.attrs[name] = text

    with pytest.raises(StoreCorruptError, match=f"'{name}' cannot be read: expected a text of fix"):
        open_store(alter(file, change))


def test_another_header_is_refused(file: Path) -> None:
    def change(opened: h5py.File) -> None:
        text = bytes(opened.attrs["latentset"]).replace(b'"synthetic"', b'"something"')
        opened.attrs["latentset"] = np.bytes_(text)

    with pytest.raises(StoreCorruptError, match="its header differs from its sha256"):
        open_store(alter(file, change))


@pytest.mark.parametrize(
    ("column", "message"),
    [("id", "expected strings of fixed length"), ("label", "expected int32, got")],
)
def test_a_column_of_another_type_is_refused(column: str, message: str, file: Path) -> None:
    def change(opened: h5py.File) -> None:
        del opened["samples"][column]
        opened["samples"].create_dataset(
            column, (8,), h5py.string_dtype(), chunks=(8,), compression="gzip"
        )

    with pytest.raises(StoreCorruptError, match=message):
        open_store(alter(file, change))


def test_a_column_that_is_a_link_is_refused(file: Path) -> None:
    def change(opened: h5py.File) -> None:
        del opened["samples"]
        opened["samples"] = h5py.ExternalLink("/etc/passwd", "/")

    with pytest.raises(StoreCorruptError, match="group 'samples': it is a link"):
        open_store(alter(file, change))


def test_an_hdf5_file_of_somebody_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as opened:
        opened["x"] = 1
    with pytest.raises(StoreFormatError, match="not a LatentSet store: expected an HDF5 file that"):
        open_store(tmp_path / "other.h5")


def test_another_format_version_is_refused(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"format_version": "1.0"', b'"format_version": "7.0"', 1))
    with pytest.raises(StoreFormatError, match=r"expected 1\.0 or 1\.1 or 1\.2, got '7\.0'"):
        open_store(file)
