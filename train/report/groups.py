"""Runs of the paper's experiments, averaged over their seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latentset.datasets.errors import TrainingError
from latentset.train.recipe import differences
from latentset.train.report.runs import Run

NO_RUNS = "no runs of the paper's recipes (latentset recipes lists them)"
"""Why what is made of runs is left out."""

Key = tuple[str, str]
"""Setting and codec, as a recipe's table [paper] names them."""


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
        By data set, then by setting and codec.

    Raises:
        TrainingError: Two runs of one experiment have the same seed, or differ by more than it.
    """
    sorted_: dict[str, dict[Key, list[Run]]] = {}
    for run in runs:
        if run.paper:
            key = run.paper.setting, run.paper.codec
            sorted_.setdefault(run.data_set, {}).setdefault(key, []).append(run)
    return {
        data_set: {key: _group(found) for key, found in groups.items()}
        for data_set, groups in sorted_.items()
    }


def check_seeds(runs: Sequence[Run]) -> None:
    """Refuse to average runs of the same seed.

    Args:
        runs: Runs of one recipe.

    Raises:
        TrainingError: Two have the same.
    """
    seeds = sorted(run.seed for run in runs)
    if len(set(seeds)) < len(seeds):
        raise TrainingError(
            f"{runs[0].name}: expected runs of different seeds, got seeds {seeds}; "
            "name the folders of the runs that are meant"
        )


def _group(runs: list[Run]) -> Group:
    runs = sorted(runs, key=lambda run: run.seed)
    check_seeds(runs)
    first = runs[0]
    for run in runs[1:]:
        changed = []
        if run.recipe and first.recipe:
            same_seed = run.recipe.model_copy(update={"seed": first.recipe.seed})
            changed = differences(first.recipe, same_seed)
        if run.result["store_fingerprint"] != first.result["store_fingerprint"]:
            changed.append("the store")
        if changed:
            raise TrainingError(
                f"{first.folder} and {run.folder}: expected runs of {first.name} that differ by "
                f"their seed alone, got {'; '.join(changed)}; report them apart"
            )
    return Group(tuple(runs))
