"""Rates and distortions, on images whose figures are known; and the codecs that ship."""

import io
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from latentset.datasets.errors import SourceError
from latentset.pipeline.codec import evaluation
from latentset.pipeline.codec.evaluation import (
    CodecFigures,
    Figures,
    compare,
    encode_jpeg,
    figures_markdown,
    jpeg_at_rate,
    read_images,
)
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.codec.load.selfcheck import string_bits
from tests.makers.odd_images import write_odd_images

REPOSITORY = Path(__file__).parents[3]
SHIPPED = REPOSITORY / "pipeline" / "codec" / "weights"
LEVELS = (1, 4, 8)


def smooth(seed: int = 0, side: int = 192) -> evaluation.Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def test_psnr_is_of_the_squared_error_of_all_channels() -> None:
    image = np.full((176, 176, 3), 100, np.uint8)
    quality = compare(image, image + np.array([0, 0, 6], np.uint8), 0)
    assert quality.psnr_db == pytest.approx(10 * math.log10(255**2 / 12), abs=1e-3)  # 36 / 3
    assert compare(image, image, 0).ms_ssim == pytest.approx(1)


def test_string_bits_count_strings_only() -> None:
    channels = [np.array([b"12345"], object), np.array([b"1", b"22"], object), np.array([512, 768])]
    assert string_bits(channels) == [8 * 5, 8 * (1 + 2)]


def test_jpeg_is_baseline_with_halved_chroma() -> None:
    data = encode_jpeg(smooth(), 50)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert "progressive" not in image.info
        assert image.layer[0][1:3] == (2, 2)  # type: ignore[attr-defined]
        assert image.layer[1][1:3] == (1, 1)  # type: ignore[attr-defined]


def test_jpeg_is_interpolated_between_neighbouring_settings() -> None:
    images = [smooth(0), smooth(1)]
    rates, qualities = {}, {}
    for setting in (60, 61):
        jpegs = [encode_jpeg(p, setting) for p in images]
        rates[setting] = statistics.fmean(8 * len(j) / 192**2 for j in jpegs)
        decoded = [np.asarray(Image.open(io.BytesIO(j))) for j in jpegs]
        pairs = [compare(p, d, 0) for p, d in zip(images, decoded, strict=True)]
        qualities[setting] = evaluation.mean_figures(pairs)
    assert rates[60] < rates[61]
    quarter = 0.75 * rates[60] + 0.25 * rates[61]
    found = jpeg_at_rate(images, quarter)
    expected = 0.75 * qualities[60].psnr_db + 0.25 * qualities[61].psnr_db
    assert found.psnr_db == pytest.approx(expected, abs=1e-6)
    assert found.rate_bpp == pytest.approx(quarter)


@pytest.mark.parametrize(("rate_bpp", "setting"), [(1e-6, 1), (1e6, 100)])
def test_jpeg_at_a_rate_out_of_range_is_the_nearest(rate_bpp: float, setting: int) -> None:
    image = smooth()
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(image, setting))))
    found = jpeg_at_rate([image], rate_bpp)
    assert found.psnr_db == pytest.approx(compare(image, decoded, 0).psnr_db)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    statuses = write_odd_images(tmp_path / "below" / "images", side=161)
    Image.fromarray(smooth(side=160)).save(tmp_path / "below" / "images" / "small.png")
    text = io.StringIO()
    found = read_images(tmp_path / "below", Console(file=text))
    assert list(found) == ["images/good.png"]
    lines = [line.partition(": ")[2] for line in text.getvalue().splitlines()]
    for name, status in {**statuses, "small.png": "too_small"}.items():
        assert sum(line.startswith(f"images/{name}: {status}: ") for line in lines) == 1, name
    assert len(lines) == len(statuses) + 1


def test_without_an_image_that_can_be_measured(tmp_path: Path) -> None:
    Image.fromarray(smooth(side=160)).save(tmp_path / "small.png")
    with pytest.raises(SourceError, match="at least 161 pixels"):
        read_images(tmp_path, Console(quiet=True))


def test_markdown_has_the_means() -> None:
    mean = evaluation.mean_figures([Figures(0.25, 0.9, 30), Figures(0.75, 0.8, 20)])
    table = figures_markdown([CodecFigures("codec", mean, Figures(0.5, 0.7, 22))])
    assert table.splitlines()[2] == "| codec | 0.5000 | 0.8500 | 25.00 | 0.7000 | 22.00 |"


@pytest.mark.parametrize("level", LEVELS)
def test_shipped_codec_round_trips_kodak_at_the_documented_rate(
    level: int, real_images: Path
) -> None:
    path = SHIPPED / f"demo-hyperprior-msssim-{level}.metagraph"
    assert path.stat().st_size <= 4_000_000
    codec = load_codec(str(path))
    rates = []
    for file in sorted((real_images / "kodak").glob("*.png")):
        image = np.asarray(Image.open(file).convert("RGB"))
        channels = codec.sender(image)
        reconstruction = codec.receiver(channels)
        assert reconstruction.shape == image.shape
        error = np.abs(reconstruction.astype(int) - image).mean()
        assert error < 30
        rates.append(sum(string_bits(channels)) / math.prod(image.shape[:2]))
    assert len(rates) == 24
    # Other processors may round a few symbols otherwise; the table has four decimals.
    assert statistics.fmean(rates) == pytest.approx(documented(level)["bpp"], rel=0.002)


@pytest.mark.parametrize("level", LEVELS)
def test_documented_ms_ssim_is_above_jpegs_at_the_same_rate(level: int) -> None:
    row = documented(level)
    assert row["MS-SSIM"] > row["JPEG MS-SSIM"]


@pytest.mark.parametrize("level", LEVELS)
def test_documented_ms_ssim_is_measured(level: int, real_images: Path) -> None:
    """On one image, of which the documentation has the figures too."""
    path = SHIPPED / f"demo-hyperprior-msssim-{level}.metagraph"
    codec = load_codec(str(path))
    image = np.asarray(Image.open(real_images / "kodak" / "23.png").convert("RGB"))
    quality = compare(image, codec.receiver(codec.sender(image)), 0)
    expected = documented_rows("Kodak, each image")["23"]
    assert quality.ms_ssim == pytest.approx(expected[f"-{level}: MS-SSIM"], abs=5e-4)


def documented(level: int) -> dict[str, float]:
    """Read a codec's row of the table of means in docs/demo-codecs.md."""
    return documented_rows("Kodak, means")[f"demo-hyperprior-msssim-{level}"]


def documented_rows(section: str) -> dict[str, dict[str, float]]:
    """Read the first table below a heading: cells by row and column."""
    text = (REPOSITORY / "docs" / "demo-codecs.md").read_text()
    _, _, rest = text.partition(f"## {section}\n")
    table = rest[rest.index("|") :].partition("\n\n")[0].splitlines()
    head, _, *rows = [re.split(r" *\| *", line.strip("| ")) for line in table]
    return {
        name: {key: float(cell) for key, cell in zip(head[1:], cells, strict=True)}
        for name, *cells in rows
    }
