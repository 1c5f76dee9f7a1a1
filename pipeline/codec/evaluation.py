"""Rate and distortion of a codec on a folder of images, beside baseline JPEG's."""

import bisect
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from latentset.datasets.errors import SourceError
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.codec.load.selfcheck import string_bits
from latentset.pipeline.codec.msssim import SMALLEST_SIDE
from latentset.pipeline.codec.train.crops import list_images
from latentset.pipeline.tensorflow_setup import tf

Pixels = NDArray[np.uint8]
"""An image, uint8 (H, W, 3)."""

_JPEG_SUBSAMPLING_420 = 2
_JPEG_QUALITIES = range(1, 101)


@dataclass(frozen=True)
class Quality:
    """How close a reconstruction is to its image."""

    ms_ssim: float
    """0 to 1."""
    psnr_db: float
    """Over all channels of RGB, peak 255."""


@dataclass(frozen=True)
class ImageFigures:
    """Rate and quality of one image."""

    name: str
    rate_bpp: float
    """Bits of the strings of y and z, divided by the image's pixels."""
    quality: Quality


@dataclass(frozen=True)
class CodecFigures:
    """Rate and quality of a folder of images; means over images."""

    codec: str
    images: tuple[ImageFigures, ...]
    jpeg: Quality
    """Baseline JPEG (Pillow, 4:2:0) at ``rate_bpp``: means at the two neighbouring quality
    settings, interpolated linearly between their mean rates."""

    @property
    def rate_bpp(self) -> float:
        """Mean bits per pixel."""
        return statistics.fmean(p.rate_bpp for p in self.images)

    @property
    def quality(self) -> Quality:
        """Mean MS-SSIM and mean PSNR."""
        return mean_quality([p.quality for p in self.images])


def compare(image: Pixels, reconstruction: Pixels) -> Quality:
    """Measure a reconstruction, uint8 (H, W, 3) both, sides of at least 161 pixels."""
    x, x_hat = tf.constant(image), tf.constant(reconstruction)
    return Quality(
        ms_ssim=float(tf.image.ssim_multiscale(x, x_hat, 255)),
        psnr_db=float(tf.image.psnr(x, x_hat, 255)),
    )


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Return the means of MS-SSIM and of PSNR."""
    return Quality(
        ms_ssim=statistics.fmean(q.ms_ssim for q in qualities),
        psnr_db=statistics.fmean(q.psnr_db for q in qualities),
    )


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """Encode as baseline JPEG, quality 1 to 100, 4:2:0 chroma and optimized Huffman tables."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "JPEG", quality=quality, subsampling=_JPEG_SUBSAMPLING_420, optimize=True
    )
    return buffer.getvalue()


def jpeg_at_rate(images: Sequence[Pixels], rate_bpp: float) -> Quality:
    """Measure baseline JPEG at a mean rate; outside JPEG's range, its lowest or highest is taken.

    Returns:
        Mean MS-SSIM and PSNR at the neighbouring quality settings, interpolated in the rate.
    """

    def mean_rate(setting: int) -> float:
        return statistics.fmean(
            8 * len(encode_jpeg(p, setting)) / (p.shape[0] * p.shape[1]) for p in images
        )

    def measure(setting: int) -> Quality:
        decoded = (np.asarray(Image.open(io.BytesIO(encode_jpeg(p, setting)))) for p in images)
        return mean_quality([compare(p, d) for p, d in zip(images, decoded, strict=True)])

    above = bisect.bisect_left(_JPEG_QUALITIES, rate_bpp, key=mean_rate)
    high = _JPEG_QUALITIES[min(above, len(_JPEG_QUALITIES) - 1)]
    low = _JPEG_QUALITIES[max(above - 1, 0)]
    low_rate, high_rate = mean_rate(low), mean_rate(high)
    weight = 0.0
    if high_rate > low_rate:
        weight = min(1.0, max(0.0, (rate_bpp - low_rate) / (high_rate - low_rate)))
    at_low, at_high = measure(low), measure(high)
    return Quality(
        ms_ssim=(1 - weight) * at_low.ms_ssim + weight * at_high.ms_ssim,
        psnr_db=(1 - weight) * at_low.psnr_db + weight * at_high.psnr_db,
    )


def read_images(folder: Path) -> dict[str, Pixels]:
    """Read the images below a folder that are large enough for MS-SSIM, by their path below it.

    Raises:
        SourceError: None can be read, or all are too small.
    """
    images = {}
    for path in list_images(folder):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError):
            continue
        if min(pixels.shape[:2]) >= SMALLEST_SIDE:
            images[str(path.relative_to(folder))] = pixels
    if not images:
        raise SourceError(
            f"{folder}: expected images with sides of at least {SMALLEST_SIDE} "
            "pixels, which MS-SSIM needs; found none"
        )
    return images


def evaluate_codec(metagraph: Path, images: Path, *, console: Console) -> CodecFigures:
    """Encode the images below a folder into real strings, decode them and measure the result.

    Args:
        metagraph: A codec file with both signatures.
        images: Folder, searched recursively.
        console: Where a progress bar is shown, on a terminal.

    Raises:
        CodecError: The file cannot be used.
        SourceError: No image is large enough for MS-SSIM.
    """
    codec = load_codec(str(metagraph))
    codec.check_decoding()
    pixels = read_images(images)
    figures = []
    for name, image in track(
        pixels.items(), codec.info.name, console=console, disable=not console.is_terminal
    ):
        channels = codec.sender(image)
        reconstruction = codec.receiver(channels)
        rate_bpp = sum(string_bits(channels)) / (image.shape[0] * image.shape[1])
        figures.append(ImageFigures(name, rate_bpp, compare(image, reconstruction)))
    mean_bpp = statistics.fmean(f.rate_bpp for f in figures)
    jpeg = jpeg_at_rate(list(pixels.values()), mean_bpp)
    return CodecFigures(codec.info.name, tuple(figures), jpeg)


_COLUMNS = ("codec", "bpp", "MS-SSIM", "PSNR (dB)", "JPEG MS-SSIM", "JPEG PSNR (dB)")


def _row(figures: CodecFigures) -> tuple[str, ...]:
    return (
        figures.codec,
        f"{figures.rate_bpp:.4f}",
        f"{figures.quality.ms_ssim:.4f}",
        f"{figures.quality.psnr_db:.2f}",
        f"{figures.jpeg.ms_ssim:.4f}",
        f"{figures.jpeg.psnr_db:.2f}",
    )


def figures_table(evaluated: Sequence[CodecFigures]) -> Table:
    """Return the means of some codecs as a table for the console."""
    table = Table(title="Means over images; JPEG at the same mean rate")
    for i, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right")
    for figures in evaluated:
        table.add_row(*_row(figures))
    return table


def figures_markdown(evaluated: Sequence[CodecFigures]) -> str:
    """Return the means of some codecs as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
    lines += ["| " + " | ".join(_row(figures)) + " |" for figures in evaluated]
    return "\n".join(lines) + "\n"
