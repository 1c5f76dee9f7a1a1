"""Table 2: what an image costs: time, features, parameters, mult-adds; encoding and decoding.

The paper's networks are built and measured here, at their full size, whatever was trained; below
them stand the networks that the runs trained.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import write_atomically
from latentset.paper import published
from latentset.paper.network_cost import (
    NetworkSize,
    describe_machine,
    measure_size,
    measure_times,
)
from latentset.paper.report.captions import (
    data_set_title,
    setting_title,
    sort_codecs,
)
from latentset.paper.report.output import Part, markdown, number, write_csv
from latentset.paper.report.runs import Groups
from latentset.train.models.networks import FACResNetNetwork, Network, ResNetNetwork

CLASSES = 23
"""Of MINC-2500, which Table 2 is of."""

CHANNELS = {"msssim-1": 192, "msssim-4": 192, "msssim-8": 320}
"""Channels of y_hat that Table 2's parameters imply."""

PAPERS = "The paper's networks (ResNet-50, 23 classes)"
"""Heading of the table that the paper's figures stand in."""

SHOWN = ("anchor2", "cresnet", "fa-cresnet")
"""Settings of runs whose networks are measured."""


class CodecTiming(BaseModel):
    """How long one image takes with one codec."""

    model_config = ConfigDict(frozen=True)

    encode_ms: float | None = None
    decode_ms: float | None = None
    image: tuple[int, int] | None = None
    """Its height and width, pixels."""


class CodecTimings(BaseModel):
    """A file that `latentset codec time --json` writes, as far as it is needed."""

    model_config = ConfigDict(frozen=True)

    machine: str = ""
    codecs: dict[str, CodecTiming]
    """By the codec's name."""


MEASURES = (
    ("inference, ms", "inference_ms", "inference_ms", 1),
    ("pass, MB", "pass_mb", "pass_mb", 1),
    ("parameters, M", "parameters", "parameters_m", 10**6),
    ("mult-adds, G", "mult_adds", "mult_adds_g", 10**9),
)
"""Title, our column, the field of ``PublishedCost``, and the unit of ours."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network that is measured."""

    title: str
    """Heading of its table."""
    setting: str
    codec: str
    """Loss and quality."""
    codec_name: str
    network: Network
    side: int
    """Of its input."""


def read_codec_times(path: Path) -> CodecTimings:
    """Read a file of times.

    Raises:
        TrainingError: It cannot be read.
    """
    try:
        return CodecTimings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(
            f"--codec-times {path}: expected what `latentset codec time --json` writes: "
            f"{describe_invalid(error)}"
        ) from error


def write_table2(
    data_sets: Mapping[str, Groups],
    codec_times: CodecTimings | None,
    folder: Path,
    *,
    timing: bool,
) -> Part:
    """Write table2.csv and table2.md, with inference times where ``timing``.

    The paper's networks are measured without any runs.
    """
    networks = [*_papers(), *_runs(data_sets)]
    distinct = list(dict.fromkeys((one.network, one.side) for one in networks))
    sizes = {key: measure_size(*key) for key in distinct}
    times = dict(zip(distinct, measure_times(distinct), strict=True)) if timing else {}
    rows = [
        _row(one, sizes[one.network, one.side], times.get((one.network, one.side)))
        for one in networks
    ]
    write_csv(folder / "table2.csv", rows)
    text = "# Table 2: what one image costs\n\n"
    if timing:
        passes = [len(seconds) for seconds in times.values()]
        text += (
            f"Inference: median of {min(passes)} to {max(passes)} forward passes of one sample, "
            f"warmed up, all networks in turn, on {describe_machine()}. "
        )
    text += (
        "Pass size, parameters and mult-adds: torchinfo, one sample. The paper's times are of "
        "another machine.\n"
    )
    for title in dict.fromkeys(one.title for one in networks):
        own = [row for row in rows if row["networks"] == title]
        text += f"\n## {title}\n\n" + _table(own)
    if codec_times:
        images = dict.fromkeys(time.image for time in codec_times.codecs.values() if time.image)
        of = " or ".join(f"{height}x{width}" for height, width in images)
        text += f"\n## Codecs\n\nOne image{f' of {of} pixels' if of else ''}, on "
        text += f"{codec_times.machine}.\n\n" + _write_codecs(codec_times, folder)
    write_atomically(folder / "table2.md", text)
    missing = [] if timing else ["inference times (--skip-timing)"]
    missing += [] if codec_times else ["times of the codecs (--codec-times FILE)"]
    files = ["table2.md", "table2.csv", *(["table2-codecs.csv"] if codec_times else [])]
    return Part(tuple(files), f"without {' and '.join(missing)}" if missing else "")


