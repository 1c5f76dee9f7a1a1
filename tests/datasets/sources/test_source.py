"""What all sources share: the table, and paths that stay below the root."""

from pathlib import Path

import pyarrow as pa
import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import SOURCE_SCHEMA, resolve_inside
from latentset.datasets.sources.root import resolve_root
from latentset.datasets.sources.source import make_source, refuse_repetition, samples_table


def test_schema() -> None:
    assert SOURCE_SCHEMA.names == ["id", "path", "label", "split"]
    assert [str(kind) for kind in SOURCE_SCHEMA.types] == ["string", "string", "int32", "string"]


def test_rows_keep_their_order(tmp_path: Path) -> None:
    table = pa.concat_tables(
        [samples_table(["b.jpg", "a.jpg"], 1, "train"), samples_table(["c.jpg"], [-1], "")]
    )
    source = make_source("list", tmp_path, ("x", "y"), table)
    assert source.samples.schema == SOURCE_SCHEMA
    assert source.samples.to_pylist() == [
        {"id": "b.jpg", "path": "b.jpg", "label": 1, "split": "train"},
        {"id": "a.jpg", "path": "a.jpg", "label": 1, "split": "train"},
        {"id": "c.jpg", "path": "c.jpg", "label": -1, "split": ""},
    ]


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "a\u202eb", "é" * 600, "a\ud800"])
def test_a_name_that_no_store_may_have_is_refused(tmp_path: Path, name: str) -> None:
    table = samples_table(["a.jpg"], 0, "train")
    for root, classes in ((tmp_path, ("x", name)), (tmp_path / name, ("x",))):
        with pytest.raises(SourceError, match="rename it") as caught:
            make_source("list", root, classes, table)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["a\x1b[2J.jpg", "a\nb.jpg", "a\u202eb.jpg", "x" * 20_000])
def test_a_path_that_no_store_may_have_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError, match=r"file name .*: rename it"):
        make_source("list", tmp_path, ("x",), samples_table(["a.jpg", path], 0, "train"))


def test_one_path_twice_is_refused() -> None:
    paths = pa.chunked_array([["a.jpg", "b.jpg", "c.jpg"], ["b.jpg", "a.jpg", "b.jpg"]])
    with pytest.raises(SourceError, match=r"x: 2 paths .* more than once, the first is 'a.jpg'"):
        refuse_repetition(Path("x"), paths)
    refuse_repetition(Path("x"), paths.slice(1, 2))


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images there \(list layout\)"):
        make_source("list", tmp_path, (), samples_table([], 0, ""))


def test_root_is_a_folder_without_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    assert resolve_root(tmp_path / "link") == (tmp_path / "real").resolve()
    with pytest.raises(SourceError, match="expected a folder of images, found a file"):
        resolve_root(tmp_path / "file")
    with pytest.raises(SourceError, match="expected a folder of images, found nothing"):
        resolve_root(tmp_path / "absent")


def test_paths_resolve_inside(tmp_path: Path) -> None:
    root = (tmp_path / "root").resolve()
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "a.jpg").touch()
    (root / "alias").symlink_to("deep")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "b.jpg").touch()
    (root / "sibling").symlink_to("../root2")  # its name begins as the root's does
    (root / "secret.jpg").symlink_to("/etc/hostname")
    assert resolve_inside(root, "deep/a.jpg") == root / "deep" / "a.jpg"
    assert resolve_inside(root, "alias/a.jpg") == root / "deep" / "a.jpg"
    assert resolve_inside(root, "deep/absent.jpg") == root / "deep" / "absent.jpg"
    for path in ("sibling/b.jpg", "secret.jpg"):
        with pytest.raises(SourceError, match=f"'{path}' leads by a link out of"):
            resolve_inside(root, path)
    for path in ("/etc/hostname", "../root2/b.jpg", "deep/../../root2/b.jpg", "a\0b"):
        with pytest.raises(SourceError, match="is not below the source's root"):
            resolve_inside(root, path)
