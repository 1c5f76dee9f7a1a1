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
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source
from latentset.datasets.storage.location import Folder, Location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import Header
from latentset.datasets.store.layout import append_rows, fits
from latentset.datasets.store.manifest import MANIFEST
from latentset.datasets.store.samples import OK
from latentset.pipeline.encode.amend import Change, decide, install, stage
from latentset.pipeline.encode.encode_task import EncodeTask, encode_shard, refuse_planned
from latentset.pipeline.jobs.cluster import Workers
from latentset.pipeline.jobs.finish import pack_hdf5, read_records, unpack_hdf5
from latentset.pipeline.jobs.plan import (
    FileFacts,
    Plan,
    measure_samples,
    plan_table,
    write_plan,
)
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Settings
from latentset.pipeline.jobs.shard import ShardTarget, check_leases
from latentset.pipeline.jobs.target import Target, look_at
from latentset.pipeline.jobs.tasks import JobResult, Retried, read_headers, run_shards


def finish_retry(target: Target, say: Callable[[str], None]) -> Target:
    """Finish the retry of an earlier run that was stopped while it changed the store.

    Returns:
        The target, whose lock is held, as it is now.

    Raises:
        StoreError: An object cannot be written.
        StoreCorruptError: The store, or what is staged, was altered since.
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

    Args:
        workers: Starts workers when it is first called.
        target: The store and its job.
        done: What the job has done so far; its store is open.
        source: The images.
        make_task: Makes the task of ``targets``.
        leases: The locks of the job.
        view: Where to show progress.

    Raises:
        ImageFailedError: An image cannot be encoded and the task is to fail then.
        JobError: The store is of an earlier format version.
        StoreError: An object cannot be written.
        StoreCorruptError: The store was altered.
    """
    store = done.store
    failed = np.flatnonzero(pc.not_equal(store.samples["status"], OK).to_numpy())
    if not failed.size:
        view.say(f"{target.store}: no sample has failed; there is none to try again")
        return done
    if store.header.format_version != (current := store.header.lowest_version):
        raise JobError(
            f"{target.store} is of format {store.header.format_version}, and only stores of format "
            f"{current} are changed: make one of it first (latentset convert STORE NEW)"
        )
    retry, paths = target.job / "retry", source.samples["path"].take(failed).to_pylist()
    facts = read_headers(workers(), source.root, paths, view)
    check_leases(leases)
    plan = write_plan(retry, _plan(store, target.settings, source, failed, facts))
    staged = retry / "objects"
    task = make_task(targets=(ShardTarget(staged, retry, plan.table_sha256, target.codec),))
    if task.fail:
        refuse_planned(plan)
    run_shards(workers(), encode_shard, task, plan, view, "encoding")
    change = decide(store, plan, read_records(staged, retry, plan))
    task.check_leases()
    if not change.samples.equals(store.samples):
        _apply(target, staged, change, task, view)
    _remove(retry)
    still = pc.sum(pc.not_equal(change.samples["status"], OK)).as_py() or 0
    retried = Retried(samples=plan.samples, repaired=failed.size - still)
    return replace(done, store=open_store(target.store), retried=retried)


def _apply(
    target: Target, staged: Location, change: Change, task: EncodeTask, view: ProgressView
) -> None:
    """Make the store what it is to become."""
    store = unpack_hdf5(target, task.check_leases) if target.is_hdf5 else open_store(target.store)
    if store.manifest is None:
        raise JobError(f"{store.location} is not complete: run the same command again")
    stage(store.manifest, staged, change)
    install(target.objects, staged)
    if target.is_hdf5:
        pack_hdf5(target, task.check_leases, view.say)


def _plan(
    store: Store,
    settings: Settings,
    source: Source,
    failed: NDArray[np.int64],
    facts: list[FileFacts],
) -> Plan:
    """Plan new shards for the failed samples."""
    facts = _refuse_large(facts, settings, store.header)
    # Those that cannot be encoded come last, so that no shard is added for them alone.
    order = np.argsort(measure_samples(settings, facts)[1] == 0, kind="stable")
    columns, rows, z_rows = measure_samples(settings, [facts[k] for k in order])
    placed = append_rows(rows, z_rows, store.header.layout)
    return Plan(
        store.header.model_copy(update={"layout": placed.layout}),
        settings.fingerprint,
        plan_table(source.samples.take(failed[order]), columns, placed),
        first_shard=store.header.layout.shards,
    )


def _refuse_large(
    facts: Sequence[FileFacts], settings: Settings, header: Header
) -> list[FileFacts]:
    """Give samples that do not fit into a shard of the store a status."""
    layout = header.layout
    _, rows, z_rows = measure_samples(settings, facts)
    reason = (
        "its latents take {} rows of y_hat and {} of z_hat, and a shard of this store has "
        f"{layout.shard_rows} and {layout.z_shard_rows}: encode the store anew"
    )
    if header.pixels is not None:
        reason = (
            "its pixels take {} rows, and a shard of this store has "
            f"{layout.shard_rows}: encode the store anew"
        )
    return [
        fact
        if fits(need, z_need, layout)
        else replace(fact, status="too_large", reason=reason.format(need, z_need))
        for fact, need, z_need in zip(facts, rows.tolist(), z_rows.tolist(), strict=True)
    ]


def _remove(retry: Location) -> None:
    """Remove the folder of a retry, and first what would be taken for one to finish."""
    (retry / "objects").remove(MANIFEST)
    for path in retry.sizes() or {}:
        retry.remove(path)
    if isinstance(retry, Folder):
        shutil.rmtree(retry.path, ignore_errors=True)
