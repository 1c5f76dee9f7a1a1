"""The encode job over as many images as ImageNet has, without the images.

``latentset encode``'s own code runs: client, lock, plan, Dask scheduler and workers, records,
finish; afterwards open and, if asked for, verify. Made up or replaced are

- the listing: 1,281,167 names in 1,000 folders;
- on the workers ``read_facts``, which reads headers: every image is there and has one of seven
  sizes that are frequent in ImageNet, chosen by its name;
- on the workers ``encode_shard``: it reads its rows of the plan, writes its objects (zeros, encoded
  once a process: real Zarr, 36 kB a shard) and its record (a made-up digest and rate a
  sample), tells how far it is twice, and returns what a real task returns;
- the codec: its description alone (192 channels).

So what is counted here costs a real job the same, and reading, decoding, hashing and encoding come
on top, on the workers. Client, scheduler and workers are processes of their own, to tell their
memory apart.

    python benchmarks/scale.py [--samples N] [--workers N] [--resize RULE] [--folder DIR] [--verify]

Needs the encode environment.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from latentset.pipeline.jobs.progress import ProgressView

if TYPE_CHECKING:
    from latentset.pipeline.encode.encode_task import EncodeTask
    from latentset.pipeline.jobs.plan import FileFacts
    from latentset.pipeline.jobs.shard import ShardDone

IMAGENET = 1_281_167
CLASSES = 1000
SIZES = ((375, 500), (500, 375), (333, 500), (500, 333), (500, 500), (400, 300), (350, 400))
CHANNELS = 192
WAIT_S = 60
"""Seconds without a worker after which the job stops: they have died, and said why."""


# What is made up.


@dataclass(frozen=True)
class NoCodec:
    """A codec's description."""

    info: Any


def load(name: str, /, *, self_check: bool) -> Any:
    """Describe a codec of 192 channels."""
    from latentset.datasets.store.header import CodecInfo

    table = tuple(0.11 * math.exp(k * math.log(256 / 0.11) / 63) for k in range(64))
    return NoCodec(
        CodecInfo(
            name=name,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            form="tfc2",
            tensors={"y_hat": "y:0"},
            channels=CHANNELS,
            z_channels=128,
            scale_table=table,
            z_offset=(0.0,) * 128,
        )
    )


def identify(name: str) -> tuple[str, str]:
    """Name and digest of the made-up codec."""
    return name, hashlib.sha256(name.encode()).hexdigest()


def read_environment() -> Mapping[str, str]:
    """Say that nothing computes."""
    names = ("tensorflow", "tensorflow_compression", "device")
    return {**dict.fromkeys(names, "none"), "onednn": "1"}


def list_samples(count: int) -> pa.Table:
    """Make up paths and labels as ImageNet has them."""
    label = [k * CLASSES // count for k in range(count)]
    paths = [
        f"train/n{1440764 + 1000 * c:08d}/n{1440764 + 1000 * c:08d}_{k}.JPEG"
        for k, c in enumerate(label)
    ]
    return pa.table(
        {
            "path": pa.array(paths),
            "label": pa.array(label, pa.int32()),
            "split": pa.repeat(pa.scalar("train"), count),
        }
    )


def make_up_facts(
    paths: Sequence[str], root: str, parts: Sequence[Sequence[int] | None] | None = None
) -> "list[FileFacts]":
    """Stand in for ``read_facts``."""
    from latentset.pipeline.jobs.plan import FileFacts

    found = []
    for path in paths:
        number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "little")
        height, width = SIZES[number % len(SIZES)]
        found.append(FileFacts(height, width, 50_000 + number % 100_000))
    return found


@lru_cache(maxsize=1)
def shard_of_zeros(job: Any, plan_sha256: str) -> dict[str, bytes]:
    """The objects of shard 0, all zeros; every shard has the same."""
    from latentset.datasets.store.zarr.writer import ShardBuffer, shard_objects
    from latentset.pipeline.jobs.plan import open_plan_once

    header = open_plan_once(job, plan_sha256).header
    return shard_objects(header, 0, ShardBuffer(header, 0).rows())


