"""How near the encode graph comes to the machine's own peak of single-precision products.

    python benchmarks/encode_graph.py IMAGES [--repeats 7] [--cpu-isa avx2 | native]

Claim: the graph of a published codec, of 128 and 192 filters (qualities 1 to 5) and of 192 and 320
(6 to 8), does at least 0.90 of the operations a second that the best sgemm of this machine does.

One process a core, each pinned to its core and of one thread. Per process, in turn: the graphs that
``load_codec`` imports, on images of 256x256, of 362x362 (MINC-2500) and as IMAGES has them, all in
memory; and square matrix products by NumPy's BLAS and by TensorFlow's, of several sizes; the best
of them is the peak. Graph and products have the same vector instructions: those that ``encode``
takes by default (AVX2), and again the best that the machine has.

Counted are the multiplications and additions of convolutions and GDN's matrix products, at the
positions that are kept; not counted: additions of biases, divisions, rounding, conversions,
padding.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

SIZES = (1536, 2048, 3072)
"""Sides of the matrices; the fastest counts."""

ISA_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "avx2": {
        "LATENTSET_CPU_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "native": {"LATENTSET_CPU_ISA": "native"},
}
"""What keeps oneDNN and NumPy's BLAS to some vector instructions."""


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
    from latentset.pipeline.codec.codec import Codec, load_codec
    from latentset.pipeline.tensorflow_setup import tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(number)
    works: dict[str, Callable[[], int]] = {}

    def encode(codec: Codec, images: Sequence[NDArray[np.uint8]]) -> int:
        filters = codec.info.z_channels, codec.info.channels
        for image in images:
            codec.encode(image)
        return sum(count_operations(filters, *image.shape[1:3]) for image in images)

    def multiply(product: Callable[[], object], size: int) -> int:
        product()
        return 2 * size**3

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


def compare(isa: str, codecs: Mapping[str, str], folder: str, options: argparse.Namespace) -> None:
    """Measure graphs and products with the same vector instructions, and print their ratios."""
    print(f"\nvector instructions: {isa}")
    for name in ISA_VARIABLES["avx2"]:
        os.environ.pop(name, None)
    os.environ.update(ISA_VARIABLES[isa])
    names = [f"graph {filters}, {kind.stem}" for filters in codecs for kind in _kinds(folder)]
    names += [f"{library} {size}" for size in SIZES for library in ("NumPy", "TensorFlow")]
    pinned = [[core] for core in measure.cores()]
    with measure.Crew(setup, codecs, folder, cores=pinned) as crew:

        def run(name: str) -> float:
            return crew.rate(name, options.seconds) / 1e9

        works = {name: partial(run, name) for name in names}
        found = measure.in_turn(works, options.repeats, "G operations/s")
    graphs = {name: series for name, series in found.items() if name.startswith("graph")}
    peak = max((found[name] for name in names if name not in graphs), key=lambda s: s.median)
    print(f"peak: {peak.name}")
    for name, series in graphs.items():
        measure.ratio(f"{name} against sgemm peak", series, peak, 0.9)


def _kinds(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*.npz"))


def main() -> None:
    """Measure and print."""
    from full_codec import FILTERS, SIDE, make_codec, read_photographs

    from latentset.datasets.photographs import read_photograph

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of JPEG files of many sizes")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    parser.add_argument("--count", type=int, default=6, help="images of each kind")
    parser.add_argument("--cpu-isa", choices=list(ISA_VARIABLES), action="append")
    options = parser.parse_args()
    measure.describe_machine()
    count: int = options.count
    files = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    kinds: dict[str, Sequence[NDArray[np.uint8]]] = {
        f"{side}x{side}": list(read_photographs(options.images, count, side))
        for side in (SIDE, 362)
    }
    kinds["mixed"] = [read_photograph(p) for p in files[:: len(files) // count][:count]]
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
        for isa in options.cpu_isa or ISA_VARIABLES:
            compare(isa, codecs, folder, options)


if __name__ == "__main__":
    main()
