"""The resize rule: torchvision's Resize on Pillow images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.resize import ResizeRule


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("none", "none"),
        ("short:256", "short:256"),
        ("exact:362", "exact:362"),
        ("exact:362x362", "exact:362"),
        ("exact:256x512", "exact:256x512"),
    ],
)
def test_text_round_trips(text: str, written: str) -> None:
    rule = ResizeRule.parse(text)
    assert str(rule) == written
    assert ResizeRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["", "256", "short", "short:", "short:256x256", "exact:x9", "exact:64x", "short:-64", "None",
     "short:6e2", "none ", "short:1234567", "short:२५६"],
)  # fmt: skip
def test_unknown_text(text: str) -> None:
    with pytest.raises(SourceError, match="expected none, short:N, exact:HxW or exact:N"):
        ResizeRule.parse(text)


@pytest.mark.parametrize("text", ["short:15", "exact:0", "exact:256x8", "short:32769"])
def test_side_out_of_range(text: str) -> None:
    with pytest.raises(SourceError, match="a side must be between 16 and 32768 pixels"):
        ResizeRule.parse(text)


def test_fields_that_do_not_belong_together() -> None:
    for fields in (
        {"kind": "none", "height": 64},
        {"kind": "short"},
        {"kind": "short", "width": 64},
        {"kind": "exact", "height": 64},
        {"kind": "none", "colour": "grey"},
    ):
        with pytest.raises(ValidationError):
            ResizeRule.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("none", (375, 500), (375, 500)),
        ("short:256", (375, 500), (256, 341)),  # 341.33
        ("short:256", (500, 375), (341, 256)),
        ("short:256", (333, 500), (256, 384)),  # 384.38
        ("short:256", (100, 199), (256, 509)),  # 509.44, also enlarged
        ("short:256", (200, 399), (256, 510)),  # 510.72, rounded down
        ("short:64", (50, 50), (64, 64)),
        ("exact:362", (375, 500), (362, 362)),
        ("exact:64x128", (375, 500), (64, 128)),
    ],
)
def test_size(text: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    assert ResizeRule.parse(text).size(*before) == after


def test_size_of_a_thread_is_refused() -> None:
    rule = ResizeRule.parse("short:256")
    with pytest.raises(ImageError, match="16x200000 pixels become 256x3200000") as caught:
        rule.size(16, 200_000)
    assert caught.value.status == "too_large"


def test_same_size_is_left_alone() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    for text in ("none", "short:64", "exact:64x128"):
        assert ResizeRule.parse(text).apply(image) is image


def test_halving_a_ramp() -> None:
    # The filter is symmetric, so that a ramp keeps its value at a pixel's centre: output x lies at
    # input 2x + 1/2. Antialiased, it averages stripes; two neighbours or one would alias.
    row = (4 * np.arange(64)).astype(np.uint8)
    ramp = np.broadcast_to(row[None, :, None], (64, 64, 3))
    halved = ResizeRule.parse("exact:32").apply(ramp)
    assert halved.shape == (32, 32, 3)
    assert (halved[:, 1:-1] == (8 * np.arange(32) + 2)[None, 1:-1, None]).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (ResizeRule.parse("exact:32").apply(stripes)[:, 1:-1] == 100).all()


@pytest.mark.parametrize("text", ["short:48", "short:256", "exact:362", "exact:48x200"])
@pytest.mark.parametrize("shape", [(64, 101), (101, 64), (77, 77)])
def test_equal_to_torchvision(text: str, shape: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="train environment only")
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    sides = [int(side) for side in text.partition(":")[2].split("x")]
    size = sides[0] if text.startswith("short") else (sides[0], sides[-1])
    expected = np.asarray(transforms.Resize(size)(Image.fromarray(image)))
    rule = ResizeRule.parse(text)
    np.testing.assert_array_equal(rule.apply(image), expected)
    assert rule.size(*shape) == expected.shape[:2]


def test_sizes_equal_to_torchvision_on_images(real_images: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="train environment only")
    rule = ResizeRule.parse("short:256")
    for path in sorted((real_images / "imagenet-sample").rglob("*.JPEG"))[:20]:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        expected = np.asarray(transforms.Resize(256)(rgb))
        np.testing.assert_array_equal(rule.apply(np.asarray(rgb)), expected)
