"""A store that was opened for reading: what its two formats have in common."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage.access import unreachable
from latentset.datasets.storage.location import Location
from latentset.datasets.store.arrays import DTYPES, array_form
from latentset.datasets.store.digests import BackgroundCheck, sha256_of
from latentset.datasets.store.formats import Format
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.samples import OK, SAMPLES, SAMPLES_GROUP
from latentset.datasets.store.scales import scale_indexes

READ_THREADS = min(4, len(os.sched_getaffinity(0)))
"""Threads of one ``Store.read``."""

Grids = NDArray[Any] | list[NDArray[Any]]
"""Of many samples: one array (N, h, w, channels), or one (h, w, channels) each if sizes differ."""

_SIDES = ("height", "width")


class RowReader(Protocol):
    """An array of a store. Several threads may read it, also in a process that was forked."""

    def read_into(self, target: NDArray[Any], first: int) -> None:
        """Fill ``target`` (channels, rows) from row ``first`` on."""


@dataclass(frozen=True, repr=False)
class Store(ABC):
    """A store that was opened for reading: a sequence of the samples of its samples table."""

    location: Location
    header: Header
    samples: pa.Table
    """One row a sample (docs/store-spec.md, 5); empty in an incomplete store."""
    manifest: Manifest | None
    """None in an incomplete store."""

    format: ClassVar[Format]

    @property
    def fingerprint(self) -> str:
        """Identifies the settings that it was made with; empty in an incomplete store."""
        return self.manifest.fingerprint if self.manifest else ""

    @property
    def manifest_sha256(self) -> str:
        """Digest of the manifest, which names everything else; empty in an incomplete store."""
        return sha256_of(self.manifest.to_bytes()) if self.manifest else ""

    def shape(self, name: ArrayName) -> tuple[int, int]:
        """(rows, channels) of an array by the header; StoreError if the store has no such array."""
        if name not in self.header.arrays:
            raise StoreError(
                f"{self.location} has no array {name!r}; it has {', '.join(self.header.arrays)}"
            )
        return array_form(self.header, name).shape

    @abstractmethod
    def array(self, name: ArrayName) -> Any:
        """Open an array for reading, slowly; :meth:`read` is fast.

        Returns something with ``shape`` (rows, channels), ``dtype``, and slices that are NumPy
        arrays.

        Raises:
            StoreError: The store has no such array.
            StoreCorruptError: Its metadata differs from the header.
        """

    def reserve(  # noqa: B027 (most stores have no cache)
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> None:
        """Make room for the shards of rows, where the store has a cache.

        StoreError if they and what was reserved before do not fit.
        """

    def fetch_ahead(
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> AbstractContextManager[None]:
        """Fetch the shards of rows, in this order, in the background, until the context ends.

        Of a store that has a cache; raises as :meth:`reserve`.
        """
        return nullcontext()

    def fetch_rows(  # noqa: B027 (most stores have no cache)
        self, names: Sequence[ArrayName], first_rows: Sequence[int]
    ) -> None:
        """Fetch the shards of rows before they are read, where the store has a cache."""

    def repair(self, names: Sequence[ArrayName], first_rows: Sequence[int]) -> bool:
        """Fetch again which of the shards of rows differ from their digests in the cache.

        False where the store has no cache.
        """
        return False

    def check_ahead(
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> AbstractContextManager[BackgroundCheck]:
        """Compare the shards of rows with their digests, in the background, each of them once.

        Of Zarr objects in a folder, or an HDF5 file, whole; a cache compares what it fetches.
        """
        return nullcontext(BackgroundCheck())

    @abstractmethod
    def open_rows(self, name: ArrayName) -> RowReader:
        """Open an array for reading many samples; raises as :meth:`array` does."""

    def __repr__(self) -> str:
        what = "images" if self.header.codec is None else self.header.codec.name
        return f"<{type(self).__name__} {self.location}: {len(self):,} samples, {what}>"

    def __len__(self) -> int:
        """Samples, also those that could not be encoded."""
        return int(self.samples.num_rows)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample: by array, (h, w, channels), values as :meth:`read` gives them."""
        return {name: grids[0] for name, grids in self.read([index]).items()}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what the store is, without its open arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """(height, width) of the grid of every encoded sample; None where sizes differ."""
        encoded, columns = self.indices(), self._columns
        heights, widths = (set(columns[f"latent_{s}"][encoded].tolist()) for s in _SIDES)
        return (heights.pop(), widths.pop()) if len(heights) == len(widths) == 1 else None

    def indices(self, split: str | None = None) -> NDArray[np.int64]:
        """Rows of the samples table that were encoded, ascending; of one split, or of all.

        StoreError if the store has no such split.
        """
        wanted = pc.equal(self.samples["status"], OK)
        if split is not None:
            known = pc.unique(self.samples["split"]).to_pylist()
            if split not in known:
                raise StoreError(f"{self.location}: expected a split of {known}, got {split!r}")
            wanted = pc.and_(wanted, pc.equal(self.samples["split"], split))
        return np.flatnonzero(wanted.to_numpy())

    def read(self, indices: ArrayLike, arrays: Sequence[str] | None = None) -> dict[str, Any]:
        """Read many samples, by their rows in the samples table, in the order of ``indices``.

        ``arrays`` are some of those of :meth:`read_sample`, by default all.

        Returns:
            By array, one NumPy array (N, h, w, channels) where all samples of the store have one
            size (see :attr:`grid`), else a list of N arrays (h, w, channels). Values and types are
            those of :meth:`read_sample`.

        Raises:
            StoreError: A sample has no latents, or the store no such array.
            StoreCorruptError: A chunk is missing, or does not match its checksum.
            StoreUnreachableError: An object cannot be read.
        """
        tables = self._scale_tables
        known = list(dict.fromkeys([*self.header.arrays, *tables]))
        wanted = known if arrays is None else arrays
        if unknown := [name for name in wanted if name not in known]:
            raise StoreError(
                f"{self.location} has no array {unknown[0]!r}; it has {', '.join(known)}"
            )
        found: dict[str, Any] = {}
        stored = self.read_stored(indices, "scale_index") if tables.keys() & wanted else None
        for name in wanted:
            if stored is None or name not in tables:
                found[name] = self.read_stored(indices, cast("ArrayName", name))
            elif isinstance(stored, list):
                found[name] = [self._look_up(tables[name], numbers) for numbers in stored]
            else:
                found[name] = self._look_up(tables[name], stored)
        return found

    @cached_property
    def _scale_tables(self) -> dict[str, NDArray[Any]]:
        """By array, what the numbers that are stored in ``scale_index`` stand for; of latents."""
        codec = self.header.codec
        if codec is None or "scale_index" not in self.header.arrays:
            return {}
        scales = np.asarray(codec.scale_table, np.float32)
        return {"scale_index": scale_indexes(codec), "sigma_hat": scales}

    def read_stored(self, indices: ArrayLike, name: ArrayName) -> Grids:
        """Read one array of many samples, its values as they are stored; raises as :meth:`read`."""
        array = self._open_rows(name)
        rows = self._rows_of(indices)
        columns, channels = self._columns, self.shape(name)[1]
        self.fetch_rows((name,), columns["first_row"][rows].tolist())
        firsts = columns["z_first_row" if name == "z_hat" else "first_row"][rows]
        sizes = columns["latent_height"][rows], columns["latent_width"][rows]
        shared = self.grid
        if name == "z_hat":
            sizes = self.header.content.z_grid(*sizes)
            shared = shared and self.header.content.z_grid(*shared)
        grids: Any
        if shared:  # channel by channel, as chunks are stored
            block = np.empty((len(rows), channels, shared[0] * shared[1]), DTYPES[name])
            targets = list(block)
            grids = block.reshape(len(rows), channels, *shared).transpose(0, 2, 3, 1)
        else:
            pairs = [(int(h), int(w)) for h, w in zip(*sizes, strict=True)]
            targets = [np.empty((channels, h * w), DTYPES[name]) for h, w in pairs]
            grids = [
                target.reshape(channels, h, w).transpose(1, 2, 0)
                for target, (h, w) in zip(targets, pairs, strict=True)
            ]

        def fill(part: NDArray[np.int64]) -> None:
            for k in part.tolist():
                try:
                    array.read_into(targets[k], int(firsts[k]))
                except StoreUnreachableError:
                    raise
                except (StoreCorruptError, OSError, ValueError, RuntimeError) as error:
                    raise self._unreadable(name, int(rows[k]), error) from error

        # Neighbours on the disk one after the other.
        parts = np.array_split(np.argsort(firsts, kind="stable"), READ_THREADS)
        with ThreadPoolExecutor(READ_THREADS, "latentset-read") as pool:
            list(pool.map(fill, parts))
        return cast("Grids", grids)

    def _rows_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Rows of the samples table, from 0 on; StoreError if one was not encoded."""
        wanted = np.asarray(indices)
        if wanted.ndim != 1:
            raise IndexError(f"indices: expected one dimension, got the shape {wanted.shape}")
        wanted = wanted if wanted.size else wanted.astype(np.int64)  # [] has no integers
        rows: NDArray[np.int64] = np.arange(len(self))[wanted]
        missing = rows[~self._columns["is_encoded"][rows]]
        if missing.size:
            raise self._not_encoded(int(missing[0]))
        return rows

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        names = ("first_row", "z_first_row", *(f"latent_{side}" for side in _SIDES))
        columns = {name: self.samples[name].to_numpy() for name in names}
        return {**columns, "is_encoded": pc.equal(self.samples["status"], OK).to_numpy()}

    @cached_property
    def _opened(self) -> dict[ArrayName, RowReader]:
        return {}

    def _open_rows(self, name: ArrayName) -> RowReader:
        if name not in self._opened:
            self._opened[name] = self.open_rows(name)
        return self._opened[name]

    def stored_bytes(self) -> dict[str, int]:
        """Bytes that each array and ``samples.parquet`` take where they are stored."""
        stored: Counter[str] = Counter()
        for item in self.manifest.objects if self.manifest else ():
            name = item.path.partition("/")[0]
            stored[SAMPLES if name == SAMPLES_GROUP else name] += item.bytes
        return dict(stored)

    def read_rows(self, name: ArrayName, first: int, count: int) -> NDArray[Any]:
        """Read rows of an array, (count, channels), its values as they are stored.

        Raises:
            StoreCorruptError: A chunk does not match its checksum.
            StoreUnreachableError: An object cannot be read.
        """
        rows = np.empty((self.shape(name)[1], count), DTYPES[name])
        try:
            self._open_rows(name).read_into(rows, first)
        except StoreUnreachableError:
            raise
        except OSError as error:
            raise unreachable(f"{self.location}/{name}", error) from error
        except (StoreCorruptError, ValueError, RuntimeError) as error:
            what = error.what if isinstance(error, StoreCorruptError) else error
            raise StoreCorruptError(
                f"{self.location}: {name}, rows from {first}: {what}. An object was altered"
            ) from error
        return rows.T

    def read_shard(self, index: int) -> dict[ArrayName, NDArray[Any]]:
        """Read all rows of one shard of every array; raises as :meth:`read_rows` does."""
        rows = {name: array_form(self.header, name).shard_rows for name in self.header.arrays}
        return {name: self.read_rows(name, index * n, n) for name, n in rows.items()}

    def read_sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Read the sample in row ``index`` of the samples table, slowly.

        Returns:
            ``y_hat`` int16 (h, w, C), ``scale_index`` uint8 (h, w, C; the codec's own index, 0 for
            the least sigma_hat, whatever number stands for it in the array), ``z_hat`` int16
            (hz, wz, Cz; add the header's ``z_offset``), ``sigma_hat`` float32 (h, w, C). Of a store
            of pixels, ``pixels`` uint8 (H, W, 3).

        Raises:
            StoreError: The sample has no latents, or as :meth:`read_rows`.
        """
        arrays: dict[str, NDArray[Any]] = {
            name: self.read_grid(index, name) for name in self.header.arrays if name != "sigma_hat"
        }
        numbers = arrays.get("scale_index")
        if numbers is None:
            return arrays
        scales = self._scale_tables.items()
        return {**arrays, **{name: self._look_up(table, numbers) for name, table in scales}}

    def read_grid(self, index: int, name: ArrayName) -> NDArray[Any]:
        """Read one array of one sample, (h, w, channels), as stored; raises as read_sample."""
        sample = self.samples.slice(index, 1).to_pylist()[0]
        if sample["status"] != OK:
            raise self._not_encoded(index)
        first, size = sample["first_row"], (sample["latent_height"], sample["latent_width"])
        if name == "z_hat":
            first, size = sample["z_first_row"], self.header.content.z_grid(*size)
        return self.read_rows(name, first, size[0] * size[1]).reshape(*size, -1)

    def _look_up(self, table: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
        """Look up the scales that stored numbers stand for."""
        if numbers.size and numbers.max() >= len(table):
            raise StoreCorruptError(
                f"{self.location}: scale_index: expected less than {len(table)}, the length of the "
                f"scale table, got {numbers.max()}; latentset verify names the samples"
            )
        # In the order in which they are in memory: twice as fast.
        values: NDArray[Any] = table[np.moveaxis(numbers, -1, -3)]
        return np.moveaxis(values, -3, -1)

    def _not_encoded(self, index: int) -> StoreError:
        name, status, reason = (self.samples[c][index] for c in ("id", "status", "reason"))
        return StoreError(
            f"{self.location}: sample {index} ({name}) has no {self.header.noun}: "
            f"{status}: {reason}"
        )

    def _unreadable(self, name: ArrayName, index: int, error: Exception) -> StoreCorruptError:
        what = error.what if isinstance(error, StoreCorruptError) else str(error)
        return StoreCorruptError(
            f"{self.location}: {name} of sample {index} ({self.samples['id'][index]}) cannot be "
            f"read: {what}"
        )
