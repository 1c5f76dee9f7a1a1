"""Runs of the paper's experiments, averaged over their seeds."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latentset.datasets.errors import TrainingError
from latentset.paper.report.runs import Run
from latentset.train.recipe.recipe import FROM_RECIPE, TORCHVISION, Recipe, differences

NO_RUNS = "no runs of the paper's recipes (latentset recipes lists them)"
"""Why what is made of runs is left out."""

Key = tuple[str, str]
"""Setting and codec, as a recipe's table [paper] names them; :data:`DISTILLED` may follow the
setting."""

DISTILLED = ", distilled"
"""How the name of a setting, or of a recipe, ends whose runs learnt from a teacher too."""

RUN = re.compile(r"(.+)/seed-\d+/(?:best|last)\.safetensors")
"""Weights of a run, as ``latentset sweep`` and ``latentset train`` keep them."""


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    runs: tuple[Run, ...]
    """The runs, by seed."""

    @property
    def first(self) -> Run:
        """One of them, for what they have in common."""
        return self.runs[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Their seeds."""
        return tuple(run.seed for run in self.runs)

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

    @property
    def cell(self) -> str:
        """Mean and spread as tables show them."""
        spread = self.top1_spread
        return f"{self.top1:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def group_runs(runs: Iterable[Run]) -> dict[str, dict[Key, Group]]:
    """Sort the runs that reproduce something of the paper.

    Args:
        runs: Finished runs; those of recipes without a table [paper] are left out.

    Returns:
        By data set, then by setting and codec. Distilled runs are a setting of their own.

    Raises:
        TrainingError: Two runs of one experiment have the same seed, or differ by more than it.
    """
    sorted_: dict[str, dict[Key, list[Run]]] = {}
    for run in runs:
        if run.paper:
            setting = run.paper.setting + (DISTILLED if run.distilled else "")
            key = setting, run.paper.codec
            sorted_.setdefault(run.data_set, {}).setdefault(key, []).append(run)
    return {
        data_set: {key: _group(found) for key, found in groups.items()}
        for data_set, groups in sorted_.items()
    }


def check_runs(runs: Sequence[Run]) -> None:
    """Refuse to average runs that differ by more than their seed.

    Args:
        runs: Runs of one recipe.

    Raises:
        TrainingError: Two have the same seed, or differ in their settings, in the store, in where
            their first weights come from, in precision, or in how many processes trained.
    """
    first = runs[0]
    seeds = sorted(run.seed for run in runs)
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
        if None not in (before, after) and before != after:  # older files do not say
            changed.append(f"processes: {before} -> {after}")
        if changed:
            raise TrainingError(
                f"{first.folder} and {run.folder}: expected runs of {first.name} that differ by "
                f"their seed alone, got {'; '.join(changed)}; report them apart"
            )


def _group(runs: list[Run]) -> Group:
    runs = sorted(runs, key=lambda run: run.seed)
    check_runs(runs)
    return Group(tuple(runs))


def _changes(before: Recipe, after: Recipe) -> list[str]:
    """What differs beside the seed, and where the first weights come from."""
    changed = differences(before, after.model_copy(update={"seed": before.seed}))
    old, new = before.weights.adopt, after.weights.adopt
    if old and new and not _same_origin(old, new):
        changed.append(f"weights.adopt: {old} -> {new}")
    return changed


def _same_origin(one: str, other: str) -> bool:
    """Whether weights have the same origin, as far as their names say; the seed may differ."""
    words, others = _origin(one), _origin(other)
    # Folders of runs may differ: the last words of the path are the recipe's name.
    count = min(2, len(words), len(others))
    return not count or words[-count:] == others[-count:]


def _origin(adopt: str) -> tuple[str, ...]:
    """What weights are called: words of a recipe's name; none for a file of any other name."""
    if adopt.startswith(TORCHVISION):
        return (adopt,)
    if adopt.startswith(FROM_RECIPE):
        return tuple(adopt.removeprefix(FROM_RECIPE).split("/"))
    found = RUN.fullmatch(adopt)
    return tuple(found[1].split("/")) if found else ()
