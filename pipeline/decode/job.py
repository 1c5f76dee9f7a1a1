"""The job from the first look at both stores to the manifest (docs/decoding.md)."""

import time
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from latentset.datasets.errors import CodecError, JobError, StoreError
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location, open_location
from latentset.datasets.storage.lock import hold
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import rows_of
from latentset.datasets.store.convert import is_same
from latentset.datasets.store.formats import Format
from latentset.datasets.store.header import (
    PIXEL_ARRAYS,
    CodecInfo,
    LatentsInfo,
    PixelInfo,
    format_version_of,
)
from latentset.datasets.store.samples import OK
from latentset.datasets.store.zarr.writer import metadata_objects, write_objects
from latentset.pipeline.decode.shard import DecodeTask, decode_shard, digest_of, read_original
from latentset.pipeline.encode.engine import TENSORFLOW, Engine
from latentset.pipeline.encode.job import SHARD_BYTES, EncodeResult
from latentset.pipeline.encode.passes import run_shards
from latentset.pipeline.encode.shard import ShardTarget, read_software
from latentset.pipeline.jobs.cluster import WAIT_S, connect
from latentset.pipeline.jobs.finish import finish
from latentset.pipeline.jobs.plan import FileFacts, PlanFile, make_plan, write_plan
from latentset.pipeline.jobs.progress import ProgressView, Silence
from latentset.pipeline.jobs.settings import Settings
from latentset.pipeline.jobs.target import Target, choose_container, make_target


def decode(
    store: Path | str | Location,
    pixels: Path | str,
    *,
    codec: str | None = None,
    resize: ResizeRule | None = None,
    originals: Path | None = None,
    format: Format | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    queue: str | None = None,
    wait_s: float = WAIT_S,
    batch: int = 32,
    shard_bytes: int = SHARD_BYTES,
    view: ProgressView | None = None,
    engine: Engine = TENSORFLOW,
) -> EncodeResult:
    """Decode a store of latents into a store of pixels, or go on with a job that was interrupted.

    A script that calls this needs ``if __name__ == "__main__":``, as for every spawned process.

    Args:
        store: The latents.
        pixels: What to make: a folder or file, ``s3://…``, ``gs://…``.
        codec: Name or path of the codec; None looks for the one that the store names.
        resize: What to do to each decoded image; None is nothing.
        originals: Root of the images that the latents were encoded from: each decoded image
            is measured against its image. None measures nothing.
        format: In what the array is kept; None is HDF5 for names that end like it, else Zarr.
        scheduler: Address of a Dask scheduler; None uses processes of this machine.
        workers: Number of local workers, None is one a core; or of a queue's, at most.
        queue: Queueing system that starts workers: ``slurm``, ``pbs``, ``sge`` or ``lsf``.
        wait_s: Seconds without a single worker of scheduler or queue after which to stop.
        batch: Images that the codec is given at once, at most. Changes no byte.
        shard_bytes: Size of a shard of ``pixels`` before compression.
        view: Where to show progress.
        engine: What runs the codec.

    Returns:
        What came out.

    Raises:
        StoreError: The latents cannot be read, or are none; or the target is something else, or
            cannot be written.
        CodecError: The codec is not there, is another one, or cannot decode.
        SettingsChangedError: The target was begun with other settings.
        JobError: Another job is at work on the target, workers were lost or differ, or an image
            is not the one that was encoded.
    """
    view = view or Silence()
    latents = open_store(store)
    info = _require_latents(latents)
    name = _find_codec(latents, info, codec, engine)
    location, rule = open_location(pixels), resize or ResizeRule()
    if is_same(location, latents.location):
        raise StoreError(f"{location} is the store of latents itself: name another PIXELS")
    if originals is not None:
        originals = originals.absolute()
        _require_originals(latents, originals)
    software, encoded = read_software(engine), latents.header.provenance
    settings = Settings(
        format_version=format_version_of(
            PIXEL_ARRAYS, software.cpu_isa, encoded.cpu_isa, info.h_s_exact_to
        ),
        codec=info,
        pixels=_describe(latents, measured=originals is not None),
        arrays=PIXEL_ARRAYS,
        resize=str(rule),
        source=latents.header.source,
        container=choose_container(location, format),
        target_shard_bytes=shard_bytes,
        software=software,
    )
    target = make_target(location, name, settings)
    if target.before is not None and target.is_complete:
        _say_what_is_new(latents, target.before, view)
        return EncodeResult(target.before, was_complete=True)
    with hold(target.lock_at, view.say) as lease:
        # Another job may have been at work until the lock was free.
        target = make_target(location, name, settings)
        if target.before is not None and target.is_complete:
            return EncodeResult(target.before, was_complete=True)
        with connect(scheduler, workers, queue=queue, wait_s=wait_s, say=view.say) as crew:
            plan = _plan(target, latents, view)
            lease.check()
            if settings.container == "zarr":
                write_objects(target.store, metadata_objects(plan.header))
            made = ShardTarget(
                target.objects, target.job, plan.table_sha256, settings.container, target.codec
            )
            task = DecodeTask(
                targets=(made,),
                latents=latents.location,
                manifest_sha256=digest_of(latents),
                originals=originals,
                batch=batch,
                engine=engine,
                leases=(lease,),
            )
            started = time.monotonic()
            tally = run_shards(crew, decode_shard, task, plan, view)
            seconds = time.monotonic() - started
        lease.check()
        finish(target, plan, partial(lease.check))
    made_store = open_store(target.store)
    _say_what_is_new(latents, made_store, view)  # a retry may have come while it was interrupted
    return EncodeResult(
        made_store,
        was_complete=False,
        encoded=tally.encoded[0],
        reused=tally.reused[0],
        seconds=seconds,
    )


