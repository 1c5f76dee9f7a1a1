"""Table 2: what an image costs: time, features, parameters, mult-adds; encoding and decoding.

The paper's networks are built and measured here, at their full size, whatever was trained; below
them stand the networks that the runs trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.paper import published as paper
from latentset.paper.report.captions import codec_order, codec_title, data_set_title, setting_title
from latentset.paper.report.groups import Group, Key
from latentset.paper.report.tables import Part, markdown, number, write_csv
from latentset.paper.report.timing import Cost, describe_machine, measure_costs
from latentset.train.models.networks import FACResNetNetwork, Network, ResNetNetwork
from latentset.train.run.run_files import write_text

CLASSES = 23
"""Of MINC-2500, which Table 2 is of."""

CHANNELS = {"msssim-1": 192, "msssim-4": 192, "msssim-8": 320}
"""Channels of y_hat that Table 2's parameters imply."""

PAPERS = "The paper's networks (ResNet-50, 23 classes)"
"""Heading of the table that the paper's figures stand in."""

SHOWN = ("anchor2", "cresnet", "fa-cresnet")
"""Settings of runs whose networks are measured."""


class CodecTime(BaseModel):
    """How long one image takes with one codec."""

    model_config = ConfigDict(frozen=True)

    encode_ms: float | None = None
    """To encode it, ms."""
    decode_ms: float | None = None
    """To decode it, ms."""
    image: tuple[int, int] | None = None
    """Its height and width, pixels."""


class CodecTimes(BaseModel):
    """A file that `latentset codec time --json` writes, as far as it is needed."""

    model_config = ConfigDict(frozen=True)

    machine: str = ""
    """What measured."""
    codecs: dict[str, CodecTime]
    """By the codec's name."""


COLUMNS = (
    ("inference, ms", "inference_ms", 1, 1),
    ("pass, MB", "pass_mb", 1, 1),
    ("parameters, M", "parameters", 10**6, 1),
    ("mult-adds, G", "mult_adds", 10**9, 1),
)
"""Title, key, unit and digits of what is measured; two digits more below one unit."""

PAPER_KEYS = {
    "inference_ms": "paper_inference_ms",
    "pass_mb": "paper_pass_mb",
    "parameters": "paper_parameters_m",
    "mult_adds": "paper_mult_adds_g",
}
"""Key of the paper's number beside each."""


@dataclass(frozen=True)
class Row:
    """One network that is measured."""

    title: str
    """Heading of its table."""
    setting: str
    """Its setting."""
    codec: str
    """Loss and quality."""
    codec_name: str
    """Name of the codec."""
    network: Network
    """The network."""
    size: int
    """Side of its input."""


def read_codec_times(path: Path) -> CodecTimes:
    """Read a file of times.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        TrainingError: It cannot be read.
    """
    try:
        return CodecTimes.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(
            f"--codec-times {path}: expected what `latentset codec time --json` writes: "
            f"{describe_invalid(error)}"
        ) from error


def write_table2(
    data_sets: Mapping[str, Mapping[Key, Group]],
    codec_times: CodecTimes | None,
    folder: Path,
    *,
    timing: bool,
) -> Part:
    """Write table2.csv and table2.md.

    Args:
        data_sets: Groups of runs by data set; the paper's networks are measured without any.
        codec_times: How long codecs take, where that was measured.
        folder: Where to.
        timing: Measure how long networks take.

    Returns:
        What was written.
    """
    rows = [*_papers(), *_runs(data_sets)]
    distinct = list(dict.fromkeys((row.network, row.size) for row in rows))
    measured = dict(zip(distinct, measure_costs(distinct, timing=timing), strict=True))
    costs = [measured[row.network, row.size] for row in rows]
    lines = [_line(row, cost) for row, cost in zip(rows, costs, strict=True)]
    write_csv(folder / "table2.csv", lines)
    text = ["# Table 2: what one image costs\n\n"]
    if timing:
        passes = [cost.passes for cost in costs]
        text.append(
            f"Inference: median of {min(passes)} to {max(passes)} forward passes of one sample, "
            f"warmed up, all networks in turn, on {describe_machine()}. "
        )
    text.append(
        "Pass size, parameters and mult-adds: torchinfo, one sample. The paper's times are of "
        "another machine.\n"
    )
    for title in dict.fromkeys(row.title for row in rows):
        own = [line for row, line in zip(rows, lines, strict=True) if row.title == title]
        text += [f"\n## {title}\n\n", _table(own)]
    if codec_times:
        sizes = dict.fromkeys(time.image for time in codec_times.codecs.values() if time.image)
        of = " or ".join(f"{height}x{width}" for height, width in sizes)
        said = f"One image{f' of {of} pixels' if of else ''}, on {codec_times.machine}."
        text += ["\n## Codecs\n\n", f"{said}\n\n"]
        text.append(_codecs(codec_times, folder))
    write_text(folder / "table2.md", "".join(text))
    missing = [] if timing else ["inference times (--skip-timing)"]
    missing += [] if codec_times else ["times of the codecs (--codec-times FILE)"]
    files = ["table2.md", "table2.csv", *(["table2-codecs.csv"] if codec_times else [])]
    return Part(tuple(files), f"without {' and '.join(missing)}" if missing else "")


