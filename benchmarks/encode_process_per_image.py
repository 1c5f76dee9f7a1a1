"""How many times as fast the encode job is as one process an image.

    python benchmarks/encode_process_per_image.py IMAGES [--repeats 5]

Claim: at least 100 times as fast as starting a process for every image, in the manner of
``tfci.py dump`` (tensorflow/compression, ``models/tfci.py``): a process that imports TensorFlow and
tensorflow-compression, imports the metagraph, prunes it to the tensors asked for, reads one PNG
file, computes them and writes an NPZ file.

Both sides use every core, with one process of one thread a core; images of 256x256, 128 and
192 filters. Ours is the job's own task, from JPEG files to objects of a shard on disk, with its
workers running: what a large data set costs an image. The job's start is in encode_job.py.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import encoding_worker
import measure


def dump(metagraph_path: str, image_path: str, output: str, tensors: list[str]) -> None:
    """Write tensors of one image, as ``tfci.py dump`` does.

    Args:
        metagraph_path: File of the codec.
        image_path: PNG file.
        output: NPZ file to write.
        tensors: Names.
    """
    import numpy as np
    import tensorflow as tf
    import tensorflow_compression  # noqa: F401 - registers its ops

    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.ParseFromString(Path(metagraph_path).read_bytes())
    imported = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.train.import_meta_graph(metagraph), []
    )
    names = metagraph.signature_def["sender"].inputs
    inputs = [imported.graph.as_graph_element(names[key].name) for key in sorted(names)]
    outputs = [imported.graph.as_graph_element(name) for name in tensors]
    sender = imported.prune(inputs, outputs)
    image = tf.image.decode_image(tf.io.read_file(image_path), channels=3)
    values = sender(image[tf.newaxis])
    np.savez(output, **{f"tensor_{k}": value for k, value in enumerate(values)})


def dump_all(root: Path, codec: Path, tensors: list[str], cores: list[int], each: int) -> float:
    """Run one process an image, one at a time on every core.

    Returns:
        Images a second.
    """
    images = sorted((root / "png").iterdir())[: each * len(cores)]
    command: list[str | Path] = [sys.executable, __file__, "--dump", codec]
    start = time.perf_counter()
    for k in range(0, len(images), len(cores)):
        running = [
            subprocess.Popen(
                ["taskset", "-c", str(core), *command, image, root / f"{core}.npz", *tensors],
                env=measure.one_thread() | {"TF_ENABLE_ONEDNN_OPTS": "1"},
                stderr=subprocess.DEVNULL,
            )
            for core, image in zip(cores, images[k : k + len(cores)], strict=True)
        ]
        for process in running:
            if process.wait():
                raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--dump"]:
        codec_path, image_path, output, *tensors = sys.argv[2:]
        dump(codec_path, image_path, output, tensors)
        return
    from full_codec import make_codec, read_images, squares, write_images

    from latentset.pipeline.codec.load.codec import load_codec
    from latentset.pipeline.codec.load.program import LATENT_TENSORS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="IMAGES", type=Path, help="folder of JPEG files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement of ours")
    parser.add_argument("--images", type=int, default=2, help="images a core of theirs")
    options = parser.parse_args()
    measure.describe_machine()
    cores = measure.cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jpegs = write_images(options.source, root / "images", 512)
        (root / "png").mkdir()
        pairs = squares(options.source, options.images * len(cores))
        for k, (_, image) in enumerate(pairs):
            image.save(root / "png" / f"{k}.png")
        codec = make_codec(root / "full.metagraph", read_images(jpegs, 32))
        names = load_codec(str(codec)).info.tensors
        tensors = [names[key] for key in LATENT_TENSORS]
        pinned = [[core] for core in cores]
        arguments = str(codec), str(jpegs), folder
        with measure.Workers(encoding_worker.setup, *arguments, cores=pinned) as workers:
            found = measure.in_turn(
                {
                    "the job's tasks": partial(workers.rate, "shards", options.seconds),
                    "one process an image": partial(
                        dump_all, root, codec, tensors, cores, options.images
                    ),
                },
                options.repeats,
                "images/s",
            )
    job, single = found.values()
    measure.ratio("the job's tasks against one process an image", job, single, 100)


if __name__ == "__main__":
    main()
