"""Finished runs, and their averages over seeds."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from latentset.datasets.errors import TrainingError
from latentset.paper.report.output import NOTHING
from latentset.train.recipe.recipe import FROM_RECIPE, TORCHVISION, Recipe, differences
from latentset.train.run.run_files import RECIPE, RESULT, read_result
from latentset.train.run.run_folder import read_start

NO_RUNS = "no runs of the paper's recipes (latentset recipes lists them)"
"""Why tables and figures of runs are missing."""

DISTILLED = ", distilled"
"""Suffix of the titles of settings with a teacher."""

RUN_WEIGHTS = re.compile(r"(.+)/seed-\d+/(?:best|last)\.safetensors")
"""Weights of a run, as ``latentset sweep`` and ``latentset train`` keep them."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    """Its result.json."""
    recipe: Recipe | None
    """Its resolved recipe; None where only its result is there."""
    resize: str | None
    """Resize rule of its store."""
    name: str
    """Of its recipe."""
    seed: int
    split: str
    """Which split of its store its accuracies are of: the recipe's for test, where it names one,
    or for validation, or, where neither, for training."""
    samples: int | None
    """Number of test samples; None for other splits."""
    top1: float
    top5: float | None
    """Fractions of the samples; top-5 where it was counted."""
    distilled: str
    """:data:`DISTILLED` where it learnt from a teacher too, unlike the paper's runs."""


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone, and means over them."""

    runs: tuple[Run, ...]
    """By seed."""
    first: Run
    """One of them, for what they have in common."""
    codec_name: str
    top1: float
    """Percent."""
    top1_interval: float | None
    """Half of the mean's 95 % interval, points; None for one seed."""
    top5: float | None
    """Percent, where all runs have it."""

    def columns(self) -> dict[str, Any]:
        """Columns of CSV files that all tables of accuracies have."""
        return {
            "split": self.first.split,
            "samples": self.first.samples,
            "parameters": self.first.result["parameters"],
            "seeds": len(self.runs),
            "top1": self.top1,
            "top1_interval": self.top1_interval,
        }


Key = tuple[str, str]
"""Setting and codec, as a recipe's table [paper] names them; :data:`DISTILLED` may follow the
setting."""

Groups = Mapping[Key, Group]
"""The runs of one data set."""


def cell(group: Group | None) -> str:
    """Mean, 95 % interval and number of seeds as tables show them."""
    if group is None:
        return NOTHING
    interval = "" if group.top1_interval is None else f" ± {group.top1_interval:.1f}"
    return f"{group.top1:.1f}{interval} ({len(group.runs)})"


def half_interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean, by Student's t; None of less than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / sqrt(len(values))


def find_runs(folders: Iterable[Path], unreadable: list[str] | None = None) -> list[Run]:
    """Read all finished runs below some folders, in the order of their paths.

    What is wrong with a run that cannot be read is added to ``unreadable``; None raises it.

    Raises:
        TrainingError: A folder has no finished run that can be read.
    """
    runs: list[Run] = []
    for folder in folders:
        found = sorted(folder.rglob(RESULT)) if folder.is_dir() else []
        if not found:
            raise TrainingError(
                f"{folder}: expected finished runs ({RESULT}) in it, found none; "
                "latentset train writes that file when it ends"
            )
        wrong: list[TrainingError] = []
        for path in found:
            try:
                runs.append(read_run(path.parent))
            except TrainingError as error:
                wrong.append(error)
        if wrong and (unreadable is None or len(wrong) == len(found)):
            raise wrong[0]
        if unreadable is not None:
            unreadable += map(str, wrong)
    return runs


def read_run(folder: Path) -> Run:
    """Read a finished run."""
    result = read_result(folder)
    remedy = "Leave the run out, or train it again"
    start = read_start(folder, remedy) if (folder / RECIPE).exists() else None
    recipe = start.recipe if start else None
    test, best, last = result["test"], result["best"], result["last"]
    if test:  # older runs do not name its split
        split = result.get("test_split") or (recipe.data.test_split if recipe else "test")
        top1, top5 = test["top1"], test["top5"]
    elif best:
        split = recipe.data.val_split if recipe else "val"
        top1, top5 = best["val_top1"], best["val_top5"]
    elif last:
        split = recipe.data.train_split if recipe else "train"
        top1, top5 = last["train_top1"], None
    else:
        raise TrainingError(
            f"{folder}: no accuracy to report: the run has no epoch, and was evaluated on no split"
        )
    return Run(
        folder=folder,
        result=result,
        recipe=recipe,
        resize=start.store.resize if start else None,
        name=result["recipe"],
        seed=result["seed"],
        split=split,
        samples=test["samples"] if test else None,
        top1=top1,
        top5=top5,
        distilled=DISTILLED if recipe and recipe.distill.logits else "",
    )


def find_unfinished(folders: Iterable[Path]) -> list[Path]:
    """Find the folders of runs that were started and have no result, in order."""
    started = dict.fromkeys(path.parent for one in folders for path in sorted(one.rglob(RECIPE)))
    return [folder for folder in started if not (folder / RESULT).exists()]


def group_runs(runs: Iterable[Run]) -> dict[str, dict[Key, Group]]:
    """Group the runs that reproduce something of the paper, by data set, setting and codec.

    Runs of recipes without a table [paper] are excluded; distilled runs are a setting of their own.

    Raises:
        TrainingError: Two runs of one experiment have the same seed, or differ by more than it.
    """
    found: dict[str, dict[Key, list[Run]]] = {}
    for run in runs:
        if run.recipe and (paper := run.recipe.paper):
            key = paper.setting + run.distilled, paper.codec
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
            f"{first.name}: expected runs of different seeds, got seeds {seeds} in "
            f"{', '.join(str(run.folder) for run in runs)}; name the folders of the runs that are "
            "meant (latentset report RUN …)"
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
    top1 = [run.top1 for run in runs]
    top5 = [run.top5 for run in runs if run.top5 is not None]
    return Group(
        runs=tuple(runs),
        first=first,
        codec_name=str(first.result["codec"]),
        top1=100 * statistics.mean(top1),
        top1_interval=half_interval([100 * accuracy for accuracy in top1]),
        top5=100 * statistics.mean(top5) if len(top5) == len(runs) else None,
    )


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