def _papers() -> Iterator[Row]:
    resnet = ResNetNetwork(kind="resnet", num_classes=CLASSES)
    for codec in paper.CODECS:
        n = (2, 3, 4) if codec == "msssim-1" else (3, 4, 5)
        network = FACResNetNetwork(
            kind="fa-cresnet", num_classes=CLASSES, channels=CHANNELS[codec], n=n
        )
        yield Row(PAPERS, "anchor2", codec, codec_title(codec), resnet, 224)
        yield Row(PAPERS, "fa-cresnet", codec, codec_title(codec), network, 28)


def _runs(data_sets: Mapping[str, Mapping[Key, Group]]) -> Iterator[Row]:
    for name, groups in data_sets.items():
        codecs = sorted({codec for _, codec in groups if codec}, key=codec_order)
        for codec in codecs:
            for setting in SHOWN:
                group = groups.get((setting, codec))
                if group and group.first.recipe:
                    recipe = group.first.recipe
                    title = f"Networks of the runs: {data_set_title(name)}"
                    name_of = group.codec_name
                    yield Row(title, setting, codec, name_of, recipe.model, recipe.data.size)


def _line(row: Row, cost: Cost) -> dict[str, Any]:
    papers = paper.TABLE2.get((row.setting, row.codec)) if row.title == PAPERS else None
    return {
        "networks": row.title,
        "setting": row.setting,
        "codec": row.codec_name,
        "width": row.network.width,
        "input": row.size,
        "inference_ms": cost.inference_ms,
        "paper_inference_ms": papers.inference_ms if papers else None,
        "pass_mb": cost.pass_mb,
        "paper_pass_mb": papers.pass_mb if papers else None,
        "parameters": cost.parameters,
        "paper_parameters_m": papers.parameters_m if papers else None,
        "mult_adds": cost.mult_adds,
        "paper_mult_adds_g": papers.mult_adds_g if papers else None,
    }


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    papers = lines[0]["networks"] == PAPERS
    titles, rows = (
        ["codec", "network"],
        [[line["codec"], setting_title(line["setting"])] for line in lines],
    )
    for title, key, unit, digits in COLUMNS:
        titles += [title, "paper's"] if papers else [title]
        for row, line in zip(rows, lines, strict=True):
            value = line[key]
            small = value is not None and value < unit
            row.append(number(None if value is None else value / unit, digits + 2 * small))
            if papers:
                row.append(number(line[PAPER_KEYS[key]], 1))
    return markdown(titles, rows, left=("codec", "network"))


def _codecs(times: CodecTimes, folder: Path) -> str:
    lines: list[dict[str, Any]] = []
    for name, found in times.codecs.items():
        encode, decode = paper.CODEC_MS.get("-".join(name.rsplit("-", 2)[-2:]), (None, None))
        lines.append(
            {
                "codec": name,
                "encode_ms": found.encode_ms,
                "paper_encode_ms": encode,
                "decode_ms": found.decode_ms,
                "paper_decode_ms": decode,
            }
        )
    write_csv(folder / "table2-codecs.csv", lines)
    titles = ["codec", "encoding, ms", "paper's", "decoding, ms", "paper's"]
    rows = [
        [
            line["codec"],
            number(line["encode_ms"], 1),
            number(line["paper_encode_ms"], 0),
            number(line["decode_ms"], 1),
            number(line["paper_decode_ms"], 0),
        ]
        for line in lines
    ]
    return markdown(titles, rows, left=("codec",))
