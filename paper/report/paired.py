"""Differences between two networks, paired by seed: docs/results/protocol.md's analysis."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.terminal import printable
from latentset.paper.report.captions import data_set_title, papers_top1, setting_title, sort_codecs
from latentset.paper.report.output import NOTHING, Part, markdown, number, write_csv
from latentset.paper.report.runs import NO_RUNS, Group, Groups, Run, half_interval

PAIRS = (
    ("fa-cresnet", "cresnet"),
    ("fa-cresnet", "cresnet-scratch"),
    ("fa-cresnet-scratch", "cresnet-scratch"),
    ("fa-cresnet", "input-y"),
)
"""Settings that are compared: the top-1 of the first less that of the second."""

OTHER_TRAINING = (("fa-cresnet", "anchor2"), ("cresnet", "cresnet-scratch"))
"""Settings that are compared without a verdict: their training differs."""

PREDICTIONS = ("predictions.csv", "predictions.parquet")
"""Tables of ``latentset predict`` in a run's folder, for McNemar's test and the bootstrap."""

CENTRAL = "central.json"
"""What ``latentset evaluate RUN STORE --split SPLIT --crop central --json`` writes, there too."""

LEAST, CLAIM = 1.5, 3.0
"""Points: a supported difference has at least so many; the paper claims so many."""

SEEDS = 3
"""A verdict is of at least so many seeds."""

DRAWS, SEED = 10_000, 0

Bools = NDArray[np.bool_]


def write_differences(data_sets: Mapping[str, Groups], folder: Path) -> Part:
    """Write differences.csv and differences.md.

    McNemar's test and the bootstrap are of the runs that have predictions, the central crop is of
    those that were evaluated with it.
    """
    unusable: list[str] = []
    rows = [
        _row(name, codec, groups[one, codec], groups[other, codec], (one, other), unusable)
        for name, groups in data_sets.items()
        for codec in sort_codecs(codec for _, codec in groups)
        for one, other in PAIRS + OTHER_TRAINING
        if (one, codec) in groups and (other, codec) in groups
    ]
    rows = [row for row in rows if row["seeds"]]
    if not rows:
        return Part(remark="no two networks with a common seed" if data_sets else NO_RUNS)
    write_csv(folder / "differences.csv", rows)
    text = (
        "# Differences between networks, paired by seed\n\n"
        "Top-1 of the first less that of the second, points: mean over the seeds that both have, "
        "95 % interval of Student's t, number of those seeds. Verdict: supported if the interval "
        f"is above 0 and the mean at least {LEAST} points; no {CLAIM:.0f} points if the interval "
        f"ends below {CLAIM:.0f}; else undecided; none of less than {SEEDS} seeds. Of runs with "
        f"{' or '.join(PREDICTIONS)} (`latentset predict`) in their folder: bootstrap, the 95 % "
        f"interval of {DRAWS:,} draws over seeds and, within each, images; McNemar, exact p of "
        f"each seed. Of runs with {CENTRAL} (`latentset evaluate --crop central --json`): points "
        "and interval with the central crop.\n"
    )
    for name in dict.fromkeys(row["data_set"] for row in rows):
        text += f"\n## {data_set_title(name)}\n\n"
        cells = [_cells(row) for row in rows if row["data_set"] == name]
        titles = ["codec", "difference", "each seed", "points", "95 % interval", "seeds", "verdict"]
        titles += ["paper's", "central crop", "bootstrap", "McNemar"]
        text += markdown(titles, cells, left=titles[:2])
    write_atomically(folder / "differences.md", text)
    return Part(("differences.md", "differences.csv"), "; ".join(dict.fromkeys(unusable)))


def _row(
    data_set: str,
    codec: str,
    one: Group,
    other: Group,
    pair: tuple[str, str],
    unusable: list[str],
) -> dict[str, Any]:
    ours, theirs = ({run.seed: run for run in group.runs} for group in (one, other))
    seeds = sorted(ours.keys() & theirs.keys())
    found = [100 * (ours[seed].top1 - theirs[seed].top1) for seed in seeds]
    low, high = t_interval(found)
    papers = [papers_top1(data_set, setting, codec) for setting in pair]
    rights = []
    try:
        rights = [both for seed in seeds if (both := _rights(ours[seed], theirs[seed]))]
    except TrainingError as error:
        unusable.append(f"without predictions: {error}")
    whole = bool(rights) and len(rights) == len(seeds)
    drawn = bootstrap_interval(rights) if whole else (None, None)
    central: list[float] = []
    try:
        tops = [[_central_top1(runs[seed]) for runs in (ours, theirs)] for seed in seeds]
        central = [100 * (a - b) for a, b in tops if a is not None and b is not None]
    except TrainingError as error:
        unusable.append(f"without the central crop: {error}")
    if len(central) < len(seeds):
        central = []
    central_low, central_high = t_interval(central)
    return {
        "data_set": data_set,
        "codec": codec,
        "codec_name": one.codec_name,
        "setting": pair[0],
        "less": pair[1],
        "seeds": len(seeds),
        "each_seed": " ".join(f"{points:+.1f}" for points in found),
        "points": statistics.mean(found) if found else None,
        "low": low,
        "high": high,
        "verdict": verdict(found) if pair in PAIRS else NOTHING,
        "paper_points": papers[0] - papers[1] if papers[0] and papers[1] else None,
        "central_points": statistics.mean(central) if central else None,
        "central_low": central_low,
        "central_high": central_high,
        "bootstrap_low": drawn[0],
        "bootstrap_high": drawn[1],
        "mcnemar_p": " ".join(f"{mcnemar(*pair):.2g}" for pair in rights) if whole else "",
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    def signed(value: float | None) -> str:
        return NOTHING if value is None else f"{value:+.1f}"

    def interval(low: float | None, high: float | None) -> str:
        return NOTHING if low is None else f"{signed(low)} to {signed(high)}"

    central = signed(row["central_points"])
    if row["central_low"] is not None:
        central += f" ({interval(row['central_low'], row['central_high'])})"
    return [
        row["codec_name"],
        f"{setting_title(row['setting'])} − {setting_title(row['less'])}",
        row["each_seed"].replace(" ", ", "),
        signed(row["points"]),
        interval(row["low"], row["high"]),
        number(row["seeds"], 0),
        row["verdict"],
        signed(row["paper_points"]),
        central,
        interval(row["bootstrap_low"], row["bootstrap_high"]),
        row["mcnemar_p"].replace(" ", ", ") or NOTHING,
    ]


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % interval of a mean, by Student's t; None of less than two values."""
    half = half_interval(values)
    if half is None:
        return None, None
    return statistics.mean(values) - half, statistics.mean(values) + half


