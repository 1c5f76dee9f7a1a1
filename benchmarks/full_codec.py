"""A codec of the published form with untrained weights, and images for it: for encode benchmarks.

Its tensors are those of the published codecs, in number, size and type (published_form.py). Speed
does not depend on the weights, but the size of what is written does, and with it the time that
compression takes: untrained, nearly all symbols would be 0. So the last layer of each transform is
scaled and shifted, channel by channel, until the latents of the images at hand have the spread of a
trained codec's: sigma from 0.1 to 4, most channels near the lower end.

    python benchmarks/full_codec.py IMAGES FOLDER

writes ``untrained-1.metagraph`` to ``untrained-8.metagraph``, one of each quality.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentset.pipeline.codec.load.code_tables import SCALE_COUNT, SCALE_MAX, SCALE_MIN
from latentset.pipeline.codec.train.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.train.codec_export import parameters_of
from latentset.pipeline.codec.train.published_form import build_metagraph
from latentset.pipeline.tensorflow_setup import tf

FILTERS = {quality: (128, 192) if quality <= 5 else (192, 320) for quality in range(1, 9)}
"""Filters N and M of ``bmshj2018-hyperprior``."""

SIDE = 256
"""Height and width of the images, pixels."""

SIGMA = (0.1, 4.0)
"""Spread of y's channels, evenly spaced in the logarithm."""


def make_codec(path: Path, images: NDArray[np.uint8], quality: int = 1) -> Path:
    """Write an untrained codec with the latents of a trained one.

    Args:
        path: File to write.
        images: uint8 (B, H, W, 3): what the latents' spread is measured on.
        quality: 1 to 8; decides the filters, and the seed of the weights.

    Returns:
        ``path``.
    """
    N, M = FILTERS[quality]
    model = ScaleHyperprior(N, M, seed=quality)
    for variable in model.trainable_variables:
        if variable.name.endswith("/bias:0"):
            # TensorFlow would leave out the addition of zeros.
            variable.assign(tf.fill(variable.shape, 0.01))
    x = tf.cast(images, tf.float32) / 255.0
    sigma = np.geomspace(*SIGMA, M)
    y = _set_spread(model.g_a, x, 0.0, sigma)
    z = _set_spread(model.h_a, tf.abs(y), None, np.ones(N))
    step = (np.log(SCALE_MAX) - np.log(SCALE_MIN)) / (SCALE_COUNT - 1)
    index = np.clip(np.log(sigma / SCALE_MIN) / step, 0, SCALE_COUNT - 1)
    _set_spread(model.h_s, tf.round(z), index, np.full(M, 2.0))
    # GDN as published; with these weights it gives nearly what the model's own form gives.
    parameters = replace(parameters_of(model, [images]), norm="square")
    path.write_bytes(build_metagraph(parameters).SerializeToString())
    return path


def _set_spread(transform: Any, x: Any, mean: Any, spread: NDArray[np.float64]) -> Any:
    """Give a transform's output channels a mean (None: as it comes) and a standard deviation."""
    last = transform.layers[-1]
    out = transform(x).numpy()
    gain = spread / (out.std((0, 1, 2)) + 1e-9)
    # Kernels end on the output channels, those of transposed convolutions too.
    kernel = next(v for v in last.trainable_variables if len(v.shape) == 4)
    kernel.assign(kernel * tf.constant(gain, tf.float32))
    if mean is not None:
        bias = next(v for v in last.trainable_variables if len(v.shape) == 1)
        bias.assign(mean - gain * (out.mean((0, 1, 2)) - bias))
    return transform(x)


def read_images(source: Path, count: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Read images as squares.

    Args:
        source: Folder of JPEG files, searched below.
        count: How many.
        side: Height and width, pixels.

    Returns:
        uint8 (count, side, side, 3).
    """
    return np.stack([np.asarray(image) for _, image in squares(source, count, side)])


def write_images(source: Path, folder: Path, count: int) -> Path:
    """Write images as square JPEG files, one folder a class, quality 90.

    Args:
        source: Folder of one folder a class.
        folder: Folder to make.
        count: How many files.

    Returns:
        ``folder``.
    """
    for number, (name, image) in enumerate(squares(source, count)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.save(folder / name / f"{number:06d}.jpg", quality=90)
    return folder


def squares(source: Path, count: int, side: int = SIDE) -> Iterator[tuple[str, Image.Image]]:
    """Cut and scale images to squares.

    Where there are fewer images than asked for they are mirrored and turned (eight ways), so
    that no file comes twice.

    Args:
        source: Folder of JPEG files, searched below.
        count: How many.
        side: Height and width, pixels.

    Yields:
        Name of the file's folder, and the image.
    """
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not files or count > 8 * len(files):
        raise SystemExit(f"{source} has {len(files)} images: {count} need {-(-count // 8)}")
    step = max(1, len(files) // count)
    turns = list(Image.Transpose)
    for number in range(count):
        turn, location = divmod(number * step, len(files))
        file = files[location]
        with Image.open(file) as image:
            cut = min(image.size)
            left, top = (image.width - cut) // 2, (image.height - cut) // 2
            square = image.convert("RGB").resize(
                (side, side), Image.Resampling.LANCZOS, (left, top, left + cut, top + cut)
            )
        yield file.parent.name, square.transpose(turns[turn - 1]) if turn else square


def main() -> None:
    """Write a codec of each quality."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of JPEG files")
    parser.add_argument("folder", type=Path, help="where to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    images = read_images(options.images, 32)
    for quality in FILTERS:
        path = options.folder / f"untrained-{quality}.metagraph"
        print(make_codec(path, images, quality), flush=True)


if __name__ == "__main__":
    main()
