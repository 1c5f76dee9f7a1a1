"""In what a store's arrays are kept, chosen by a word or by the store's name."""

from typing import Literal

from latentset.datasets.storage.location import Location

Format = Literal["zarr", "hdf5"]
"""Zarr objects, or one HDF5 file."""

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Names that mean HDF5 where no format is given."""


def is_hdf5_name(name: str) -> bool:
    """Tell whether a name means HDF5.

    Args:
        name: Last part of a location.

    Returns:
        True for ``store.h5``, ``store.HDF5``.
    """
    return name.lower().endswith(HDF5_SUFFIXES)


def choose_format(target: Location, wanted: Format | None) -> Format:
    """Choose a format by what was asked for, or by the target's name.

    Args:
        target: Where a store is to lie.
        wanted: What was asked for; None goes by the name.

    Returns:
        The format.
    """
    return wanted or ("hdf5" if is_hdf5_name(target.name) else "zarr")
