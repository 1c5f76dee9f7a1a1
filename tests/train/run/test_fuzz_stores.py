"""Whatever the bytes of a store are, classifiers use it or say what is wrong."""

from functools import partial
from pathlib import Path

import pytest

from latentset.datasets.store.formats import Format
from tests.makers.classifying import classify, train_on
from tests.makers.fuzzing import fuzz
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

RECIPES = {"latents": "fa-cresnet-slim", "pixels": "resnet-slim"}


@pytest.fixture
def sound(content: str, tmp_path: Path) -> Path:
    sizes = ((64, 64), (100, 50))
    if content == "latents":
        return write_synthetic_store(
            tmp_path / "a",
            samples=24,
            sizes=sizes,
            failed=(3,),
            sigma_hat=True,
            shard_bytes=1 << 10,
        )
    return write_synthetic_pixels(tmp_path / "c", samples=24, decoded=True)


@pytest.fixture
def known(content: str, sound: Path, tmp_path: Path) -> Path:
    """A run on the sound store."""
    assert train_on(sound, tmp_path / "known", RECIPES[content]) == "trained"
    return tmp_path / "known"


@pytest.mark.parametrize("content", RECIPES)
def test_a_sound_store_is_trained_on(
    content: str, sound: Path, known: Path, tmp_path: Path
) -> None:
    assert classify(RECIPES[content], known, sound, tmp_path) == "trained"
    assert (tmp_path / "matrix.csv").exists()
    assert (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
@pytest.mark.parametrize("content", RECIPES)
def test_a_forged_store(
    content: str, container: Format, sound: Path, known: Path, tmp_path: Path
) -> None:
    use = partial(classify, RECIPES[content], known)
    fuzz(use, sound, container, tmp_path, f"train on {content}, {container}")
