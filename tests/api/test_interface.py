"""The names that users import from ``latentset``."""

import subprocess
import sys

import pytest

import latentset
from latentset.datasets.store import Store
from latentset.datasets.store.opening import open_store
from latentset.datasets.version import __version__


def test_public_names() -> None:
    assert latentset.open_store is open_store
    assert latentset.Store is Store
    assert latentset.__version__ == __version__


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'latentset' has no attribute 'opne_store'"):
        latentset.opne_store  # noqa: B018


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latentset", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"latentset {latentset.__version__}\n"


def test_the_samples_table_in_pandas(mixed_store: Store) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = mixed_store.samples.to_pandas()
    train = table[(table["split"] == "train") & (table["status"] == "ok")].index
    assert train.tolist() == mixed_store.indices("train").tolist()
    assert len(mixed_store.read(train)["y_hat"]) == 47
