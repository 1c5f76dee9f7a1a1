"""A run's folder (docs/training.md): names of its files, a lock, the figures of a finished run.

recipe.json is written first, and locked; result.json last: with it the run is finished.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
)

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import try_lock
from latentset.datasets.store.target_checks import check_output
from latentset.train.recipe.recipe import Recipe

RECIPE, METRICS, RESULT = "recipe.json", "metrics.csv", "result.json"
CONFUSION, TENSORBOARD = "confusion.csv", "tensorboard"
LAST, BEST, RESUME = "last.safetensors", "best.safetensors", "resume.safetensors"

MAX_RESULT_BYTES = 64 << 20
"""It has a line for each class."""

Accuracy = Annotated[float, Field(ge=0, le=1)]
Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Figures(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, strict=True)


class _TestFigures(_Figures):
    top1: Accuracy
    top5: Accuracy | None
    samples: NonNegativeInt


class _BestFigures(_Figures):
    val_top1: Accuracy
    val_top5: Accuracy | None


class _LastFigures(_Figures):
    train_top1: Accuracy


class _Result(_Figures):
    """Keys of result.json that others read."""

    recipe: str
    model: str
    seed: int
    codec: str | None
    store_fingerprint: str
    parameters: Bytes
    rate_bpp: Annotated[float, Field(ge=0, le=1e6)] | None
    store_bytes: Bytes
    trained_bytes: Bytes
    checkpoint: str
    last: _LastFigures | None
    best: _BestFigures | None
    test: _TestFigures | None
    test_split: str | None = None
    processes: int | None = None
    seconds: float


def check_target(path: Path) -> None:
    """Check a file that is about to be written: as ``check_output``, and it is none of a run's."""
    check_output(path)
    file = Path(os.path.realpath(path))
    own = (RECIPE, METRICS, RESULT, CONFUSION, LAST, BEST, RESUME)
    if file.name in own and (file.parent / RECIPE).exists():
        raise TrainingError(f"{path} is a file of the run in {file.parent}: name another file")


REMEDY = f"remove {RESULT} and repeat the run's `latentset train`: what was trained is kept"


def chosen_weights(recipe: Recipe) -> str:
    """File of the weights that are evaluated: the best by the validation split, else the last."""
    return BEST if recipe.data.val_split and recipe.schedule.epochs else LAST


def read_result(folder: Path) -> dict[str, Any]:
    """Read result.json; TrainingError where the run is not finished or the file not complete."""
    path = folder / RESULT
    try:
        content = read_file(path, MAX_RESULT_BYTES)
        _Result.model_validate_json(content)
    except FileNotFoundError as error:
        state = "is not finished" if (folder / RECIPE).exists() else "is not the folder of a run"
        raise TrainingError(f"{folder} {state}: it has no {RESULT}") from error
    except ValidationError as error:
        found = describe_invalid(error)
        raise TrainingError(f"{path}: not the figures of a run: {found}; {REMEDY}") from error
    return dict(json.loads(content))


def read_file(path: Path, limit: int) -> bytes:
    """Read a run's file; FileNotFoundError, or TrainingError if it is large or no file at all.

    A run may come from elsewhere, and a FIFO or a device never ends.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TrainingError(f"{path}: expected at most {limit:,} bytes")
    return content


def check_regular(path: Path) -> None:
    """Raise an error if a path that is there is no file, nor a link to one, or cannot be read."""
    if path.exists():
        if not path.is_file():
            raise TrainingError(f"{path}: expected a file, got a folder, a FIFO or a device")
        path.open("rb").close()  # safetensors says of a file without permission that there is none


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a run's folder, by its recipe.json, which is written once."""
    check_regular(folder / RECIPE)
    with (folder / RECIPE).open("r+b") as file:  # NFS wants it open for writing
        if not try_lock(file):
            raise TrainingError(
                f"{folder} is being trained by another process; wait until it ends, or give "
                "another folder with --out"
            )
        if not os.path.samestat(os.fstat(file.fileno()), (folder / RECIPE).stat()):
            raise TrainingError(f"{folder} was just given more epochs: run the same command again")
        yield
