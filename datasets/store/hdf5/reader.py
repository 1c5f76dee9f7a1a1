"""Opening a store that is one HDF5 file (docs/store-spec.md, 8).

Nothing in the file is followed out of it or believed about sizes: links, external and virtual
storage, other filters and chunks beyond the end of the file are refused before memory is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError, expect
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.consistency import refuse_inconsistent
from latentset.datasets.store.digests import (
    BackgroundCheck,
    check_in_background,
    describe_object,
)
from latentset.datasets.store.hdf5.chunks import ChunkedDataset, array_dtype
from latentset.datasets.store.hdf5.metadata import (
    MANIFEST_ATTRIBUTE,
    check_file_digest,
    read_attribute,
    read_user_block,
)
from latentset.datasets.store.hdf5.object_headers import STRUCTURE_ERRORS, check_root, read_parts
from latentset.datasets.store.hdf5.table import read_samples
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header, parse_header, parse_object
from latentset.datasets.store.manifest import Manifest, parse_manifest
from latentset.datasets.store.samples import SAMPLES_GROUP, check_samples, samples_schema
from latentset.datasets.store.store import Store


class Hdf5Array:
    """An array of a store, as ``Store.array`` gives it: rows by slices."""

    def __init__(self, dataset: ChunkedDataset) -> None:
        self._dataset = dataset  # (channels, rows)
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

    def check_ahead(
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> AbstractContextManager[BackgroundCheck]:
        """Compare the whole file with its digest, as Store has it."""
        wanted = bool(first_rows.size) and not self._is_sound
        return check_in_background([self._check_digest] if wanted else [])

    def _check_digest(self) -> None:
        with reading(self.path):
            check_file_digest(self.path)
        self._is_sound = True

    def array(self, name: ArrayName) -> Hdf5Array:
        """Open an array."""
        return Hdf5Array(self.dataset(name))

    def open_rows(self, name: ArrayName) -> ChunkedDataset:
        """Open an array, without the HDF5 library."""
        return self.dataset(name)

    def dataset(self, name: ArrayName) -> ChunkedDataset:
        """Find an array in the file, (channels, rows), for several threads at a time.

        It is kept: finding the chunks of a large array takes seconds. Raises as :meth:`array` does.
        """
        shape, chunk = self.shape(name)[::-1], array_form(self.header, name).chunk_rows
        if name not in self._datasets:
            with open_file(self.path) as file:
                self._datasets[name] = ChunkedDataset(
                    file, name, self.path, shape, chunk, array_dtype(name)
                )
        return self._datasets[name]

    @cached_property
    def _is_sound(self) -> bool:
        """Whether the file was compared with its digest."""
        return False

    @cached_property
    def _datasets(self) -> dict[ArrayName, ChunkedDataset]:
        return {}


def open_hdf5(location: Folder) -> Hdf5Store:
    """Open a store's file for reading; raises as ``open_store`` does.

    Checked are the user block, the size, the header's digest, the manifest's own, and that the
    samples are inside the arrays. All chunks and all of HDF5's metadata carry checksums, which are
    checked when they are read; the digest of the whole file is for ``latentset verify``.
    """
    path = location.path
    read_user_block(path)
    header, manifest = read_texts(path)
    samples = read_table(path, header)
    refuse_inconsistent(samples, header, manifest, str(path))
    return Hdf5Store(location, header, samples, manifest)


def read_texts(path: Path) -> tuple[Header, Manifest]:
    """Read header and manifest, and check their digests; raises as ``open_hdf5``."""
    with open_file(path) as file:
        text = read_attribute(file, ATTRIBUTE, path)
        manifest = parse_manifest(read_attribute(file, MANIFEST_ATTRIBUTE, path), str(path))
    header = parse_header(parse_object(text, f"{path}: its header"), str(path))
    what = f"{path}: its manifest"
    expect(f"{what}: shards (layout.shards)", header.layout.shards, len(manifest.shards))
    columns = [f"{SAMPLES_GROUP}/{name}" for name in samples_schema(header).names]
    expected = sorted([ATTRIBUTE, *header.arrays, *columns])
    expect(f"{what}: objects", expected, list(manifest.listed))
    if describe_object(ATTRIBUTE, text) not in manifest.objects:
        raise StoreCorruptError(f"{path}: its header differs from its sha256 in the manifest")
    return header, manifest


def read_table(path: Path, header: Header) -> pa.Table:
    """Read the samples table; StoreCorruptError if it was altered, or does not fit."""
    with open_file(path) as file:
        samples = read_samples(file, header, path)
    check_samples(samples, header, f"{path}: {SAMPLES_GROUP}")
    return samples


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file; HDF5's errors, those inside the block too, become StoreCorruptErrors."""
    try:
        with read_parts(path) as read:
            check_root(read, str(path))
        # A finished store does not change: no lock is needed, and some file systems have none.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except StoreError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, *STRUCTURE_ERRORS) as error:
        raise StoreCorruptError(f"{path}: HDF5 cannot read it: {error}. It was altered") from error
