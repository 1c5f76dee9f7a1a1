"""The last step: every record checked, the samples table, the manifest."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from latentset.datasets.errors import JobError
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.objects import describe_object
from latentset.datasets.store.samples import OK, SAMPLES_SCHEMA
from latentset.datasets.store.writer import finish_store, metadata_objects
from latentset.pipeline.encoding.plan import PlanFile
from latentset.pipeline.encoding.record import ShardRecord, read_record


def finish(store: Path, job: Path, plan: PlanFile) -> Manifest:
    """Finish a store all of whose shards are done.

    Args:
        store: The store's folder.
        job: The job's folder.
        plan: The plan.

    Returns:
        The manifest.

    Raises:
        JobError: A shard has no record, or its objects are not there.
        StoreError: An object cannot be written.
    """
    records = [_read(store, job, plan, k) for k in range(plan.header.layout.shards)]
    return finish_store(
        store,
        fingerprint=plan.fingerprint,
        samples=samples_of(plan.table(), records),
        shards=[record.summary for record in records],
        objects=[
            *(describe_object(p, value) for p, value in metadata_objects(plan.header).items()),
            *(item for record in records for item in record.objects),
        ],
    )


def _read(store: Path, job: Path, plan: PlanFile, index: int) -> ShardRecord:
    record = read_record(job, index, plan.fingerprint, plan.table_sha256)
    if record is None:
        raise JobError(f"{job}: shard {index} has no record: run the same command again")
    for item in record.objects:
        path = store / item.path
        if not path.is_file() or path.stat().st_size != item.bytes:
            raise JobError(
                f"{path}: expected {item.bytes} bytes, as shard {index} was recorded, but the "
                "object is missing or differs: run the same command again"
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
