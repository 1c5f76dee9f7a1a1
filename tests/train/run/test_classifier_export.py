"""What is exported needs nothing of this package."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Store
from latentset.datasets.store.header import ArrayName
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.classifier_export import export_classifier
from latentset.train.run.evaluate import evaluate_split, load_classifier
from latentset.train.run.fit import fit
from tests.makers.synthetic import write_synthetic_store

MakeRecipe = Callable[..., Recipe]
ALONE = """
import sys
sys.modules["latentset"] = None
import torch
from safetensors.torch import load_file, save_file
network = torch.export.load(sys.argv[1]).module()
given = load_file(sys.argv[2])
save_file({"logits": network(*(given[name] for name in sorted(given, reverse=True)))}, sys.argv[3])
"""


@pytest.mark.parametrize(("kind", "ema_decay"), [("fa-cresnet", 0.0), ("fa-cresnet-y", 0.9)])
def test_program_gives_the_same_logits(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path, kind: str, ema_decay: float
) -> None:
    # Grids of 4x4 as they are, so that the program's input is what the store holds.
    recipe = make_recipe(
        model__kind=kind,
        data__size=4,
        schedule__epochs=1,
        schedule__decay_epochs=[],
        schedule__ema_decay=ema_decay,
    )
    fit(recipe, tmp_path / "run")
    where = str(mixed_store.location)
    said = export_classifier(tmp_path / "run", where, tmp_path / "net.pt2")
    assert "int16 (B, 8, 4, 4)" in said
    classifier, *_ = load_classifier(tmp_path / "run", where)
    expected = torch.empty(mixed_store.samples.num_rows, 3)
    found = evaluate_split(classifier, classifier.recipe, mixed_store, "val", expected)
    square = [k for k, sample in enumerate(found.samples.tolist()) if sample % 3 == 0]
    names: list[ArrayName] = ["y_hat"] if kind == "fa-cresnet-y" else ["y_hat", "scale_index"]
    given: dict[str, torch.Tensor] = {
        name: torch.stack(
            [torch.from_numpy(mixed_store.read_grid(int(found.samples[k]), name)) for k in square]
        )
        .permute(0, 3, 1, 2)
        .contiguous()
        for name in names
    }
    save_file(given, tmp_path / "given.safetensors")
    files = [str(tmp_path / name) for name in ("net.pt2", "given.safetensors", "out.safetensors")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True)
    logits = load_file(files[2])["logits"]
    torch.testing.assert_close(logits, expected[found.samples][square], rtol=1e-4, atol=1e-5)
    export_classifier(tmp_path / "run", where, tmp_path / "net.safetensors")
    weights = load_file(tmp_path / "net.safetensors")
    kept = load_file(tmp_path / "run" / "best.safetensors")
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in weights)


def test_what_cannot_be_exported(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "run")
    where = str(mixed_store.location)
    with pytest.raises(RecipeError, match=r"ends with \.pt2 or \.safetensors"):
        export_classifier(tmp_path / "run", where, tmp_path / "net.onnx")
    other = write_synthetic_store(tmp_path / "s.zarr", classes=("a", "b", "c"))
    with pytest.raises(TrainingError, match="other classes"):
        export_classifier(tmp_path / "run", other, tmp_path / "net.pt2")
    assert not list(tmp_path.glob("*net*"))
