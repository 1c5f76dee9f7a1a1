"""What a second worker of the encode job brings.

    python benchmarks/encode_workers.py IMAGES [--repeats 7]

Claim: two workers of one thread encode at least 1.8 times as fast as one.

Each worker is a process pinned to a core that runs the job's own task (JPEG files of 256x256 ->
decode -> codec of 128 and 192 filters -> objects of a shard on disk, records included) and, as a
second measurement, the codec alone. One and two workers are measured in turn.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import encoding_worker
import measure


def main() -> None:
    """Measure and print."""
    from full_codec import make_codec, read_images, write_images

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of JPEG files")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    options = parser.parse_args()
    measure.describe_machine()
    pinned = [[core] for core in measure.cores()[:2]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = write_images(options.images, root / "images", 512)
        codec = make_codec(root / "full.metagraph", read_images(images, 32))
        arguments = str(codec), str(images), folder
        with measure.Workers(encoding_worker.setup, *arguments, cores=pinned) as workers:
            works = {
                f"{work}, {members} workers": partial(workers.rate, work, options.seconds, members)
                for work in ("shards", "graph")
                for members in (1, 2)
            }
            found = measure.in_turn(works, options.repeats, "images/s")
    for work in ("shards", "graph"):
        two, one = (found[f"{work}, {members} workers"] for members in (2, 1))
        measure.ratio(f"two workers against one, {work}", two, one, 1.8)


if __name__ == "__main__":
    main()