def make_up_shard(
    index: int, task: "EncodeTask", report: Callable[[int, int], None]
) -> "ShardDone":
    """Stand in for ``encode_shard``."""
    from latentset.datasets.store.zarr.writer import write_objects
    from latentset.pipeline.jobs.plan import open_plan_once
    from latentset.pipeline.jobs.shard import ShardDone, ShardRecord, record_path

    (target,) = task.targets
    plan = open_plan_once(target.job, target.plan_sha256)
    rows = plan.rows(index)
    objects = {
        path.replace("/c/0/", f"/c/{index}/"): content
        for path, content in shard_of_zeros(target.job, target.plan_sha256).items()
    }
    report(index, len(rows) // 2)
    digests = [hashlib.sha256(row.path.encode()) for row in rows]
    task.check_leases()
    record = ShardRecord(
        fingerprint=plan.fingerprint,
        plan_sha256=target.plan_sha256,
        index=index,
        objects=tuple(write_objects(target.objects, objects)),
        status=("ok",) * len(rows),
        reason=("",) * len(rows),
        rate_bpp=tuple(0.2 + digest.digest()[0] / 1000 for digest in digests),
        source_bytes=tuple(row.source_bytes for row in rows),
        source_sha256=tuple(digest.hexdigest() for digest in digests),
    )
    target.job.write(record_path(index), record.model_dump_json().encode() + b"\n")
    report(index, len(rows))
    return ShardDone(len(rows), (False,))


def dask_setup(worker: object) -> None:
    """Replace what the workers run; ``dask worker --preload`` calls this in each."""
    from latentset.pipeline.encode import encode_task
    from latentset.pipeline.jobs import plan, tasks

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (plan, "read_facts", make_up_facts),
        (encode_task, "encode_shard", make_up_shard),
    )
    for module, name, function in replaced:
        expected, got = (list(signature(f).parameters) for f in (getattr(module, name), function))
        if expected != got:
            raise SystemExit(f"{__file__}: {name} takes {expected} now, and {got} here")
        setattr(module, name, function)
    tasks.REPORT_EVERY_S = 0.0


# What is measured.


