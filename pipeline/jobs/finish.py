"""The last step: every record checked, the samples table, the manifest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import JobError
from latentset.datasets.storage.location import Location
from latentset.datasets.store.digests import describe_object, read_object
from latentset.datasets.store.hdf5.parts import assemble
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.samples import OK, samples_schema
from latentset.datasets.store.zarr.writer import finish_store, metadata_objects
from latentset.pipeline.jobs.plan import PlanFile
from latentset.pipeline.jobs.record import ShardRecord, read_record
from latentset.pipeline.jobs.target import Target

_RECORDED = {
    *("rate_bpp", "psnr_db", "ms_ssim"),
    *("source_bytes", "source_sha256", "status", "reason"),
}
"""Columns that come from the records."""


def finish(target: Target, plan: PlanFile, check: Callable[[], None]) -> Manifest:
    """Finish a store all of whose shards are done.

    Args:
        target: The store and its job.
        plan: The plan.
        check: Raises a JobError if this job does not hold the lock any more; called now and then.

    Returns:
        The manifest.

    Raises:
        JobError: A shard has no record, or its objects are not there.
        StoreError: An object cannot be written.
    """
    records = read_records(target.objects, target.job, plan)
    samples = samples_of(plan, records)
    shards = [record.summary for record in records]
    if target.settings.container == "hdf5":
        manifest = assemble(
            Path(str(target.store)),
            plan.header,
            _read_parts(target, records, check),
            fingerprint=plan.fingerprint,
            samples=samples,
            shards=shards,
        )
        for record in records:  # they would double the store
            for item in record.objects:
                target.objects.remove(item.path)
        return manifest
    _remove_strays(target, records)
    return finish_store(
        target.store,
        header=plan.header,
        fingerprint=plan.fingerprint,
        samples=samples,
        shards=shards,
        objects=[
            *(describe_object(p, value) for p, value in metadata_objects(plan.header).items()),
            *(item for record in records for item in record.objects),
        ],
    )


def _read_parts(
    target: Target, records: list[ShardRecord], check: Callable[[], None]
) -> Iterator[bytes]:
    for record in records:
        check()
        yield read_part(target.objects, record)


def _remove_strays(target: Target, records: list[ShardRecord]) -> None:
    """Remove shards that were added to the store before it lost its manifest (``retry``)."""
    recorded = {item.path for record in records for item in record.objects}
    shards = tuple(f"{name}/c/" for name in target.settings.arrays)
    for path in target.objects.sizes() or {}:
        if path.startswith(shards) and path not in recorded:
            target.objects.remove(path)


def read_records(objects: Location, job: Location, plan: PlanFile) -> list[ShardRecord]:
    """Read the records of all shards of a plan, and look at their objects.

    Args:
        objects: Where the objects lie.
        job: Where the plan and the records lie.
        plan: The plan.

    Returns:
        The records, in order.

    Raises:
        JobError: A shard has no record, or its objects are not there.
    """
    sizes = objects.sizes() or {}
    records = []
    for index in plan.shards:
        record = read_record(job, index, plan.fingerprint, plan.table_sha256)
        if record is None:
            raise JobError(f"{job}: shard {index} has no record: run the same command again")
        for item in record.objects:
            if sizes.get(item.path) != item.bytes:
                raise JobError(
                    f"{objects}: {item.path}: expected {item.bytes} bytes, as shard {index} was "
                    "recorded, but the object is missing or differs: run the same command again"
                )
        records.append(record)
    return records


def read_part(objects: Location, record: ShardRecord) -> bytes:
    """Read the part of an HDF5 file that a task has written.

    Args:
        objects: Where the objects lie.
        record: Of its shard.

    Returns:
        The part.

    Raises:
        JobError: It was altered.
    """
    (item,) = record.objects
    content = read_object(objects, item)
    if content is None:
        raise JobError(f"{objects}: {item.path} was altered: run the same command again")
    return content


def samples_of(plan: PlanFile, records: list[ShardRecord]) -> pa.Table:
    """Make the samples table from what was planned and what came out.

    Args:
        plan: The plan.
        records: Of all shards, in order.

    Returns:
        A table of ``samples_schema``.
    """
    table, schema = plan.table(), samples_schema(plan.header)
    # Column by column and shard by shard: lists of a million Python objects cost much memory.
    columns = {name: table.column(name) for name in table.column_names}
    for name in _RECORDED & set(schema.names):
        kind = schema.field(name).type
        pieces = [pa.array(getattr(record, name), kind) for record in records]
        columns[name] = pa.chunked_array(pieces, kind)
    if len(columns["status"]) != table.num_rows:
        raise JobError(
            f"expected results of {table.num_rows} samples, got {len(columns['status'])}"
        )
    ok = pc.equal(columns["status"], OK)
    for name, absent in (
        ("latent_height", 0),
        ("latent_width", 0),
        ("first_row", -1),
        ("z_first_row", -1),
    ):
        kind = schema.field(name).type
        columns[name] = pc.if_else(ok, columns[name], pa.scalar(absent, kind))
    columns = {name: columns[name] for name in schema.names}
    return pa.table(columns, schema=schema)
