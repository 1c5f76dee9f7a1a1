"""Cuts the photographs that scikit-image ships into an ImageFolder: class = photograph.

    python recipes/demo/images.py FOLDER

Patches are disjoint squares of 64 pixels; those of FOLDER/train come from the upper part of each
photograph, those of FOLDER/test from the lower, so no pixel is seen in both.
"""

import sys
from pathlib import Path

import skimage.data
from PIL import Image

PHOTOGRAPHS = (
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
TRAIN_SHARE = 0.6
MOST = {"train": 48, "test": 24}
"""At most this many patches a class, spread evenly: the classes stay of like size."""


def cut(photograph: Path, folder: Path) -> dict[str, int]:
    """Cut one photograph into FOLDER/{train,test}/CLASS/NN.png.

    Args:
        photograph: The picture's file.
        folder: The root of the ImageFolder.

    Returns:
        Patches written, by split.
    """
    picture = Image.open(photograph).convert("RGB")
    columns, rows = picture.width // PATCH, picture.height // PATCH
    boundary = max(1, min(rows - 1, round(TRAIN_SHARE * rows)))
    written = {}
    for split, first, end in (("train", 0, boundary), ("test", boundary, rows)):
        corners = [(c * PATCH, r * PATCH) for r in range(first, end) for c in range(columns)]
        kept = min(MOST[split], len(corners))
        target = folder / split / photograph.stem
        target.mkdir(parents=True, exist_ok=True)
        for number in range(kept):
            left, top = corners[number * len(corners) // kept]
            patch = picture.crop((left, top, left + PATCH, top + PATCH))
            patch.save(target / f"{number:02d}.png")
        written[split] = kept
    return written


def main(folder: Path) -> None:
    """Cut every photograph and print how many patches came out."""
    shipped = Path(skimage.data.__file__).parent
    counts = [cut(shipped / name, folder) for name in PHOTOGRAPHS]
    train, test = (sum(count[split] for count in counts) for split in ("train", "test"))
    print(f"{len(counts)} photographs -> {train} train and {test} test patches in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
