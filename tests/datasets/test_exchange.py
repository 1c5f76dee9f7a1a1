"""What one environment writes the other reads.

``make test`` runs this three times with one folder in LATENTSET_EXCHANGE: encode, train, encode. So
each environment's zarr-python (and the train environment's TensorStore) meets the other's stores.
"""

import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.header import ARRAYS
from tests.makers.synthetic import write_synthetic_store

SIZES = ((64, 64), (100, 330))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The store that this environment writes, and those that others have left."""
    named = os.environ.get("LATENTSET_EXCHANGE")
    folder = Path(named) if named else tmp_path_factory.mktemp("exchange")
    mine = folder / f"zarr-{version('zarr')}-numpy-{version('numpy')}"
    file = mine.with_name(f"{mine.name}.h5")
    if not file.exists():
        write_synthetic_store(mine, sizes=SIZES, failed=(5,), seed=7)
        convert(open_store(mine), Folder(file), "hdf5")
    return sorted(folder.glob("zarr-*"))


def test_all_environments_read_the_same_values(stores: list[Path]) -> None:
    first = open_store(stores[0])
    assert {path.suffix == ".h5" for path in stores} == {True, False}
    for path in stores[1:]:
        other = open_store(path)
        assert other.samples.equals(first.samples)
        assert other.header == first.header
        for name in ARRAYS:
            np.testing.assert_array_equal(other.array(name)[:], first.array(name)[:])
    assert np.asarray(first.array("y_hat")[:]).any()


def test_tensorstore_reads_every_environments_store(stores: list[Path]) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="of the train environment")
    for path in (path for path in stores if path.is_dir()):
        opened = open_store(path)
        for k in (0, 1, 23):
            row = opened.samples.slice(k, 1).to_pylist()[0]
            rows = slice(
                row["first_row"], row["first_row"] + 16 if k % 2 == 0 else row["first_row"] + 147
            )
            spec = {"driver": "file", "path": str(path / "y_hat")}
            array = tensorstore.open({"driver": "zarr3", "kvstore": spec}).result()
            found = (
                array[rows].read().result().reshape(row["latent_height"], row["latent_width"], 8)
            )
            np.testing.assert_array_equal(found, opened.read_sample(k)["y_hat"])
