"""``latentset predict``: the classes of a run, for samples with labels or without."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from rich.console import Console

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import open_store
from latentset.train.data.split import select_samples
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.evaluate import evaluate_split, load_classifier
from latentset.train.run.fit import fit
from latentset.train.run.prediction import write_predictions
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

CLASSES = ("glass", "metal", "paper")
SIZES = ((64, 64), (100, 50))


@pytest.fixture(scope="module")
def run(make_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("prediction") / "run"
    fit(make_recipe(schedule__epochs=6), folder, console=Console(quiet=True))
    return folder


def new_images(path: Path, *, labelled: bool = False, failed: tuple[int, ...] = ()) -> Path:
    return write_synthetic_store(
        path, samples=20, sizes=SIZES, classes=CLASSES, labelled=labelled, failed=failed, seed=8
    )


def test_unlabelled_images_get_the_probabilities_that_evaluation_computes(
    run: Path, tmp_path: Path
) -> None:
    store = new_images(tmp_path / "new.zarr", failed=(4,))
    found = write_predictions(run, store, tmp_path / "p.csv")
    assert (found.samples, found.failed) == (19, 1)
    assert found.notes == ()
    with (tmp_path / "p.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "split", "label", "class", "probability"]
    labelled = open_store(new_images(tmp_path / "labelled.zarr", labelled=True, failed=(4,)))
    classifier, record, *_ = load_classifier(run, str(labelled.location))
    everything, expected = torch.full((20, len(CLASSES)), torch.nan), {}
    for split in ("train", "val"):
        part = evaluate_split(classifier, record.recipe, labelled, split, everything)
        for sample in part.samples.tolist():
            logits = everything[sample].numpy()
            shares = np.exp(logits - logits.max())
            chosen = int(logits.argmax())
            expected[labelled.samples["id"][sample].as_py()] = (
                CLASSES[chosen],
                shares[chosen] / shares.sum(),
            )
    assert [row[0] for row in rows] == labelled.samples["id"].take(labelled.indices()).to_pylist()
    assert len({row[1] for row in rows}) > 1
    assert {row[2] for row in rows} == {""}
    for id, _, _, name, probability in rows:
        assert name == expected[id][0]
        assert float(probability) == pytest.approx(expected[id][1], rel=1e-4)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_most_probable_classes_in_order(run: Path, tmp_path: Path, ending: str) -> None:
    store, out = new_images(tmp_path / "new.zarr"), tmp_path / f"p.{ending}"
    write_predictions(run, store, out, top=5)
    read = pyarrow.csv.read_csv if ending == "csv" else pyarrow.parquet.read_table
    table = read(out)
    columns = ["class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    assert table.column_names == ["id", "split", "label", *columns]  # the run has three classes
    shares = np.stack([table[name].to_numpy() for name in columns[1::2]])
    assert (np.diff(shares, axis=0) <= 0).all()
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    for row in table.to_pylist():
        assert {row[name] for name in columns[::2]} == set(CLASSES)


def test_classes_are_those_of_the_run(run: Path, tmp_path: Path) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr", samples=8, classes=("cat", "dog"))
    found = write_predictions(run, store, tmp_path / "p.parquet")
    assert found.notes[-1] == "the classes are those of the run, the store's are 2 (cat, dog)"
    table, samples = pyarrow.parquet.read_table(tmp_path / "p.parquet"), open_store(store).samples
    assert table["split"].to_pylist() == samples["split"].to_pylist()
    assert table["label"].to_pylist() == [("cat", "dog")[k] for k in samples["label"].to_pylist()]
    assert set(table["class"].to_pylist()) <= set(CLASSES)


def test_what_cannot_be_predicted_is_refused_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "p.csv"
    store = write_synthetic_store(tmp_path / "c.zarr", samples=4, channels=16)
    with pytest.raises(
        TrainingError, match="latents of 16 channels, the network was trained with 8"
    ):
        write_predictions(run, store, out)
    with pytest.raises(RecipeError, match="expected a store of latents, got one of pixels"):
        write_predictions(run, write_synthetic_pixels(tmp_path / "p.zarr"), out)
    opened = open_store(store)
    with pytest.raises(RecipeError, match="has no sample that was encoded"):
        select_samples(replace(opened, samples=opened.samples.slice(0, 0)))
    store = new_images(tmp_path / "new.zarr")
    for name in ("p.txt", "p"):
        with pytest.raises(TrainingError, match=r"expected NAME\.csv or NAME\.parquet"):
            write_predictions(run, store, tmp_path / "out" / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        write_predictions(run, store, tmp_path / "folder.csv")
    assert not list((tmp_path / "out").iterdir())
