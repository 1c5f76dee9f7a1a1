"""What must hold inside a store beyond digests: rows, counts, values (docs/store-spec.md, 2 to 5).

Each rule yields lines about what is wrong; none stops at the first.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.errors import LatentSetError, StoreCorruptError
from latentset.datasets.store.arrays import DTYPES, ImageSizes, array_form
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import Manifest, ShardSummary, count_samples
from latentset.datasets.store.samples import OK, SAMPLES

SPLITS = ("train", "val", "test", "")

_MEASURES = {"psnr_db": 1000.0, "ms_ssim": 1.001}
"""Columns of what was measured against the images, and their greatest finite value."""

_MAX_RATE_BPP = 1e12

_NAMED = 3
"""Samples that a line names; of the others it gives the number."""


def name_samples(ids: pa.ChunkedArray, rows: NDArray[Any]) -> str:
    """Name the samples in some rows of the table: ``a/1, a/2, a/3 and 4 more``."""
    named = ", ".join(str(ids[k]) for k in rows[:_NAMED].tolist())
    return named + (f" and {rows.size - _NAMED} more" if rows.size > _NAMED else "")


class Placement:
    """Which rows the samples have, of a table that ``samples.check_samples`` has checked."""

    def __init__(self, samples: pa.Table, header: Header) -> None:
        ok = samples.filter(pc.equal(samples.column("status"), OK))
        height, width = (
            ok.column(f"latent_{side}").to_numpy().astype(np.int64) for side in ("height", "width")
        )
        z_height, z_width = header.content.z_grid(height, width)
        self._ids = ok.column("id")
        self._header = header
        self._shard = ok.column("shard").to_numpy()
        self._y = ok.column("first_row").to_numpy(), height * width
        self._z = ok.column("z_first_row").to_numpy(), z_height * z_width

    def overlaps(self) -> Iterator[str]:
        """Samples whose rows overlap (section 2.5)."""
        for column, (begin, count) in (("first_row", self._y), ("z_first_row", self._z)):
            order = np.argsort(begin, kind="stable")
            first = begin[order]
            wrong = order[1:][first[1:] < first[:-1] + count[order][:-1]]
            if wrong.size:
                whose = name_samples(self._ids, wrong)
                yield f"{SAMPLES}: {column}: rows shared with another sample: {whose}"

    def rows_in_use(self, name: ArrayName, index: int, first: int, count: int) -> NDArray[np.bool_]:
        """Whether each of ``count`` rows of a shard, from ``first`` on, belongs to a sample."""
        begin, counts = self._rows(name)
        begin = begin - (index * array_form(self._header, name).shard_rows + first)
        used = np.zeros(count, np.bool_)
        inside = (self._shard == index) & (begin < count) & (begin + counts > 0)
        for k in np.flatnonzero(inside).tolist():
            used[max(0, begin[k]) : max(0, begin[k] + counts[k])] = True
        return used

    def owners(self, name: ArrayName, first: int, stop: int) -> str:
        """Name a few samples that have rows in a range; empty if none has."""
        begin, count = self._rows(name)
        return name_samples(self._ids, np.flatnonzero((begin < stop) & (begin + count > first)))

    def _rows(self, name: ArrayName) -> tuple[NDArray[Any], NDArray[Any]]:
        """First row of each sample, and how many it has."""
        return self._z if name == "z_hat" else self._y


def check_table(samples: pa.Table, header: Header, manifest: Manifest) -> Iterator[str]:
    """What is wrong in a table that ``samples.check_samples`` has checked."""
    ok = pc.equal(samples.column("status"), OK).to_numpy()
    ids = samples.column("id")

    def blame(what: str, wrong: Any) -> Iterator[str]:
        found = np.flatnonzero(np.asarray(wrong))
        if found.size:
            yield f"{SAMPLES}: {what}: {name_samples(ids, found)}"

    splits = pc.is_in(samples.column("split"), value_set=pa.array(SPLITS)).to_numpy()
    yield from blame("split is none of train, val, test, empty", ~splits)
    rate = samples.column("rate_bpp").to_numpy()
    with np.errstate(invalid="ignore"):  # NaN
        good = (rate >= 0) & (rate <= _MAX_RATE_BPP)
    yield from blame("rate_bpp is missing, negative or infinite", ok & ~good)
    for column in ("height", "width", "source_bytes"):
        yield from blame(f"{column} is negative", samples.column(column).to_numpy() < 0)
    yield from blame("rate_bpp of a sample without latents", ~ok & ~np.isnan(rate))
    digest = pc.match_substring_regex(samples.column("source_sha256"), "^[0-9a-f]{64}$").to_numpy()
    yield from blame("source_sha256 is no digest", ok & ~digest)
    absent = {"latent_height": 0, "latent_width": 0, "first_row": -1, "z_first_row": -1}
    for column, value in absent.items():
        differs = samples.column(column).to_numpy() != value
        yield from blame(f"{column} of a sample without latents is not {value}", ~ok & differs)
    latents = header.pixels.latents if header.pixels else None
    measured = latents is not None and latents.measured
    for column in sorted(_MEASURES.keys() & set(samples.column_names)):
        value = samples.column(column).to_numpy()
        unasked = ~np.isnan(value) & ~(ok & measured)
        yield from blame(f"{column} of a sample that was not compared", unasked)
        with np.errstate(invalid="ignore"):
            wrong = ~((value >= 0) & ((value <= _MEASURES[column]) | (value == np.inf)))
        yield from blame(f"{column} is negative or too large", wrong & ~np.isnan(value))
    try:
        wrong = _wrong_size(samples, header)
    except (LatentSetError, ValueError) as error:
        yield f"header: resize: {error}"
    else:
        yield from blame("latent size does not follow from the image's", ok & wrong)
    yield from _check_counts(samples, ok, manifest)


def refuse_inconsistent(samples: pa.Table, header: Header, manifest: Manifest, where: str) -> None:
    """Raise a StoreCorruptError about the first thing that is wrong in a table, as `verify` has it.

    ``where`` names the store in messages.
    """
    for problem in chain(
        Placement(samples, header).overlaps(), check_table(samples, header, manifest)
    ):
        raise StoreCorruptError(f"{where}: {problem}")


def _wrong_size(samples: pa.Table, header: Header) -> NDArray[np.bool_]:
    """Whether each sample's grid is not what its image's size and the resize rule give."""
    of_image = ImageSizes(header.content, header.resize)
    height, width, *grid = (
        samples.column(name).to_numpy().astype(np.int64)
        for name in ("height", "width", "latent_height", "latent_width")
    )
    different = pa.array(height << 32 | width & 0xFFFFFFFF).dictionary_encode()
    expected = np.full((len(different.dictionary), 2), -1, np.int64)
    for k, size in enumerate(different.dictionary.to_pylist()):
        h, w = size >> 32, size & 0xFFFFFFFF
        if h >= 1 and 1 <= w < 1 << 31:
            with suppress(LatentSetError):
                expected[k] = of_image.grid(h, w)
    of_each: NDArray[np.bool_] = (expected[different.indices] != np.stack(grid, axis=1)).any(axis=1)
    return of_each


def _check_counts(samples: pa.Table, ok: NDArray[np.bool_], manifest: Manifest) -> Iterator[str]:
    """Over all and per shard, as the manifest has them."""
    if (counted := count_samples(samples)) != manifest.samples:
        yield f"{SAMPLES}: expected {manifest.samples}, as in the manifest, got {counted}"
    shard = samples.column("shard").to_numpy()
    count = len(manifest.shards)
    outside = (shard < 0) | (shard >= count)
    if outside.any():
        yield f"{SAMPLES}: shard of {int(outside.sum())} samples is not in the manifest"
    total = np.bincount(shard[~outside], minlength=count)
    good = np.bincount(shard[ok & ~outside], minlength=count)
    for k, summary in enumerate(manifest.shards):
        failed = int(total[k] - good[k])
        found = ShardSummary(index=k, samples=int(total[k]), ok=int(good[k]), failed=failed)
        if found != summary:
            yield f"{SAMPLES}: shard: expected {summary}, as in the manifest, got {found}"


def check_values(
    header: Header,
    placement: Placement | None,
    index: int,
    first: int,
    rows: Mapping[ArrayName, NDArray[Any]],
) -> Iterator[str]:
    """What is wrong in the values of one shard.

    ``rows`` are rows of the shard, from ``first`` on, of each array that could be read; without a
    placement it is not checked which rows are unused.
    """
    codec, numbers = header.codec, rows.get("scale_index")
    if codec is not None and numbers is not None:
        with np.errstate(over="ignore"):  # float16 has no more than 65504
            table = np.asarray(codec.scale_table, DTYPES["sigma_hat"])
        wrong = numbers >= len(table)
        if wrong.any():
            yield (
                f"scale_index, shard {index}: expected less than {len(table)}, the length of the "
                f"scale table; {int(wrong.sum())} values are not, up to {int(numbers.max())}"
            )
        elif "sigma_hat" in rows:
            differs = rows["sigma_hat"].view(np.uint16) != table[numbers].view(np.uint16)
            if differs.any():
                yield (
                    f"sigma_hat, shard {index}: expected scale_table[scale_index]; "
                    f"{int(differs.sum())} values differ"
                )
    if placement is None:
        return
    for name, values in rows.items():
        if name != "sigma_hat":  # holds the scale of 0 there
            stray = values[~placement.rows_in_use(name, index, first, len(values))]
            if stray.any():
                yield (
                    f"{name}, shard {index}: expected zeros in rows that belong to no sample; "
                    f"{int(np.count_nonzero(stray))} values are not"
                )