def peak_mib(pid: int | str = "self") -> float:
    """Most memory (RSS) that a process has had, or has had since :func:`forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cpu_seconds(pid: int) -> float:
    """CPU time of a process (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget_peak() -> None:
    """Begin to count this process's peak anew, where the system lets it (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


class Stages(ProgressView):
    """Seconds and peak memory of the client in each stage, by what the job shows."""

    def __init__(self) -> None:
        self._last = ""
        self._since = self._worked = 0.0
        self.updates = 0

    def enter(self, name: str) -> None:
        """End a stage and begin another one."""
        took, worked = time.perf_counter() - self._since, time.process_time() - self._worked
        if self._last:
            print(f"{self._last:34s} {took:8.1f} {worked:11.1f} {peak_mib():11.0f}", flush=True)
        forget_peak()
        self._last, self._since, self._worked = name, time.perf_counter(), time.process_time()

    def say(self, text: str) -> None:
        """Pass on what the job says."""
        print(f"  [{text}]", flush=True)

    def begin(self, what: str, total: int) -> None:
        """A pass over the images begins."""
        self.enter(
            {"planning": "headers, in tasks of 1,024", "encoding": "shards, a task each"}[what]
        )

    def update(self, done: int, total: int) -> None:
        """Count what is shown."""
        self.updates += 1

    def end(self) -> None:
        """A pass over the images is over."""
        self.enter(
            "plan made and written" if self._last.startswith("headers") else "finish and open"
        )


@contextmanager
def dask(*arguments: str) -> Iterator[int]:
    """Run a Dask command, whose errors are shown; yields its process."""
    command = [sys.executable, "-m", "dask", *arguments, "--dashboard-address", "127.0.0.1:0"]
    settings = {"OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "error"}
    process = subprocess.Popen(command, env={**os.environ, **settings})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def children(pid: int) -> list[int]:
    """Processes below a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return found + [below for child in found for below in children(child)]


def open_in_new_process(store: Path) -> None:
    """Time ``open_store`` as a program that starts with it would see it."""
    code = (
        "import sys, time, resource\n"
        "from latentset.datasets.store import open_store\n"
        "from latentset.datasets.storage.location import open_location\n"
        "from latentset.datasets.store.samples import SAMPLES, parse_samples\n"
        "for turn in range(3):\n"
        "    start = time.perf_counter(); store = open_store(sys.argv[1])\n"
        "    whole = time.perf_counter() - start\n"
        "    content = open_location(sys.argv[1]).read(SAMPLES)\n"
        "    start = time.perf_counter(); parse_samples(content, store.header, '')\n"
        "    print(f'open_store {whole:.2f} s, of which the samples table '\n"
        "          f'{time.perf_counter() - start:.2f} s; {store.samples.num_rows:,} samples')\n"
        "print(f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store)], check=True)


def main() -> None:
    """Run it all and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=IMAGENET)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resize", default="exact:256")
    parser.add_argument(
        "--folder", type=Path, help="where to write; removed afterwards if not given"
    )
    parser.add_argument("--verify", action="store_true", help="read it all again: long")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for old in (folder / "store", folder / "store.job"):
            shutil.rmtree(old, ignore_errors=True)
        run(folder, options.samples, options.workers, options.resize)
        if options.verify:
            verify(folder / "store")


def run(folder: Path, count: int, workers: int, resize: str) -> None:
    """Run the job, and say what it took and wrote."""
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.datasets.sources.source import make_source
    from latentset.pipeline.encode.encode import EncodeOptions, encode
    from latentset.pipeline.jobs.coder import Engine

    stages, file, store = Stages(), folder / "scheduler.json", folder / "store"
    file.unlink(missing_ok=True)
    print(f"{count:,} samples, resize {resize}, {workers} workers\n")
    print(f"{'stage':34s} {'seconds':>8s} {'client CPU s':>11s} {'client MiB':>11s}")
    stages.enter("listing made up")
    names = tuple(f"n{1440764 + 1000 * c:08d}" for c in range(CLASSES))
    source = make_source("imagenet", folder, names, list_samples(count))
    stages.enter("Dask starts")
    with ExitStack() as stack:
        local = ("--host", "127.0.0.1", "--scheduler-file", str(file))
        scheduler = stack.enter_context(dask("scheduler", "--port", "0", *local))
        while not (file.exists() and file.read_text().endswith("}")):
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        workers = stack.enter_context(
            dask(
                *("worker", *local, "--nthreads", "1", "--nworkers", str(workers)),
                *("--preload", __file__, "--memory-limit", "0", "--local-directory", str(folder)),
            )
        )
        stages.enter("settings, and connection")
        options = EncodeOptions(
            resize=ResizeRule.parse(resize),
            scheduler=address,
            view=stages,
            engine=Engine(load, read_environment, identify),
            wait_s=WAIT_S,
        )
        result = encode(source, store, "made-up", options)
        stages.enter("")
        crew_peak = max(peak_mib(pid) for pid in children(workers))
        print(
            f"\nscheduler: peak {peak_mib(scheduler):.0f} MiB, {cpu_seconds(scheduler):.0f} s CPU"
        )
    print(f"a worker: peak {crew_peak:.0f} MiB")
    layout = result.store.header.layout
    print(f"{layout.shards:,} shards of {layout.shard_rows:,} rows")
    print(f"progress was shown {stages.updates:,} times\n")
    (job,) = (path for path in (folder / "store.job").iterdir() if (path / "plan.json").exists())
    records = [path.stat().st_size for path in (job / "shards").iterdir()]
    for path in (
        job / "plan.parquet",
        job / "plan.json",
        store / "samples.parquet",
        store / "manifest.json",
    ):
        print(f"{path.name:20s} {path.stat().st_size:>14,} bytes")
    print(f"{'records':20s} {sum(records):>14,} bytes, {len(records):,} of them\n")
    open_in_new_process(store)


def verify(store: Path) -> None:
    """Time ``verify`` on what was written: every object is read, hashed and decoded."""
    from latentset.datasets.store.verify import verify as verify_store

    forget_peak()
    start = time.perf_counter()
    findings = verify_store(store, lambda *_: None)
    took, problems = time.perf_counter() - start, len(findings.problems)
    print(f"verify: {took:.1f} s, {peak_mib():.0f} MiB, {problems} problems")
    for problem in findings.problems[:5]:
        print(f"  {problem}")


if __name__ == "__main__":
    main()
