"""In what a store's arrays are kept, chosen by a word or by the store's name."""

from pathlib import Path
from typing import Literal

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.location import Location

Format = Literal["zarr", "hdf5"]
"""Zarr objects, or one HDF5 file."""

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Names that mean HDF5 where no format is given."""


_OTHERS = (
    *(".hdf", ".he5", ".nc", ".mat", ".zip", ".tar", ".gz", ".tgz", ".7z", ".tfrecord"),
    *(".npy", ".npz", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".feather"),
    *(".pt", ".pth", ".pkl", ".pickle", ".safetensors", ".onnx", ".lmdb", ".mds", ".beton"),
    *(".bin", ".db", ".sqlite", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".metagraph"),
    *(".rec", ".tfrecords", ".txt", ".toml"),
)
"""Endings that mean other formats."""


def is_hdf5_name(name: str) -> bool:
    """Whether the last part of a location means HDF5: ``store.h5``, ``store.HDF5``."""
    return name.lower().endswith(HDF5_SUFFIXES)


def choose_format(target: Location, wanted: Format | None) -> Format:
    """The format that was asked for, or else the one of the target's name.

    StoreError where the name ends as that of another format does.
    """
    ending = Path(target.name).suffix.lower()
    if wanted is None and ending in _OTHERS:
        raise StoreError(
            f"{target}: {ending} is the ending of another format, and there are two: Zarr (such as "
            f"NAME.zarr) and HDF5 (NAME{HDF5_SUFFIXES[0]}, NAME{HDF5_SUFFIXES[1]}). Name another "
            "target, or choose with --format zarr or --format hdf5"
        )
    return wanted or ("hdf5" if is_hdf5_name(target.name) else "zarr")
