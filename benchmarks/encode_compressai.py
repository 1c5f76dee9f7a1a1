"""How many times as fast as CompressAI's transforms the encode graph is.

    python benchmarks/encode_compressai.py IMAGES [--bench-python PATH] [--repeats 7]

Claim: at least 1.4 times as fast as ``bmshj2018_hyperprior(1)`` of CompressAI, g_a + h_a + h_s, on
the same images and cores, each in its best arrangement of processes, threads and batch.

Run it in the encode environment; CompressAI runs in processes of the bench environment. Both have
the same sizes of network (128 and 192 filters), get uint8 images of 256x256 in memory, and
give arrays; weights are untrained. Ours yields y_hat, scale_index and z_hat as integers,
CompressAI's y, z and sigma_hat as floats. A short search over processes x threads x batch picks
each one's arrangement; the two are then measured in turn.

CompressAI's modules keep their tensors channel by channel. A user may set PyTorch's
``channels_last`` order on them, which CompressAI itself does not: that is searched and shown too.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measure
import numpy as np

BATCHES = (1, 8, 32)
"""Photographs a call."""


def our_setup(number: int, codec_path: str, pixels_path: str, threads: int) -> measure.Works:
    """Load the codec; called in each process."""
    from latentset.pipeline.codec.load.codec import load_codec

    codec = load_codec(codec_path, threads=threads, self_check=False)
    pixels = np.load(pixels_path)

    def encode(batch: int) -> int:
        codec.encode(pixels[:batch])
        return batch

    return {str(batch): partial(encode, batch) for batch in BATCHES}


def their_setup(number: int, pixels_path: str, threads: int) -> measure.Works:
    """Make CompressAI's network; called in each process of the bench environment."""
    import warnings

    import torch

    warnings.simplefilter("ignore")  # about what its dependencies have deprecated
    from compressai.zoo import bmshj2018_hyperprior

    torch.set_num_threads(threads)
    pixels = np.load(pixels_path)
    networks = {
        "": bmshj2018_hyperprior(1, pretrained=False).eval(),
        "channels_last ": bmshj2018_hyperprior(1, pretrained=False)
        .eval()
        .to(memory_format=torch.channels_last),
    }

    torch.set_grad_enabled(False)

    def encode(order: str, batch: int) -> int:
        network = networks[order]
        x = torch.from_numpy(pixels[:batch]).permute(0, 3, 1, 2).float() / 255
        y = network.g_a(x if order else x.contiguous())
        z = network.h_a(y.abs())
        network.h_s(z.round())
        return batch

    return {f"{order}{n}": partial(encode, order, n) for order in networks for n in BATCHES}


def main() -> None:
    """Measure and print."""
    from full_codec import make_codec, read_images

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="IMAGES", type=Path, help="folder of JPEG files")
    parser.add_argument("--bench-python", type=Path, help="interpreter that has CompressAI")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    options = parser.parse_args()
    measure.describe_machine()
    bench = measure.sibling("bench", options.bench_python)
    pixels = read_images(options.source, max(BATCHES))
    cores = measure.cores()
    pinned = [[core] for core in cores]
    with tempfile.TemporaryDirectory() as folder:
        images = f"{folder}/pixels.npy"
        np.save(images, pixels)
        codec = str(make_codec(Path(folder) / "full.metagraph", pixels))
        split, whole = f"{len(cores)} processes of 1 thread", f"1 process of {len(cores)} threads"
        with (
            measure.Workers(our_setup, codec, images, 1, cores=pinned) as ours_split,
            measure.Workers(
                our_setup, codec, images, len(cores), cores=[cores], threads=len(cores)
            ) as ours_whole,
            measure.Workers(their_setup, images, 1, cores=pinned, python=bench) as theirs_split,
            measure.Workers(
                their_setup, images, len(cores), cores=[cores], threads=len(cores), python=bench
            ) as theirs_whole,
        ):
            ours = {split: ours_split, whole: ours_whole}
            theirs = {split: theirs_split, whole: theirs_whole}
            sides = {
                "latentset": search(ours, "", options.seconds / 2),
                "CompressAI": search(theirs, "", options.seconds / 2),
                "CompressAI, channels_last": search(theirs, "channels_last ", options.seconds / 2),
            }
            works = {}
            for side, (arrangement, work) in sides.items():
                print(f"best of {side}: {arrangement}")
                works[side] = partial(work, options.seconds)
            found = measure.in_turn(works, options.repeats, "images/s")
    ours_series, theirs_series, other_series = found.values()
    measure.ratio("latentset against CompressAI", ours_series, theirs_series, 1.4)
    measure.ratio("latentset against CompressAI in channels_last", ours_series, other_series)


def search(
    groups: dict[str, measure.Workers], order: str, seconds: float
) -> tuple[str, Callable[[float], float]]:
    """Find the fastest arrangement.

    Args:
        groups: By what they are: processes and threads.
        order: Begin of the works' names.
        seconds: Of one try.

    Returns:
        The arrangement in words, and what measures it for some seconds.
    """
    tried = {}
    for arrangement, workers in groups.items():
        for batch in BATCHES:
            work = partial(workers.rate, f"{order}{batch}")
            work(seconds / 3)  # warms up
            tried[f"{arrangement}, batch {batch}"] = work(seconds), work
    best = max(tried, key=lambda name: tried[name][0])
    return best, tried[best][1]


if __name__ == "__main__":
    main()
