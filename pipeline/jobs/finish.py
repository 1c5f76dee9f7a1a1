"""The last step: every record checked, the samples table, the manifest; for HDF5 the conversion."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import JobError
from latentset.datasets.storage.atomic import flush
from latentset.datasets.storage.location import Location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.digests import describe_object
from latentset.datasets.store.samples import OK, samples_schema
from latentset.datasets.store.zarr.writer import finish_store, metadata_objects
from latentset.pipeline.jobs.plan import Plan
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.shard import ShardRecord, read_record
from latentset.pipeline.jobs.target import Target, discard

_RECORDED = {
    *("rate_bpp", "psnr_db", "ms_ssim"),
    *("source_bytes", "source_sha256", "status", "reason"),
}
"""Columns that come from the records."""


def finish(target: Target, plan: Plan, check: Callable[[], None], view: ProgressView) -> None:
    """Finish a store all of whose shards are done; JobError if one is not.

    ``check`` raises a JobError if this job does not hold the lock any more.
    """
    check()
    records = read_records(target.objects, plan)
    # Shards that were added to the store before it lost its manifest (``retry``).
    recorded = {item.path for record in records for item in record.objects}
    shards = tuple(f"{name}/c/" for name in target.settings.arrays)
    for path in target.objects.sizes() or {}:
        if path.startswith(shards) and path not in recorded:
            target.objects.remove(path)
    finish_store(
        target.objects,
        header=plan.header,
        fingerprint=plan.fingerprint,
        samples=samples_of(plan, records),
        shards=[record.summary for record in records],
        objects=[
            *(describe_object(p, value) for p, value in metadata_objects(plan.header).items()),
            *(item for record in records for item in record.objects),
        ],
    )
    if target.is_hdf5:
        pack_hdf5(target, check, view)


def pack_hdf5(target: Target, check: Callable[[], None], view: ProgressView) -> None:
    """Convert the job's Zarr store to HDF5; the file gets its name when it is whole.

    After a kill the same command converts again.
    """
    made, path = target.job / "store.h5", Path(str(target.store))
    discard(made)
    target.job.sweep()
    store = open_store(target.objects)
    images = store.samples.num_rows

    def report(what: str, shard: int, shards: int) -> None:
        check()
        if shard == 0:
            view.begin("converting to HDF5" if what == "converting" else what, images)
        view.update(images * shard // shards, images)

    try:
        convert(store, made, "hdf5", report)
    finally:
        view.end()
    Path(str(made)).replace(path)
    flush(path.parent)
    discard(target.objects)


def unpack_hdf5(target: Target, check: Callable[[], None]) -> Store:
    """Convert a complete HDF5 store to the job's Zarr store, so that shards can be added."""
    discard(target.objects)
    return convert(open_store(target.store), target.objects, "zarr", lambda *_: check())


def read_records(objects: Location, plan: Plan) -> list[ShardRecord]:
    """Read the records of all shards of a plan; JobError if one or its objects are not there."""
    sizes = objects.sizes() or {}
    records = []
    for index in plan.shards:
        record = read_record(plan, index)
        if record is None:
            raise JobError(f"{plan.job}: shard {index} has no record: run the same command again")
        for item in record.objects:
            if sizes.get(item.path) != item.bytes:
                raise JobError(
                    f"{objects}: {item.path}: expected {item.bytes} bytes, as shard {index} was "
                    "recorded, but the object is missing or differs: run the same command again"
                )
        records.append(record)
    return records


def samples_of(plan: Plan, records: list[ShardRecord]) -> pa.Table:
    """Make the samples table of the plan and the records of all its shards, in order."""
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
    absence = {"latent_height": 0, "latent_width": 0, "first_row": -1, "z_first_row": -1}
    for name, absent in absence.items():
        kind = schema.field(name).type
        columns[name] = pc.if_else(ok, columns[name], pa.scalar(absent, kind))
    columns = {name: columns[name] for name in schema.names}
    return pa.table(columns, schema=schema)
