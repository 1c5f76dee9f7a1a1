"""Finished runs, written by hand: what a report reads of them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentset.paper.recipes import load_recipe
from latentset.train.models.networks import LatentNetwork
from latentset.train.run.epochs import Progress

NOWHERE = "f" * 64
"""Fingerprint of a store that is not there."""


RESULT: dict[str, Any] = {
    "recipe": "trashnet/cresnet-slim",
    "model": "cresnet",
    "seed": 0,
    "codec": "demo-4",
    "store_fingerprint": "a" * 64,
    "parameters": 1234567,
    "rate_bpp": 0.4,
    "store_bytes": 9_000_000,
    "trained_bytes": 8_000_000,
    "checkpoint": "best.safetensors",
    "last": {"train_top1": 0.99},
    "seconds": 60.0,
    "best": {"val_top1": 0.75, "val_top5": 0.95},
    "test": {"top1": 0.7, "top5": 0.9, "samples": 430},
}


def write_result(folder: Path, **changes: Any) -> None:
    """A finished run of which only result.json is there."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT | changes))


def write_run(
    out: Path,
    name: str,
    top1: float,
    *,
    seed: int = 0,
    store: str = NOWHERE,
    settings: Sequence[str] = (),
    resize: str = "none",
    **changes: Any,
) -> Path:
    """A run of a recipe that ships: its recipe.json and result.json, no weights."""
    recipe = load_recipe(name, [f"seed={seed}", *settings])
    facts = {"num_classes": recipe.model.num_classes or 6}  # what a store would say
    if isinstance(recipe.model, LatentNetwork):
        facts["channels"] = recipe.model.channels or 72
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=facts)})
    folder = out / name / f"seed-{seed}"
    result = {
        "recipe": name,
        "model": recipe.model.kind,
        "seed": seed,
        "codec": recipe.data.codec or "demo-4",
        "store_fingerprint": store,
        "processes": 1,
        "test": {"top1": top1, "top5": 0.96, "samples": 430},
    }
    write_result(folder, **result | changes)
    record = {
        "fingerprint": store,
        "codec": recipe.data.codec or "demo-4",
        "codec_sha256": "c" * 64,
        "resize": resize,
        "classes": ["glass"],
    }
    start = {"recipe": recipe.model_dump(mode="json"), "store": record}
    (folder / "recipe.json").write_text(json.dumps(start))
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a file that a report wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_progress(path: Path) -> Progress:
    """How far a run was when its state was saved."""
    with path.open("rb") as file:  # once: safetensors opens it twice, and it may be replaced
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return Progress.model_validate_json(header["__metadata__"]["progress"])


LEARNT = ("epoch", "lr_new", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5")


def figures(folder: Path) -> list[tuple[str, ...]]:
    """What an uninterrupted and a resumed run have in common, digit for digit."""
    with (folder / "metrics.csv").open() as file:
        return [tuple(row[name] for name in LEARNT) for row in csv.DictReader(file)]
