"""Opening a store, whichever format it has (docs/store-spec.md, 1)."""

from pathlib import Path

from latentset.datasets.storage.location import Folder, Location, open_location
from latentset.datasets.store.hdf5.reader import open_hdf5
from latentset.datasets.store.store import Store
from latentset.datasets.store.zarr.reader import open_zarr


def open_store(where: Path | str | Location, *, allow_incomplete: bool = False) -> Store:
    """Open a store for reading.

    Checked are the manifest, that every object is there with its size (where the location can be
    listed), the digests of the metadata and of the samples table, and that the samples are inside
    the arrays. The latents carry checksums of their own, which are checked when they are read.

    Args:
        where: The store's folder or HDF5 file, its URL (``s3://…``, ``gs://…``,
            ``http(s)://…``), or location.
        allow_incomplete: Open a store that is not finished too, for a look at its header.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreIncompleteError: The store has no manifest.
        StoreCorruptError: The store differs from its manifest.
        StoreUnreachableError: The location cannot be read.
    """
    location = open_location(where)
    if isinstance(location, Folder) and location.is_file():
        return open_hdf5(location)
    return open_zarr(location, allow_incomplete)
