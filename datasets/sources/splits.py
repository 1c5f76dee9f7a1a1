"""How folders and lists name the splits of a data set; splits for a source that has none."""

import hashlib
import re
from dataclasses import replace

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.source import Source

SPLITS = ("train", "val", "test")

_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}

_HARMLESS = {"", "images", "image", "imgs", "img", "set", "data", "dataset", "split", "seg"}
"""Words beside a split's, as in ``train_images`` and ``seg_test``."""


_COMPOUND = re.compile(r"(.+?)(?:set|data|images?|imgs?|split)")


def find_split(name: str) -> str | None:
    """The split that a name means: ``Training``, ``TEST``, ``val_images``, ``train2017``."""
    found = [word for word in _words(name) if word not in _HARMLESS]
    return _WORDS.get(found[0]) if len(found) == 1 else None


def splits_in(name: str) -> set[str]:
    """The splits that words of a name mean: ``trainA`` has train, ``train_station`` too."""
    return {_WORDS[word] for word in _words(name) if word in _WORDS}


def _words(name: str) -> list[str]:
    parts = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name)
    words = [re.sub(r"\d+$", "", part).casefold() for part in parts]
    # trainset, testdata, valimages
    return [
        found[1] if (found := _COMPOUND.fullmatch(word)) and found[1] in _WORDS else word
        for word in words
    ]


def parse_fractions(text: str) -> tuple[int, ...]:
    """The percentages of ``80/10/10`` (train, val, test) or ``80/20`` (train, val)."""
    parts = text.split("/")
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(numbers) != len(parts) or len(parts) not in (2, 3) or sum(numbers) != 100:
        raise SourceError(
            f"split: expected percentages of train, val and test that sum to 100, such as 80/10/10 "
            f"or 80/20, got {text!r}"
        )
    return numbers


def assign_splits(source: Source, percentages: tuple[int, ...], seed: int) -> Source:
    """Divide a source without splits at random, each class by itself.

    Which images of a class are where depends on their ids and the seed alone.

    Raises:
        SourceError: The source has splits.
    """
    samples = source.samples
    if found := sorted(set(samples["split"].to_pylist()) - {""}, key=SPLITS.index):
        raise SourceError(
            f"{source.root}: --split is for images without splits, but these have "
            f"{', '.join(found)}: drop the option"
        )
    keyed = [
        (label, hashlib.sha256(f"{seed} {id}".encode()).digest(), k)
        for k, (label, id) in enumerate(
            zip(samples["label"].to_pylist(), samples["id"].to_pylist(), strict=True)
        )
    ]
    by_class: dict[int, list[int]] = {}
    for label, _, k in sorted(keyed):
        by_class.setdefault(label, []).append(k)
    splits = [""] * len(keyed)
    for members in by_class.values():
        first = 0
        for number, name in enumerate(SPLITS[: len(percentages)], 1):
            last = round(len(members) * sum(percentages[:number]) / 100)
            for k in members[first:last]:
                splits[k] = name
            first = last
    column = samples.schema.get_field_index("split")
    field = samples.schema.field("split")
    return replace(source, samples=samples.set_column(column, field, pa.array(splits, field.type)))
