"""Errors come back from workers as they were raised."""

import pickle

import pytest

from latentset.datasets import errors
from latentset.datasets.errors import LatentSetError


def test_errors_are_sent_as_dask_sends_them() -> None:
    tblib = pytest.importorskip("tblib.pickling_support", reason="of the encode environment")
    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, LatentSetError)):
            continue
        error = kind("what", "more") if kind is errors.ImageError else kind("what")
        tblib.install(error)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (kind, str(error))
