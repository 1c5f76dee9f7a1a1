"""The job from the first look at the target to the manifest (docs/encoding.md)."""

import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentset.datasets.errors import (
    JobError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
)
from latentset.datasets.photographs import ResizeRule
from latentset.datasets.sources import Source
from latentset.datasets.store.header import ARRAYS
from latentset.datasets.store.manifest import MANIFEST
from latentset.datasets.store.objects import PARTIAL
from latentset.datasets.store.reader import Store, open_store
from latentset.datasets.store.samples import OK
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.writer import metadata_objects, write_objects
from latentset.pipeline.encoding.cluster import Workers, connect, tell
from latentset.pipeline.encoding.engine import TENSORFLOW, Engine
from latentset.pipeline.encoding.finish import finish
from latentset.pipeline.encoding.plan import (
    FileFacts,
    PlanFile,
    make_plan,
    read_facts,
    write_plan,
)
from latentset.pipeline.encoding.progress import ProgressView, Silence
from latentset.pipeline.encoding.settings import (
    Settings,
    describe_source,
    refuse_changes,
    settings_of,
)
from latentset.pipeline.encoding.shard import (
    ShardDone,
    Task,
    encode_shard,
    photograph_failed,
    read_software,
)

SHARD_BYTES = 32 << 20
"""Default size of a shard of ``y_hat`` before compression: 341 images of 256x256 at 192 channels,
a quarter of a minute of one worker, some 5 MB on disk."""

HEADERS_A_TASK = 1024
"""Photographs whose headers one task reads."""

REPORT_EVERY_S = 1.0
"""Seconds between a task's messages about how far it is."""


@dataclass(frozen=True)
class EncodeResult:
    """What came out."""

    store: Store
    """The complete store."""
    was_complete: bool
    """It was complete before; nothing was done."""
    encoded: int = 0
    """Images that this run worked on."""
    reused: int = 0
    """Images of shards that an earlier run had finished."""
    seconds: float = 0.0
    """Time of this run from the first task to the last, loading the codec included."""


def encode(
    source: Source,
    store: Path,
    codec: str,
    *,
    resize: ResizeRule | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    batch: int = 32,
    on_error: Literal["record", "fail"] = "record",
    sigma_hat: bool = False,
    shard_bytes: int = SHARD_BYTES,
    view: ProgressView | None = None,
    engine: Engine = TENSORFLOW,
) -> EncodeResult:
    """Encode a collection of photographs, or go on with a job that was interrupted.

    A script that calls this needs ``if __name__ == "__main__":``, as for every spawned process.

    Args:
        source: The photographs.
        store: Folder to make.
        codec: Name or path of the codec.
        resize: What to do to each photograph first; None is nothing.
        scheduler: Address of a Dask scheduler; None uses processes of this machine.
        workers: Number of local workers; None is one a core.
        batch: Images that the codec is given at once, at most. Changes no byte.
        on_error: ``record`` gives a photograph that cannot be encoded a status; ``fail`` stops.
        sigma_hat: Store ``sigma_hat`` as float16 as well.
        shard_bytes: Size of a shard of ``y_hat`` before compression.
        view: Where to show progress.
        engine: What runs the codec.

    Returns:
        What came out.

    Raises:
        StoreError: The target is something else, or cannot be written.
        SettingsChangedError: The target was begun with other settings.
        PhotographFailedError: A photograph cannot be encoded and ``on_error`` is ``fail``.
        JobError: Workers were lost, differ, or the codec gives values that do not fit.
    """
    view = view or Silence()
    store = store.absolute()
    before = _look_at(store)
    if Path(codec).is_file():
        codec = str(Path(codec).absolute())
    settings = Settings(
        codec=number_scales(engine.load(codec).info),
        arrays=(*ARRAYS, "sigma_hat") if sigma_hat else ARRAYS,
        resize=str(resize or ResizeRule()),
        source=describe_source(source),
        target_shard_bytes=shard_bytes,
        software=read_software(engine),
    )
    if before is not None:
        refuse_changes(str(store), settings_of(before.header), settings)
        if before.manifest is not None:
            return EncodeResult(before, was_complete=True)

    job = store.with_name(f"{store.name}.job") / settings.fingerprint
    with connect(scheduler, workers) as crew:
        if scheduler is not None and crew.count() == 0:
            view.say(f"the scheduler at {scheduler} has no workers yet; waiting for them")
        plan = _plan(crew, job, source, settings, view)
        if on_error == "fail":
            _refuse_failed(plan)
        write_objects(store, metadata_objects(plan.header))
        task = Task(
            store=store,
            job=job,
            plan_sha256=plan.table_sha256,
            source=source.root,
            codec=codec,
            batch=batch,
            fail=on_error == "fail",
            engine=engine,
        )
        started = time.monotonic()
        tally = _run(crew, task, plan, view)
        seconds = time.monotonic() - started
    finish(store, job, plan)
    return EncodeResult(
        open_store(store),
        was_complete=False,
        encoded=tally.encoded,
        reused=tally.reused,
        seconds=seconds,
    )


