"""What workers do for a job: load codecs, read images' headers, then work on shards."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latentset.datasets.sources import PART, ImageRoot
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import CodecInfo
from latentset.datasets.store.zarr.writer import metadata_objects, write_objects
from latentset.pipeline.jobs.cluster import Workers, publish
from latentset.pipeline.jobs.coder import Engine, load_once, read_software
from latentset.pipeline.jobs.finish import finish
from latentset.pipeline.jobs.plan import FileFacts, Plan, limit_enlarged, read_facts
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Software
from latentset.pipeline.jobs.shard import ShardDone, ShardTask, advise_memory
from latentset.pipeline.jobs.target import Target

HEADERS_A_TASK = 1024
"""Images whose headers one task reads."""

REPORT_EVERY_S = 1.0
"""Seconds between a task's messages about how far it is."""

ShardWork = Callable[[int, Any, Callable[[int, int], None]], ShardDone]
"""Does one shard: takes its number, the task, and a function to call with the shard's number and
the number of images done so far."""


@dataclass(frozen=True)
class Retried:
    """What a retry of failed samples has done."""

    samples: int
    repaired: int
    """Samples that have latents now."""


@dataclass(frozen=True)
class JobResult:
    """What a job has done for one store."""

    store: Store
    was_complete: bool
    """It was complete before; nothing was done, unless failed images were tried again."""
    encoded: int = 0
    """Images that this run worked on."""
    reused: int = 0
    """Images of shards that an earlier run had finished."""
    seconds: float = 0.0
    """From the first task to the last."""
    clipped: tuple[str, ...] = ()
    """Paths of images of more than 8 bits that became nearly all white or black in this run."""
    retried: Retried | None = None
    """None if no retry was asked for, or no image had failed."""


def load_codecs(
    workers: Workers | None, engine: Engine, codecs: Sequence[str]
) -> tuple[Software, Mapping[str, CodecInfo]]:
    """Load all codecs on all local workers; each codec checks itself on one of them.

    ``workers`` is None where they are elsewhere: then this process loads the codecs.
    """
    if engine.try_first is not None:
        for codec in codecs:
            engine.try_first(codec)
    if workers is None:
        return _load_all(0, 1, engine, codecs)
    count = workers.count()
    loaded = workers.map(_load_all, range(count), count=count, engine=engine, codecs=codecs)
    found: dict[int, tuple[Software, Mapping[str, CodecInfo]]] = dict(loaded)
    return found[0]


def read_headers(
    workers: Workers,
    root: ImageRoot,
    samples: pa.Table,
    rule: ResizeRule,
    view: ProgressView,
) -> list[FileFacts]:
    """Read the headers of images that ``rule`` will resize, in the order of ``Source.samples``."""
    total = samples.num_rows
    pieces = [samples.slice(k, HEADERS_A_TASK) for k in range(0, total, HEADERS_A_TASK)]
    paths = [piece["path"].to_pylist() for piece in pieces]
    packed = PART.name in samples.column_names
    parts = [piece[PART.name].to_pylist() if packed else None for piece in pieces]
    roots = [str(root)] * len(pieces)
    read: dict[int, list[FileFacts]] = {}
    done = 0
    view.begin("planning", total)
    try:
        with closing(workers.map(read_facts, paths, roots, parts)) as results:
            for index, facts in results:
                read[index] = facts
                done += len(facts)
                view.update(done, total)
    finally:
        view.end()
    return [limit_enlarged(fact, rule) for index in sorted(read) for fact in read[index]]


class TaskProgress:
    """Publishes from a running task, from time to time, how far it is."""

    def __init__(self, topic: str) -> None:
        self._topic, self._last = topic, 0.0  # another machine's clock may differ

    def __call__(self, index: int, done: int) -> None:
        """Say that ``done`` images of the shard ``index`` are done."""
        if time.monotonic() - self._last >= REPORT_EVERY_S:
            self._last = time.monotonic()
            publish(self._topic, {"index": index, "done": done})


def make_stores(
    workers: Workers,
    work: ShardWork,
    task: ShardTask,
    targets: Sequence[Target],
    plans: Sequence[Plan],
    view: ProgressView,
    what: str,
) -> list[JobResult]:
    """Run a task for every shard of planned stores, and finish the stores."""
    task.check_leases()
    for target, plan in zip(targets, plans, strict=True):
        write_objects(target.objects, metadata_objects(plan.header))
    started = time.monotonic()
    done = run_shards(workers, work, task, plans[0], view, what)
    seconds = time.monotonic() - started
    results = []
    for k, (target, plan) in enumerate(zip(targets, plans, strict=True)):
        finish(target, plan, task.check_leases, view)
        reused = sum(shard.samples for shard in done if shard.reused[k])
        results.append(
            JobResult(
                open_store(target.store),
                was_complete=False,
                encoded=plan.samples - reused,
                reused=reused,
                seconds=seconds,
                clipped=tuple(path for shard in done for path in shard.clipped),
            )
        )
    return results


def run_shards(
    workers: Workers,
    work: ShardWork,
    task: ShardTask,
    plan: Plan,
    view: ProgressView,
    what: str,
) -> list[ShardDone]:
    """Run a task for every shard of a plan; ``what`` they do is shown."""
    lock, topic = threading.Lock(), f"latentset-{uuid.uuid4().hex}"
    images: dict[int, int] = {}  # that are done, by shard
    finished: dict[int, ShardDone] = {}
    skipped = 0

    def count_running(message: Mapping[str, int]) -> None:  # in the client's own thread
        with lock:
            if message["index"] not in finished:
                images[message["index"]] = message["done"]
                view.update(sum(images.values()), plan.samples - skipped)

    view.begin(what, plan.samples)
    try:
        with (
            workers.subscribed(topic, count_running),
            closing(
                workers.map(
                    work,
                    plan.shards,
                    describe=lambda k: _describe_shard(plan, plan.shards[k]),
                    task=task,
                    report=TaskProgress(topic),
                )
            ) as results,
        ):
            for k, done in results:
                index = plan.shards[k]
                with lock:
                    finished[index] = done
                    images[index] = 0 if all(done.reused) else done.samples
                    skipped += done.samples - images[index]
                    view.update(sum(images.values()), plan.samples - skipped)
    finally:
        view.end()
    if skipped:
        view.say(f"{skipped} of {plan.samples} images were encoded by an earlier run")
    return list(finished.values())


def _describe_shard(plan: Plan, index: int) -> str:
    return f"shard {index}: {advise_memory(plan.rows(index))}"


def _load_all(
    index: int, count: int, engine: Engine, codecs: Sequence[str]
) -> tuple[Software, Mapping[str, CodecInfo]]:
    """Load codecs on one worker of ``count``; its part of them checks itself."""
    software = read_software(engine)
    return software, {
        codec: load_once(engine, codec, self_check=k % count == index).info
        for k, codec in enumerate(codecs)
    }