def _require_latents(latents: Store) -> CodecInfo:
    """The codec of a store of latents that can be decoded."""
    header = latents.header
    if header.codec is None or header.pixels is not None:
        raise StoreError(
            f"{latents.location}: expected a store of latents, got one of pixels: there is "
            f"nothing to "
            "decode"
        )
    if not pc.any(pc.equal(latents.samples["status"], OK)).as_py():
        raise StoreError(f"{latents.location}: none of its samples has latents to decode")
    return header.codec


def _find_codec(latents: Store, info: CodecInfo, codec: str | None, engine: Engine) -> str:
    """Name or path of the codec, which is loaded to see whether it is the one and can decode."""
    name = codec or info.name
    if Path(name).is_file():
        name = str(Path(name).absolute())
    found = engine.load(name, self_check=True)
    if found.info.sha256 != info.sha256:
        raise CodecError(
            f"{latents.location} was encoded by {info.name} with sha256 {info.sha256}, but "
            f"{name} has "
            f"{found.info.sha256}: give the codec's file with --codec"
        )
    found.check_decoding()
    return name


def _require_originals(latents: Store, root: Path) -> None:
    """Look at one image before anything is begun; each is looked at when its turn comes."""
    first = pc.index(latents.samples["status"], OK).as_py()
    row = latents.samples.slice(first, 1).to_pylist()[0]
    read_original(root, row["path"], row["source_sha256"])


def _say_what_is_new(latents: Store, pixels: Store, view: ProgressView) -> None:
    """Say whether latents came after they were decoded: a retry does not change their identity."""
    there, decoded = (pc.equal(store.samples["status"], OK) for store in (latents, pixels))
    count = pc.sum(pc.and_not(there, decoded)).as_py() or 0
    if count:
        view.say(
            f"{count} samples of {latents.location} have latents and no pixels in "
            f"{pixels.location}: "
            "encode --retry-failed added them since, or --resize makes them too large. Name "
            "another PIXELS to decode all again"
        )


def _describe(latents: Store, *, measured: bool) -> PixelInfo:
    header = latents.header
    return PixelInfo(
        kind="decoded",
        latents=LatentsInfo(
            fingerprint=latents.fingerprint,
            resize=header.resize,
            provenance=header.provenance,
            measured=measured,
        ),
    )


def _plan(target: Target, latents: Store, view: ProgressView) -> PlanFile:
    """Take the plan of an earlier run of the same job, or make it: a function of the samples."""
    if target.job.size("plan.json") is not None:
        try:
            return PlanFile(target.job)
        except JobError:
            view.say("the plan of the earlier run cannot be read; planning again")
    table, info = latents.samples, latents.header.source
    source = Source(
        kind=info.kind,
        root=Path(info.name),
        classes=info.classes,
        samples=table.select(["id", "path", "label", "split"]),
    )
    names = ("height", "width", "source_bytes", "status", "reason")
    columns = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    facts = [FileFacts(*values) for values in columns]
    form = rows_of(target.settings.content)
    write_plan(target.job, make_plan(source, target.settings, facts, form))
    return PlanFile(target.job)
