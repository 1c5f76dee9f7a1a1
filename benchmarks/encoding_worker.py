"""The encode job's own task in a process of a crew: JPEG files to the objects of a shard."""

from pathlib import Path

import measure
import numpy as np


def setup(number: int, codec_path: str, photographs: str, folder: str) -> measure.Works:
    """Plan a job in a folder of this process's own, as ``latentset encode`` does.

    Args:
        number: Of the process.
        codec_path: File of the codec.
        photographs: Folder of JPEG files, one folder a class, all of one size.
        folder: Where the processes' stores go.

    Returns:
        ``shards``: reads, decodes and encodes the photographs of the next shard, and writes its
        objects and its record. ``graph``: the codec alone, on 32 photographs in memory.
    """
    from PIL import Image

    from latentset.datasets.sources.opening import open_source
    from latentset.datasets.store.arrays import rows_of
    from latentset.datasets.store.header import ARRAYS, format_version_of
    from latentset.datasets.store.scales import number_scales
    from latentset.pipeline.encoding.engine import TENSORFLOW, load_once
    from latentset.pipeline.encoding.job import SHARD_BYTES
    from latentset.pipeline.encoding.plan import PlanFile, make_plan, read_facts, write_plan
    from latentset.pipeline.encoding.record import record_path
    from latentset.pipeline.encoding.settings import Settings, describe_source
    from latentset.pipeline.encoding.shard import ShardTarget, Task, encode_shard, read_software
    from latentset.pipeline.encoding.target import make_target

    source = open_source(Path(photographs))
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
    target = make_target(Path(folder) / f"{number}.zarr", codec_path, settings)
    paths = source.samples.column("path").to_pylist()
    facts = read_facts(str(source.root), paths)
    write_plan(target.job, make_plan(source, settings, facts, rows_of(info)))
    plan = PlanFile(target.job)
    task = Task(
        targets=(ShardTarget(target.objects, target.job, plan.table_sha256, "zarr", codec_path),),
        source=source.root,
        batch=32,
        fail=True,
        engine=TENSORFLOW,
    )
    done = 0

    def shards() -> int:
        nonlocal done
        index = done % plan.header.layout.shards
        done += 1
        samples = encode_shard(task, index, lambda _: None).samples
        target.job.remove(record_path(index))  # so that the next time it is done again
        return samples

    images = np.stack([np.asarray(Image.open(source.root / path)) for path in paths[:32]])
    codec = load_once(TENSORFLOW, codec_path, info.sha256)

    def graph() -> int:
        codec.encode(images)
        return len(images)

    return {"shards": shards, "graph": graph}