def verdict(points: Sequence[float]) -> str:
    """The protocol's verdict on the differences of some seeds."""
    low, high = t_interval(points)
    if low is None or high is None or len(points) < SEEDS:
        return NOTHING
    if low > 0 and statistics.mean(points) >= LEAST:
        return "supported"
    if high >= CLAIM:
        return "undecided"
    side = " (above 0)" if low > 0 else " (below 0)" if high < 0 else ""
    return f"no {CLAIM:.0f} points{side}"


def mcnemar(one: Bools, other: Bools) -> float:
    """P value of McNemar's exact test: which samples are right in one alone."""
    from scipy.stats import binomtest

    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def bootstrap_interval(pairs: Sequence[tuple[Bools, Bools]]) -> tuple[float, float]:
    """95 % percentile interval of the mean difference, points, over seeds and their samples."""
    random = np.random.default_rng(SEED)
    # A draw of n samples with gains and losses is multinomial: no need to draw each.
    shares = np.array(
        [((a & ~b).mean(), (b & ~a).mean(), (a == b).mean()) for a, b in pairs], np.float64
    )
    samples = len(pairs[0][0])
    seeds = random.integers(0, len(pairs), (DRAWS, len(pairs)))
    drawn = random.multinomial(samples, shares[seeds])  # (DRAWS, seeds, 3)
    points = 100 * (drawn[..., 0] - drawn[..., 1]).mean(axis=1) / samples
    low, high = np.percentile(points, (2.5, 97.5))
    return float(low), float(high)


def _central_top1(run: Run) -> float | None:
    """Top-1 with the central crop, as a fraction; None where it was not evaluated."""
    path = run.folder / CENTRAL
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured = found["splits"][run.split]
        if found["crop"] == "central" and measured["samples"] == run.samples:
            return float(measured["top1"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainingError(
        f"{path}: expected what `latentset evaluate RUN STORE --split {printable(run.split)} "
        f"--crop central --json {CENTRAL}` writes, of {run.samples} samples; run it again"
    )


def _rights(one: Run, other: Run) -> tuple[Bools, Bools] | None:
    """Which samples each run has right, in one order; None without predictions of both."""
    first, second = _read_predictions(one), _read_predictions(other)
    if first is None or second is None:
        return None
    if first.keys() != second.keys():
        raise TrainingError(
            f"{one.folder} and {other.folder} have predictions of other samples: expected the same "
            "ids"
        )
    return np.array([*first.values()], bool), np.array([second[name] for name in first], bool)


def _read_predictions(run: Run) -> dict[str, bool] | None:
    """Whether a run has each test sample right, by id; None without predictions."""
    path = next((run.folder / name for name in PREDICTIONS if (run.folder / name).is_file()), None)
    if path is None or run.samples is None:
        return None
    texts = dict.fromkeys(("id", "split", "label", "class"), pa.string())
    try:
        if path.suffix == ".csv":
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=texts))
        else:
            table = pa.parquet.read_table(path)
        rows = table.select(list(texts)).cast(pa.schema(texts)).to_pylist()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"{path}: expected a table of `latentset predict`: {reason}") from error
    split = printable(run.split)
    right = {
        row["id"]: row["class"] is not None and row["class"] == row["label"]
        for row in rows
        if row["split"] == split
    }
    if len(right) != run.samples or sum(right.values()) != round(run.top1 * len(right)):
        raise TrainingError(
            f"{path}: expected {run.samples} predictions of split {split}, {run.top1:.2%} of them "
            f"right, as in the run's result; got {len(right)}, {sum(right.values())} of them right"
        )
    return right
