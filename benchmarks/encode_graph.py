"""How near the encode graph comes to the machine's own peak of single-precision products.

    python benchmarks/encode_graph.py IMAGES [--repeats 5]

Claim: the graph of a published codec, of 128 and 192 filters (qualities 1 to 5) and of 192 and 320
(6 to 8), does at least 0.90 of the operations a second that the best sgemm of this machine does.

One process a core and level, pinned to its core and of one thread. Per process, in turn: the graphs
that ``load_codec`` imports, on images of 256x256, of 362x362 (MINC-2500) and as IMAGES has them, in
memory; and square matrix products by NumPy's BLAS and by TensorFlow's, of several sizes; the best
of them is the peak. Graph and products have the same vector instructions: those that ``encode``
takes by default (``--cpu-isa avx2``), and all that this CPU has (``native``). Time is that of the
process on its core, so that what else runs on the machine counts little.

Counted are the multiplications and additions of convolutions and GDN's matrix products, at the
positions that are kept; not counted: additions of biases, divisions, rounding, conversions,
padding.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

SIZES = (1536, 2048, 3072)
"""Sides of the matrices; the fastest counts."""

LEVELS: Mapping[str, Mapping[str, str]] = {
    "avx2": {"LATENTSET_CPU_ISA": "avx2", "OPENBLAS_CORETYPE": "Haswell"},
    "native": {"LATENTSET_CPU_ISA": "native"},
}
"""Environment variables that keep TensorFlow and NumPy's BLAS to some vector instructions."""


def count_operations(filters: Sequence[int], height: int, width: int) -> int:
    """Count the multiplications and additions that one image takes.

    A convolution of k x k from C to D channels takes k k C D multiplications and as many additions
    a position of its smaller grid: the output of one that strides down, the input of a transposed
    one. GDN takes C C a position.

    Args:
        filters: N and M.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        Operations.
    """
    N, M = filters
    # Positions at each number of halvings; odd sides are rounded up.
    area = [-(-height >> k) * -(-width >> k) for k in range(7)]
    g_a = area[1] * (25 * 3 * N + N * N)  # layer_0, gdn
    g_a += (area[2] + area[3]) * (25 * N * N + N * N)  # layer_1, gdn_1, layer_2, gdn_2
    g_a += area[4] * 25 * N * M  # layer_3
    h_a = area[4] * 9 * M * N + area[5] * 25 * N * N + area[6] * 25 * N * N
    h_s = area[6] * 25 * N * N + area[5] * 25 * N * N + area[4] * 9 * N * M
    return 2 * (g_a + h_a + h_s)


def setup(number: int, codecs: Mapping[str, str], folder: str) -> measure.Works:
    """Load the codecs and make the matrices; called in each process."""
    from latentset.pipeline.codec.load.codec import Codec, load_codec
    from latentset.pipeline.tensorflow_setup import tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(number)
    works: dict[str, measure.Work] = {}

    def encode(codec: Codec, images: Sequence[NDArray[np.uint8]]) -> tuple[int, float]:
        filters = codec.info.z_channels, codec.info.channels
        begun = time.process_time()
        for image in images:
            codec.encode(image)
        took = time.process_time() - begun
        return sum(count_operations(filters, *image.shape[1:3]) for image in images), took

    def multiply(product: Callable[[], object], size: int) -> tuple[int, float]:
        begun = time.process_time()
        product()
        return 2 * size**3, time.process_time() - begun

    def multiply_tensors(a: Any, b: Any) -> object:
        return tf.linalg.matmul(a, b).numpy()

    for filters, path in codecs.items():
        codec = load_codec(path, self_check=False)
        for file in sorted(Path(folder).glob("*.npz")):
            with np.load(file) as images:
                works[f"graph {filters}, {file.stem}"] = partial(
                    encode, codec, list(images.values())
                )
    for size in SIZES:
        a, b = random.normal(size=(2, size, size)).astype(np.float32)
        works[f"NumPy {size}"] = partial(multiply, partial(np.matmul, a, b), size)
        product = partial(multiply_tensors, tf.constant(a), tf.constant(b))
        works[f"TensorFlow {size}"] = partial(multiply, product, size)
    return works


def start(level: str, codecs: Mapping[str, str], folder: str) -> measure.Workers:
    """Start the processes of a level."""
    os.environ.pop("OPENBLAS_CORETYPE", None)
    os.environ.update(LEVELS[level])
    return measure.Workers(setup, codecs, folder, cores=[[core] for core in measure.cores()])


def main() -> None:
    """Measure and print."""
    from full_codec import FILTERS, SIDE, make_codec, read_images

    from latentset.datasets.sources.images import read_image

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of JPEG files of many sizes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    parser.add_argument("--count", type=int, default=6, help="images of each kind")
    options = parser.parse_args()
    measure.describe_machine()
    count: int = options.count
    files = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    kinds: dict[str, Sequence[NDArray[np.uint8]]] = {
        f"{side}x{side}": list(read_images(options.images, count, side)) for side in (SIDE, 362)
    }
    kinds["mixed"] = [read_image(p) for p in files[:: len(files) // count][:count]]
    with tempfile.TemporaryDirectory() as folder:
        for kind, images in kinds.items():
            np.savez(f"{folder}/{kind}.npz", *(image[None] for image in images))
        codecs, squares = {}, np.stack(kinds[f"{SIDE}x{SIDE}"])
        for quality in (1, 8):
            filters = FILTERS[quality]
            name = "/".join(map(str, filters))
            path = Path(folder) / f"{quality}.metagraph"
            codecs[name] = str(make_codec(path, squares, quality))
            each = count_operations(filters, SIDE, SIDE) / 1e9
            print(f"{name}: {each:.3f} G operations an image of {SIDE}x{SIDE}")
        print("mixed:", ", ".join("x".join(map(str, image.shape[:2])) for image in kinds["mixed"]))
        graphs = [f"graph {name}, {kind}" for name in codecs for kind in kinds]
        products = [f"{library} {size}" for size in SIZES for library in ("NumPy", "TensorFlow")]
        with ExitStack() as stack:
            groups = {level: stack.enter_context(start(level, codecs, folder)) for level in LEVELS}

            def run(level: str, name: str) -> float:
                return groups[level].rate(name, options.seconds) / 1e9

            works = {
                f"{level}: {name}": partial(run, level, name)
                for name in (*graphs, *products)
                for level in LEVELS
            }
            found = measure.in_turn(works, options.repeats, "G operations/s")
    for level in LEVELS:
        peak = max((found[f"{level}: {name}"] for name in products), key=lambda s: s.median)
        print(f"peak: {peak.name}")
        for name in graphs:
            ratio = f"{level}: {name} against sgemm peak"
            measure.ratio(ratio, found[f"{level}: {name}"], peak, 0.9)
    for name in graphs:
        avx2, native = (found[f"{level}: {name}"] for level in LEVELS)
        measure.ratio(f"{name}: avx2 against native", avx2, native)


if __name__ == "__main__":
    main()
