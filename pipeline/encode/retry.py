"""Failed samples of a complete store, tried again: `latentset encode … --retry-failed`.

What can be encoded now goes into new shards, after those that are there; no other shard, and no row
of a sample that had latents, changes by a byte.

1. *Plan.* The headers of the failed images are read again. The plan is of these samples alone,
   those that can be encoded first, and lies in ``STORE.job/FINGERPRINT/retry/``.
2. *Encode.* Tasks write the new shards to ``retry/objects/``, each with its record.
3. *Lay ready.* Metadata, samples table and manifest that the store is to get are written there too,
   the manifest last. Until now the store was what it was.
4. *Change.* The store's manifest is removed: readers refuse the store. What lies ready is copied,
   the manifest last. An HDF5 store is put together anew instead, and replaced in one step.
5. ``retry/`` is removed.

Whatever a retry was at when it was killed, the same command goes on with it: in steps 1 to 3 by the
records; in step 4 by a manifest that lies ready while the store has none. The latter is finished by
the command without ``--retry-failed`` too (:func:`settle`).
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source
from latentset.datasets.storage.location import Folder, Location
from latentset.datasets.store import Store
from latentset.datasets.store.hdf5.reader import Hdf5Store
from latentset.datasets.store.header import Header
from latentset.datasets.store.layout import append_rows, fits
from latentset.datasets.store.manifest import MANIFEST, Manifest
from latentset.datasets.store.samples import OK
from latentset.pipeline.encode.amend import decide, install, lay_ready, replace_file
from latentset.pipeline.encode.passes import read_headers, refuse_failed, run_shards
from latentset.pipeline.encode.shard import ShardTarget, Task, encode_shard
from latentset.pipeline.jobs.cluster import Workers
from latentset.pipeline.jobs.finish import read_records
from latentset.pipeline.jobs.plan import (
    FileFacts,
    Plan,
    PlanFile,
    measure,
    plan_table,
    write_plan,
)
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Settings
from latentset.pipeline.jobs.target import Target, make_target


@dataclass(frozen=True)
class Retried:
    """What came out."""

    samples: int
    """Samples that were tried again."""
    repaired: int
    """Of these, samples that have latents now."""
    seconds: float
    """From the first task to the last."""


def settle(target: Target, say: Callable[[str], None]) -> Target:
    """Finish the retry of an earlier run that was stopped while it changed the store.

    Args:
        target: The store and its job, whose lock is held.
        say: Told when there is something to finish.

    Returns:
        The target as it is now.

    Raises:
        StoreError: An object cannot be written.
        StoreCorruptError: The store, or what lies ready, was altered since.
    """
    retry = _folder(target)
    if target.before is None:
        _forget(retry)  # of a store that is gone
    elif not target.is_complete and (retry / "objects").size(MANIFEST) is not None:
        say(f"{target.store}: finishing the retry of an earlier run")
        install(target.store, retry / "objects")
        _forget(retry)
        return make_target(target.store, target.codec, target.settings)
    return target


def count_failed(target: Target) -> int:
    """Count the samples of a complete store that can be tried again.

    Args:
        target: The store.

    Returns:
        How many have no latents.

    Raises:
        JobError: The store is of an earlier format version.
    """
    store, manifest = _complete(target)
    current = store.header.lowest_version
    if manifest.samples.failed and store.header.format_version != current:
        raise JobError(
            f"{target.store} is of format {store.header.format_version}, and only stores of format "
            f"{current} are changed: make one of it first (latentset convert STORE NEW)"
        )
    return manifest.samples.failed


def try_again(
    crew: Workers, target: Target, source: Source, task: Task, view: ProgressView
) -> Retried:
    """Try the failed samples of a complete store again.

    Args:
        crew: The workers.
        target: The store and its job, whose lock is held.
        source: The images.
        task: What tasks are told; its targets are not looked at.
        view: Where to show progress.

    Returns:
        What came out.

    Raises:
        ImageFailedError: An image cannot be encoded and ``task.fail`` is set.
        JobError: Workers were lost or differ, the codec gives values that do not fit, or another
            job has taken the store over.
        StoreError: An object cannot be written.
        StoreCorruptError: The store was altered.
    """
    store, manifest = _complete(target)
    retry = _folder(target)
    ready = retry / "objects"
    write_plan(retry, _make_plan(crew, store, target.settings, source, view))
    plan = PlanFile(retry)
    if task.fail:
        refuse_failed(plan)
    made = ShardTarget(ready, retry, plan.table_sha256, target.settings.container, target.codec)
    started = time.monotonic()
    run_shards(crew, encode_shard, replace(task, targets=(made,)), plan, view)
    seconds = time.monotonic() - started
    change = decide(store, plan, read_records(ready, retry, plan))
    for lease in task.leases:
        lease.check()
    if not change.samples.equals(store.samples):
        if isinstance(store, Hdf5Store):
            replace_file(store, ready, change)
        else:
            lay_ready(manifest, ready, change)
            install(target.store, ready)
    _forget(retry)
    repaired = sum(shard.ok for shard in change.shards) - manifest.samples.ok
    return Retried(samples=plan.samples, repaired=repaired, seconds=seconds)


def _folder(target: Target) -> Location:
    return target.job / "retry"


def _complete(target: Target) -> tuple[Store, Manifest]:
    store = target.before
    if store is None or store.manifest is None:
        raise JobError(f"{target.store} is not complete: run the same command again")
    return store, store.manifest


def _make_plan(
    crew: Workers, store: Store, settings: Settings, source: Source, view: ProgressView
) -> Plan:
    """Plan new shards for the failed samples."""
    failed = np.flatnonzero(pc.not_equal(store.samples["status"], OK).to_numpy())
    paths = source.samples["path"].take(failed).to_pylist()
    found = read_headers(crew, source.root, paths, view)
    facts = _refuse_large(found, settings, store.header)
    # Those that cannot be encoded come last, so that no shard is added for them alone.
    order = np.argsort(measure(settings, facts)[1] == 0, kind="stable")
    columns, rows, z_rows = measure(settings, [facts[k] for k in order])
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
    _, rows, z_rows = measure(settings, facts)
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


def _forget(retry: Location) -> None:
    """Remove the folder of a retry, and first what would be taken for one that goes on."""
    (retry / "objects").remove(MANIFEST)
    for path in retry.sizes() or {}:
        retry.remove(path)
    if isinstance(retry, Folder):
        shutil.rmtree(retry.path, ignore_errors=True)
