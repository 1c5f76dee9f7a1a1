"""A complete Zarr store that gets further shards: what it becomes, and the steps that make it so.

A reader finds the store as it was, or without a manifest, or as it is to be.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import Location
from latentset.datasets.store import Store
from latentset.datasets.store.digests import StoredObject, read_object
from latentset.datasets.store.header import Header
from latentset.datasets.store.manifest import (
    MANIFEST,
    Manifest,
    ShardSummary,
    count_samples,
    parse_manifest,
)
from latentset.datasets.store.samples import OK, SAMPLES, SAMPLES_SCHEMA, samples_bytes
from latentset.datasets.store.zarr.writer import metadata_objects, write_objects
from latentset.pipeline.jobs.finish import samples_of
from latentset.pipeline.jobs.plan import PlanFile
from latentset.pipeline.jobs.record import ShardRecord


@dataclass(frozen=True)
class Change:
    """What a store is to become."""

    header: Header
    """With the new number of shards."""
    samples: pa.Table
    shards: tuple[ShardSummary, ...]
    """All shards."""
    records: list[ShardRecord]
    """Of the new shards."""


def decide(store: Store, plan: PlanFile, records: list[ShardRecord]) -> Change:
    """Decide what a store becomes by the plan and records of samples that were tried again."""
    samples = _merge(store.samples, samples_of(plan, records))
    shard, ok = samples["shard"].to_numpy(), pc.equal(samples["status"], OK).to_numpy()
    # Shards at the end in which every sample failed again are excluded.
    count = max(plan.shards.start, int(shard.max()) + 1)
    layout = store.header.layout.model_copy(update={"shards": count})
    total, good = (np.bincount(of, minlength=count).tolist() for of in (shard, shard[ok]))
    return Change(
        header=store.header.model_copy(update={"layout": layout}),
        samples=samples,
        shards=tuple(
            ShardSummary(index=k, samples=total[k], ok=good[k], failed=total[k] - good[k])
            for k in range(count)
        ),
        records=[record for record in records if record.index < count],
    )


def _merge(before: pa.Table, retried: pa.Table) -> pa.Table:
    """Replace the rows of retried samples.

    One that failed again stays with the shard whose task met it first.
    """
    rows = pc.index_in(retried["id"], value_set=before["id"]).to_numpy()
    ok = pc.equal(retried["status"], OK)
    shard = pc.if_else(ok, retried["shard"], before["shard"].take(rows))
    column = SAMPLES_SCHEMA.get_field_index("shard")
    retried = retried.set_column(column, SAMPLES_SCHEMA.field(column), shard)
    order = np.arange(before.num_rows)
    order[rows] = before.num_rows + np.arange(retried.num_rows)
    return pa.concat_tables([before, retried]).take(order).combine_chunks()


def stage(manifest: Manifest, staged: Location, change: Change) -> None:
    """Write beside the new shards of a store what else it gets, the manifest last."""
    content = {SAMPLES: samples_bytes(change.samples, change.header)}
    if change.records:
        content |= metadata_objects(change.header)
    written = write_objects(staged, content)
    shards = [item for record in change.records for item in record.objects]
    for path in {*(staged.sizes() or {})} - {item.path for item in (*shards, *written)}:
        staged.remove(path)  # of an earlier attempt, or of an excluded shard
    objects = {item.path: item for item in (*manifest.objects, *shards, *written)}
    changed = Manifest(
        format_version=manifest.format_version,
        fingerprint=manifest.fingerprint,
        samples=count_samples(change.samples),
        shards=change.shards,
        objects=tuple(objects[path] for path in sorted(objects)),
    )
    staged.write(MANIFEST, changed.to_bytes())


def install(store: Location, staged: Location) -> None:
    """Change a store; from the first step to the last it has no manifest.

    Run again after a crash, it writes the same.

    Raises:
        StoreError: An object cannot be written.
        StoreCorruptError: Something was altered or removed since.
    """
    content = staged.read(MANIFEST)
    manifest = parse_manifest(content, str(staged))
    new, there = staged.sizes() or {}, store.sizes() or {}
    wanted = [item for item in manifest.objects if item.path in new]
    kept = [item for item in manifest.objects if item.path not in new]
    for item in kept:
        if there.get(item.path) != item.bytes:
            raise StoreCorruptError(
                f"{store}: {item.path}: expected {item.bytes} bytes, got {there.get(item.path)}: "
                "the failed samples cannot be added",
                f"Remove {store.name} and {store.name}.job to encode it anew",
            )
    for item in wanted:
        _read_staged(staged, item)  # before anything changes
    store.remove(MANIFEST)
    for item in wanted:
        store.write(item.path, _read_staged(staged, item))
    store.sweep()
    store.write(MANIFEST, content)


def _read_staged(staged: Location, item: StoredObject) -> bytes:
    content = read_object(staged, item)
    if content is None:
        raise StoreCorruptError(
            f"{staged}: {item.path} was altered or removed",
            f"Remove {staged} and run the same command again",
        )
    return content
