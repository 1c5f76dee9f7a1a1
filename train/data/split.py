"""The samples of a store that one split trains or evaluates with."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store
from latentset.datasets.store.samples import order_splits
from latentset.train.data.order import Int64s


@dataclass(frozen=True)
class Split:
    """Where the samples of one split are: arrays (N,), one entry a sample."""

    name: str
    ids: tuple[str, ...]
    samples: Int64s
    """Rows of the samples table, ascending."""
    labels: Int64s
    """Index into the store's classes."""
    first_rows: Int64s
    """First row in ``y_hat`` and ``scale_index``."""
    heights: Int64s
    widths: Int64s

    def __len__(self) -> int:
        return len(self.samples)


def select_split(store: Store, name: str) -> Split:
    """Take the samples of one split that were encoded, in table order; refuse an empty one."""
    table = store.samples
    pairs = list(zip(table["split"].to_pylist(), table["status"].to_pylist(), strict=True))
    samples = np.array([k for k, pair in enumerate(pairs) if pair == (name, "ok")], np.int64)
    if not samples.size:
        raise RecipeError(_nothing(store, name, Counter(pairs)))
    split = _make_split(store, name, samples)
    classes = len(store.header.source.classes)
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if wrong.size:
        raise RecipeError(
            f"{store.location}: split {name!r}: {wrong.size} of {len(samples)} samples have no "
            f"label, the first is {split.ids[wrong[0]]}; encode from a source that has labels; "
            "latentset predict classifies images without"
        )
    return split


def select_samples(store: Store) -> Split:
    """Take all samples that were encoded, with labels or without; refuse a store without one."""
    samples = store.indices().astype(np.int64)
    if not samples.size:
        raise RecipeError(
            f"{store.location} has no sample that was encoded; latentset inspect shows why"
        )
    return _make_split(store, "", samples)


def _make_split(store: Store, name: str, samples: Int64s) -> Split:
    part = store.samples.take(samples)
    return Split(
        name=name,
        ids=tuple(part["id"].to_pylist()),
        samples=samples,
        labels=part["label"].to_numpy().astype(np.int64),
        first_rows=part["first_row"].to_numpy().astype(np.int64),
        heights=part["latent_height"].to_numpy().astype(np.int64),
        widths=part["latent_width"].to_numpy().astype(np.int64),
    )


def split_names(store: Store) -> tuple[str, ...]:
    """List the splits that have encoded samples: train, val, test, then any others."""
    table = store.samples
    pairs = zip(table["split"].to_pylist(), table["status"].to_pylist(), strict=True)
    return tuple(order_splits({split for split, status in pairs if status == "ok"}))


def _nothing(store: Store, name: str, pairs: Counter[tuple[str, str]]) -> str:
    failed = [(status, count) for (split, status), count in pairs.most_common() if split == name]
    if failed:
        found = ", ".join(f"{status} {count}" for status, count in failed)
        return (
            f"{store.location}: split {name!r} has no sample that was encoded (status: {found}); "
            "latentset inspect shows why"
        )
    counts: Counter[str] = Counter()
    for (split, _), count in pairs.items():
        counts[split] += count
    found = ", ".join(f"{split or '(none)'} {count}" for split, count in sorted(counts.items()))
    return (
        f"{store.location}: empty split: expected samples of split {name!r}, got {found}; "
        "name one of those (in a recipe: data.train_split, data.val_split, data.test_split; "
        "--set data.train_split= takes samples without a split), or encode again, to another "
        "store, with splits (latentset encode … --split 80/10/10)"
    )
