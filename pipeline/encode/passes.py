"""What workers do for a job: load codecs, read images' headers, then work on shards."""

import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from latentset.datasets.store.header import CodecInfo
from latentset.datasets.store.samples import OK
from latentset.pipeline.encode.engine import Engine, load_once
from latentset.pipeline.encode.shard import (
    ShardDone,
    ShardTarget,
    image_failed,
    read_software,
)
from latentset.pipeline.jobs.cluster import Workers, tell
from latentset.pipeline.jobs.plan import FileFacts, PlanFile, read_facts
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.settings import Software
from latentset.pipeline.jobs.tally import Tally

HEADERS_A_TASK = 1024
"""Images whose headers one task reads."""

REPORT_EVERY_S = 1.0
"""Seconds between a task's messages about how far it is."""


def load_codecs(
    crew: Workers | None, engine: Engine, codecs: Sequence[str]
) -> tuple[Software, Mapping[str, CodecInfo], Generator[Any]]:
    """Load all codecs on all local workers; each codec checks itself on one of them.

    A worker that has none to check is ready earlier, and may plan.

    Args:
        crew: Local workers; None loads them in this process, where workers are elsewhere.
        engine: Loads them.
        codecs: Names or paths.

    Returns:
        What runs the codecs, what each is, and what is still being checked: to be exhausted before
        anything is written.

    Raises:
        CodecError: One cannot be used.
    """
    if crew is None:
        return *_load_all(0, 1, engine, codecs), (_ for _ in ())
    count = crew.count()
    loading = crew.map(_load_all, range(count), count=count, engine=engine, codecs=codecs)
    software, infos = next(loading)
    return software, infos, loading


def read_headers(
    crew: Workers, root: Path, paths: Sequence[str], view: ProgressView
) -> list[FileFacts]:
    """Read the headers of images.

    Args:
        crew: The workers.
        root: The source's root.
        paths: Relative paths.
        view: Where to show progress.

    Returns:
        What each file says.
    """
    firsts = range(0, len(paths), HEADERS_A_TASK)
    parts = [list(paths[first : first + HEADERS_A_TASK]) for first in firsts]
    read: dict[int, list[FileFacts]] = {}
    done = 0
    view.begin("planning", len(paths))
    try:
        with closing(crew.map(_read_part, range(len(parts)), parts, root=str(root))) as results:
            for index, facts in results:
                read[index] = facts
                done += len(facts)
                view.update(done, len(paths))
    finally:
        view.end()
    return [fact for index in sorted(read) for fact in read[index]]


def refuse_failed(plan: PlanFile) -> None:
    """Refuse a plan in which an image has failed already.

    Args:
        plan: The plan.

    Raises:
        ImageFailedError: There is one.
    """
    for row in plan.table().select(["path", "status", "reason"]).to_pylist():
        if row["status"] != OK:
            raise image_failed(f"{row['path']}: {row['status']}: {row['reason']}")


class AnyTask(Protocol):
    """What every task of a job is told."""

    @property
    def what(self) -> str:
        """What the tasks do, for people."""

    @property
    def targets(self) -> tuple[ShardTarget, ...]:
        """The stores of which each writes a shard."""

    @property
    def fail(self) -> bool:
        """Stop at an image that cannot be encoded."""


def run_shards(
    crew: Workers,
    work: Callable[[Any, int, Callable[[int], None]], ShardDone],
    task: AnyTask,
    plan: PlanFile,
    view: ProgressView,
) -> Tally:
    """Run a task for every shard of a plan.

    Args:
        crew: The workers.
        work: Does one shard: is told the task, the shard's number, and whom to tell how many
            images are done.
        task: What each is told.
        plan: The plan.
        view: Where to show progress.

    Returns:
        What was done.

    Raises:
        ImageFailedError: An image cannot be encoded and ``task.fail`` is set.
        JobError: A task cannot go on, or workers were lost.
        StoreError: An object cannot be written.
    """
    tally = Tally(plan.samples, len(task.targets), view)
    topic = f"latentset-{uuid.uuid4().hex}"
    view.begin(task.what, tally.total)
    try:
        with (
            crew.listen(topic, tally.hear),
            closing(crew.map(_run_task, plan.shards, work=work, task=task, topic=topic)) as results,
        ):
            for result in results:
                if task.fail and result.failed:
                    raise image_failed(result.failed[0])
                tally.finish(result)
    finally:
        view.end()
    if tally.skipped:
        view.say(f"{tally.skipped} of {tally.total} images were there already, from an earlier run")
    return tally


def _load_all(
    index: int, count: int, engine: Engine, codecs: Sequence[str]
) -> tuple[Software, Mapping[str, CodecInfo]]:
    """Load codecs on a worker of ``count``; its share of them checks itself."""
    software = read_software(engine)
    return software, {
        codec: load_once(engine, codec, self_check=k % count == index).info
        for k, codec in enumerate(codecs)
    }


def _read_part(index: int, paths: list[str], root: str) -> tuple[int, list[FileFacts]]:
    """Read the headers of some images on a worker."""
    return index, read_facts(root, paths)


def _run_task(
    index: int,
    work: Callable[[Any, int, Callable[[int], None]], ShardDone],
    task: AnyTask,
    topic: str,
) -> ShardDone:
    """Do one shard on a worker, and say from time to time how far it is."""
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY_S:
            last = time.monotonic()
            tell(topic, {"index": index, "done": done})

    return work(task, index, report)
