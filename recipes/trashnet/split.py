"""Writes split.csv: a fixed, stratified split of TrashNet's 2,527 images.

    python recipes/trashnet/split.py FOLDER_OF_TRASHNET > recipes/trashnet/split.csv

Of each class 70 % train, 13 % val, 17 % test, as the data set's authors divide it; drawn with a
fixed seed from the sorted names, so that the same images give the same file.
"""

import csv
import random
import sys
from pathlib import Path


def main(root: Path) -> None:
    """Write rows `path,label,split` of ROOT/CLASS/NAME.jpg to standard output, sorted by path."""
    rows = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        names = sorted(p.name for p in folder.glob("*.jpg"))
        random.Random(f"trashnet/{folder.name}").shuffle(names)
        train, val = round(0.70 * len(names)), round(0.83 * len(names))
        for i, name in enumerate(names):
            split = "train" if i < train else "val" if i < val else "test"
            rows.append((f"{folder.name}/{name}", folder.name, split))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    writer.writerows(sorted(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
