"""Failed samples of a complete store, tried again: `latentset encode … --retry-failed`.

What can be encoded now goes into new shards, after the existing ones; no other shard, and no row
of a sample that had latents, changes by a byte.

1. *Plan.* The headers of the failed images are read again. The plan is of these samples alone,
   those that can be encoded first, in ``STORE.job/FINGERPRINT/retry/``.
2. *Encode.* Tasks write the new shards to ``retry/objects/``, each with its record.
3. *Stage.* Metadata, samples table and manifest that the store is to get are written there too,
   the manifest last. Until now the store was what it was.
4. *Change.* The store's manifest is removed: readers refuse the store. What is staged is copied,
   the manifest last. For an HDF5 store this happens to a Zarr store that was converted from it;
   then that one is converted back, and replaces the file in one step.
5. ``retry/`` is removed.

After a kill at any step, the same command resumes: in steps 1 to 3 by the records; in step 4 by a
staged manifest while the store has none. The latter is finished by the command without
``--retry-failed`` too (:func:`finish_retry`).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.errors import JobError, StoreCorruptError
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Folder, Location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.digests import StoredObject, read_object
from latentset.datasets.store.layout import append_rows, fits
from latentset.datasets.store.manifest import (
    MANIFEST,
    Manifest,
    ShardSummary,
    count_samples,
    parse_manifest,
)
from latentset.datasets.store.samples import OK, SAMPLES, SAMPLES_SCHEMA, samples_bytes
from latentset.datasets.store.zarr.writer import metadata_objects, write_objects
from latentset.pipeline.encode.encode_task import EncodeTask, encode_shard, refuse_planned
from latentset.pipeline.jobs.cluster import Workers
from latentset.pipeline.jobs.finish import pack_hdf5, read_records, samples_of, unpack_hdf5
from latentset.pipeline.jobs.plan import FileFacts, Plan, measure_samples, write_plan
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Settings
from latentset.pipeline.jobs.shard import ShardRecord, ShardTarget, check_leases
from latentset.pipeline.jobs.target import Target, look_at
from latentset.pipeline.jobs.tasks import JobResult, Retried, read_headers, run_shards


def finish_retry(target: Target, say: Callable[[str], None]) -> Target:
    """Finish the retry of an earlier run that was stopped while it changed the store.

    Returns the target, whose lock is held, as it is now.
    """
    retry = target.job / "retry"
    if target.before is None:
        _remove(retry)  # of a store that is gone
    elif not target.is_complete and (retry / "objects").size(MANIFEST) is not None:
        say(f"{target.store}: finishing the retry of an earlier run")
        install(target.store, retry / "objects")
        _remove(retry)
        return look_at(target.store, target.codec, target.settings)
    return target


def find_failed(store: Store) -> NDArray[np.intp]:
    """Rows of the samples that have failed."""
    return np.flatnonzero(pc.not_equal(store.samples["status"], OK).to_numpy())


def say_none_failed(store: Store, view: ProgressView) -> None:
    """Say why nothing is tried again."""
    view.say(f"{store.location}: no sample has failed; there is none to try again")


def retry_failed(
    workers: Callable[[], Workers],
    target: Target,
    done: JobResult,
    source: Source,
    make_task: Callable[..., EncodeTask],
    leases: Sequence[Lease],
    view: ProgressView,
) -> JobResult:
    """Try the failed samples of a complete store again, whose lock is held.

    ``done`` is what the job has done so far; its store is open.

    Raises:
        ImageFailedError: An image cannot be encoded and the task is to fail then.
        JobError: The store is of an earlier format version.
    """
    store = done.store
    failed = find_failed(store)
    if not failed.size:
        say_none_failed(store, view)
        return done
    if store.header.format_version != (current := store.header.lowest_version):
        raise JobError(
            f"{target.store} is of format {store.header.format_version}, and only stores of format "
            f"{current} are changed: make one of it first (latentset convert STORE NEW)"
        )
    retry, tried = target.job / "retry", source.samples.take(failed)
    rule = ResizeRule.parse(target.settings.resize)
    facts = read_headers(workers(), source.root, tried, rule, view)
    check_leases(leases)
    plan = _plan(store, target.settings, retry, source, failed, facts)
    staged = retry / "objects"
    task = make_task(targets=(ShardTarget(staged, retry, plan.table_sha256, target.codec),))
    if task.fail:
        refuse_planned(plan)
    run_shards(workers(), encode_shard, task, plan, view, "encoding")
    records = read_records(staged, plan)
    samples = merge_samples(store.samples, samples_of(plan, records))
    task.check_leases()
    if not samples.equals(store.samples):
        if target.is_hdf5:
            store = unpack_hdf5(target, task.check_leases)
        stage(store, staged, samples, records)
        install(target.objects, staged)
        if target.is_hdf5:
            pack_hdf5(target, task.check_leases, view)
    _remove(retry)
    still = pc.sum(pc.not_equal(samples["status"], OK)).as_py() or 0
    retried = Retried(samples=plan.samples, repaired=failed.size - still)
    return replace(done, store=open_store(target.store), retried=retried)


def _plan(
    store: Store,
    settings: Settings,
    retry: Location,
    source: Source,
    failed: NDArray[np.int64],
    facts: list[FileFacts],
) -> Plan:
    """Plan new shards for the failed samples; those too large for a shard of the store fail."""
    layout = store.header.layout
    what, room = "pixels take {} rows", f"{layout.shard_rows}"
    if store.header.pixels is None:
        what, room = (
            "latents take {} rows of y_hat and {} of z_hat",
            f"{room} and {layout.z_shard_rows}",
        )
    reason = f"its {what}, and a shard of this store has {room}: encode the store anew"
    _, rows, z_rows = measure_samples(settings, facts)
    for k, (need, z_need) in enumerate(zip(rows.tolist(), z_rows.tolist(), strict=True)):
        if not fits(need, z_need, layout):
            facts[k] = replace(facts[k], status="too_large", reason=reason.format(need, z_need))
            rows[k] = 0
    # Those that cannot be encoded come last, so that no shard is added for them alone.
    order = np.argsort(rows == 0, kind="stable")
    columns, rows, z_rows = measure_samples(settings, [facts[k] for k in order])
    placed = append_rows(rows, z_rows, layout)
    header = store.header.model_copy(update={"layout": placed.layout})
    tried = replace(source, samples=source.samples.take(failed[order]))
    return write_plan(retry, header, settings, tried, columns, placed, layout.shards)


def merge_samples(before: pa.Table, retried: pa.Table) -> pa.Table:
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


def stage(store: Store, staged: Location, samples: pa.Table, records: list[ShardRecord]) -> None:
    """Write the other objects that change to the staging folder, the manifest last."""
    if store.manifest is None:
        raise JobError(f"{store.location} is not complete: run the same command again")
    shard, ok = samples["shard"].to_numpy(), pc.equal(samples["status"], OK).to_numpy()
    # Shards at the end in which every sample failed again are excluded.
    count = max(store.header.layout.shards, int(shard.max()) + 1)
    records = [record for record in records if record.index < count]
    layout = store.header.layout.model_copy(update={"shards": count})
    header = store.header.model_copy(update={"layout": layout})
    content = {SAMPLES: samples_bytes(samples, header)}
    if records:
        content |= metadata_objects(header)
    written = write_objects(staged, content)
    shards = [item for record in records for item in record.objects]
    for path in {*(staged.sizes() or {})} - {item.path for item in (*shards, *written)}:
        staged.remove(path)  # of an earlier attempt, or of an excluded shard
    total, good = (np.bincount(of, minlength=count).tolist() for of in (shard, shard[ok]))
    objects = {item.path: item for item in (*store.manifest.objects, *shards, *written)}
    changed = Manifest(
        format_version=store.manifest.format_version,
        fingerprint=store.manifest.fingerprint,
        samples=count_samples(samples),
        shards=tuple(
            ShardSummary(index=k, samples=total[k], ok=good[k], failed=total[k] - good[k])
            for k in range(count)
        ),
        objects=tuple(objects[path] for path in sorted(objects)),
    )
    staged.write(MANIFEST, changed.to_bytes())


def install(store: Location, staged: Location) -> None:
    """Change a store; from the first step to the last it has no manifest.

    Run again after a crash, it writes the same. StoreCorruptError if something was altered since.
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


def _remove(retry: Location) -> None:
    """Remove the folder of a retry, its manifest first: without it no retry is resumed."""
    (retry / "objects").remove(MANIFEST)
    for path in retry.sizes() or {}:
        retry.remove(path)
    if isinstance(retry, Folder):
        shutil.rmtree(retry.path, ignore_errors=True)
