"""``README.md`` of a store: its card, as the Hub shows it."""

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.store.statistics import ChannelStatistics
from latentset.datasets.store.store import Store
from latentset.datasets.store.summary import format_bytes, summarise
from latentset.sharing.figures import FIGURES
from latentset.sharing.markdown import clean, code, inline, table
from latentset.sharing.snippets import load_with_hdf5, load_with_latentset, load_with_zarr
from latentset.sharing.terms import License, source_terms

README = "README.md"
"""Name of the card in its folder."""

STATISTICS = "statistics.json"
"""Name of the file of statistics in its folder."""

MARK = "<!-- written by latentset card -->"
"""A README.md with this line may be replaced by a later card."""

_CLASSES_SHOWN = 30

_IN_OTHER_TABLES = {"complete", "samples", "splits", "classes"}
"""Rows of a store's summary that the card has elsewhere."""

Counts = Mapping[str, NDArray[np.int64]]
"""For each split the samples of each class; ``""`` is the split of those without one."""


@dataclass(frozen=True)
class Card:
    """What a card is written from."""

    store: Store
    digest: str
    """SHA-256 of the store's manifest."""
    license: License | None
    verified: bool
    """Whether all of the store was read and found sound."""
    address: str
    """Where the store will be, for commands."""
    counts: Counts
    samples: Mapping[str, tuple[int, int]]
    """For each split: samples that are in the arrays, and those that failed."""
    statistics: Mapping[str, ChannelStatistics]
    figures: tuple[str, ...]
    """Paths of those that were drawn."""

    @property
    def title(self) -> str:
        """The store's name for people, unescaped."""
        header = self.store.header
        name, codec = clean(header.source.name, 80), header.codec
        if header.pixels is None:
            return f"{name}, latents of {clean(codec.name, 80) if codec else ''}"
        return f"{name}, pixels" + (f" decoded by {clean(codec.name, 80)}" if codec else "")


def write_readme(card: Card) -> str:
    """Write the card."""
    parts = [
        f"---\n{_front_matter(card)}\n---\n\n{MARK}\n\n# {inline(card.title)}\n",
        _introduction(card),
        _numbers(card.store),
        _samples(card),
        _loading(card),
        _statistics(card),
        _facts(card.store),
        _validity(card.store),
        _license(card),
    ]
    return "\n".join(parts)


def _front_matter(card: Card) -> str:
    """The Hub's fields, as YAML: https://huggingface.co/docs/hub/datasets-cards."""
    from huggingface_hub import DatasetCardData

    header, license, terms = card.store.header, card.license, source_terms(card.store.header)
    slug = re.sub("[^a-z0-9]+", "-", clean(header.source.name, 60).lower()).strip("-") or "images"
    fields: dict[str, Any] = {
        "license_name": license.name or None if license else None,
        "license_link": license.link or None if license else None,
        "viewer": False,
    }
    if terms is not None:
        fields["extra_gated_heading"] = f"Terms of {terms.collection} apply"
        fields["extra_gated_prompt"] = terms.prompt
        fields["extra_gated_fields"] = {
            "Name": "text",
            "Affiliation": "text",
            f"I have read the terms of {terms.collection} and agree to them": "checkbox",
        }
        fields["extra_gated_button_content"] = "Agree and ask for access"
    tags = ["latentset", card.store.format]
    tags += ["latents"] if header.pixels is None else []
    tags += ["learned-image-compression"] if header.codec else []
    data = DatasetCardData(
        license=license.id if license else "unknown",
        pretty_name=card.title,
        size_categories=[_size_category(sum(ok for ok, _ in card.samples.values()))],
        source_datasets=[f"extended|{terms.hub_name if terms else f'other-{slug}'}"],
        task_categories=[
            "image-classification" if header.source.classes else "image-feature-extraction"
        ],
        tags=tags,
        **fields,
    )
    return str(data.to_yaml())


def _size_category(count: int) -> str:
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B"]
    for power, bound in enumerate(bounds, start=3):
        if count < 10**power:
            return f"n<{bound}" if bound == "1K" else f"{bounds[power - 4]}<n<{bound}"
    return "10B<n<100B"


