"""The encode job from the images to the manifests (docs/encoding.md)."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.sources import Source
from latentset.datasets.storage.location import open_location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import RowForm, rows_of
from latentset.datasets.store.header import (
    ARRAYS,
    PIXEL_ARRAYS,
    ArrayName,
    PixelInfo,
    SourceInfo,
    format_version_of,
)
from latentset.datasets.store.scales import number_scales
from latentset.datasets.terminal import printable
from latentset.pipeline.cpu_isa import CpuIsa, choose_cpu_isa
from latentset.pipeline.encode.encode_task import EncodeTask, encode_shard, refuse_planned
from latentset.pipeline.encode.repeated import describe_repeated
from latentset.pipeline.encode.retry import find_failed, finish_retry, retry_failed, say_none_failed
from latentset.pipeline.jobs.cluster import Workers, connect
from latentset.pipeline.jobs.coder import IMAGES, NO_CODEC
from latentset.pipeline.jobs.options import JobOptions
from latentset.pipeline.jobs.plan import (
    FileFacts,
    Plan,
    creation_time,
    describe_enlarged,
    find_plan,
    make_plan,
)
from latentset.pipeline.jobs.settings import Settings, describe_source
from latentset.pipeline.jobs.shard import check_leases
from latentset.pipeline.jobs.target import Target, choose_container, lock_targets, look_at
from latentset.pipeline.jobs.tasks import JobResult, load_codecs, make_stores, read_headers


@dataclass(frozen=True)
class EncodeOptions(JobOptions):
    """Options of an encode job."""

    on_error: Literal["record", "fail"] = "record"
    """``record`` gives an image that cannot be encoded a status; ``fail`` stops."""
    retry_failed: bool = False
    """Then try the failed images of the complete store once more."""
    sigma_hat: bool = False
    """Store ``sigma_hat`` as float16 as well."""


DEFAULTS = EncodeOptions()

GetWorkers = Callable[[], Workers]
"""Starts workers when it is first called."""


def encode(
    source: Source, store: Path | str, codec: str, options: EncodeOptions = DEFAULTS
) -> JobResult:
    """Encode images into one store, as :func:`encode_all` does into several."""
    (result,) = encode_all(source, [(store, codec)], options)
    return result


def encode_all(
    source: Source,
    stores: Sequence[tuple[Path | str, str]],
    options: EncodeOptions = DEFAULTS,
) -> list[JobResult]:
    """Encode images with several codecs, reading each image once, or resume such a job.

    Each store (a folder or file, ``s3://…``, ``gs://…``) has a codec of its own, by name or path;
    ``none`` stores the images themselves. Shards are divided by the channels of the codec that has
    most, so that a task has the same images for every store. A script that calls this needs
    ``if __name__ == "__main__":``, as for every spawned process.

    Raises:
        StoreError: A target is something else, or cannot be written.
        SettingsChangedError: A target was started with other settings.
        ImageFailedError: An image cannot be encoded and ``on_error`` is ``fail``.
        JobError: Another job is at work on a target, workers were lost or differ, or a codec gives
            values that do not fit.
    """
    creation_time()  # a bad SOURCE_DATE_EPOCH is refused now
    options, described = _require_possible(stores, options), describe_source(source)
    complete = [_find_complete(where, codec, described, options) for where, codec in stores]
    found = [store for store in complete if store is not None]
    retried = [store for store in found if options.retry_failed and find_failed(store).size]
    if len(found) == len(stores) and not retried:
        for store in found if options.retry_failed else []:
            say_none_failed(store, options.view)
        return [JobResult(store, was_complete=True) for store in found]
    with ExitStack() as stack:
        workers = cache(lambda: stack.enter_context(connect(options)))
        targets = _describe_targets(described, stores, options, workers)
        open_targets = [t for t in targets if options.retry_failed or not t.is_finished]
        locked, leases = lock_targets(open_targets, options.view.say, stack)
        locked = [finish_retry(target, options.view.say) for target in locked]
        make_task = partial(
            EncodeTask,
            batch=options.batch,
            engine=options.engine,
            leases=leases,
            source=source.root,
            fail=options.on_error == "fail",
        )
        done = {
            target.store: JobResult(target.before, was_complete=True)
            for target in (*targets, *locked)
            if target.before is not None and target.is_complete
        }
        if missing := [target for target in locked if not target.is_complete]:
            form = max((rows_of(t.settings.content) for t in targets), key=lambda row: row.bytes)
            plans = _plan(workers, missing, source, form, leases, options)
            task = make_task(
                targets=tuple(t.for_tasks(p) for t, p in zip(missing, plans, strict=True))
            )
            if task.fail:
                refuse_planned(plans[0])
            made = make_stores(
                workers(), encode_shard, task, missing, plans, options.view, "encoding"
            )
            done |= dict(zip((target.store for target in missing), made, strict=True))
        if options.retry_failed:
            for target in locked:
                result = done[target.store]
                done[target.store] = retry_failed(
                    workers, target, result, source, make_task, leases, options.view
                )
    return [done[target.store] for target in targets]


def _require_possible(
    stores: Sequence[tuple[Path | str, str]], options: EncodeOptions
) -> EncodeOptions:
    """Refuse options that do not go together with ``--codec none``, which needs no TensorFlow."""
    if NO_CODEC not in (codec for _, codec in stores):
        return options
    if len(stores) > 1:
        raise JobError(
            "--codec none stores pixels, which are divided into other shards than latents: "
            "give it a command of its own"
        )
    if options.sigma_hat:
        raise JobError("--sigma-hat is for codecs: --codec none stores pixels only")
    return replace(options, engine=IMAGES)


def _find_complete(
    where: Path | str, codec: str, source: SourceInfo, options: EncodeOptions
) -> Store | None:
    """A store that this command has completed, without workers and codecs.

    None also where only they can tell. Versions of software are not compared: nothing is computed.
    """
    location, engine = open_location(where), options.engine
    container = choose_container(location, options.format)
    identity = None if engine is IMAGES else engine.identify(codec)
    try:
        store = open_store(location)
    except StoreError:
        return None
    header, info = store.header, store.header.codec
    found = (
        header.source,
        header.pixels,
        None if info is None else (info.name, info.sha256),
        header.arrays,
        header.resize,
        store.format,
        header.layout.target_shard_bytes,
    )
    wanted = (
        source,
        PixelInfo(kind="original") if identity is None else None,
        identity,
        _arrays_of(identity is None, options),
        str(options.resize),
        container,
        options.shard_bytes,
    )
    if engine.fix_cpu_isa and (header.provenance.cpu_isa or CpuIsa.native) != choose_cpu_isa():
        return None
    left = location.beside(".job") / store.fingerprint / "store.zarr"  # by a kill
    return store if found == wanted and not Path(str(left)).exists() else None


def _arrays_of(pixels: bool, options: EncodeOptions) -> tuple[ArrayName, ...]:
    if pixels:
        return PIXEL_ARRAYS
    return (*ARRAYS, "sigma_hat") if options.sigma_hat else ARRAYS


def _describe_targets(
    source: SourceInfo,
    stores: Sequence[tuple[Path | str, str]],
    options: EncodeOptions,
    workers: GetWorkers,
) -> list[Target]:
    """Load the codecs, and look at every store that is to be made with them."""
    codecs = [
        str(Path(codec).absolute()) if Path(codec).is_file() else codec for _, codec in stores
    ]
    # Local workers load the codecs at once, and the client none. Others may be long in coming.
    local = workers() if options.scheduler is None and options.queue is None else None
    used = [] if options.engine is IMAGES else codecs
    software, infos = load_codecs(local, options.engine, used)
    targets = []
    for (where, _), codec in zip(stores, codecs, strict=True):
        location, info = open_location(where), infos.get(codec)
        arrays = _arrays_of(info is None, options)
        settings = Settings(
            codec=None if info is None else number_scales(info),
            pixels=PixelInfo(kind="original") if info is None else None,
            arrays=arrays,
            format_version=format_version_of(
                arrays, software.cpu_isa, info.h_s_exact_to if info else None
            ),
            container=choose_container(location, options.format),
            resize=str(options.resize),
            source=source,
            target_shard_bytes=options.shard_bytes,
            software=software,
        )
        targets.append(look_at(location, codec, settings))
    return targets


def _plan(
    workers: GetWorkers,
    targets: Sequence[Target],
    source: Source,
    form: RowForm,
    leases: Sequence[Lease],
    options: EncodeOptions,
) -> list[Plan]:
    """Open the plans of earlier runs of the same job, and make those that are missing."""
    found = {target.store: find_plan(target.job, options.view.say) for target in targets}
    facts: list[FileFacts] = []
    if None in found.values():
        facts = read_headers(workers(), source.root, source.samples, options.resize, options.view)
        check_leases(leases)
    plans = [found[t.store] or make_plan(t.job, source, t.settings, facts, form) for t in targets]
    if facts and (text := describe_enlarged(plans[0])):
        options.view.say(text)
    if facts:
        for where, images in describe_repeated(source, plans[0].table()).items():
            options.view.say(f"{where}: {printable(images)}")
    for target, plan in zip(targets, plans, strict=True):
        if not plan.same_images(plans[0]):
            raise JobError(
                f"{target.store} and {targets[0].store} were started apart, with other shards, or "
                "images have changed since: encode them one at a time"
            )
    return plans
