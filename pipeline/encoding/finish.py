"""The last step: every record checked, the samples table, the manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from latentset.datasets.errors import JobError
from latentset.datasets.store.hdf5 import assemble
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.objects import describe_object, read_object
from latentset.datasets.store.samples import OK, SAMPLES_SCHEMA
from latentset.datasets.store.writer import finish_store, metadata_objects
from latentset.pipeline.encoding.plan import PlanFile
from latentset.pipeline.encoding.record import ShardRecord, read_record
from latentset.pipeline.encoding.target import Target


def finish(target: Target, plan: PlanFile) -> Manifest:
    """Finish a store all of whose shards are done.

    Args:
        target: The store and its job.
        plan: The plan.

    Returns:
        The manifest.

    Raises:
        JobError: A shard has no record, or its objects are not there.
        StoreError: An object cannot be written.
    """
    sizes = target.objects.sizes() or {}
    records = [_read(target, plan, k, sizes) for k in range(plan.header.layout.shards)]
    samples = samples_of(plan.table(), records)
    shards = [record.summary for record in records]
    if target.settings.container == "hdf5":
        return assemble(
            Path(str(target.store)),
            plan.header,
            (_read_part(target, record) for record in records),
            fingerprint=plan.fingerprint,
            samples=samples,
            shards=shards,
        )
    return finish_store(
        target.store,
        fingerprint=plan.fingerprint,
        samples=samples,
        shards=shards,
        objects=[
            *(describe_object(p, value) for p, value in metadata_objects(plan.header).items()),
            *(item for record in records for item in record.objects),
        ],
    )


def _read_part(target: Target, record: ShardRecord) -> bytes:
    """The part of an HDF5 file that a task has written."""
    (item,) = record.objects
    content = read_object(target.objects, item)
    if content is None:
        raise JobError(f"{target.objects}: {item.path} was altered: run the same command again")
    return content


def _read(target: Target, plan: PlanFile, index: int, sizes: Mapping[str, int]) -> ShardRecord:
    record = read_record(target.job, index, plan.fingerprint, plan.table_sha256)
    if record is None:
        raise JobError(f"{target.job}: shard {index} has no record: run the same command again")
    for item in record.objects:
        if sizes.get(item.path) != item.bytes:
            raise JobError(
                f"{target.objects}: {item.path}: expected {item.bytes} bytes, as shard {index} was "
                "recorded, but the object is missing or differs: run the same command again"
            )
    return record


def samples_of(plan: pa.Table, records: list[ShardRecord]) -> pa.Table:
    """Make the samples table from what was planned and what came out.

    Args:
        plan: The plan's table.
        records: Of all shards, in order.

    Returns:
        A table of ``SAMPLES_SCHEMA``.
    """
    results: dict[str, list[Any]] = {
        name: [value for record in records for value in getattr(record, name)]
        for name in ("rate_bpp", "source_bytes", "source_sha256", "status", "reason")
    }
    if len(results["status"]) != plan.num_rows:
        raise JobError(f"expected results of {plan.num_rows} samples, got {len(results['status'])}")
    ok = [status == OK for status in results["status"]]
    for name, absent in (
        ("latent_height", 0),
        ("latent_width", 0),
        ("first_row", -1),
        ("z_first_row", -1),
    ):
        values = plan.column(name).to_pylist()
        results[name] = [value if good else absent for value, good in zip(values, ok, strict=True)]
    all_columns = {name: plan.column(name) for name in plan.column_names} | results
    columns = {name: all_columns[name] for name in SAMPLES_SCHEMA.names}
    return pa.table(columns, schema=SAMPLES_SCHEMA)
