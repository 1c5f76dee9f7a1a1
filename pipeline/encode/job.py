"""The job from the first look at the targets to the manifests (docs/encoding.md)."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location, open_location
from latentset.datasets.storage.lock import Lease, hold
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import RowForm, rows_of
from latentset.datasets.store.formats import Format
from latentset.datasets.store.header import (
    ARRAYS,
    PIXEL_ARRAYS,
    CodecInfo,
    PixelInfo,
    format_version_of,
)
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.zarr.writer import metadata_objects, write_objects
from latentset.pipeline.encode.engine import IMAGES, NO_CODEC, TENSORFLOW, Engine
from latentset.pipeline.encode.passes import load_codecs, read_headers, refuse_failed, run_shards
from latentset.pipeline.encode.retry import Retried, count_failed, settle, try_again
from latentset.pipeline.encode.shard import ShardTarget, Task, encode_shard
from latentset.pipeline.jobs.cluster import WAIT_S, Workers, connect
from latentset.pipeline.jobs.finish import finish
from latentset.pipeline.jobs.plan import FileFacts, PlanFile, make_plan, write_plan
from latentset.pipeline.jobs.progress import ProgressView, Silence
from latentset.pipeline.jobs.settings import Settings, describe_source
from latentset.pipeline.jobs.target import Target, choose_container, make_target

SHARD_BYTES = 32 << 20
"""Default size of a shard of ``y_hat`` before compression: 341 images of 256x256 at 192 channels,
a quarter of a minute of one worker, some 5 MB on disk."""


@dataclass(frozen=True)
class EncodeResult:
    """What came out."""

    store: Store
    """The complete store."""
    was_complete: bool
    """It was complete before; nothing was done, unless failed images were tried again."""
    encoded: int = 0
    """Images that this run worked on."""
    reused: int = 0
    """Images of shards that an earlier run had finished."""
    seconds: float = 0.0
    """Time of this run from the first task to the last, loading the codec included."""
    retried: Retried | None = None
    """What came of trying failed images of the complete store again; None if that was not asked
    for, or none had failed."""


def encode(
    source: Source,
    store: Path | str,
    codec: str,
    *,
    resize: ResizeRule | None = None,
    format: Format | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    queue: str | None = None,
    wait_s: float = WAIT_S,
    batch: int = 32,
    on_error: Literal["record", "fail"] = "record",
    retry_failed: bool = False,
    sigma_hat: bool = False,
    shard_bytes: int = SHARD_BYTES,
    view: ProgressView | None = None,
    engine: Engine = TENSORFLOW,
) -> EncodeResult:
    """Encode a collection of images, or go on with a job that was interrupted.

    A script that calls this needs ``if __name__ == "__main__":``, as for every spawned process.

    Args:
        source: The images.
        store: What to make: a folder or file, ``s3://…``, ``gs://…``.
        codec: Name or path of the codec; ``none`` stores the images themselves.
        resize: What to do to each image first; None is nothing.
        format: In what the arrays are kept; None is HDF5 for names that end like it, else Zarr.
        scheduler: Address of a Dask scheduler; None uses processes of this machine.
        workers: Number of local workers, None is one a core; or of a queue's, at most.
        queue: Queueing system that starts workers: ``slurm``, ``pbs``, ``sge`` or ``lsf``.
        wait_s: Seconds without a single worker of scheduler or queue after which to stop.
        batch: Images that the codec is given at once, at most. Changes no byte.
        on_error: ``record`` gives an image that cannot be encoded a status; ``fail`` stops.
        retry_failed: Then try the failed images of the complete store once more.
        sigma_hat: Store ``sigma_hat`` as float16 as well.
        shard_bytes: Size of a shard of ``y_hat`` before compression.
        view: Where to show progress.
        engine: What runs the codec.

    Returns:
        What came out.

    Raises:
        StoreError: The target is something else, or cannot be written.
        SettingsChangedError: The target was begun with other settings.
        ImageFailedError: An image cannot be encoded and ``on_error`` is ``fail``.
        JobError: Another job is at work on the target, workers were lost or differ, or the codec
            gives values that do not fit.
    """
    (result,) = encode_all(
        source,
        [(store, codec)],
        resize=resize,
        format=format,
        scheduler=scheduler,
        workers=workers,
        queue=queue,
        wait_s=wait_s,
        batch=batch,
        on_error=on_error,
        retry_failed=retry_failed,
        sigma_hat=sigma_hat,
        shard_bytes=shard_bytes,
        view=view,
        engine=engine,
    )
    return result


def encode_all(
    source: Source,
    stores: Sequence[tuple[Path | str, str]],
    *,
    resize: ResizeRule | None = None,
    format: Format | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    queue: str | None = None,
    wait_s: float = WAIT_S,
    batch: int = 32,
    on_error: Literal["record", "fail"] = "record",
    retry_failed: bool = False,
    sigma_hat: bool = False,
    shard_bytes: int = SHARD_BYTES,
    view: ProgressView | None = None,
    engine: Engine = TENSORFLOW,
) -> list[EncodeResult]:
    """Encode a collection of images with several codecs, reading each image once.

    Shards are reckoned with the channels of the codec that has most, so that a task has the same
    images for every store.

    Args:
        source: The images.
        stores: For each store, what to make and its codec, as for :func:`encode`.
        resize: As for :func:`encode`, and so are all that follow.
        format: For all stores.
        scheduler: Address of a Dask scheduler.
        workers: Number of local workers, or of a queue's at most.
        queue: Queueing system that starts workers.
        wait_s: Seconds without a worker after which to stop.
        batch: Images that a codec is given at once, at most.
        on_error: What to do about an image that cannot be encoded.
        retry_failed: Then try the failed images of the complete store once more.
        sigma_hat: Store ``sigma_hat`` as float16 as well.
        shard_bytes: Size of a shard of ``y_hat`` of the codec with most channels.
        view: Where to show progress.
        engine: What runs the codecs.

    Returns:
        What came out, for each store.

    Raises:
        StoreError: A target is something else, or cannot be written.
        SettingsChangedError: A target was begun with other settings.
        ImageFailedError: An image cannot be encoded and ``on_error`` is ``fail``.
        JobError: Another job is at work on a target, workers were lost or differ, or a codec gives
            values that do not fit.
    """
    view = view or Silence()
    if NO_CODEC in (codec for _, codec in stores):
        if len(stores) > 1:
            raise JobError(
                "--codec none stores pixels, which are divided into other shards than latents: "
                "give it a command of its own"
            )
        if sigma_hat:
            raise JobError("--sigma-hat is for codecs: --codec none stores pixels only")
        engine = IMAGES
    start = partial(connect, scheduler, workers, queue=queue, wait_s=wait_s, say=view.say)
    codecs = [
        str(Path(codec).absolute()) if Path(codec).is_file() else codec for _, codec in stores
    ]
    done: dict[Location, EncodeResult] = {}
    with ExitStack() as stack:
        # Local workers load the codecs at once, and the client none. Others may be long in coming.
        crew = stack.enter_context(start()) if scheduler is None and queue is None else None
        used = [] if engine is IMAGES else codecs
        software, infos, checks = load_codecs(crew, engine, used)
        stack.enter_context(closing(checks))
        described = describe_source(source)
        targets: list[Target] = []
        for (where, _), codec in zip(stores, codecs, strict=True):
            location = open_location(where)
            info = infos.get(codec)
            content = _describe_content(info, sigma_hat)
            later = (software.cpu_isa, info.h_s_exact_to if info else None)
            settings = Settings(
                **content,
                format_version=format_version_of(content["arrays"], *later),
                container=choose_container(location, format),
                resize=str(resize or ResizeRule()),
                source=described,
                target_shard_bytes=shard_bytes,
                software=software,
            )
            targets.append(make_target(location, codec, settings))
        begun = [target for target in targets if retry_failed or not target.is_complete]
        # In one order for all jobs, so that two with the same stores do not refuse each other.
        ordered = sorted(begun, key=lambda target: str(target.store))
        leases = [stack.enter_context(hold(target.lock_at, view.say)) for target in ordered]
        # Another job may have been at work until the lock was free.
        again = [settle(_look_again(target), view.say) for target in begun]
        left = [target for target in again if not target.is_complete]
        task = Task((), source.root, batch, on_error == "fail", engine, tuple(leases))
        if left:
            crew = crew or stack.enter_context(start())
            form = max((rows_of(t.settings.content) for t in targets), key=lambda row: row.bytes)
            plans = _plan(crew, left, leases, source, form, checks, view)
            if on_error == "fail":
                refuse_failed(plans[0])
            _check(leases)
            for target, plan in zip(left, plans, strict=True):
                if target.settings.container == "zarr":
                    write_objects(target.store, metadata_objects(plan.header))
            made = tuple(
                ShardTarget(
                    objects=target.objects,
                    job=target.job,
                    plan_sha256=plan.table_sha256,
                    container=target.settings.container,
                    codec=target.codec,
                )
                for target, plan in zip(left, plans, strict=True)
            )
            started = time.monotonic()
            tally = run_shards(crew, encode_shard, replace(task, targets=made), plans[0], view)
            seconds = time.monotonic() - started
            _check(leases)
            for k, (target, plan) in enumerate(zip(left, plans, strict=True)):
                finish(target, plan, partial(_check, leases))
                done[target.store] = EncodeResult(
                    open_store(target.store),
                    was_complete=False,
                    encoded=tally.encoded[k],
                    reused=tally.reused[k],
                    seconds=seconds,
                )
        if retry_failed:
            deque(checks, maxlen=0)
            now = [
                replace(target, before=done[target.store].store) if target.store in done else target
                for target in again
            ]
            for target in _with_failed(now, view):
                crew = crew or stack.enter_context(start())
                retried = try_again(crew, target, source, task, view)
                store = open_store(target.store)
                result = done.get(target.store) or EncodeResult(store, was_complete=True)
                done[target.store] = replace(result, store=store, retried=retried)
    # What was complete was opened already, at first or when the lock was free.
    for target in (*targets, *again):
        if target.before is not None and target.is_complete:
            done.setdefault(target.store, EncodeResult(target.before, was_complete=True))
    return [done[target.store] for target in targets]


def _describe_content(codec: CodecInfo | None, sigma_hat: bool) -> dict[str, Any]:
    """What a store holds: the fields of its settings that say so."""
    if codec is None:
        return {"pixels": PixelInfo(kind="original"), "arrays": PIXEL_ARRAYS}
    arrays = (*ARRAYS, "sigma_hat") if sigma_hat else ARRAYS
    return {"codec": number_scales(codec), "arrays": arrays}


def _look_again(target: Target) -> Target:
    return make_target(target.store, target.codec, target.settings)


def _with_failed(targets: Sequence[Target], view: ProgressView) -> list[Target]:
    """The complete stores of which samples have failed."""
    failed = []
    for target in targets:
        if count_failed(target):
            failed.append(target)
        else:
            view.say(f"{target.store}: no sample has failed; there is none to try again")
    return failed


def _check(leases: Sequence[Lease]) -> None:
    """Stop if another job has taken a store over."""
    for lease in leases:
        lease.check()


def _plan(
    crew: Workers,
    targets: Sequence[Target],
    leases: Sequence[Lease],
    source: Source,
    form: RowForm,
    checks: Iterable[Any],
    view: ProgressView,
) -> list[PlanFile]:
    """Take the plans of earlier runs of the same job, and make those that are missing."""
    found: dict[Location, PlanFile] = {}
    facts: list[FileFacts] = []
    for target in targets:
        if target.job.size("plan.json") is not None:
            try:
                found[target.job] = PlanFile(target.job)
            except JobError:
                view.say("the plan of the earlier run cannot be read; planning again")
    if len(found) < len(targets):
        facts = read_headers(crew, source.root, source.samples["path"].to_pylist(), view)
    deque(checks, maxlen=0)
    _check(leases)
    for target in targets:
        if target.job not in found:
            write_plan(target.job, make_plan(source, target.settings, facts, form))
            found[target.job] = PlanFile(target.job)
    plans = [found[target.job] for target in targets]
    for target, plan in zip(targets, plans, strict=True):
        if not plan.same_images(plans[0]):
            raise JobError(
                f"{target.store} and {targets[0].store} were begun apart, with other shards, or "
                "images have changed since: encode them one at a time"
            )
    return plans
