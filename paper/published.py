"""The paper's own numbers, Tables 1 to 3; Figures 6 and 7 have none but Table 1's.

All accuracies are top-1 on the test split of MINC-2500, percent. A codec is named as recipes name
it: ``msssim-4`` is the paper's HyperMS-SSIM-4.
"""

from dataclasses import dataclass

DATA_SET = "minc2500"
"""The data set of all these numbers, as recipes name it."""

CODECS = ("msssim-1", "msssim-4", "msssim-8")
"""Columns of :data:`TABLE1` and :data:`TABLE3`."""

BPP = {"msssim-1": 0.0888, "msssim-4": 0.309, "msssim-8": 1.366}
"""Mean bits per pixel of the test images, by codec (Table 1)."""

ORIGINAL_BPP = 2.604
"""Mean bits per pixel of the test images' own JPEG files (Table 1)."""

ANCHOR1 = 75.7
"""Anchor 1: trained and tested on the originals (Table 1)."""

TABLE1 = {
    "anchor2": (71.8, 75.3, 75.9),
    "cresnet": (70.3, 72.9, 74.4),
    "fa-cresnet": (73.2, 76.5, 77.9),
}
"""Top-1 by setting, one a codec of :data:`CODECS` (Table 1)."""


@dataclass(frozen=True)
class PublishedCost:
    """A row of Table 2: what classifying one image takes."""

    inference_ms: float
    pass_mb: float
    """Features of a forward and backward pass, MB."""
    parameters_m: float
    mult_adds_g: float
    """Multiplications, each with an addition (the paper's FLOPs)."""


TABLE2 = {
    ("anchor2", "msssim-1"): PublishedCost(2.2, 177.8, 23.6, 4.1),
    ("fa-cresnet", "msssim-1"): PublishedCost(1.8, 107.8, 38.9, 4.5),
    ("anchor2", "msssim-4"): PublishedCost(2.2, 177.8, 23.6, 4.1),
    ("fa-cresnet", "msssim-4"): PublishedCost(1.8, 110.6, 42.0, 4.9),
    ("anchor2", "msssim-8"): PublishedCost(2.3, 177.8, 23.6, 4.1),
    ("fa-cresnet", "msssim-8"): PublishedCost(2.4, 110.6, 42.1, 4.9),
}
"""Costs by setting and codec (Table 2)."""

CODEC_MS = {"msssim-1": (478, 296), "msssim-4": (484, 289), "msssim-8": (600, 355)}
"""Time to encode and to decode one image, ms, by codec (Table 2)."""

TABLE3_DEFAULT = (73.1, 76.5, 77.9)
"""FA-cResNet as it is, wherever it stands in Table 3. At quality 1 it is 0.1 below Table 1's."""

TABLE3 = {
    "input-y": (72.4, 75.5, 76.7),
    "fa-effect-resnet": (73.0, 75.7, 75.4),
    "fa-module-cau": (71.8, 74.5, 76.0),
    "fa-module-feu": (72.9, 75.9, 76.7),
    "fa-position-post": (71.7, 75.5, 76.7),
    "cau-pooling-max": (72.9, 75.8, 77.0),
    "cau-pooling-avg": (72.7, 76.1, 77.4),
    "cau-pooling-max-avg": (72.6, 76.1, 77.3),
    "cau-pooling-1att": (72.8, 75.5, 77.5),
    "cau-position-skip": (73.6, 76.0, 77.4),
    "cau-position-inner": (71.8, 74.9, 75.9),
    "cau-position-post": (72.2, 75.0, 76.3),
    "cau-module-scale": (73.1, 75.4, 77.3),
    "cau-module-bias": (72.5, 74.9, 76.5),
    "cau-bottleneck-1fc": (72.1, 74.5, 73.0),
    "cau-bottleneck-r1": (68.5, 74.8, 76.3),
    "cau-bottleneck-r2": (72.0, 75.7, 76.8),
    "cau-bottleneck-r4": (72.8, 74.7, 76.8),
    "cau-bottleneck-r8": (73.1, 76.1, 76.2),
    "cau-bottleneck-r32": (72.5, 76.5, 77.3),
    "cau-bottleneck-r64": (73.0, 75.4, 77.3),
    "feu-depth-2-2-2": (72.8, 75.3, 77.1),
    "feu-depth-1-2-3": (72.3, 75.8, 77.4),
    "feu-depth-3-3-3": (72.8, 75.4, 77.1),
    "feu-depth-2-3-4": (73.1, 75.6, 77.6),
    "feu-depth-4-4-4": (72.6, 76.3, 77.0),
    "feu-depth-3-4-5": (72.6, 76.5, 77.9),
    "feu-depth-5-5-5": (72.5, 75.8, 76.6),
    "feu-depth-4-5-6": (73.0, 76.1, 77.0),
}
"""Top-1 by setting (``table3_settings.SETTINGS``), one a codec of :data:`CODECS` (Table 3)."""


def top1(setting: str, codec: str) -> float | None:
    """The paper's top-1 of a run, percent; None where it gives no number.

    ``setting`` is ``anchor1``, whose codec is empty, or a key of :data:`TABLE1` or :data:`TABLE3`.
    """
    if setting == "anchor1":
        return ANCHOR1
    return _of_codec(TABLE1.get(setting) or TABLE3.get(setting), codec)


def table3_top1(setting: str, codec: str, *, default: bool) -> float | None:
    """Table 3's top-1 of a setting, which may be FA-cResNet as it is."""
    return _of_codec(TABLE3_DEFAULT if default else TABLE3.get(setting), codec)


def _of_codec(row: tuple[float, ...] | None, codec: str) -> float | None:
    return row[CODECS.index(codec)] if row and codec in CODECS else None
