"""Rate and distortion of a codec on a folder of images, beside baseline JPEG's."""

import bisect
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.images import read_image
from latentset.datasets.sources.tree import list_images
from latentset.datasets.terminal import printable
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.codec.load.selfcheck import string_bits
from latentset.pipeline.codec.msssim import SMALLEST_SIDE
from latentset.pipeline.tensorflow_setup import tf

Pixels = NDArray[np.uint8]
"""An image, uint8 (H, W, 3)."""

_JPEG_QUALITIES = range(1, 101)
_COLUMNS = ("codec", "bpp", "MS-SSIM", "PSNR (dB)", "JPEG MS-SSIM", "JPEG PSNR (dB)")


class Figures(NamedTuple):
    """Rate and quality of an image, or their means over images."""

    rate_bpp: float
    ms_ssim: float
    psnr_db: float
    """Over all channels of RGB, peak 255."""


class CodecFigures(NamedTuple):
    """Means over images, of a codec and of JPEG at its rate."""

    codec: str
    mean: Figures
    jpeg: Figures


def compare(image: Pixels, reconstruction: Pixels, bits: int) -> Figures:
    """Measure a reconstruction and the bits that it was made of; sides of at least 161 pixels."""
    x, x_hat = tf.constant(image), tf.constant(reconstruction)
    return Figures(
        rate_bpp=bits / (image.shape[0] * image.shape[1]),
        ms_ssim=float(tf.image.ssim_multiscale(x, x_hat, 255)),
        psnr_db=float(tf.image.psnr(x, x_hat, 255)),
    )


def mean_figures(figures: Sequence[Figures]) -> Figures:
    """Return the mean of each figure."""
    return Figures(*np.mean(figures, axis=0).tolist())


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """Encode as baseline JPEG, quality 1 to 100, 4:2:0 chroma and optimized Huffman tables."""
    buffer = io.BytesIO()
    options = {"quality": quality, "subsampling": "4:2:0", "optimize": True}
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg_at_rate(images: Sequence[Pixels], rate_bpp: float) -> Figures:
    """Measure baseline JPEG (Pillow, 4:2:0) at a mean rate.

    It is interpolated between the means at the two neighbouring quality settings. Outside JPEG's
    range, its lowest or highest rate is taken.
    """

    def mean_rate(setting: int) -> float:
        rates = [8 * len(encode_jpeg(p, setting)) / (p.shape[0] * p.shape[1]) for p in images]
        return float(np.mean(rates))

    def measure(setting: int) -> NDArray[np.float64]:
        jpegs = [encode_jpeg(image, setting) for image in images]
        figures = [
            compare(image, np.asarray(Image.open(io.BytesIO(jpeg))), 8 * len(jpeg))
            for image, jpeg in zip(images, jpegs, strict=True)
        ]
        return np.array(mean_figures(figures))

    above = bisect.bisect_left(_JPEG_QUALITIES, rate_bpp, key=mean_rate)
    low = measure(_JPEG_QUALITIES[max(above - 1, 0)])
    high = measure(_JPEG_QUALITIES[min(above, len(_JPEG_QUALITIES) - 1)])
    step = high[0] - low[0]
    weight = np.clip((rate_bpp - low[0]) / step, 0, 1) if step > 0 else 0.0
    return Figures(*((1 - weight) * low + weight * high).tolist())


def read_images(folder: Path, console: Console) -> dict[str, Pixels]:
    """Read the images below a folder that are large enough for MS-SSIM, by their path below it.

    Those that are left out are printed with the reason.
    """
    images = {}
    for path in list_images(folder):
        name = str(path.relative_to(folder.resolve()))
        try:
            pixels = read_image(path)
            if min(pixels.shape[:2]) < SMALLEST_SIDE:
                size = "{}x{} pixels".format(*pixels.shape[:2])
                what = f"{size}: MS-SSIM needs sides of {SMALLEST_SIDE}"
                raise ImageError(what, "too_small")
        except ImageError as error:
            line = printable(f"left out: {name}: {error.status}: {error}")
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            images[name] = pixels
    if not images:
        raise SourceError(
            f"{folder}: none of its images can be measured (above); MS-SSIM needs sides of at "
            f"least {SMALLEST_SIDE} pixels"
        )
    return images


def evaluate_codec(
    metagraph: Path, images: Mapping[str, Pixels], *, console: Console
) -> CodecFigures:
    """Encode images to real bitstreams, decode them and measure the result."""
    codec = load_codec(str(metagraph))
    codec.check_decoding()
    pixels = list(images.values())
    figures = []
    for image in track(pixels, codec.info.name, console=console, disable=not console.is_terminal):
        channels = codec.sender(image)
        figures.append(compare(image, codec.receiver(channels), sum(string_bits(channels))))
    mean = mean_figures(figures)
    return CodecFigures(codec.info.name, mean, jpeg_at_rate(pixels, mean.rate_bpp))


def figures_table(evaluated: Sequence[CodecFigures]) -> Table:
    """Return the means of some codecs as a table for the console."""
    table = Table(title="Means over images; JPEG at the same mean rate")
    for i, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for figures in evaluated:
        table.add_row(*_row(figures))
    return table


def figures_markdown(evaluated: Sequence[CodecFigures]) -> str:
    """Return the means of some codecs as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
    lines += ["| " + " | ".join(_row(figures)) + " |" for figures in evaluated]
    return "\n".join(lines) + "\n"


def _row(figures: CodecFigures) -> tuple[str, ...]:
    codec, mean, jpeg = figures
    qualities = [text for f in (mean, jpeg) for text in (f"{f.ms_ssim:.4f}", f"{f.psnr_db:.2f}")]
    return (codec, f"{mean.rate_bpp:.4f}", *qualities)
