"""The rows of a store's arrays for training: of Zarr by TensorStore, of HDF5 by our own reader."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import tensorstore
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store import Store
from latentset.datasets.store.header import ArrayName

if TYPE_CHECKING:
    from latentset.datasets.store.hdf5.reader import Hdf5Store
    from latentset.datasets.store.zarr.reader import ZarrStore

CACHE_BYTES = 64 * 2**20
"""Bound of TensorStore's cache, for the shards' indexes."""


class UnreadableError(StoreCorruptError):
    """Rows of an array cannot be read."""

    def __init__(self, name: ArrayName, reason: Exception) -> None:
        self.name = name
        self.reason = reason.what if isinstance(reason, StoreCorruptError) else str(reason)
        super().__init__(f"{name}: {self.reason}")


class ArrayRows(Protocol):
    """Arrays of a store with one row a latent position. Several threads may read."""

    def read(self, firsts: Sequence[int], counts: Sequence[int]) -> dict[ArrayName, NDArray[Any]]:
        """Read runs of rows, joined: by array, integers (C, R); UnreadableError where it fails."""


def open_rows(store: Store, names: Sequence[ArrayName]) -> ArrayRows:
    """Open arrays of a store that have one row a latent position."""
    return (ZarrRows if store.format == "zarr" else Hdf5Rows)(store, names)


class ZarrRows:
    """Arrays opened with TensorStore, with one cache."""

    def __init__(self, store: Store, names: Sequence[ArrayName]) -> None:
        self._store = cast("ZarrStore", store)
        context = tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
        self._arrays = {name: self._open(self._store, name, context) for name in names}

    @staticmethod
    def _open(store: "ZarrStore", name: ArrayName, context: Any) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": store.objects.kvstore(name),
            # A finished store does not change, so nothing is looked up twice.
            "recheck_cached_metadata": "open",
            "recheck_cached_data": "open",
            "fill_missing_data_reads": False,
        }
        expected = store.shape(name)
        try:
            array = tensorstore.open(spec, context=context, read=True, open=True).result()
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreCorruptError(
                f"{store.location}: {name} cannot be opened: {error}"
            ) from error
        if array.shape != expected or array.dtype.numpy_dtype.kind not in "iu":
            raise StoreCorruptError(
                f"{store.location}: {name}: expected integers {expected}, "
                f"got {array.dtype.name} {array.shape}"
            )
        return array

    def read(self, firsts: Sequence[int], counts: Sequence[int]) -> dict[ArrayName, NDArray[Any]]:
        """Read runs of rows, chunks in parallel outside Python's lock."""
        self._store.fetch_rows(tuple(self._arrays), firsts)
        reads = []
        with tensorstore.Batch() as together:
            for array in self._arrays.values():
                grids = [
                    array[first : first + count].translate_to[0]
                    for first, count in zip(firsts, counts, strict=True)
                ]
                # Fortran order: chunks are stored channel by channel, so nothing is transposed.
                reads.append(tensorstore.concat(grids, axis=0).read(order="F", batch=together))
        rows = {}
        for name, read in zip(self._arrays, reads, strict=True):
            try:
                rows[name] = read.result().T
            except (ValueError, RuntimeError, OSError) as error:
                raise UnreadableError(name, error) from error
        return rows


class Hdf5Rows:
    """Arrays of a store in one HDF5 file, read without the HDF5 library and its lock."""

    def __init__(self, store: Store, names: Sequence[ArrayName]) -> None:
        opened = cast("Hdf5Store", store)
        self._datasets = {name: opened.dataset(name) for name in names}

    def read(self, firsts: Sequence[int], counts: Sequence[int]) -> dict[ArrayName, NDArray[Any]]:
        """Read runs of rows; chunks are decompressed outside Python's lock."""
        ends = np.cumsum(counts).tolist()
        rows = {}
        for name, dataset in self._datasets.items():
            values = np.empty((dataset.shape[0], ends[-1]), dataset.dtype.newbyteorder("="))
            try:
                for first, count, end in zip(firsts, counts, ends, strict=True):
                    dataset.read_into(values[:, end - count : end], first)
            except (ValueError, RuntimeError, OSError) as error:
                raise UnreadableError(name, error) from error
            rows[name] = values
        return rows
