"""Small stores to read from one's own code."""

import pytest
import torch

from latentset import Store, open_store
from tests.makers.synthetic import write_mixed_store, write_synthetic_store


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(write_mixed_store(tmp_path_factory.mktemp("stores") / "mixed.zarr"))


@pytest.fixture(scope="session")
def even_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 samples of two classes, all of 64x64 pixels."""
    path = tmp_path_factory.mktemp("stores") / "even.zarr"
    return open_store(write_synthetic_store(path, samples=60))
