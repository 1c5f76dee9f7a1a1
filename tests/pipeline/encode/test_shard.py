import re
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import ImageFailedError, JobError, StoreError
from latentset.datasets.sources import Source
from latentset.datasets.sources.images import decode_image
from latentset.datasets.storage.location import Folder
from latentset.pipeline.encode import encode_task as module
from latentset.pipeline.encode.encode_task import EncodeTask, encode_shard
from latentset.pipeline.jobs import shard
from latentset.pipeline.jobs.plan import Plan, PlannedSample
from latentset.pipeline.jobs.shard import ShardTarget, advise_memory
from latentset.pipeline.jobs.tasks import JobResult

Run = Callable[..., JobResult]


def task_of(run: Run, source: Source, standin: Any, folder: Path) -> EncodeTask:
    """The task of a job whose shards are all done; its records are gone."""
    run(source, folder / "store")
    (job,) = (folder / "store.job").glob("[0-9a-f]*")  # beside "lock"
    for record in (job / "shards").iterdir():
        record.unlink()
    target = ShardTarget(
        objects=Folder(folder / "store"),
        job=Folder(job),
        plan_sha256=Plan(Folder(job)).table_sha256,
        codec="standin",
    )
    return EncodeTask(
        targets=(target,),
        source=source.root,
        batch=32,
        fail=False,
        engine=standin.ENGINE,
        leases=(),
    )


@pytest.fixture
def task(run: Run, mixed: Source, standin: Any, tmp_path: Path) -> EncodeTask:
    """A task with images of three sizes."""
    return task_of(run, mixed, standin, tmp_path)


def ignore(index: int, done: int) -> None:
    """Hear nothing."""


def test_the_codec_is_loaded_once_a_process(task: EncodeTask, standin: Any) -> None:
    for k in range(3):
        assert encode_shard(k, task, ignore).reused == (False,)
    assert standin.loaded.count("standin") >= 1
    before = len(standin.loaded)
    encode_shard(3, task, ignore)
    assert len(standin.loaded) == before


def test_images_are_decoded_while_the_codec_is_loaded(
    task: EncodeTask, standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Event()

    def tell(content: bytes) -> Any:
        decoded.set()
        return decode_image(content)

    def load(name: str, /, *, self_check: bool) -> Any:
        assert decoded.wait(60)
        return standin.StandIn(name)

    monkeypatch.setattr(module, "decode_image", tell)
    engine = replace(standin.ENGINE, load=load)
    assert encode_shard(0, replace(task, engine=engine), ignore).reused == (False,)


def test_a_task_that_fails_has_ended_its_thread(task: EncodeTask, mixed: Source) -> None:
    for path in mixed.folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-40])
    # The error is kept, and with it the task's variables: a thread among them would be waited for
    # by whichever thread collects garbage later, with what locks it may hold.
    with pytest.raises(ImageFailedError) as kept:
        encode_shard(0, replace(task, batch=1, fail=True), ignore)
    assert kept.value.__traceback__ is not None
    assert not [t.name for t in threading.enumerate() if t.name.startswith("decode")]


def test_a_task_that_is_run_again_writes_nothing(task: EncodeTask) -> None:
    encode_shard(0, task, ignore)
    path = Path(str(task.targets[0].objects)) / "y_hat/c/0/0"
    before = path.stat().st_mtime_ns
    assert encode_shard(0, task, ignore).reused == (True,)
    assert path.stat().st_mtime_ns == before


def test_it_says_how_far_it_is(task: EncodeTask) -> None:
    seen: list[tuple[int, int]] = []
    done = encode_shard(0, task, lambda *message: seen.append(message))
    assert seen == sorted(seen)
    assert seen[-1] == (0, done.samples)


@pytest.fixture
def shapes(standin: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shape of every batch that the codec is given."""
    found: list[tuple[int, ...]] = []
    encode = standin.StandIn.encode

    def spy(self: Any, images: Any) -> Any:
        found.append(images.shape)
        return encode(self, images)

    monkeypatch.setattr(standin.StandIn, "encode", spy)
    return found


def test_a_batch_holds_one_size(task: EncodeTask, shapes: list[tuple[int, ...]]) -> None:
    shapes.clear()
    done = encode_shard(0, task, ignore)
    assert {shape[1:3] for shape in shapes} <= {(64, 64), (48, 100), (130, 70)}
    assert sum(shape[0] for shape in shapes) == done.samples


def test_a_batch_has_a_bounded_number_of_images_and_of_pixels(
    run: Run,
    uniform: Source,
    standin: Any,
    shapes: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    task = task_of(run, uniform, standin, tmp_path)
    shapes.clear()
    assert encode_shard(0, task, ignore).samples == 2
    assert shapes == [(2, 64, 64, 3)]
    encode_shard(1, replace(task, batch=1), ignore)
    assert shapes[1:] == [(1, 64, 64, 3)] * 2
    monkeypatch.setattr(shard, "BATCH_PIXELS", 2 * 64 * 64 - 1)
    encode_shard(2, task, ignore)
    assert shapes[3:] == [(1, 64, 64, 3)] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("tensorflow", "9.9"), ("onednn", "0"), ("device", "GPU")]
)
def test_a_worker_with_other_software_stops_the_job(
    task: EncodeTask, standin: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setitem(standin.environment, name, value)
    with pytest.raises(JobError, match=r"this worker has .* but the job was planned with"):
        encode_shard(0, task, ignore)


def test_a_worker_with_another_codec_of_that_name_stops_the_job(
    task: EncodeTask, standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentset.pipeline.jobs.coder._loaded", {})
    other = standin.StandIn("standin:other")

    def become_other(self: Any, name: str) -> None:
        self.__dict__.update(vars(other))

    monkeypatch.setattr(standin.StandIn, "__init__", become_other)
    with pytest.raises(JobError, match="give every worker the same file"):
        encode_shard(0, task, ignore)


def test_a_worker_that_sees_another_plan_stops_the_job(task: EncodeTask) -> None:
    other = replace(task, targets=(replace(task.targets[0], plan_sha256="0" * 64),))
    with pytest.raises(JobError, match="this worker sees another plan"):
        encode_shard(0, other, ignore)


def test_a_target_that_cannot_be_written_is_named(task: EncodeTask) -> None:
    store = Path(str(task.targets[0].objects))
    (store / "y_hat/c/0/0").unlink()
    (store / "y_hat/c/0").rmdir()
    (store / "y_hat/c/0").write_text("in the way")
    with pytest.raises(
        StoreError, match=r"cannot write .*y_hat/c/0/0: .*run the same command again"
    ):
        encode_shard(0, task, ignore)
    assert not list(store.rglob("*.partial-*"))


@pytest.mark.parametrize(
    ("side", "shown"),
    [
        (1024, "run the same command again with a smaller --batch or fewer --workers"),
        (6000, "its largest image, a/x.png, has 6000x6000 pixels when encoded, .* 10.80 GB: "),
    ],
)
def test_an_image_too_large_for_memory_is_named(side: int, shown: str) -> None:
    rows = [planned("a/small.png", 64), planned("a/x.png", side)]
    assert re.match(shown, advise_memory(rows))


def planned(path: str, side: int) -> PlannedSample:
    numbers = {f.name: 0 for f in fields(PlannedSample) if f.type is int}
    sizes = {"encoded_height": side, "encoded_width": side}
    texts = {"id": path, "path": path, "split": "", "status": "ok", "reason": ""}
    return PlannedSample(**{**numbers, **sizes, **texts})  # type: ignore[arg-type]
