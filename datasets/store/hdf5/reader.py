"""Opening a store that is one HDF5 file (docs/store-spec.md, 8).

Nothing in the file is followed out of it or believed about sizes: links, external and virtual
storage, other filters and chunks beyond the end of the file are refused before memory is taken.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.storage.folder import unreachable
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.hdf5.chunks import ChunkedDataset
from latentset.datasets.store.hdf5.table import SAMPLES_GROUP, read_samples
from latentset.datasets.store.hdf5.writer import (
    MANIFEST_ATTRIBUTE,
    USER_BLOCK,
    array_dtype,
    array_grid,
    user_block,
)
from latentset.datasets.store.header import (
    ATTRIBUTE,
    ArrayName,
    FormatVersion,
    Header,
    Sha256,
    parse_header,
)
from latentset.datasets.store.manifest import Manifest, count_samples, parse_manifest
from latentset.datasets.store.objects import describe_object
from latentset.datasets.store.reader import Store
from latentset.datasets.store.samples import SAMPLES, check_samples, samples_schema

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""First bytes of the HDF5 part of a file."""

HDF5_VERSIONS: tuple[FormatVersion, ...] = ("1.0", "1.1", "1.2")
"""The versions of docs/store-spec.md in which a store may be an HDF5 file."""

MAX_TEXT_BYTES = 1 << 26
"""Longest header or manifest that is read. ImageNet's manifest has about half a megabyte."""