def _papers() -> Iterator[MeasuredNetwork]:
    resnet = ResNetNetwork(kind="resnet", num_classes=CLASSES)
    for codec in published.CODECS:
        title = codec.replace("msssim", "HyperMS-SSIM")
        n = (2, 3, 4) if codec == "msssim-1" else (3, 4, 5)
        network = FACResNetNetwork(
            kind="fa-cresnet", num_classes=CLASSES, channels=CHANNELS[codec], n=n
        )
        yield MeasuredNetwork(PAPERS, "anchor2", codec, title, resnet, 224)
        yield MeasuredNetwork(PAPERS, "fa-cresnet", codec, title, network, 28)


def _runs(data_sets: Mapping[str, Groups]) -> Iterator[MeasuredNetwork]:
    for name, groups in data_sets.items():
        title = f"Networks of the runs: {data_set_title(name)}"
        for codec in sort_codecs(codec for _, codec in groups):
            for setting in SHOWN:
                group = groups.get((setting, codec))
                if group and (recipe := group.first.recipe):
                    yield MeasuredNetwork(
                        title, setting, codec, group.codec_name, recipe.model, recipe.data.size
                    )


def _row(one: MeasuredNetwork, size: NetworkSize, seconds: list[float] | None) -> dict[str, Any]:
    papers = published.TABLE2.get((one.setting, one.codec)) if one.title == PAPERS else None
    ours = {
        "inference_ms": 1000 * statistics.median(seconds) if seconds else None,
        "pass_mb": size.pass_bytes / 1e6,
        "parameters": size.parameters,
        "mult_adds": size.mult_adds,
    }
    row = {
        "networks": one.title,
        "setting": one.setting,
        "codec": one.codec_name,
        "width": one.network.width,
        "input": one.side,
    }
    for _, column, papers_column, _ in MEASURES:
        row[column] = ours[column]
        row[f"paper_{papers_column}"] = getattr(papers, papers_column, None)
    return row


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    papers = rows[0]["networks"] == PAPERS
    titles = ["codec", "network"]
    lines = [[row["codec"], setting_title(row["setting"])] for row in rows]
    for title, key, papers_key, unit in MEASURES:
        titles += [title, "paper's"] if papers else [title]
        for line, row in zip(lines, rows, strict=True):
            value = row[key]
            digits = 3 if value is not None and value < unit else 1
            line.append(number(None if value is None else value / unit, digits))
            if papers:
                line.append(number(row[f"paper_{papers_key}"], 1))
    return markdown(titles, lines, left=("codec", "network"))


def _write_codecs(times: CodecTimings, folder: Path) -> str:
    columns = ("codec", "encode_ms", "paper_encode_ms", "decode_ms", "paper_decode_ms")
    rows, lines = [], []
    for name, found in times.codecs.items():
        key = "-".join(name.rsplit("-", 2)[-2:])
        encode, decode = published.CODEC_MS.get(key, (None, None))
        ms = (found.encode_ms, encode, found.decode_ms, decode)
        rows.append(dict(zip(columns, (name, *ms), strict=True)))
        lines.append([name, *map(number, ms, (1, 0, 1, 0))])
    write_csv(folder / "table2-codecs.csv", rows)
    titles = ["codec", "encoding, ms", "paper's", "decoding, ms", "paper's"]
    return markdown(titles, lines, left=("codec",))
