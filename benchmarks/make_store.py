"""Make what the benchmarks of reading read: images of 256x256, and a store of their latents.

    python benchmarks/make_store.py IMAGES FOLDER [--images 2048]

Run it once in the encode environment. FOLDER gets ``images/`` (JPEG files, quality 90, one
folder a class), ``full.metagraph`` (full_codec.py: 128 and 192 filters, untrained, with the spread
of a trained codec's latents) and ``store.zarr``, made by ``latentset encode``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import measure
from full_codec import make_codec, read_images, write_images


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "source", metavar="IMAGES", type=Path, help="JPEG files, one folder a class"
    )
    parser.add_argument("folder", type=Path, help="folder to make")
    parser.add_argument("--images", type=int, default=2048)
    options = parser.parse_args()
    jpegs = options.folder / "images"
    if not jpegs.exists():
        write_images(options.source, jpegs, options.images)
    codec = options.folder / "full.metagraph"
    if not codec.exists():
        make_codec(codec, read_images(jpegs, 32))
    command = [Path(sys.executable).parent / "latentset", "encode", jpegs]
    command += [options.folder / "store.zarr", "--codec", codec]
    subprocess.run(command, check=True, env=measure.one_thread())


if __name__ == "__main__":
    main()