class Hdf5Array:
    """An array of a store, as ``Store.array`` gives it: rows by slices.

    Args:
        dataset: The array in the file, (channels, rows).
    """

    def __init__(self, dataset: ChunkedDataset) -> None:
        self._dataset = dataset
        self.shape = (dataset.shape[1], dataset.shape[0])
        self.dtype = dataset.dtype.newbyteorder("=")

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read rows (rows, channels); StoreCorruptError where a chunk differs from its checksum."""
        first, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"expected a slice without step, got {rows}")
        values = np.empty((self.shape[1], max(0, stop - first)), self._dataset.dtype)
        self._dataset.read_into(values, first)
        return values.T


class Hdf5Store(Store):
    """A store that is one HDF5 file. It is always complete: the file appears when it is."""

    format = "hdf5"

    @property
    def path(self) -> Path:
        """The file."""
        if not isinstance(self.location, Folder):
            raise TypeError(f"expected a file, got {self.location}")
        return self.location.path

    def array(self, name: ArrayName) -> Hdf5Array:
        """Open an array."""
        return Hdf5Array(self.dataset(name))

    def dataset(self, name: ArrayName) -> ChunkedDataset:
        """Find an array in the file.

        Args:
            name: One of the header's ``arrays``.

        Returns:
            The array (channels, rows), which may be read by several threads at a time. It is kept:
            finding the chunks of a large array takes seconds.

        Raises:
            StoreError: The store has no such array.
            StoreCorruptError: It is not what the header says.
        """
        shape, chunk = array_grid(self.header, name, self.header.layout.shards)
        self.shape(name)
        if name not in self._datasets:
            with open_file(self.path) as file:
                self._datasets[name] = ChunkedDataset(
                    file, name, self.path, shape, chunk, array_dtype(name)
                )
        return self._datasets[name]

    @cached_property
    def _datasets(self) -> dict[ArrayName, ChunkedDataset]:
        return {}

    def stored_bytes(self) -> dict[str, int]:
        """Bytes of the stored chunks, as the manifest lists them."""
        stored: Counter[str] = Counter()
        for item in self.manifest.objects if self.manifest else ():
            group = item.path.partition("/")[0]
            stored[SAMPLES if group == SAMPLES_GROUP else group] += item.bytes
        return dict(stored)


def open_hdf5(location: Folder) -> Hdf5Store:
    """Open a store's file for reading.

    Checked are the user block, the size, the header's digest, the manifest's own, and that the
    samples lie inside the arrays. All chunks and all of HDF5's metadata carry checksums, which are
    checked when they are read; the digest of the whole file is for ``latentset verify``.

    Args:
        location: Where the file lies.

    Returns:
        The store.

    Raises:
        StoreFormatError: It is no store, or of a version that this reader does not know.
        StoreCorruptError: It was altered or cut off.
    """
    path = location.path
    read_user_block(path)
    header, manifest = read_texts(path)
    return Hdf5Store(location, header, read_table(path, header, manifest), manifest)


def read_texts(path: Path) -> tuple[Header, Manifest]:
    """Read header and manifest, and check their digests.

    Args:
        path: The file.

    Returns:
        Both.

    Raises:
        StoreFormatError: The header is of a version that this reader does not know.
        StoreCorruptError: They were altered.
    """
    with open_file(path) as file:
        text = _read_attribute(file, ATTRIBUTE, path)
        manifest = parse_manifest(_read_attribute(file, MANIFEST_ATTRIBUTE, path), str(path))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreCorruptError(f"{path}: its header is no JSON: {error}") from error
    header = parse_header(value, str(path))
    _check_manifest(path, header, manifest, text)
    return header, manifest


def read_table(path: Path, header: Header, manifest: Manifest) -> pa.Table:
    """Read the samples table and check that it fits.

    Args:
        path: The file.
        header: The store's header.
        manifest: Its manifest.

    Returns:
        A table of ``samples_schema``.

    Raises:
        StoreCorruptError: It was altered, or does not fit.
    """
    with open_file(path) as file:
        samples = read_samples(file, header, path)
    check_samples(samples, header, str(path))
    counted = count_samples(samples)
    if counted != manifest.samples:
        raise StoreCorruptError(
            f"{path}: {SAMPLES_GROUP}: expected {manifest.samples} (as the manifest says), got "
            f"{counted}"
        )
    return samples


def read_user_block(path: Path) -> Sha256:
    """Read the user block and compare the file's size with it.

    Args:
        path: The file.

    Returns:
        The digest that everything after the user block has.

    Raises:
        StoreFormatError: The file is no store.
        StoreCorruptError: It was altered or cut off.
        StoreUnreachableError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            block = file.read(USER_BLOCK + len(SIGNATURE))
        size = path.stat().st_size
    except OSError as error:
        raise unreachable(path, error) from error
    block, signature = block[:USER_BLOCK], block[USER_BLOCK:]
    try:
        line = json.loads(block.split(b"\n")[0])
        if line["format"] != "latentset-hdf5":
            raise ValueError("another format")
        version, expected, sha256 = line["format_version"], line["bytes"], line["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        if signature == SIGNATURE:  # a user block of this length is rare elsewhere
            raise StoreCorruptError(
                f"{path}: its first {USER_BLOCK} bytes were altered, or it is not a LatentSet store"
            ) from error
        raise StoreFormatError(
            f"{path} is not a LatentSet store: expected an HDF5 file that begins with a line of "
            '{"format": "latentset-hdf5", …}; look at the spelling, or it was altered'
        ) from error
    if version not in HDF5_VERSIONS:
        raise StoreFormatError(
            f"{path}: format_version: expected {' or '.join(HDF5_VERSIONS)}, got "
            f"{version!r:.80}; read it with a LatentSet that knows it"
        )
    if size != expected:
        raise StoreCorruptError(
            f"{path}: expected {expected!r:.80} bytes, as its first line says, got {size}: it was "
            "cut off or altered"
        )
    if block != user_block(size, sha256, version) or signature != SIGNATURE:
        raise StoreCorruptError(f"{path}: its first {USER_BLOCK} bytes were altered")
    return str(sha256)


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file with HDF5, and word its errors, those inside the block too.

    Args:
        path: The file.

    Yields:
        The file.

    Raises:
        StoreCorruptError: HDF5 cannot read it.
    """
    try:
        # A finished store does not change: no lock is needed, and some file systems have none.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except StoreError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise StoreCorruptError(f"{path}: HDF5 cannot read it: {error}. It was altered") from error


def _read_attribute(file: h5py.File, name: str, path: Path) -> bytes:
    """Read a text from the root group's attributes."""
    try:
        attribute = h5py.h5a.open(file.id, name.encode())
        kind = attribute.get_type()
        if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
            raise ValueError("expected a text of fixed length")
        size = int(kind.get_size())
        if attribute.shape != () or size > min(MAX_TEXT_BYTES, path.stat().st_size):
            raise ValueError(f"expected one text that fits into the file, got {size} bytes")
        value = np.empty((), f"S{size}")
        attribute.read(value, mtype=kind)
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise StoreCorruptError(
            f"{path}: attribute {name!r} cannot be read: {error}. The file was altered"
        ) from error
    return bytes(value[()])


def _check_manifest(path: Path, header: Header, manifest: Manifest, header_text: bytes) -> None:
    if header.layout.shards != len(manifest.shards):
        raise StoreCorruptError(
            f"{path}: its manifest: expected {header.layout.shards} shards (the header's "
            f"layout.shards), got {len(manifest.shards)}"
        )
    columns = [f"{SAMPLES_GROUP}/{name}" for name in samples_schema(header).names]
    expected = sorted([ATTRIBUTE, *header.arrays, *columns])
    found = [item.path for item in manifest.objects]
    if found != expected:
        raise StoreCorruptError(
            f"{path}: its manifest: expected objects {', '.join(expected)}, got {', '.join(found)}"
        )
    if describe_object(ATTRIBUTE, header_text) not in manifest.objects:
        raise StoreCorruptError(f"{path}: its header differs from its sha256 in the manifest")
