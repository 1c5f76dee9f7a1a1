"""Cuts the images that scikit-image ships into patches, an ImageFolder: class = image.

    python recipes/demo/images.py FOLDER

Patches are disjoint squares of 64 pixels; those of FOLDER/train come from the upper part of each
image, those of FOLDER/test from the lower, so no pixel is seen in both.
"""

import sys
from pathlib import Path

import skimage.data
from PIL import Image

IMAGES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
PATCH = 64
TRAIN_FRACTION = 0.6
MOST = {"train": 48, "test": 24}
"""Patches a class at most, spread evenly: the classes stay of like size."""


def cut(file: Path, folder: Path) -> dict[str, int]:
    """Cut one image into FOLDER/{train,test}/CLASS/NN.png; return the patches written by split."""
    picture = Image.open(file).convert("RGB")
    columns, rows = picture.width // PATCH, picture.height // PATCH
    boundary = max(1, min(rows - 1, round(TRAIN_FRACTION * rows)))
    written = {}
    for split, first, end in (("train", 0, boundary), ("test", boundary, rows)):
        corners = [(c * PATCH, r * PATCH) for r in range(first, end) for c in range(columns)]
        kept = min(MOST[split], len(corners))
        target = folder / split / file.stem
        target.mkdir(parents=True, exist_ok=True)
        for number in range(kept):
            left, top = corners[number * len(corners) // kept]
            patch = picture.crop((left, top, left + PATCH, top + PATCH))
            patch.save(target / f"{number:02d}.png")
        written[split] = kept
    return written


def main(folder: Path) -> None:
    """Cut every image and print the number of patches."""
    shipped = Path(skimage.data.__file__).parent
    counts = [cut(shipped / name, folder) for name in IMAGES]
    train, test = (sum(count[split] for count in counts) for split in ("train", "test"))
    print(f"{len(counts)} images -> {train} train and {test} test patches in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
