"""Folders and lists as people have them: what is listed, and what is refused with which words."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import Source, open_source


class Listed(NamedTuple):
    """What is expected: label by path, and, if it matters, more."""

    labels: dict[str, int]
    classes: tuple[str, ...] = ("cat", "dog")
    excluded: dict[str, int] | None = None
    splits: tuple[str, ...] | None = None


def listed(source: Source) -> dict[str, int]:
    samples = source.samples.to_pydict()
    return dict(zip(samples["path"], samples["label"], strict=True))


TWO = {"cat/1.jpg": 0, "dog/1.jpg": 1}

FOLDERS: dict[str, tuple[list[str], Listed | str]] = {
    "checkpoints of notebooks": (
        [*TWO, ".ipynb_checkpoints/1-checkpoint.jpg", "cat/.ipynb_checkpoints/1-checkpoint.jpg"],
        Listed(TWO, excluded={"hidden names": 2}),
    ),
    "what systems leave": (
        [*TWO, ".DS_Store", "cat/._1.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/cat/._1.jpg"],
        Listed(
            TWO,
            excluded={
                "hidden names": 2,
                ".db files": 1,
                ".ini files": 1,
                "folder __MACOSX": 1,
            },
        ),
    ),
    "hidden class": ([*TWO, ".bird/1.jpg"], Listed(TWO, excluded={"hidden names": 1})),
    "empty class": ([*TWO, "bird/"], "no image in the class folders bird"),
    "class of other files": ([*TWO, "notes/a.txt"], "no image in the class folders notes"),
    "folders in classes": (
        ["cat/a/1.jpg", "cat/b/c/2.jpg", "dog/1.jpg"],
        Listed({"cat/a/1.jpg": 0, "cat/b/c/2.jpg": 0, "dog/1.jpg": 1}),
    ),
    "endings": (
        ["cat/1.JPG", "cat/2.JpEg", "dog/1.PNG", "dog/2.jfif", "dog/3.heic", "dog/4.jpg.txt"],
        Listed(
            {"cat/1.JPG": 0, "cat/2.JpEg": 0, "dog/1.PNG": 1},
            excluded={".jfif files": 1, ".heic files": 1, ".txt files": 1},
        ),
    ),
    "names": (
        ["cat/a b.jpg", "cat/#1%20?.jpg", "dog/[b]x[/b].jpg", "dog/-x.jpg"],
        Listed(
            {
                "cat/#1%20?.jpg": 0,
                "cat/a b.jpg": 0,
                "dog/-x.jpg": 1,
                "dog/[b]x[/b].jpg": 1,
            }
        ),
    ),
    "a name of two lines": ([*TWO, "dog/a\nb.jpg"], "expected no control characters"),
    "class names": (
        ["a #%?/1.jpg", "[red]b/1.jpg"],
        Listed({"[red]b/1.jpg": 0, "a #%?/1.jpg": 1}, ("[red]b", "a #%?")),
    ),
    "file names in two Unicode forms": (
        ["cat/caf\u00e9.jpg", "cat/cafe\u0301.jpg", "dog/1.jpg"],
        Listed({"cat/cafe\u0301.jpg": 0, "cat/caf\u00e9.jpg": 0, "dog/1.jpg": 1}),
    ),
    "one class in two Unicode forms": (
        ["caf\u00e9/1.jpg", "cafe\u0301/1.jpg"],
        "differ in case, Unicode form, blanks or invisible characters only",
    ),
    "loose images": (
        [*TWO, "loose.jpg"],
        Listed(TWO, excluded={"images outside of class folders": 1}),
    ),
    "loose images beside splits": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/dog/1.jpg", "loose.jpg", "val/loose.jpg"],
        Listed(
            {"train/cat/1.jpg": 0, "train/dog/1.jpg": 1, "val/dog/1.jpg": 1},
            excluded={"images outside of class folders": 2},
        ),
    ),
    "a class that val lacks": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/dog/1.jpg"],
        Listed({"train/cat/1.jpg": 0, "train/dog/1.jpg": 1, "val/dog/1.jpg": 1}),
    ),
    "a class that train lacks": (
        ["train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"],
        Listed({"train/dog/1.jpg": 1, "val/cat/1.jpg": 0, "val/dog/1.jpg": 1}),
    ),
    "a test split without labels": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"],
        Listed(
            {"train/cat/1.jpg": 0, "train/dog/1.jpg": 1, "test/1.jpg": -1},
            splits=("train", "train", "test"),
        ),
    ),
}


def expect(location: Path, expected: Listed | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(SourceError, match=expected):
            open_source(location)
        return
    source = open_source(location)
    assert list(listed(source).items()) == list(expected.labels.items())
    assert source.classes == expected.classes
    if expected.excluded is not None:
        assert dict(source.excluded) == expected.excluded
    if expected.splits is not None:
        assert tuple(source.samples["split"].to_pylist()) == expected.splits


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path: Path, name: str) -> None:
    paths, expected = FOLDERS[name]
    for path in paths:
        folder, _, file = path.rpartition("/")
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if file:
            (tmp_path / path).touch()
    expect(tmp_path, expected)


def test_a_class_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").touch()
    (tmp_path / "dog").symlink_to("cat")
    (tmp_path / "cat/2.jpg").symlink_to("gone.jpg")  # its status will be "missing"
    expect(
        tmp_path,
        Listed({"cat/1.jpg": 0, "cat/2.jpg": 0, "dog/1.jpg": 1, "dog/2.jpg": 1}),
    )


def test_broken_links(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").touch()
    (tmp_path / "cat/gone.jpg").symlink_to("2.jpg")  # its status will be "missing"
    for name in ("dog", "bird.v2", "cat/deep", ".hidden"):
        (tmp_path / name).symlink_to("gone")
    expect(
        tmp_path,
        Listed(
            {"cat/1.jpg": 0, "cat/gone.jpg": 0},
            ("cat",),
            excluded={"broken links": 3, "hidden names": 1},
        ),
    )


@pytest.mark.parametrize("target", ["dog", "cat/dog"])
def test_links_in_a_circle(tmp_path: Path, target: str) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").touch()
    (tmp_path / "cat/dog").symlink_to("../dog")
    (tmp_path / "dog").symlink_to(target)
    expect(tmp_path, r"the link '(cat/)?dog' cannot be followed \(Too many levels .*: repair or")


def test_a_hidden_link_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / ".x").symlink_to(".x")
    expect(tmp_path, Listed({"1.jpg": -1}, (), excluded={"hidden names": 1}))


@pytest.mark.parametrize("name", [b"cat/\xff.jpg", b"c\xff/1.jpg"])
def test_names_that_are_no_utf_8(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir()
    path.touch()
    expect(tmp_path, r"file name '.*\\udcff.*' is not UTF-8: rename it")


AB = Listed({"a.jpg": 0, "b.jpg": 1})
COLUMNS = "expected path, label and, if wanted, split"

LISTS: dict[str, tuple[bytes, Listed | str]] = {
    "of Excel: a mark and CRLF": (b"\xef\xbb\xbfpath,label\r\na.jpg,cat\r\nb.jpg,dog\r\n", AB),
    "quotes": (
        b'"path","label"\n"a,1.jpg","cat"\nb.jpg,"do""g"\n',
        Listed({"a,1.jpg": 0, "b.jpg": 1}, ("cat", 'do"g')),
    ),
    "blank lines, no end of line": (b"path,label\na.jpg,cat\n\nb.jpg,dog", AB),
    "columns in another order": (b"label,path\ncat,a.jpg\ndog,b.jpg\n", AB),
    "tabs": (b"path\tlabel\na.jpg\tcat\n", r"columns are 'path\\tlabel'; .*separate them by com"),
    "semicolons": (b"path;label\na.jpg;cat\n", "columns are 'path;label'; .*separate them by com"),
    "blanks in the header": (
        b"path, label\na.jpg,cat\n",
        f"'path', ' label'; {COLUMNS}, each once: rename ' label' to 'label'$",
    ),
    "capitals in the header": (
        b"Path,LABEL,split\na.jpg,cat,\n",
        f"{COLUMNS}, each once: rename 'Path' to 'path', rename 'LABEL' to 'label'$",
    ),
    "paths alone": (b"path\na.jpg\n", f"{COLUMNS}, each once: add label, or rename columns so; a"),
    "capitals alone": (b"Path\na.jpg\n", "each once: rename 'Path' to 'path', add label, or ren"),
    "other words in the header": (b"file,class\na.jpg,cat\n", "each once: add path and label, or"),
    "no header": (b"a.jpg,cat\nb.jpg,dog\n", f"'a.jpg', 'cat'; {COLUMNS}"),
    "a column too few": (b"path,label\na.jpg,cat\nb.jpg\n", "Expected 2 columns, got 1: b.jpg"),
    "nothing": (b"", "Empty CSV file"),
    "no rows": (b"path,label\n", "no images there"),
    "UTF-16": ("path,label\na.jpg,cat\n".encode("utf-16"), "which is UTF-8 with commas"),
    "Latin-1": (b"path,label\nc\xe9.jpg,cat\n", "which is UTF-8 with commas"),
    "one path twice": (b"path,label\na.jpg,cat\na.jpg,dog\n", "'a.jpg'; each sample needs a path"),
    "absolute paths": (b"path,label\n/data/a.jpg,cat\n", "row 1: found '/data/a.jpg'"),
    "paths of Windows": (b"path,label\ncat\\a.jpg,cat\n", "a path must be relative"),
    "a new line in a path": (b'path,label\n"a\nb.jpg",cat\n', "a path must be relative"),
    "numbers with gaps": (
        b"path,label\na.jpg,0\nb.jpg,3\n",
        Listed({"a.jpg": 0, "b.jpg": 3}, ("0", "1", "2", "3")),
    ),
    "numbers from 1": (
        b"path,label\na.jpg,1\nb.jpg,2\n",
        Listed({"a.jpg": 1, "b.jpg": 2}, ("0", "1", "2")),
    ),
    "a test split without labels": (
        b"path,label,split\na.jpg,cat,train\nb.jpg,dog,train\nc.jpg,,test\n",
        Listed({"a.jpg": 0, "b.jpg": 1, "c.jpg": -1}, splits=("train", "train", "test")),
    ),
    "a class that val lacks": (
        b"path,label,split\na.jpg,cat,train\nb.jpg,dog,train\nc.jpg,dog,val\n",
        Listed({"a.jpg": 0, "b.jpg": 1, "c.jpg": 1}),
    ),
    "a blank after a label": (
        b"path,label\na.jpg,cat \nb.jpg,cat\n",
        "the classes 'cat' and 'cat ' differ in case, Unicode form, blanks or invisible",
    ),
    "a control character in a class": (
        b"path,label\na.jpg,cat\nb.jpg,do\x1bg\n",
        r"list\.csv': name of class: expected no control characters, got 'do\\x1bg'",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path: Path, name: str) -> None:
    text, expected = LISTS[name]
    (tmp_path / "list.csv").write_bytes(text)
    expect(tmp_path / "list.csv", expected)
