"""What tests of sources share."""

from functools import partial
from pathlib import Path

import pytest

from tests.makers.plant import Plant, make_collection


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """A function that makes empty files below a new root, with given texts beside them."""
    return partial(make_collection, tmp_path / "collection")
