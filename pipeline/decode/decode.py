"""The decode job from the first look at both stores to the manifest (docs/decoding.md)."""

from contextlib import ExitStack
from pathlib import Path

import pyarrow.compute as pc

from latentset.datasets.errors import StoreError
from latentset.datasets.sources import ImageRoot, Source
from latentset.datasets.storage.location import Location, open_location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import rows_of
from latentset.datasets.store.convert import is_same
from latentset.datasets.store.header import (
    PIXEL_ARRAYS,
    CodecInfo,
    LatentsInfo,
    PixelInfo,
    format_version_of,
)
from latentset.datasets.store.samples import OK
from latentset.pipeline.decode.decode_task import (
    DecodeTask,
    decode_shard,
    read_original,
)
from latentset.pipeline.jobs.cluster import connect
from latentset.pipeline.jobs.coder import load_encoder_of, read_software
from latentset.pipeline.jobs.options import DEFAULTS, JobOptions
from latentset.pipeline.jobs.plan import FileFacts, Plan, creation_time, find_plan, make_plan
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Settings
from latentset.pipeline.jobs.target import Target, choose_container, lock_targets, look_at
from latentset.pipeline.jobs.tasks import JobResult, make_stores


def decode(
    store: Path | str | Location,
    pixels: Path | str,
    options: JobOptions = DEFAULTS,
    *,
    codec: str | None = None,
    originals: ImageRoot | None = None,
) -> JobResult:
    """Decode a store of latents into a store of pixels, or resume such a job.

    A script that calls this needs ``if __name__ == "__main__":``, as for every spawned process.

    ``codec`` is a name or path; None takes the one that the store names. ``originals`` is the root
    of the images that were encoded: each decoded image is measured against its original.

    Raises:
        StoreError: The latents cannot be read, or the store holds none; or the target is something
            else, or cannot be written.
        SettingsChangedError: The target was started with other settings.
        CodecError: The codec is not the one that encoded, or cannot decode.
        JobError: Another job is at work on the target, workers were lost or differ, or an image
            is not the one that was encoded.
    """
    creation_time()  # a bad SOURCE_DATE_EPOCH is refused now
    latents, view = open_store(store), options.view
    originals = originals.absolute() if isinstance(originals, Path) else originals
    target = _describe_target(latents, open_location(pixels), codec, originals, options)
    with ExitStack() as stack:
        if not target.is_finished:
            (target,), leases = lock_targets([target], view.say, stack)
        if target.before is not None and target.is_complete:
            result = JobResult(target.before, was_complete=True)
        else:
            workers = stack.enter_context(connect(options))
            plan = find_plan(target.job, view.say) or _plan(target, latents)
            task = DecodeTask(
                targets=(target.for_tasks(plan),),
                batch=options.batch,
                engine=options.engine,
                leases=leases,
                latents=latents.location,
                manifest_sha256=latents.manifest_sha256,
                originals=originals,
            )
            (result,) = make_stores(workers, decode_shard, task, [target], [plan], view, "decoding")
    _report_new(latents, result.store, view)  # a retry may have come since
    return result


def _describe_target(
    latents: Store,
    pixels: Location,
    codec: str | None,
    originals: ImageRoot | None,
    options: JobOptions,
) -> Target:
    """Look at everything that the job needs before anything is written."""
    info = _require_latents(latents)
    name = codec or info.name
    if Path(name).is_file():
        name = str(Path(name).absolute())
    load_encoder_of(latents, info, name, options.engine).check_decoding()
    if is_same(pixels, latents.location):
        raise StoreError(f"{pixels} is the store of latents itself: name another PIXELS")
    if originals is not None:  # one image now; each is read when its turn comes
        first = pc.index(latents.samples["status"], OK).as_py()
        row = latents.samples.slice(first, 1).to_pylist()[0]
        read_original(originals, row["path"], row["source_sha256"])
    software, encoded = read_software(options.engine), latents.header.provenance
    settings = Settings(
        format_version=format_version_of(
            PIXEL_ARRAYS, software.cpu_isa, encoded.cpu_isa, info.h_s_exact_to
        ),
        codec=info,
        pixels=PixelInfo(
            kind="decoded",
            latents=LatentsInfo(
                fingerprint=latents.fingerprint,
                resize=latents.header.resize,
                provenance=encoded,
                measured=originals is not None,
            ),
        ),
        arrays=PIXEL_ARRAYS,
        resize=str(options.resize),
        source=latents.header.source,
        container=choose_container(pixels, options.format),
        target_shard_bytes=options.shard_bytes,
        software=software,
    )
    return look_at(pixels, name, settings)


def _require_latents(latents: Store) -> CodecInfo:
    """The codec of a store of latents that can be decoded."""
    header = latents.header
    if header.codec is None or header.pixels is not None:
        raise StoreError(
            f"{latents.location}: expected a store of latents, got one of pixels: there is "
            "nothing to decode"
        )
    if not pc.any(pc.equal(latents.samples["status"], OK)).as_py():
        raise StoreError(f"{latents.location}: none of its samples has latents to decode")
    return header.codec


def _plan(target: Target, latents: Store) -> Plan:
    """Plan the samples of the latents, as if their files had just been read."""
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
    return make_plan(target.job, source, target.settings, facts, form)


def _report_new(latents: Store, pixels: Store, view: ProgressView) -> None:
    """Report latents that a retry added after the store was decoded."""
    there, decoded = (pc.equal(store.samples["status"], OK) for store in (latents, pixels))
    count = pc.sum(pc.and_not(there, decoded)).as_py() or 0
    if count:
        view.say(
            f"{count} samples of {latents.location} have latents and no pixels in "
            f"{pixels.location}: encode --retry-failed added them since, or --resize makes them "
            "too large. Name another PIXELS to decode all again"
        )
