"""How much of the encode graph's speed is left in the whole job, and where the rest goes.

    python benchmarks/encode_job.py IMAGES [--images 4096] [--repeats 1] [--codec FILE]

Claim: ``latentset encode``, from JPEG files to the finished store, takes at most a tenth longer
than the bare graph for as many arrays in memory; same cores, one process of one thread a core on
both sides.

Timed is the command, from before it starts to after it ends: imports, starting workers, loading the
codec in each, planning, reading, decoding, encoding, compressing, flushing to disk, manifest. Its
phases are told by when it says that it plans and encodes. The bare graph is measured for some
seconds before and after each job, with its processes pinned to their cores, and reckoned up to as
many images. CPU time is that of all processes; beside other work it is the better measure.

Then the parts of a task, each alone, in the same processes.
"""

import argparse
import re
import shutil
import statistics
import tempfile
from pathlib import Path

import encoding_worker
import measure


def main() -> None:
    """Measure and print."""
    from full_codec import make_codec, read_images, write_images

    from latentset.datasets.store import open_store

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="IMAGES", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=4096, help="JPEG files to make and encode")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the bare graph")
    parser.add_argument("--codec", type=Path, help="default: 128 and 192 filters, untrained")
    options = parser.parse_args()
    measure.describe_machine()
    cores = measure.cores()
    images: int = options.images
    jobs: list[measure.Ran] = []
    graphs, graphs_cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jpegs = write_images(options.source, root / "images", images)
        codec = options.codec or make_codec(root / "full.metagraph", read_images(jpegs, 32))
        store = root / "store.zarr"
        arguments = str(codec), str(jpegs), folder
        pinned = [[core] for core in cores]
        with measure.Workers(encoding_worker.setup, *arguments, cores=pinned) as workers:

            def seconds_of(work: str, seconds: float) -> float:
                """Seconds for all images, of all processes together."""
                return images / workers.rate(work, seconds)

            seconds_of("graph", options.seconds / 2)  # warms up
            for _ in range(options.repeats):
                before = seconds_of("graph", options.seconds)
                jobs.append(
                    measure.run_latentset(
                        *("encode", jpegs, store, "--codec", codec),
                        *("--workers", str(len(cores))),
                    )
                )
                graphs.append((before + seconds_of("graph", options.seconds)) / 2)
                # The rates of processes add up, their CPU time does not shrink with their number.
                cpu = seconds_of("graph, CPU time", options.seconds / 2)
                graphs_cpu.append(cpu * len(cores))
                rate_bpp = open_store(store).samples.column("rate_bpp").to_numpy().mean()
                shutil.rmtree(store)
                shutil.rmtree(root / "store.zarr.job")
            parts = {
                work: 1e3 * len(cores) / workers.rate(work, 2.0)
                for work in ("shards", "graph", *encoding_worker.PARTS)
            }
    print(f"{images} images, {rate_bpp:.2f} bpp on average, {len(cores)} workers")
    graph = measure.Series("bare graph, batches of 32", tuple(graphs), "s").show()
    job = measure.Series("whole command", tuple(run.seconds for run in jobs), "s").show()
    measure.ratio("bare graph against whole command", graph, job, 0.90)
    graph = measure.Series("bare graph, CPU time", tuple(graphs_cpu), "s").show()
    job = measure.Series("whole command, CPU time", tuple(r.cpu_seconds for r in jobs), "s").show()
    measure.ratio("the same by CPU time", graph, job)
    phases = [_phases(run) for run in jobs]
    for phase in phases[0]:
        measure.Series(f"  {phase}", tuple(found[phase] for found in phases), "s").show()
    peaks = tuple(run.peak_mib for run in jobs)
    measure.Series("memory of a worker", peaks, "MiB").show()
    print("\nparts of a task, ms an image on its core")
    for work, took in parts.items():
        print(f"  {work:56s} {took:9.2f}")
    rest = parts["shards"] - sum(parts[work] for work in ("graph", *encoding_worker.PARTS))
    print(f"  {'what no part accounts for':56s} {rest:9.2f}")
    first = statistics.median(found["encoding"] for found in phases)
    idle = 1e3 * len(cores) * first / images - parts["shards"]
    print(f"  {'job, first task to last, beyond its shards: Dask, idle':56s} {idle:9.2f}")


def _phases(run: measure.Ran) -> dict[str, float]:
    """Seconds of each phase, by when the command said that it began."""

    def said(pattern: str) -> float:
        return next(at for at, line in reversed(run.said) if re.match(pattern, line))

    plans, encodes = said(r"planning: \d+ images$"), said(r"encoding: \d+ images$")
    ends = said(r"encoding: .*\(100 %\)")
    return {
        "start: imports, workers, codec": plans,
        "planning, and the rest of the self-check": encodes - plans,
        "encoding": ends - encodes,
        "finish: manifest, end of workers": run.seconds - ends,
    }


if __name__ == "__main__":
    main()
