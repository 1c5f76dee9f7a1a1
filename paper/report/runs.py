"""Finished runs, as the report sees them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.train.models.networks import FeatureAdaptation, PixelNetwork
from latentset.train.recipe.recipe import Paper, Recipe
from latentset.train.run.run_files import RECIPE, RESULT, read_result
from latentset.train.run.run_folder import Start


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    """Where it is kept."""
    result: dict[str, Any]
    """What its result.json holds."""
    start: Start | None
    """What its recipe.json holds; None where only its figures are there."""

    @property
    def recipe(self) -> Recipe | None:
        """Its resolved recipe."""
        return self.start.recipe if self.start else None

    @property
    def name(self) -> str:
        """Name of its recipe."""
        return str(self.result["recipe"])

    @property
    def data_set(self) -> str:
        """First part of that name."""
        return self.name.partition("/")[0]

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.result["seed"])

    @property
    def paper(self) -> Paper | None:
        """What of the paper it reproduces, if anything."""
        return self.recipe.paper if self.recipe else None

    @property
    def distilled(self) -> bool:
        """Whether it learnt from a teacher too, which the paper's runs do not."""
        return self.recipe is not None and bool(self.recipe.distill.logits)

    @property
    def split(self) -> str:
        """Which samples its accuracies are of.

        ``test``, or ``val`` where the recipe names no test split, or ``train`` where neither.
        """
        if self.result["test"]:
            return "test"
        return "val" if self.result["best"] else "train"

    @property
    def samples(self) -> int | None:
        """Number of test samples; None for other splits."""
        return int(self.result["test"]["samples"]) if self.result["test"] else None

    @property
    def top1(self) -> float:
        """Share whose class came first."""
        match self.split:
            case "test":
                return float(self.result["test"]["top1"])
            case "val":
                return float(self.result["best"]["val_top1"])
            case _:
                return float(self.result["last"]["train_top1"])

    @property
    def top5(self) -> float | None:
        """Share whose class was among the first five, where that was counted."""
        match self.split:
            case "test":
                return float(self.result["test"]["top5"])
            case "val":
                return float(self.result["best"]["val_top5"])
            case _:
                return None


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Read all finished runs in some folders.

    Args:
        folders: Folders of runs, or folders above them.

    Returns:
        The runs, in the order of their paths.

    Raises:
        TrainingError: A folder holds no finished run, or a file of one cannot be read.
    """
    runs = []
    for folder in folders:
        found = sorted(folder.rglob(RESULT)) if folder.is_dir() else []
        if not found:
            raise TrainingError(
                f"{folder}: expected finished runs ({RESULT}) in it, found none; "
                "latentset train writes that file when it ends"
            )
        runs += [Run(path.parent, read_result(path.parent), _start(path.parent)) for path in found]
    return runs


def find_unfinished(folders: Iterable[Path]) -> list[Path]:
    """Find runs that were begun and have no figures.

    Args:
        folders: Folders of runs, or folders above them.

    Returns:
        Folders of such runs, in the order of their paths.
    """
    begun = dict.fromkeys(path.parent for one in folders for path in sorted(one.rglob(RECIPE)))
    return [folder for folder in begun if not (folder / RESULT).exists()]


def _start(folder: Path) -> Start | None:
    path = folder / RECIPE
    if not path.exists():
        return None
    try:
        return Start.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TrainingError(
            f"{path} cannot be read; was it written by another version? Leave the run out, or "
            f"train it again. {describe_invalid(error)}"
        ) from error


def describe_network(recipe: Recipe) -> str:
    """Say how large a run's network is, and what it sees.

    Args:
        recipe: The run's recipe.

    Returns:
        Such as ``cresnet, blocks 2/2/2, width 16, 16x16 positions``.
    """
    model, size = recipe.model, recipe.data.size
    unit = "pixels" if isinstance(model, PixelNetwork) else "positions"
    blocks = (
        f"blocks {'/'.join(map(str, model.depths))}" if model.depths else f"ResNet-{model.depth}"
    )
    begins = " (begins near the identity)" if _near_identity(recipe) else ""
    return f"{model.kind}{begins}, {blocks}, width {model.width}, {size}x{size} {unit}"


def _near_identity(recipe: Recipe) -> bool:
    return isinstance(recipe.model, FeatureAdaptation) and recipe.model.near_identity


BLOCKS: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks of layer1 to layer4 of the published ResNets (He et al. 2016, Table 1)."""


def is_slim(recipe: Recipe) -> bool:
    """Say whether a network is less than the published one of its depth.

    Args:
        recipe: The run's recipe.

    Returns:
        Whether it is narrower, or a layer has fewer blocks.
    """
    own, whole = _blocks(recipe)
    return recipe.model.width < 64 or any(a < b for a, b in zip(own, whole, strict=True))


def is_papers(recipe: Recipe) -> bool:
    """Say whether a network is as large as the paper's, sees as much, and begins as usual.

    Args:
        recipe: The run's recipe.

    Returns:
        Whether it is of ResNet-50's blocks and width, at 224x224 pixels or 28x28 positions, and
        not ``near_identity``.
    """
    model = recipe.model
    own, whole = _blocks(recipe)
    size = 224 if isinstance(model, PixelNetwork) else 28
    like = own == whole and (model.depth, model.width, recipe.data.size) == (50, 64, size)
    return like and not _near_identity(recipe)


def _blocks(recipe: Recipe) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks of a network's layers, and those of the published one of its depth."""
    model = recipe.model
    whole = BLOCKS[model.depth][0 if isinstance(model, PixelNetwork) else 1 :]
    return model.depths or whole, whole
