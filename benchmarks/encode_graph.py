"""How near the encode graph comes to the machine's own peak of single-precision products.

    python benchmarks/encode_graph.py PHOTOGRAPHS [--repeats 7]

Claim: the graph of ``bmshj2018-hyperprior`` with 128 and 192 filters does at least 0.85 of the
operations a second that the best sgemm of this machine does. Both with all the vector instructions
of this CPU (``--cpu-isa native``); what the default ``avx2`` costs is measured beside it.

One process a core and level, pinned to its core and of one thread. Per process, in turn: the graph
that ``load_codec`` imports, on batches of 256x256 photographs in memory, and square matrix products
by NumPy's BLAS and by TensorFlow's, of several sizes; the best of them is the peak. Time is that of
the process on its core, so that what else runs on the machine counts little. Counted are the
multiplications and additions of convolutions and GDN's matrix products, at the positions that are
computed; not counted: additions of biases, divisions, rounding, conversions, padding.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

SIZES = (1536, 2048, 3072)
"""Sides of the matrices; the fastest counts."""

BATCHES = (1, 8, 32)
"""Photographs a call; the fastest counts."""


def count_operations(N: int, M: int, height: int, width: int) -> int:
    """Count the multiplications and additions that one photograph takes.

    A convolution of k x k from C to D channels takes k k C D multiplications and as many additions
    a position of its smaller grid: the output of one that strides down, the input of a transposed
    one. GDN takes C C a position.

    Args:
        N: Filters of all layers but those that face y.
        M: Channels of y.
        height: Of the photograph, pixels; a multiple of 64.
        width: Of the photograph, pixels; a multiple of 64.

    Returns:
        Operations.
    """
    area = height * width
    g_a = area // 4 * (25 * 3 * N + N * N)  # conv_0, gdn_0
    g_a += area // 16 * (25 * N * N + N * N)  # conv_1, gdn_1
    g_a += area // 64 * (25 * N * N + N * N)  # conv_2, gdn_2
    g_a += area // 256 * 25 * N * M  # conv_3
    h_a = area // 256 * 9 * M * N + area // 1024 * 25 * N * N + area // 4096 * 25 * N * N
    h_s = area // 4096 * 25 * N * N + area // 1024 * 25 * N * N + area // 256 * 9 * N * M
    return 2 * (g_a + h_a + h_s)


def setup(number: int, codec_path: str, photographs_path: str, level: str) -> measure.Works:
    """Load the codec and make the matrices; called in each process."""
    from latentset.pipeline.cpu_isa import fix_cpu_isa

    fix_cpu_isa(level)

    from latentset.pipeline.codec.codec import load_codec
    from latentset.pipeline.tensorflow_setup import tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    codec = load_codec(codec_path, self_check=False)
    photographs = np.load(photographs_path)
    random = np.random.default_rng(number)
    works: dict[str, measure.Work] = {}

    def encode(images: NDArray[np.uint8]) -> tuple[int, float]:
        begun = time.process_time()
        codec.encode(images)
        return len(images), time.process_time() - begun

    def multiply(product: Callable[[], object], size: int) -> tuple[int, float]:
        begun = time.process_time()
        product()
        return 2 * size**3, time.process_time() - begun

    def multiply_tensors(a: Any, b: Any) -> object:
        return tf.linalg.matmul(a, b).numpy()

    for batch in BATCHES:
        works[f"graph {batch}"] = partial(encode, photographs[:batch])
    for size in SIZES:
        a, b = random.normal(size=(2, size, size)).astype(np.float32)
        works[f"NumPy {size}"] = partial(multiply, partial(np.matmul, a, b), size)
        product = partial(multiply_tensors, tf.constant(a), tf.constant(b))
        works[f"TensorFlow {size}"] = partial(multiply, product, size)
    return works


def main() -> None:
    """Measure and print."""
    from full_codec import SIDE, M, N, make_codec, read_photographs

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    options = parser.parse_args()
    measure.describe_machine()
    operations = count_operations(N, M, SIDE, SIDE)
    print(f"{operations / 1e9:.3f} G operations a photograph of {SIDE}x{SIDE}")
    photographs = read_photographs(options.photographs, max(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "photographs.npy", photographs)
        codec = make_codec(Path(folder) / "full.metagraph", photographs)
        pinned = [[core] for core in measure.cores()]
        arguments = str(codec), f"{folder}/photographs.npy"
        with (
            measure.Crew(setup, *arguments, "native", cores=pinned) as crew,
            measure.Crew(setup, *arguments, "avx2", cores=pinned) as held,
        ):

            def run(crew: measure.Crew, name: str, scale: float) -> float:
                return crew.rate(name, options.seconds) * scale

            works = {}
            for n in BATCHES:
                works[f"graph {n}"] = partial(run, crew, f"graph {n}", operations / 1e9)
                works[f"avx2 graph {n}"] = partial(run, held, f"graph {n}", operations / 1e9)
            for size in SIZES:
                for library in ("NumPy", "TensorFlow"):
                    works[f"{library} {size}"] = partial(run, crew, f"{library} {size}", 1e-9)
            found = measure.in_turn(works, options.repeats, "G operations/s")
    graph = max((found[f"graph {n}"] for n in BATCHES), key=lambda series: series.median)
    products = (series for name, series in found.items() if "graph" not in name)
    peak = max(products, key=lambda series: series.median)
    speed = graph.median / operations * 1e9
    print(f"{speed:.1f} photographs/s on {len(pinned)} cores with {graph.name}; peak: {peak.name}")
    measure.ratio("encode graph against sgemm peak", graph, peak, 0.85)
    measure.ratio("avx2 against native", found[f"avx2 {graph.name}"], graph)


if __name__ == "__main__":
    main()