def _introduction(card: Card) -> str:
    store, header = card.store, card.store.header
    ok = sum(count for count, _ in card.samples.values())
    source, codec = code(header.source.name), header.codec
    size = format_bytes(sum(store.stored_bytes().values()))
    by = code(codec.name) if codec else ""
    if header.pixels is None:
        what = (
            f"Latents of {ok:,} images of the collection {source}, encoded once with the learned "
            f"codec {by}{_quality(store)}, in {size}. Classifiers train on them without decoding."
        )
    elif codec is not None:
        what = (
            f"What the learned codec {by} decodes of {ok:,} images of the collection {source}, in "
            f"{size}."
        )
    else:
        what = f"Pixels of {ok:,} images of the collection {source}, in {size}."
    verified = (
        "Before this card was written, all of the store was verified: digests, checksums, values."
        if card.verified
        else "The store was **not verified** before this card was written: `latentset verify` does."
    )
    return (
        f"{what}\n\nThis store is\n\n```\nsha256:{card.digest}\n```\n\n"
        "the SHA-256 of its manifest, which lists the SHA-256 of every other file: equal digest, "
        f"equal data. {verified}\n"
    )


def _quality(store: Store) -> str:
    """Name the quality where the codec's name ends with it, as those of the paper do."""
    name = store.header.codec.name if store.header.codec else ""
    found = re.search(r"-(mse|msssim)-(\d{1,2})$", name)
    if found is None:
        return ""
    return f" (quality {found[2]}, trained for {'MSE' if found[1] == 'mse' else 'MS-SSIM'})"


def _numbers(store: Store) -> str:
    codec, header = store.header.codec, store.header
    text = "## What the numbers are\n\n"
    if header.pixels is not None or codec is None:
        what = "the images" if codec is None else "what the codec decoded"
        return text + (
            f"`pixels`, uint8 of shape (H, W, 3): red, green and blue of {what}, after the resize "
            f"rule {code(header.resize)}.\n"
        )
    y, z = codec.y_downsampling, codec.z_downsampling
    rows = [
        (
            "`y_hat`", "int16", f"(h, w, {codec.channels})",
            "quantised latents: integers, as the decoder takes them",
        ),
        (
            "`scale_index`", "uint8", f"(h, w, {codec.channels})",
            "`sigma_hat = scale_table[scale_index]`: standard deviation that the codec assumes for "
            "each value of `y_hat`; the table is in the header, attribute `latentset`",
        ),
        (
            "`z_hat`", "int16", f"(hz, wz, {codec.z_channels})",
            "quantised hyper-latents: from them follows `scale_index`, and with them images decode",
        ),
    ]  # fmt: skip
    if "sigma_hat" in header.arrays:
        shape = f"(h, w, {codec.channels})"
        rows.append(("`sigma_hat`", "float16", shape, "`scale_table[scale_index]`, rounded"))
    return (
        text + f"Each image was encoded after the resize rule {code(header.resize)}. A position of "
        f"`y_hat` stands for {y} x {y} pixels, one of `z_hat` for {z} x {z}; sizes are rounded "
        "up.\n\n" + table(("array", "type", "shape of a sample", "what it is"), rows) + "\n"
        "Latents are no anonymisation: whoever has the codec can decode them to images "
        "(`latentset decode`).\n"
    )


def _samples(card: Card) -> str:
    names, counts = card.store.header.source.classes, card.counts
    noun = card.store.header.noun
    splits = [
        (inline(split or "(none)"), f"{ok:,}", f"{failed:,}")
        for split, (ok, failed) in card.samples.items()
    ]
    text = "## Samples\n\n" + table(("split", f"with {noun}", "failed"), splits, numbers=2)
    if names and counts:
        rows = [
            (f"{label}", inline(name, 60), *(f"{counts[split][label]:,}" for split in counts))
            for label, name in enumerate(names[:_CLASSES_SHOWN])
        ]
        titles = ("label", "class", *(inline(split or "(none)") for split in counts))
        text += "\n" + table(titles, rows, numbers=len(counts))
        if len(names) > _CLASSES_SHOWN:
            text += f"\n… and {len(names) - _CLASSES_SHOWN:,} more classes: the header has all.\n"
    for path in card.figures:
        text += f"\n![{FIGURES[path]}]({path})\n\n*{FIGURES[path]}.*\n"
    return text


def _loading(card: Card) -> str:
    store = card.store
    ok = store.samples["status"].to_pylist()
    row = ok.index("ok") if "ok" in ok else 0
    remote = "://" in card.address
    local = "store.zarr" if remote else card.address
    commands = [f"latentset verify {shlex.quote(local)}", f"latentset inspect {shlex.quote(local)}"]
    if remote:
        commands.insert(0, f"latentset pull {shlex.quote(card.address)} {local}")
    console = "".join(f"$ {command}\n" for command in commands)
    plain, kind = load_with_zarr(store, local, row), "zarr-python and pyarrow"
    if store.format == "hdf5":
        plain, kind = load_with_hdf5(store, local, row), "h5py"
    return (
        "## How to load it\n\n"
        f"With the command line of LatentSet:\n\n```console\n{console}```\n\n"
        f"In Python:\n\n```python\n{load_with_latentset(store, card.address, row)}```\n\n"
        f"Without LatentSet, by {kind}"
        f"{', from a local copy' if remote else ''}:\n\n```python\n{plain}```\n"
    )


