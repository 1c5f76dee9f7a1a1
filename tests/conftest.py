"""What tests of every part share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of real photographs (trashnet, kodak, imagenet-sample); skips where there is none.

    ``LATENTSET_TEST_DATA`` names it; without, ``../shared/data`` beside the repository is tried.
    """
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("LATENTSET_TEST_DATA", default))
    if not (folder / "kodak").is_dir():
        pytest.skip(f"no test photographs at {folder}: set LATENTSET_TEST_DATA to their folder")
    return folder
