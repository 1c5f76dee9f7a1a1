"""In what a store's arrays are kept, chosen by a word or by the store's name."""

from typing import Literal

from latentset.datasets.storage.location import Location

Format = Literal["zarr", "hdf5"]
"""Zarr objects, or one HDF5 file."""

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Names that mean HDF5 where no format is given."""


def is_hdf5_name(name: str) -> bool:
    """Whether the last part of a location means HDF5: ``store.h5``, ``store.HDF5``."""
    return name.lower().endswith(HDF5_SUFFIXES)


def choose_format(target: Location, wanted: Format | None) -> Format:
    """The format that was asked for, or else the one of the target's name."""
    return wanted or ("hdf5" if is_hdf5_name(target.name) else "zarr")
