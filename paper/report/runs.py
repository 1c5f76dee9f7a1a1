"""Finished runs, and their averages over seeds."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.paper.report.output import NOTHING
from latentset.train.recipe.recipe import FROM_RECIPE, TORCHVISION, Paper, Recipe, differences
from latentset.train.run.run_files import RECIPE, RESULT, read_result
from latentset.train.run.run_folder import Start

NO_RUNS = "no runs of the paper's recipes (latentset recipes lists them)"
"""Why what is made of runs is left out."""

DISTILLED = ", distilled"
"""How the name of a setting, or of a recipe, ends whose runs learnt from a teacher too."""

RUN_WEIGHTS = re.compile(r"(.+)/seed-\d+/(?:best|last)\.safetensors")
"""Weights of a run, as ``latentset sweep`` and ``latentset train`` keep them."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    """Its result.json."""
    start: Start | None
    """Its recipe.json; None where only its figures are there."""

    @property
    def recipe(self) -> Recipe | None:
        """Its resolved recipe."""
        return self.start.recipe if self.start else None

    @property
    def name(self) -> str:
        """Name of its recipe."""
        return str(self.result["recipe"])

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.result["seed"])

    @property
    def paper(self) -> Paper | None:
        """What of the paper it reproduces, if anything."""
        return self.recipe.paper if self.recipe else None

    @property
    def distilled(self) -> str:
        """:data:`DISTILLED` where it learnt from a teacher too, unlike the paper's runs."""
        return DISTILLED if self.recipe is not None and self.recipe.distill.logits else ""

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
        """Fraction of the samples whose class came first."""
        keys = {"test": ("test", "top1"), "val": ("best", "val_top1")}
        part, key = keys.get(self.split, ("last", "train_top1"))
        return float(self.result[part][key])

    @property
    def top5(self) -> float | None:
        """Fraction of the samples whose class was among the first five, where it was counted."""
        keys = {"test": ("test", "top5"), "val": ("best", "val_top5")}
        if self.split not in keys:
            return None
        part, key = keys[self.split]
        return float(self.result[part][key])


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    runs: tuple[Run, ...]
    """By seed."""

    @property
    def first(self) -> Run:
        """One of them, for what they have in common."""
        return self.runs[0]

    @property
    def codec_name(self) -> str:
        """Name of their codec."""
        return str(self.first.result["codec"])

    @property
    def top1(self) -> float:
        """Mean top-1, percent."""
        return 100 * statistics.mean(run.top1 for run in self.runs)

    @property
    def top1_spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1), points; None for one seed."""
        return 100 * statistics.stdev(r.top1 for r in self.runs) if len(self.runs) > 1 else None

    @property
    def top5(self) -> float | None:
        """Mean top-5, percent, where all runs have it."""
        found = [run.top5 for run in self.runs if run.top5 is not None]
        return 100 * statistics.mean(found) if len(found) == len(self.runs) else None


Key = tuple[str, str]
"""Setting and codec, as a recipe's table [paper] names them; :data:`DISTILLED` may follow the
setting."""

Groups = Mapping[Key, Group]
"""The runs of one data set."""


def cell(group: Group | None) -> str:
    """Mean, spread and number of seeds as tables show them."""
    if group is None:
        return NOTHING
    spread = "" if group.top1_spread is None else f" ± {group.top1_spread:.1f}"
    return f"{group.top1:.1f}{spread} ({len(group.runs)})"


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Read all finished runs below some folders, in the order of their paths.

    Raises:
        TrainingError: A folder has no finished run, or a file of one cannot be read.
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
    """Find the folders of runs that were started and have no result, in order."""
    started = dict.fromkeys(path.parent for one in folders for path in sorted(one.rglob(RECIPE)))
    return [folder for folder in started if not (folder / RESULT).exists()]


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


def group_runs(runs: Iterable[Run]) -> dict[str, dict[Key, Group]]:
    """Group the runs that reproduce something of the paper, by data set, setting and codec.

    Runs of recipes without a table [paper] are excluded; distilled runs are a setting of their own.

    Raises:
        TrainingError: Two runs of one experiment have the same seed, or differ by more than it.
    """
    found: dict[str, dict[Key, list[Run]]] = {}
    for run in runs:
        if run.paper:
            key = run.paper.setting + run.distilled, run.paper.codec
            found.setdefault(run.name.partition("/")[0], {}).setdefault(key, []).append(run)
    return {
        data_set: {key: group_seeds(own) for key, own in groups.items()}
        for data_set, groups in found.items()
    }


def group_seeds(runs: Sequence[Run]) -> Group:
    """Group runs of one recipe.

    Raises:
        TrainingError: Two have the same seed, or differ in their settings, in the store, in where
            their first weights come from, in precision, or in how many processes trained.
    """
    runs = sorted(runs, key=lambda run: run.seed)
    first, seeds = runs[0], [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise TrainingError(
            f"{first.name}: expected runs of different seeds, got seeds {seeds}; "
            "name the folders of the runs that are meant"
        )
    for run in runs[1:]:
        changed = []
        if run.recipe and first.recipe:
            changed = _changes(first.recipe, run.recipe)
        if run.result["store_fingerprint"] != first.result["store_fingerprint"]:
            changed.append("the store")
        before, after = (one.result.get("processes") for one in (first, run))
        if None not in (before, after) and before != after:  # older files do not have it
            changed.append(f"processes: {before} -> {after}")
        if changed:
            raise TrainingError(
                f"{first.folder} and {run.folder}: expected runs of {first.name} that differ by "
                f"their seed alone, got {'; '.join(changed)}; report them apart"
            )
    return Group(tuple(runs))


def _changes(before: Recipe, after: Recipe) -> list[str]:
    """What differs beside the seed, and where the first weights come from."""
    changed = differences(before, after.model_copy(update={"seed": before.seed}))
    old, new = before.weights.adopt, after.weights.adopt
    # Folders of runs may differ: the last words of the path are the recipe's name.
    words, others = _origin(old), _origin(new)
    count = min(2, len(words), len(others))
    if count and words[-count:] != others[-count:]:
        changed.append(f"weights.adopt: {old} -> {new}")
    return changed


def _origin(adopt: str) -> tuple[str, ...]:
    """Words of the name of the recipe that weights come from; none for any other file."""
    if adopt.startswith(TORCHVISION):
        return (adopt,)
    if adopt.startswith(FROM_RECIPE):
        return tuple(adopt.removeprefix(FROM_RECIPE).split("/"))
    found = RUN_WEIGHTS.fullmatch(adopt)
    return tuple(found[1].split("/")) if found else ()
