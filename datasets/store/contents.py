"""What a complete store holds, shard by shard: as it is, or divided into shards of another size."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError
from latentset.datasets.store.arrays import array_form, rows_of
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.layout import assign_rows
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.store import Store


@dataclass(frozen=True)
class Contents:
    """Everything that a store is made of but its format."""

    header: Header
    """In the lowest format version that has what the store needs."""
    samples: pa.Table
    shards: tuple[ShardSummary, ...]
    read_shard: Callable[[int], dict[ArrayName, NDArray[Any]]]
    """All rows of one shard of every array, (rows, channels)."""


def contents_of(store: Store, shard_bytes: int | None = None) -> Contents:
    """The contents of a store; with ``shard_bytes``, divided into such shards (``assign_rows``).

    Raises:
        StoreError: The store is not complete.
    """
    if store.manifest is None:
        raise StoreError(f"{store.location} is not complete: finish its encode job first")
    header = store.header
    header = header.model_copy(update={"format_version": header.lowest_version})
    if shard_bytes is None:
        return Contents(header, store.samples, store.manifest.shards, store.read_shard)

    columns = ("latent_height", "latent_width", "first_row", "z_first_row")
    heights, widths, firsts, z_firsts = (
        store.samples[name].to_numpy().astype(np.int64) for name in columns
    )
    ok = firsts >= 0
    z_heights, z_widths = header.content.z_grid(heights, widths)
    rows, z_rows = np.where(ok, heights * widths, 0), np.where(ok, z_heights * z_widths, 0)
    placed = assign_rows(rows, z_rows, rows_of(header.content), shard_bytes)
    divided = header.model_copy(update={"layout": placed.layout})
    # Samples are in order but for those that a retry added at the end: two shards are in use.
    read = lru_cache(2)(store.read_shard)

    def read_shard(index: int) -> dict[ArrayName, NDArray[Any]]:
        forms = {name: array_form(divided, name) for name in divided.arrays}
        shard = {n: np.zeros((f.shard_rows, f.channels), f.dtype) for n, f in forms.items()}
        for k in np.flatnonzero(ok & (placed.shard == index)).tolist():
            for name, values in shard.items():
                is_z = name == "z_hat"
                old, new, count = (
                    (z_firsts, placed.z_first_row, z_rows)
                    if is_z
                    else (firsts, placed.first_row, rows)
                )
                at, to, n = int(old[k]), int(new[k]) - index * len(values), int(count[k])
                number, first = divmod(at, array_form(header, name).shard_rows)
                values[to : to + n] = read(number)[name][first : first + n]
        return shard

    samples = store.samples
    for name in ("first_row", "z_first_row", "shard"):
        if name in samples.column_names:
            column = samples.schema.get_field_index(name)
            field = samples.schema.field(name)
            samples = samples.set_column(column, field, pa.array(getattr(placed, name), field.type))
    total = np.bincount(placed.shard, minlength=placed.layout.shards).tolist()
    good = np.bincount(placed.shard[ok], minlength=placed.layout.shards).tolist()
    shards = tuple(
        ShardSummary(index=k, samples=total[k], ok=good[k], failed=total[k] - good[k])
        for k in range(placed.layout.shards)
    )
    return Contents(divided, samples, shards, read_shard)
