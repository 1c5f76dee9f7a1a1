"""A run's folder (docs/training.md): names of its files, a lock, the figures of a finished run.

recipe.json is written first, and locked; result.json last: with it the run is finished.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import try_lock
from latentset.train.recipe.recipe import Recipe

RECIPE, METRICS, RESULT = "recipe.json", "metrics.csv", "result.json"
CONFUSION = "confusion.csv"
LAST, BEST, RESUME = "last.safetensors", "best.safetensors", "resume.safetensors"

FIGURES = {"recipe", "model", "seed", "codec", "store_fingerprint", "parameters", "rate_bpp"}
FIGURES |= {"store_bytes", "trained_bytes", "checkpoint", "last", "best", "test", "seconds"}
"""Keys of result.json that others read."""

REMEDY = f"remove {RESULT} and repeat the run's `latentset train`: what was trained is kept"


def chosen_weights(recipe: Recipe) -> str:
    """File of the weights that are evaluated: the best by the validation split, else the last."""
    return BEST if recipe.data.val_split and recipe.schedule.epochs else LAST


def read_result(folder: Path) -> dict[str, Any]:
    """Read result.json; TrainingError where the run is not finished or the file not complete."""
    path = folder / RESULT
    try:
        result: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        state = "is not finished" if (folder / RECIPE).exists() else "is not the folder of a run"
        raise TrainingError(f"{folder} {state}: it has no {RESULT}") from error
    except ValueError as error:
        raise TrainingError(f"{path} cannot be read: {error}; {REMEDY}") from error
    missing = sorted(FIGURES - result.keys()) if isinstance(result, dict) else ["a table"]
    if missing:
        raise TrainingError(
            f"{path}: expected the figures of a run, it lacks {', '.join(missing)}; {REMEDY}"
        )
    return dict(result)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a run's folder, by its recipe.json, which is written once."""
    with (folder / RECIPE).open("r+b") as file:  # NFS wants it open for writing
        if not try_lock(file):
            raise TrainingError(
                f"{folder} is being trained by another process; wait until it ends, or give "
                "another folder with --out"
            )
        yield