def _statistics(card: Card) -> str:
    text = (
        "## Statistics of the channels\n\n"
        "Over all positions of all samples; padding between samples does not count. The table has "
        "the lowest and the highest channel of each figure.\n\n"
    )
    titles = (
        "array",
        "channels",
        "values a channel",
        "mean",
        "standard deviation",
        "range",
        "zeros",
    )
    rows = []
    for name, found in card.statistics.items():
        if not found.count:
            continue
        of_least = "of the least: " if name == "sigma_hat" else ""
        rows.append(
            (
                f"`{name}`",
                str(len(found.mean)),
                f"{found.count:,}",
                _span(found.mean),
                _span(found.deviation),
                f"{found.least.min():.4g} to {found.greatest.max():.4g}",
                of_least + _span(100 * found.zeros, ".1f") + " %",
            )
        )
    first = "pixels" if "pixels" in card.statistics else "y_hat"
    return (
        text + table(titles, rows, numbers=6) + f"\n`{STATISTICS}` has them for every channel; to "
        "normalise:\n\n```python\n"
        "import json\n"
        "from pathlib import Path\n\n"
        "import numpy as np\n\n"
        f'of_channels = json.loads(Path("{STATISTICS}").read_text())["{first}"]\n'
        'mean, deviation = (np.array(of_channels[name]) for name in ("mean", "deviation"))\n'
        f"normalised = ({first} - mean) / np.maximum(deviation, 1e-6)\n```\n"
    )


def _span(values: NDArray[np.float64], form: str = ".4g") -> str:
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def _facts(store: Store) -> str:
    facts = [(name, value) for name, value in summarise(store) if name not in _IN_OTHER_TABLES]
    rows = [(name.replace("  ", "of it "), inline(value)) for name, value in facts]
    return "## How it was made\n\n" + table(("", ""), rows)


def _validity(store: Store) -> str:
    header = store.header
    points = [
        "A file that is missing, or differs from its SHA-256 in the manifest, makes the store "
        "invalid: fetch it again. `latentset verify` finds each.",
    ]
    if header.codec is not None:
        points += [
            f"Another codec than the one of SHA-256 `{header.codec.sha256}`, a codec trained again "
            "under the same name included, gives other numbers: do not mix them, and decode with "
            "this one only.",
        ]
    points += [
        f"Another resize rule than {inline(header.resize)}, or another decoder of images, gives "
        "other numbers.",
    ]
    if header.pixels is None:
        points += [
            "Changes of pixels (flips, rotations, colours, crops off the grid) do not commute with "
            "the codec: encode changed images instead. Crops of whole positions are near those of "
            "the image.",
        ]
    points += [
        "Images that are withdrawn or relabelled at the source stay in this store: encode again, "
        "which gives another digest.",
    ]
    return "## What makes it invalid\n\n" + "".join(f"- {point}\n" for point in points)


def _license(card: Card) -> str:
    license, terms = card.license, source_terms(card.store.header)
    if license is None:
        text = (
            "None was named when this card was written, and none is assumed. Whoever holds rights "
            "in the images holds them in what was computed from them: ask before you use it or "
            "pass it on.\n"
        )
    else:
        text = inline(license.name or license.id)
        if license.link:
            text += f": [text of the licence](<{license.link}>)"
        text += "\n"
    if terms is not None:
        text += f"\n{terms.prompt}\n"
    return "## Licence\n\n" + text


def statistics_json(digest: str, statistics: Mapping[str, ChannelStatistics]) -> bytes:
    """Write the statistics of every channel as JSON."""
    document: dict[str, Any] = {"manifest_sha256": digest}
    for name, found in statistics.items():
        if found.count:
            document[name] = {
                "count": found.count,
                "mean": _finite(found.mean),
                "deviation": _finite(found.deviation),
                "least": _finite(found.least),
                "greatest": _finite(found.greatest),
                "at_least_scale" if name == "sigma_hat" else "zeros": _finite(found.zeros),
            }
    return json.dumps(document, indent=1).encode() + b"\n"


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    """JSON has no infinity, which a scale table of no sense can lead to."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
