"""Anchors 1 and 2 train from stores of pixels, through the same reader and trainer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store, open_store
from latentset.train.data.split import select_split
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run.classifier import open_reader
from latentset.train.run.classifier_export import export_classifier
from latentset.train.run.evaluate import evaluate_checkpoint, evaluate_split, load_classifier
from latentset.train.run.fit import fit
from latentset.train.run.run_files import read_result
from tests.makers.synthetic import write_synthetic_pixels

MakeRecipe = Callable[..., Recipe]
CLASSES = ("glass", "metal", "paper")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pixels")
    return {
        kind: write_synthetic_pixels(
            folder / f"{kind}.zarr",
            samples=96,
            sizes=((24, 24), (40, 20)),
            classes=CLASSES,
            splits=("train", "train", "val", "test"),
            decoded=kind == "decoded",
        )
        for kind in ("original", "decoded")
    }


@pytest.fixture
def anchor(make_recipe: MakeRecipe, pixels: dict[str, Path]) -> Callable[[str], Recipe]:
    def make(kind: str) -> Recipe:
        return make_recipe(
            model={"kind": "resnet", "depths": [1, 1, 1, 1], "width": 2},
            data={
                "store": str(pixels[kind]),
                "batch_size": 8,
                "size": 16,
                "resize": 20,
                "crop_scale": [0.5, 1],
                "flip": True,
                "test_split": "test",
            },
            schedule__epochs=12,
            schedule__learning_rate=0.01,
            schedule__decay_epochs=[8],
        )

    return make


def test_batches_are_the_images(pixels: dict[str, Path], anchor: Callable[[str], Recipe]) -> None:
    store = open_store(pixels["original"])
    recipe = resolve(anchor("original"), store.header, "here")
    split = select_split(store, "train")
    reader = open_reader(store, split, recipe, training=True, names=("pixels",))
    seen = 0
    for batch in reader.batches(0):
        for window, sample in zip(batch.windows.tolist(), batch.samples.tolist(), strict=True):
            first, height, width, top, left, box_height, box_width, _ = window
            rows = batch.rows["pixels"][:, first : first + height * width].numpy()
            np.testing.assert_array_equal(
                rows.T.reshape(height, width, 3), store.read_grid(sample, "pixels")
            )
            # Boxes lie in the square that images are resized to, not in the image.
            assert 0 <= top <= 20 - box_height
            assert 0 <= left <= 20 - box_width
            seen += 1
    assert seen == 48


@pytest.mark.parametrize("kind", ["original", "decoded"])
def test_anchor_learns_and_gives_its_weights(
    anchor: Callable[[str], Recipe],
    make_recipe: MakeRecipe,
    mixed_store: Store,
    pixels: dict[str, Path],
    tmp_path: Path,
    kind: str,
) -> None:
    result = fit(anchor(kind), tmp_path / "anchor")
    assert result["codec"] == {"original": "none", "decoded": "synthetic"}[kind]
    assert result["test"]["top1"] >= 0.9
    assert result["trained_bytes"] > 0
    student = make_recipe(
        weights__adopt=str(tmp_path / "anchor" / "best.safetensors"),
        schedule__frozen_epochs=1,
        schedule__epochs=2,
        schedule__decay_epochs=[],
    )
    fit(student, tmp_path / "student")
    assert read_result(tmp_path / "student")["epochs"] == 2
    # Pixels are pixels: a network that saw the ones may be tried on the others.
    other = {"original": "decoded", "decoded": "original"}[kind]
    found = evaluate_checkpoint(tmp_path / "anchor", pixels[other], splits=["test"])
    assert found.notes[0].startswith("pixels of codec")


def test_stores_of_the_other_kind_are_refused(
    anchor: Callable[[str], Recipe],
    make_recipe: MakeRecipe,
    mixed_store: Store,
    pixels: dict[str, Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(
        RecipeError, match=r"fa-cresnet takes latents \(.*\), the store holds pixels"
    ):
        fit(make_recipe(data__store=str(pixels["decoded"])), tmp_path / "run")
    recipe = anchor("decoded")
    data = recipe.data.model_copy(update={"store": str(mixed_store.location)})
    message = r"resnet takes pixels \(.*\), the store holds y_hat, scale_index"
    with pytest.raises(RecipeError, match=message):
        fit(recipe.model_copy(update={"data": data}), tmp_path / "run")
    fit(make_recipe(schedule__epochs=1, schedule__decay_epochs=[]), tmp_path / "latents")
    with pytest.raises(RecipeError):
        evaluate_checkpoint(tmp_path / "latents", pixels["decoded"])


def test_exported_anchor_gives_the_same_logits(
    anchor: Callable[[str], Recipe], tmp_path: Path
) -> None:
    # Images of the network's own size: the program takes what the store holds.
    where = write_synthetic_pixels(
        tmp_path / "p.zarr", samples=24, sizes=((16, 16),), classes=CLASSES, splits=("train", "val")
    )
    recipe = anchor("original")
    data = recipe.data.model_copy(
        update={"store": str(where), "resize": 16, "test_split": "", "batch_size": 4}
    )
    schedule = recipe.schedule.model_copy(update={"epochs": 1})
    fit(recipe.model_copy(update={"data": data, "schedule": schedule}), tmp_path / "run")
    export_classifier(tmp_path / "run", where, tmp_path / "folder" / "net.pt2")
    module, record, _, store, _ = load_classifier(tmp_path / "run", where)
    expected = torch.empty(store.samples.num_rows, len(store.header.source.classes))
    found = evaluate_split(module, record.recipe, store, "val", expected)
    pixels = np.stack([store.read_grid(k, "pixels") for k in found.samples.tolist()])
    program = torch.export.load(tmp_path / "folder" / "net.pt2").module()
    logits = program(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    torch.testing.assert_close(logits, expected[found.samples], rtol=1e-4, atol=1e-5)
