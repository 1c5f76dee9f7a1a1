"""MINC-2500 as distributed: 23 materials, 2,500 patches each, five ways to split them.

::

    ROOT/categories.txt                              class names, one a line, in the order of labels
    ROOT/images/CLASS/CLASS_002089.jpg
    ROOT/labels/{train,validate,test}{1,…,5}.txt     lines like images/CLASS/CLASS_002089.jpg

Source: Bell et al., "Material Recognition in the Wild with the Materials in Context Database",
CVPR 2015; the layout is that of ``minc-2500.tar.gz``.
"""

from pathlib import Path

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.root import resolve_root
from latentset.datasets.sources.source import Source, make_source, samples_table
from latentset.datasets.sources.tree import Tree

SPLIT_FILES = {"train": "train", "val": "validate", "test": "test"}
"""What the files in ``labels`` are called, for each split."""


def is_minc2500(location: Path) -> bool:
    """Whether a folder is laid out as MINC-2500."""
    return (location / "categories.txt").is_file() and (location / "labels").is_dir()


def open_minc2500(location: Path, number: int = 1) -> Source:
    """List split ``number``, 1 to 5, of MINC-2500; ``location`` is ROOT in the module's drawing.

    Raises:
        SourceError: A file is missing (also an image that is listed: the collection is known
            whole, so that a gap is an unpacking gone wrong), a line is not understood, or an
            image is listed twice.
    """
    if not 1 <= number <= 5:
        raise SourceError(f"MINC-2500 has the splits 1 to 5, but {number} was asked for")
    root = resolve_root(location)
    classes = _read_categories(root)
    tree = Tree(root)
    present = {
        f"images/{category}/{name}"
        for category in classes
        if (root / "images" / category).is_dir()
        for name in tree.images(f"images/{category}")
    }
    listed_in: dict[str, str] = {}
    tables = []
    for split, stem in SPLIT_FILES.items():
        name = f"labels/{stem}{number}.txt"
        of_class: dict[str, list[str]] = {category: [] for category in classes}
        for line_number, path in _read_lines(root, name):
            folder, _, category = path.rpartition("/")[0].partition("/")
            if folder != "images" or category not in of_class:
                wrong = f"expected images/CLASS/FILE with a class of categories.txt, found {path!r}"
            elif path in listed_in:
                wrong = f"{path} is already listed in {listed_in[path]}; expected each image once"
            elif path not in present:
                wrong = (
                    f"{path} is listed, but no such image is there; unpack minc-2500.tar.gz again"
                )
            else:
                listed_in[path] = name
                of_class[category].append(path)
                continue
            raise SourceError(f"{root / name}, line {line_number}: {wrong}")
        tables += [
            samples_table(sorted(paths), label, split)
            for label, paths in enumerate(of_class.values())
        ]
    return make_source("minc2500", root, classes, pa.concat_tables(tables))


def _read_categories(root: Path) -> tuple[str, ...]:
    classes = tuple(name for _, name in _read_lines(root, "categories.txt"))
    for name in classes:
        if classes.count(name) > 1 or "/" in name or name.startswith("."):
            raise SourceError(f"{root / 'categories.txt'}: {name!r} twice, or no name of a class")
    return classes


def _read_lines(root: Path, name: str) -> list[tuple[int, str]]:
    """Read a text file's non-empty lines, with their numbers from 1."""
    try:
        text = (root / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceError(f"{root}: {name} is missing, which MINC-2500 has") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{root / name}: not a text file in UTF-8") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line]
