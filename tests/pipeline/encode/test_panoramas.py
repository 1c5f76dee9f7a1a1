"""Very large images among small ones."""

import shutil
from pathlib import Path

from PIL import Image

from tests.makers.confined import confined
from tests.makers.decoding import store_thumbnails

PANORAMAS = 12


def test_memory_does_not_grow_with_the_number_of_panoramas(tmp_path: Path) -> None:
    """Each is 72 MB when it is decoded, all together 860 MB."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (20_000, 1200), (9, 99, 200)).save(images / "0.jpg")
    for k in range(1, PANORAMAS):
        shutil.copy(images / "0.jpg", images / f"{k}.jpg")
        Image.new("RGB", (40, 30)).save(images / f"small-{k}.png")
    stored = confined(store_thumbnails, images, tmp_path / "store", memory_bytes=500 << 20)
    assert stored == str(2 * PANORAMAS - 1)
