"""Opening a store, whichever format it has (docs/store-spec.md, 1)."""

from pathlib import Path

from latentset.datasets.storage.location import Folder, Location, Web, open_location
from latentset.datasets.store.hdf5.reader import open_hdf5
from latentset.datasets.store.mirror import StoreCache, default_cache
from latentset.datasets.store.store import Store
from latentset.datasets.store.zarr.reader import open_zarr


def open_store(
    where: Path | str | Location,
    *,
    allow_incomplete: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Store:
    """Open a store for reading.

    Checked are the manifest, that every object is there with its size (where the location can be
    listed), the digests of the metadata and of the samples table, the limits of what they say, and
    the samples table. The latents carry checksums of their own, which are checked when they are
    read.

    A store on the web is read through a cache (docs/remote.md): whole shards, compared with their
    digests, when rows of them are first needed.

    Args:
        where: The store's folder or HDF5 file, its URL (``s3://…``, ``gs://…``,
            ``http(s)://…``, ``hf://datasets/…``), or location.
        allow_incomplete: Open a store that is not finished too, for a look at its header.
        cache: Folder of the cache; by default ``LATENTSET_CACHE``, or the user's. If one is named,
            a store in object storage is read through it too; one in a folder never is.
        cache_bytes: Size of the cache at most; by default what the disk has room for.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreIncompleteError: The store has no manifest.
        StoreCorruptError: The store differs from its manifest.
        StoreUnreachableError: The location cannot be read.
    """
    location = open_location(where)
    if isinstance(location, Folder) and location.is_file():
        return open_hdf5(location)
    if isinstance(location, Folder) or not (isinstance(location, Web) or cache):
        return open_zarr(location, allow_incomplete)
    return open_zarr(location, allow_incomplete, StoreCache(cache or default_cache(), cache_bytes))
