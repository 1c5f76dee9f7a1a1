"""Lists of images in CSV and Parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from latentset.cli.job_output import show_source
from latentset.datasets.errors import SourceError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.listing import check_root, open_list
from tests.makers.plant import Plant


def rows(source: Source) -> list[tuple[str, int, str]]:
    assert source.samples["id"] == source.samples["path"]
    return [(row["path"], row["label"], row["split"]) for row in source.samples.to_pylist()]


def write(folder: Path, text: str) -> Path:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return folder / "list.csv"


def test_names_and_splits_in_csv(tmp_path: Path) -> None:
    source = open_source(
        write(
            tmp_path,
            "split,path,label\n"
            "test,b/2.jpg,wood\n"
            "train,./a/1.jpg,fabric\n"
            "train,a/0.jpg,wood\n"
            'validation,"c, d/3 ü.jpg",\n'
            ",4.jpg,wood\n",
        )
    )
    assert source.kind == "list"
    assert source.root == tmp_path.resolve()
    assert source.classes == ("fabric", "wood")
    assert rows(source) == [
        ("b/2.jpg", 1, "test"),
        ("a/1.jpg", 0, "train"),
        ("a/0.jpg", 1, "train"),
        ("c, d/3 ü.jpg", -1, "val"),
        ("4.jpg", 1, ""),
    ]


def test_numbers_stay_what_they_are(tmp_path: Path) -> None:
    source = open_list(write(tmp_path, "path,label\n007,2\nnan,0\n1e3,-1\nx,\ny,10\n"))
    assert source.classes == tuple(str(label) for label in range(11))
    assert rows(source) == [
        ("007", 2, ""),
        ("nan", 0, ""),
        ("1e3", -1, ""),
        ("x", -1, ""),
        ("y", 10, ""),
    ]


def test_names_with_leading_zeros_are_names(tmp_path: Path) -> None:
    source = open_list(write(tmp_path, "path,label\na,001\nb,010\nc,001\n"))
    assert source.classes == ("001", "010")
    assert source.samples["label"].to_pylist() == [0, 1, 0]


def test_no_labels_at_all(tmp_path: Path) -> None:
    source = open_list(write(tmp_path, "path,label\na.jpg,\n"))
    assert source.classes == ()
    assert rows(source) == [("a.jpg", -1, "")]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array([1, 0, None], pa.int64()), ("0", "1")),
        (pa.array([1, 0, -1], pa.int8()), ("0", "1")),
        (pa.array(["y", "x", None]), ("x", "y")),
        (pa.array(["y", "x", None]).dictionary_encode(), ("x", "y")),
        (pa.array(["y", "x", ""], pa.large_string()), ("x", "y")),
    ],
)  # fmt: skip
def test_parquet(tmp_path: Path, labels: pa.Array, classes: tuple[str, ...]) -> None:
    table = pa.table({"path": ["b.jpg", "a.jpg", "c.jpg"], "label": labels})
    pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    source = open_source(tmp_path / "list.parquet")
    assert source.classes == classes
    assert rows(source) == [("b.jpg", 1, ""), ("a.jpg", 0, ""), ("c.jpg", -1, "")]


def test_another_root(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = write(tmp_path, "path,label\na.jpg,0\n")
    assert open_source(path, root=tmp_path / "images").root == (tmp_path / "images").resolve()
    with pytest.raises(SourceError, match="expected a folder of images, found nothing"):
        open_source(path, root=tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "../x.jpg", "a/../../x.jpg", "a/..", "C:/x.jpg", "C:x.jpg", r"a\x.jpg",
     r"\\host\x.jpg", "a//x.jpg", "a/./x.jpg", "a/", ".", "a\tb.jpg", ""],
)  # fmt: skip
def test_paths_that_could_leave_the_root(tmp_path: Path, path: str) -> None:
    listed = write(tmp_path, f'path,label\nok.jpg,0\n"{path}",0\n"{path}",0\n')
    with pytest.raises(
        SourceError, match=r"list.csv, row 2: found .* below the root.*\(2 such rows"
    ):
        open_list(listed)


def test_paths_that_only_look_bad(tmp_path: Path) -> None:
    paths = ["a..b/c.jpg", "...", ".hidden/x.jpg", "a/b..", "10:30.jpg", "~/x.jpg", "ab:c.jpg"]
    text = "path,label\n" + "".join(f"{path},0\n" for path in paths)
    assert open_list(write(tmp_path, text)).samples["path"].to_pylist() == paths


def test_links(plant: Plant) -> None:
    root = plant(["a/1.jpg", "a/2.jpg"])
    (root / "alias").symlink_to("a")
    (root / "a" / "3.jpg").symlink_to("1.jpg")
    (root / "a" / "secret.jpg").symlink_to("/etc/hostname")
    (root / "out").symlink_to("..")
    sound = "path,label\na/1.jpg,0\nalias/2.jpg,0\na/3.jpg,0\nabsent/4.jpg,0\na/absent.jpg,0\n"
    assert open_list(write(root, sound)).samples.num_rows == 5
    with pytest.raises(SourceError, match=r"row 6: found 'a/secret.jpg', but a link leads out of"):
        open_list(write(root, sound + "a/secret.jpg,0\n"))
    with pytest.raises(SourceError, match=r"row 7: found 'out/x.jpg', but a link leads out of"):
        open_list(write(root, sound + "outer.jpg,0\nout/x.jpg,0\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label,lable\na,0,0\n",
            "columns are 'path', 'label', 'lable'; expected .* remove the others",
        ),
        ("path,label,path\na,0,b\n", "columns are 'path', 'label', 'path'; expected .* each once"),
        ("path,split\na,train\n", "columns are 'path', 'split'; expected path, label"),
        ("a.jpg,0\nb.jpg,1\n", "columns are 'a.jpg', '0'; expected path, label"),
        ("path,label,split\na,0,train\nb,0,tests\n", "row 2: found 'tests', but a split is train"),
        ("path,label,split\na,0,Trian\n", "row 1: found 'Trian', but a split is train"),
        (
            "path,label\na,cat\nb,3\n",
            "row 2: found '3', but labels must be all names, or all numbers",
        ),
        (
            "path,label\na,0\nb,-2\n",
            "row 1: found '0', but labels must be all names, or all numbers",
        ),
        (
            "path,label\na,0\nb,1000000\n",
            "row 2: found '1000000', but numbers must be below 1000000",
        ),
        ("path,label\na,0\nb,999999999\n", "found '999999999', but numbers must be below"),
        ("path,label\na,0\nb,1\na,0\n", "1 paths occur more than once, the first is 'a'"),
        ("path,label\na,0\n./a,0\n", "1 paths occur more than once, the first is 'a'"),
        ("path,label\n", "no images there"),
        ("path,label\na,0,1\n", "cannot be read as a list"),
        ("", "cannot be read as a list"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_list(write(tmp_path, text))


@pytest.mark.parametrize("column", ["path", "label", "split"])
def test_text_that_is_no_utf_8_in_parquet(tmp_path: Path, column: str) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes())
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xffa")])
    columns = {"path": ["a", "b"], "label": ["x", "y"], "split": ["train", ""], column: text}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "list.parquet")
    with pytest.raises(
        SourceError, match=r"list\.parquet: cannot be read as a list, which is UTF-8"
    ):
        open_list(tmp_path / "list.parquet")


def test_files_that_are_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 not quite PAR1")
    (tmp_path / "bytes.csv").write_bytes(b"path,label\n\xff\xfe,0\n")
    nested = pa.table({"path": ["a"], "label": pa.array([[1]])})
    pyarrow.parquet.write_table(nested, tmp_path / "nested.parquet")
    for name in ("list.parquet", "bytes.csv", "nested.parquet", "absent.csv"):
        with pytest.raises(SourceError, match=name):
            open_list(tmp_path / name)


def test_fractions_are_names_and_refused_with_numbers(tmp_path: Path) -> None:
    table = pa.table({"path": ["a", "b"], "label": [0.0, 1.5]})
    pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(SourceError, match="row 1: found '0', but labels must"):
        open_list(tmp_path / "list.parquet")


def test_whole_numbers_stay_numbers_when_a_blank_cell_made_them_floats(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "list.csv", tmp_path / "list.parquet"
    csv.write_text("path,label\na,0.0\nb,2.0\nc,10.0\nd,\ne,1\n")
    paths, labels = list("abcde"), [0.0, 2.0, 10.0, None, 1.0]
    pyarrow.parquet.write_table(pa.table({"path": paths, "label": labels}), parquet)
    for path in (csv, parquet):
        source = open_list(path)
        assert source.samples["label"].to_pylist() == [0, 2, 10, -1, 1]
        assert source.classes == tuple(str(k) for k in range(11))


def test_not_a_number_is_no_label(tmp_path: Path) -> None:
    parquet = tmp_path / "list.parquet"
    labels = pa.array([0.0, float("nan"), 1.0])
    pyarrow.parquet.write_table(pa.table({"path": list("abc"), "label": labels}), parquet)
    assert open_list(parquet).samples["label"].to_pylist() == [0, -1, 1]


@pytest.mark.parametrize(
    "label",
    [
        "nan",
        "N/A",
        "None",
        "null",
        "<NA>",
        "#N/A",
        "#REF!",
        "#NAME?",
        "#VALUE!",
        "#DIV/0!",
        "?",
        "-",
    ],
)
def test_a_label_that_says_there_is_none_is_refused(tmp_path: Path, label: str) -> None:
    csv = tmp_path / "list.csv"
    csv.write_text(f"path,label\na,cat\nb,{label}\n")
    with pytest.raises(SourceError, match=r"row 2: .* an image without a label has an empty one"):
        open_list(csv)


@pytest.mark.parametrize("split", ["Train", "TRAINING", "train_images"])
def test_splits_of_a_list_are_known_in_their_usual_forms(tmp_path: Path, split: str) -> None:
    csv = tmp_path / "list.csv"
    csv.write_text(f"path,label,split\na,cat,{split}\nb,cat,\n")
    assert open_list(csv).samples["split"].to_pylist() == ["train", ""]


@pytest.mark.usefixtures("wide_terminal")
def test_names_of_classes_that_may_be_mistakes_are_shown(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    show_source(open_source(plant(["cat/1.jpg", " dog/1.jpg", "?/1.jpg"])), to_stderr=False)
    shown = capsys.readouterr().out
    assert "a class is named '?': images whose label is missing?" in shown
    assert "blanks are part of the names of 1 classes: ' dog'" in shown


def test_a_list_whose_images_are_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label\na/x.jpg,cat\na/y.jpg,dog\n")
    with pytest.raises(SourceError, match=r"none of the first 2 images .*/a/x\.jpg: .*--root FOLD"):
        check_root(open_list(path))
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/a/y.jpg").write_bytes(b"")
    check_root(open_list(path, tmp_path / "images"))


def test_booleans_are_the_same_classes_in_both(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "list.csv", tmp_path / "list.parquet"
    csv.write_text("path,label\na,True\nb,False\nc,\n")
    labels = pa.array([True, False, None])
    pyarrow.parquet.write_table(pa.table({"path": list("abc"), "label": labels}), parquet)
    for path in (csv, parquet):
        source = open_list(path)
        assert source.classes == ("False", "True")
        assert source.samples["label"].to_pylist() == [1, 0, -1]


def test_the_label_that_differs_from_most_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label\na,0\nb,1\nc,-2\n")
    with pytest.raises(SourceError, match="row 3: found '-2', but labels must be all names, or"):
        open_list(tmp_path / "l.csv")
