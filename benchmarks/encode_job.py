"""How much of the encode graph's speed is left in the whole job.

    python benchmarks/encode_job.py PHOTOGRAPHS [--images 4096] [--repeats 1]

Claim: ``latentset encode``, from JPEG files to the finished store, does at least 0.85 of the
photographs a second that the bare graph does on arrays in memory; same cores, one process of one
thread a core on both sides.

Timed is the command, from before it starts to after it ends: imports, planning, starting workers,
loading the codec in each, reading, decoding, encoding, compressing, flushing to disk, manifest.
The start is the same for any number of images, so the share depends on it; the
speed from the first task to the last, as the command prints it, is shown beside. Bare graph and job
are measured in turn; the bare graph before and after each job.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import encoding_worker
import measure


def main() -> None:
    """Measure and print."""
    from full_codec import make_codec, read_photographs, write_photographs

    from latentset.datasets.store.reader import open_store

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=4096, help="JPEG files to make and encode")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the bare graph")
    options = parser.parse_args()
    measure.describe_machine()
    cores = measure.cores()
    latentset = Path(sys.executable).parent / "latentset"
    graphs, jobs, encodings = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs = write_photographs(options.photographs, root / "photographs", options.images)
        codec = make_codec(root / "full.metagraph", read_photographs(photographs, 32))
        arguments = str(codec), str(photographs), folder
        pinned = [[core] for core in cores]
        with measure.Crew(encoding_worker.setup, *arguments, cores=pinned) as crew:
            crew.rate("graph", options.seconds / 2)  # warms up
            for _ in range(options.repeats):
                before = crew.rate("graph", options.seconds)
                store = root / "store.zarr"
                command: list[str | Path] = [
                    latentset,
                    "encode",
                    photographs,
                    store,
                    "--codec",
                    codec,
                ]
                start = time.perf_counter()
                done = subprocess.run(
                    command,
                    env=measure.one_thread(),
                    check=True,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                seconds = time.perf_counter() - start
                after = crew.rate("graph", options.seconds)
                graphs.append((before + after) / 2)
                jobs.append(options.images / seconds)
                encodings.append(_encoding_rate(done.stdout))
                rate_bpp = open_store(store).samples.column("rate_bpp").to_numpy().mean()
                shutil.rmtree(store)
                shutil.rmtree(root / "store.zarr.job")
    print(f"{options.images} photographs, {rate_bpp:.2f} bpp on average")
    unit = "photographs/s"
    graph = measure.Series("bare graph, batches of 32", tuple(graphs), unit).show()
    job = measure.Series("whole command", tuple(jobs), unit).show()
    encoding = measure.Series("first task to last", tuple(encodings), unit).show()
    measure.ratio("whole command against bare graph", job, graph, 0.85)
    measure.ratio("first task to last against bare graph", encoding, graph)
    fixed = [options.images * (1 / j - 1 / e) for j, e in zip(jobs, encodings, strict=True)]
    measure.Series("before the first task and after the last", tuple(fixed), "s").show()


def _encoding_rate(report: str) -> float:
    """Read the speed from what the command prints: images, and seconds to a tenth."""
    found = re.search(r"([\d,]+) images in ([\d,.]+) s", report)
    if found is None:
        raise SystemExit(f"the command printed no speed: {report}")
    images, seconds = (float(number.replace(",", "")) for number in found.groups())
    return images / seconds


if __name__ == "__main__":
    main()