def _look_at(store: Path) -> Store | None:
    """What lies at the target: None if nothing does, the store if it is one, or an error."""
    if not store.exists():
        return None
    if not store.is_dir():
        raise StoreError(f"{store} is a file: expected a folder, or a name that is free")
    if all(PARTIAL in path.name for path in store.iterdir()):
        return None
    try:
        return open_store(store, allow_incomplete=not (store / MANIFEST).exists())
    except StoreFormatError as error:
        raise StoreError(
            f"{store} exists and is no store that this version can go on with; nothing was "
            f"changed there. Name another folder. ({error})"
        ) from error
    except StoreCorruptError as error:
        raise StoreCorruptError(
            f"{error}. To encode it anew with this command, remove {store.name} and "
            f"{store.name}.job first"
        ) from error


def _plan(
    crew: Workers, job: Path, source: Source, settings: Settings, view: ProgressView
) -> PlanFile:
    """Take the plan of an earlier run of the same job, or make one."""
    if (job / "plan.json").exists():
        try:
            return PlanFile(job)
        except JobError:
            view.say("the plan of the earlier run cannot be read; planning again")
    paths = source.samples.column("path").to_pylist()
    firsts = range(0, len(paths), HEADERS_A_TASK)
    parts = [paths[first : first + HEADERS_A_TASK] for first in firsts]
    read: dict[int, list[FileFacts]] = {}
    done = 0
    view.begin("planning", len(paths))
    try:
        with closing(
            crew.map(read_part, range(len(parts)), parts, root=str(source.root))
        ) as results:
            for index, facts in results:
                read[index] = facts
                done += len(facts)
                view.update(done, len(paths))
    finally:
        view.end()
    facts = [fact for index in sorted(read) for fact in read[index]]
    write_plan(job, make_plan(source, settings, facts))
    return PlanFile(job)


def _refuse_failed(plan: PlanFile) -> None:
    """Refuse a plan in which a photograph has failed already."""
    for row in plan.table().select(["path", "status", "reason"]).to_pylist():
        if row["status"] != OK:
            raise photograph_failed(f"{row['path']}: {row['status']}: {row['reason']}")


class _Tally:
    """How many images are done, told by tasks that run and by tasks that are finished."""

    def __init__(self, total: int, view: ProgressView) -> None:
        self._lock = threading.Lock()
        self._view = view
        self._done: dict[int, int] = {}
        self._finished: set[int] = set()
        self.total = total
        self.encoded = 0
        self.reused = 0

    def hear(self, message: dict[str, int]) -> None:
        """Take a running task's message; called in the client's own thread."""
        with self._lock:
            if message["index"] not in self._finished:
                self._done[message["index"]] = message["done"]
                self._show()

    def finish(self, result: ShardDone) -> None:
        """Take a finished task's summary."""
        with self._lock:
            self._finished.add(result.index)
            if result.reused:
                self.reused += result.samples
                self._done.pop(result.index, None)
            else:
                self.encoded += result.samples
                self._done[result.index] = result.samples
            self._show()

    def _show(self) -> None:
        self._view.update(sum(self._done.values()), self.total - self.reused)


def _run(crew: Workers, task: Task, plan: PlanFile, view: ProgressView) -> _Tally:
    """Run a task for every shard."""
    tally = _Tally(plan.header.source.samples, view)
    topic = f"latentset-{uuid.uuid4().hex}"
    shards = range(plan.header.layout.shards)
    view.begin("encoding", tally.total)
    try:
        with (
            crew.listen(topic, tally.hear),
            closing(crew.map(run_task, shards, task=task, topic=topic)) as results,
        ):
            for result in results:
                if task.fail and result.failed:
                    raise photograph_failed(result.failed[0])
                tally.finish(result)
    finally:
        view.end()
    if tally.reused:
        view.say(f"{tally.reused} of {tally.total} images were there already, from an earlier run")
    return tally


def read_part(index: int, paths: list[str], root: str) -> tuple[int, list[FileFacts]]:
    """Read the headers of some photographs on a worker.

    Args:
        index: Number of the part.
        paths: Its photographs.
        root: The source's root.

    Returns:
        The number, and what each file says.
    """
    return index, read_facts(root, paths)


def run_task(index: int, task: Task, topic: str) -> ShardDone:
    """Encode one shard on a worker.

    Args:
        index: Number of the shard.
        task: What every task is told.
        topic: Where to say how far it is.

    Returns:
        A summary.
    """
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY_S:
            last = time.monotonic()
            tell(topic, {"index": index, "done": done})

    return encode_shard(task, index, report)
