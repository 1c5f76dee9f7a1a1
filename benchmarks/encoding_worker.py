"""The encode job's own task in a process of a workers: JPEG files to the objects of a shard."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np

PARTS = ("read and hash", "decode", "rate", "place", "compress", "write")
"""What a task does besides running the graph, each a work of its own."""


def setup(number: int, codec_path: str, jpegs: str, folder: str) -> measure.Works:
    """Plan a job in a folder of this process's own, as ``latentset encode`` does.

    Args:
        number: Of the process.
        codec_path: File of the codec.
        jpegs: Folder of JPEG files, one folder a class, all of one size.
        folder: Where the processes' stores go.

    Returns:
        ``shards``: reads, decodes and encodes the images of the next shard, and writes its
        objects and its record. ``graph``: the codec alone, on 32 images in memory; ``graph,
        CPU time`` counts processor time. ``PARTS``: on the same 32 jpegs, or one shard.
    """
    from latentset.datasets.sources.images import decode_image, read_bytes
    from latentset.datasets.sources.layouts import open_source
    from latentset.datasets.store.arrays import rows_of
    from latentset.datasets.store.digests import sha256_of
    from latentset.datasets.store.header import ARRAYS, format_version_of
    from latentset.datasets.store.layout import SHARD_BYTES
    from latentset.datasets.store.scales import number_scales
    from latentset.datasets.store.zarr.writer import ShardBuffer, shard_objects, write_objects
    from latentset.pipeline.encode.encode_task import EncodeTask, encode_shard
    from latentset.pipeline.jobs.coder import TENSORFLOW, load_once, read_software
    from latentset.pipeline.jobs.plan import make_plan, read_facts
    from latentset.pipeline.jobs.settings import Settings, describe_source
    from latentset.pipeline.jobs.shard import record_path
    from latentset.pipeline.jobs.target import look_at

    source = open_source(Path(jpegs))
    info = number_scales(TENSORFLOW.load(codec_path, self_check=True).info)
    software = read_software(TENSORFLOW)
    settings = Settings(
        format_version=format_version_of(ARRAYS, software.cpu_isa),
        container="zarr",
        codec=info,
        arrays=ARRAYS,
        resize="none",
        source=describe_source(source),
        target_shard_bytes=SHARD_BYTES,
        software=software,
    )
    target = look_at(Path(folder) / f"{number}.zarr", codec_path, settings)
    paths = source.samples.column("path").to_pylist()
    facts = read_facts(paths, str(source.root))
    plan = make_plan(target.job, source, settings, facts, rows_of(info))
    task = EncodeTask(
        targets=(target.for_tasks(plan),),
        source=source.root,
        batch=32,
        fail=True,
        engine=TENSORFLOW,
        leases=(),
    )
    done = 0

    def shards() -> int:
        nonlocal done
        index = done % plan.header.layout.shards
        done += 1
        samples = encode_shard(index, task, lambda *_: None).samples
        target.job.remove(record_path(index))  # so that the next time it is done again
        return samples

    files = [read_bytes(source.folder / path) for path in paths[:32]]
    images = np.stack([decode_image(file) for file in files])
    codec = load_once(TENSORFLOW, codec_path, info.sha256)
    latents = codec.encode(images)
    rows = plan.rows(0)
    buffer = ShardBuffer(plan.header, 0)

    def place(rows: list[Any]) -> None:
        for k, row in enumerate(rows):
            arrays = (
                a[k % len(images)] for a in (latents.y_hat, latents.scale_index, latents.z_hat)
            )
            buffer.put(row.first_row, row.z_first_row, *arrays)

    place(rows)
    objects = shard_objects(plan.header, 0, buffer.rows())

    def graph_cpu() -> tuple[int, float]:
        begun = time.process_time()
        codec.encode(images)
        return len(images), time.process_time() - begun

    def counted(work: Callable[[], object], count: int = len(images)) -> Callable[[], int]:
        def run() -> int:
            work()
            return count

        return run

    return {
        "shards": shards,
        "graph": counted(lambda: codec.encode(images)),
        "graph, CPU time": graph_cpu,
        "read and hash": counted(
            lambda: [sha256_of(read_bytes(source.folder / path)) for path in paths[: len(files)]]
        ),
        "decode": counted(lambda: [decode_image(file) for file in files]),
        "rate": counted(lambda: codec.rate_bits(latents)),
        "place": counted(lambda: place(rows), len(rows)),
        "compress": counted(lambda: shard_objects(plan.header, 0, buffer.rows()), len(rows)),
        "write": counted(lambda: write_objects(target.objects, objects), len(rows)),
    }
