"""The files of a run's folder: their names, a lock on it, and the figures of a finished run.

What is in them: ``run_folder``, which writes most of them.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentset.datasets.errors import TrainingError
from latentset.train.recipe.recipe import Recipe

RECIPE, METRICS, RESULT = "recipe.json", "metrics.csv", "result.json"
CONFUSION = "confusion.csv"
LAST, BEST, RESUME = "last.safetensors", "best.safetensors", "resume.safetensors"

FIGURES = frozenset(
    {
        "recipe",
        "model",
        "seed",
        "codec",
        "store_fingerprint",
        "parameters",
        "rate_bpp",
        "store_bytes",
        "trained_bytes",
        "checkpoint",
        "last",
        "best",
        "test",
        "seconds",
    }
)
"""Keys of result.json that others read."""

REMEDY = f"remove {RESULT} and repeat the run's `latentset train`: what was trained is kept"


def chosen_weights(recipe: Recipe) -> str:
    """Say which weights of a run are evaluated and adopted.

    Args:
        recipe: The run's recipe.

    Returns:
        Name of their file: the best by the validation split, or the last where there is none.
    """
    return BEST if recipe.data.val_split and recipe.schedule.epochs else LAST


def read_result(folder: Path) -> dict[str, Any]:
    """Read the figures of a finished run.

    Args:
        folder: The run's folder.

    Returns:
        What result.json holds.

    Raises:
        TrainingError: The run is not finished, there is none, or the file is not one of a run.
    """
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
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from training a run that has begun; the lock ends with this one.

    The lock is on recipe.json, which is written once. File systems without locks let anybody in.

    Args:
        folder: The run's folder.

    Yields:
        While nobody else trains it.

    Raises:
        TrainingError: Somebody else does.
    """
    with (folder / RECIPE).open("r+b") as file:  # NFS wants it open for writing
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise TrainingError(
                    f"{folder} is being trained by another process; wait until it ends, or give "
                    "another folder with --out"
                ) from error
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole: after a crash it is the old one or the new.

    Args:
        path: The file; replaced where it exists.
        text: What it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
