"""Tar files as a source: WebDataset's, and packed class folders; read in place."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources import open_source, resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes, read_size
from latentset.datasets.sources.tar_member import TarMember
from tests.makers.tars import picture, rows

Pack = Callable[..., Path]


def test_webdataset_with_numbers(pack: Pack) -> None:
    source = open_source(
        pack(
            {
                "imagenet-train-000001.tar": {"b.jpg": "", "b.cls": "2"},
                "imagenet-train-000000.tar": {
                    "z.cls": "0\n",
                    "z.jpg": "",
                    "a.jpg": "",
                    "a.cls": "1",
                },
                "imagenet-val-000000.tar": {"b.cls": "1", "b.jpg": ""},
            }
        )
    )
    assert source.kind == "tar"
    assert source.classes == ("0", "1", "2")
    assert rows(source) == [
        ("imagenet-train-000000.tar/z.jpg", 0, "train"),
        ("imagenet-train-000000.tar/a.jpg", 1, "train"),
        ("imagenet-train-000001.tar/b.jpg", 2, "train"),
        ("imagenet-val-000000.tar/b.jpg", 1, "val"),
    ]
    assert source.samples["id"].equals(source.samples["path"])


def test_names_in_json(pack: Pack) -> None:
    def about(**fields: object) -> str:
        return json.dumps(fields)

    source = open_source(
        pack(
            {
                "train/0.tar": {
                    "x/1.jpg": "",
                    "x/1.json": about(label="dog", caption="a dog"),
                    "x/1.txt": "a dog",
                    "x/2.png": "",
                    "x/2.json": about(label="cat"),
                    "x/3.jpg": "",
                },
                "test/0.tar": {"x/1.jpg": "", "x/1.json": about(label="cat")},
            }
        )
    )
    assert source.classes == ("cat", "dog")
    assert [row[1:] for row in rows(source)] == [
        (1, "train"),
        (0, "train"),
        (-1, "train"),
        (0, "test"),
    ]
    assert source.excluded == {".txt files": 1}


def test_of_img2dataset_without_labels(pack: Pack) -> None:
    members = {"000000001.jpg": "", "000000001.json": '{"url": "u"}', "000000001.txt": "caption"}
    root = pack({"00000.tar": members})
    (root / "00000.parquet").touch()
    (root / "00000_stats.json").touch()
    source = open_source(root)
    assert source.classes == ()
    assert rows(source) == [("00000.tar/000000001.jpg", -1, "")]


def test_packed_folders(pack: Pack) -> None:
    names = (
        "./imagenette/train/n2/a.b.jpg",
        "./imagenette/train/n2/a.c.jpg",
        "./imagenette/train/n2/._a.c.jpg",
        "./imagenette/val/n2/1.jpg",
        "./imagenette/train/n1/deep/1.JPEG",
        "./imagenette/notes.csv",
    )
    root = pack({"imagenette.tar": dict.fromkeys(names, "")})
    expected = [
        ("imagenette.tar/imagenette/train/n2/a.b.jpg", 1, "train"),
        ("imagenette.tar/imagenette/train/n2/a.c.jpg", 1, "train"),
        ("imagenette.tar/imagenette/train/n1/deep/1.JPEG", 0, "train"),
        ("imagenette.tar/imagenette/val/n2/1.jpg", 1, "val"),
    ]
    for location in (root, root / "imagenette.tar"):
        source = open_source(location)
        assert source.classes == ("n1", "n2")
        assert rows(source) == expected
        assert source.excluded == {"hidden names": 1, ".csv files": 1}


def test_names_with_odd_characters(pack: Pack) -> None:
    names = ["cat/a b#%?.jpg", "cat/a\u3000b.jpg", "d\u00f6g/-a.jpg", "d\u00f6g/[b].jpg"]
    source = open_source(pack({"0.tar": dict.fromkeys(names, "")}))
    assert source.classes == ("cat", "d\u00f6g")
    assert source.samples["path"].to_pylist() == [f"0.tar/{name}" for name in names]


FOLDERS: dict[str, dict[str, dict[str, str]]] = {
    "a split in the file's name and again within": {
        "train.tar": {"train/cat/1.jpg": "", "train/dog/1.jpg": ""},
        "val.tar": {"val/cat/2.jpg": ""},
    },
    "the split within alone": {
        "all.tar": {"train/cat/1.jpg": "", "train/dog/1.jpg": "", "val/cat/2.jpg": ""}
    },
    "below what wraps all": {
        "a.tar": {"set/train/cat/1.jpg": "", "set/train/dog/1.jpg": ""},
        "b.tar": {"set/test/cat/2.jpg": ""},
    },
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_within_are_understood_as_others_are(name: str, pack: Pack) -> None:
    source = open_source(pack(FOLDERS[name]))
    assert source.classes == ("cat", "dog")
    assert source.samples["label"].to_pylist() == [0, 1, 0]
    assert source.samples["split"].to_pylist()[:2] == ["train", "train"]
    assert source.samples["split"][2].as_py() in ("val", "test")


@pytest.mark.parametrize(
    "members",
    [
        ("trainA/cat/1.jpg", "testA/cat/2.jpg"),
        ("train/cat/1.jpg", "extra/cat/2.jpg"),
        ("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg"),
    ],
)
def test_what_may_be_splits_is_refused(members: tuple[str, ...], pack: Pack) -> None:
    root = pack({"a.tar": dict.fromkeys(members, "")})
    with pytest.raises(SourceError, match="splits"):
        open_source(root)
    assert len(open_source(root, allow=["split-names"]).samples) == len(members)


def test_folders_above_the_classes_are_no_classes(pack: Pack) -> None:
    members = [f"{kind}/{name}/1.jpg" for kind in ("rgb", "depth") for name in ("a", "b")]
    root = pack({"a.tar": dict.fromkeys(members, "")})
    with pytest.raises(SourceError, match=r"'depth', 'rgb' hold .* clear: give a list"):
        open_source(root)
    assert open_source(root, allow=["nested-classes"]).classes == ("depth", "rgb")


def test_links_are_followed_or_counted(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").write_bytes(b"one")
    os.link(tmp_path / "cat/1.jpg", tmp_path / "cat/2.jpg")
    (tmp_path / "cat/3.jpg").symlink_to("1.jpg")
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set/a.tar", "w") as tar:
        tar.add(tmp_path / "cat", "cat")
    source = open_source(tmp_path / "set")
    assert source.samples["path"].to_pylist() == ["a.tar/cat/1.jpg", "a.tar/cat/2.jpg"]
    assert source.excluded == {"links and devices in tar files": 1}
    for row in source.samples.select(["path", "part"]).to_pylist():
        image = resolve_inside(source.root, **row)
        assert isinstance(image, TarMember)
        assert image.read() == b"one"


def test_labels_and_images_that_are_hard_links(tmp_path: Path) -> None:
    """As GNU tar packs files of several names; the target may occur again later."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in {"a.jpg": b"one", "a.cls": b"1", "c.jpg": b"", "c.cls": b"0"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in {"b.jpg": "a.jpg", "b.cls": "a.cls"}.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
        member = tarfile.TarInfo("a.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"two"))
    source = open_source(tmp_path)
    assert [row[:2] for row in rows(source)] == [
        ("0.tar/a.jpg", 1),
        ("0.tar/c.jpg", 0),
        ("0.tar/b.jpg", 1),
    ]
    places = source.samples.select(["path", "part"]).to_pylist()
    found = [read_bytes(resolve_inside(source.root, **places[k])) for k in (0, 2)]
    assert found == [b"two", b"one"]


def test_a_label_that_a_later_member_replaces_is_not_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in {"a.jpg": b"", "a.cls": b"1", "b.jpg": b"", "b.cls": b"0"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("a.cls")
        member.size = (1 << 20) + 1  # larger than labels are
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    source = open_source(tmp_path)
    assert [row[1] for row in rows(source)] == [-1, 0]
    assert source.excluded == {".cls files": 1}


def test_sparse_members_are_counted(tmp_path: Path) -> None:
    with (tmp_path / "hole.bin").open("wb") as file:
        file.truncate(1 << 24)
        file.seek(1 << 24)
        file.write(b"end")
    (tmp_path / "set").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"one")
    command = ["tar", "-S", "-cf", "set/0.tar", "a.jpg", "hole.bin"]
    if subprocess.run(command, cwd=tmp_path, check=False).returncode:
        pytest.skip("this tar knows no -S")
    source = open_source(tmp_path / "set")
    assert source.samples["path"].to_pylist() == ["0.tar/a.jpg"]
    assert source.excluded == {"links and devices in tar files": 1}


def test_hidden_tar_files_are_passed_over(pack: Pack) -> None:
    root = pack({"0.tar": {"cat/1.jpg": ""}, ".old.tar": {"cat/2.jpg": ""}})
    (root / "._0.tar").write_bytes(b"x")
    assert [row[0] for row in rows(open_source(root))] == ["0.tar/cat/1.jpg"]


def test_a_packed_split_beside_one_of_folders_is_refused(pack: Pack) -> None:
    root = pack({"train/a.tar": {"cat/1.jpg": ""}})
    (root / "val/cat").mkdir(parents=True)
    (root / "val/cat/1.jpg").touch()
    with pytest.raises(SourceError, match="pack all splits or none"):
        open_source(root)


def test_a_name_with_a_control_character(pack: Pack) -> None:
    with pytest.raises(SourceError, match=r"'0\.tar/cat/a\\nb\.jpg': expected no control char"):
        open_source(pack({"0.tar": {"cat/a\nb.jpg": ""}}))


def test_a_name_that_is_no_utf_8(pack: Pack) -> None:
    with pytest.raises(SourceError, match="is not UTF-8: rename it"):
        open_source(pack({"0.tar": {"cat/\udcff.jpg": ""}}))


def test_class_folders_beside_a_tar_file_are_an_imagefolder(pack: Pack) -> None:
    root = pack({"archive.tar": {"cat/1.jpg": ""}})
    (root / "cat").mkdir()
    (root / "cat/1.jpg").touch()
    source = open_source(root)
    assert (source.kind, rows(source)) == ("imagefolder", [("cat/1.jpg", 0, "")])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": "", "a.mask.png": "", "a.cls": "0"}, "two images, .*a.jpg and .*a.mask.png"),
        ({"a.jpg": "", "a.cls": b"\xff"}, "a.cls: no label can be read"),
        ({"a.jpg": "", "a.json": "{"}, "a.json: no label can be read"),
        ({"a.jpg": "", "a.json": '{"label": [1]}'}, r"expected a number or a name, got \[1\]"),
        ({"a.jpg": "", "a.cls": "cat", "b.jpg": "", "b.cls": "1"}, "all names, or all numbers"),
        ({"../a.jpg": ""}, "expected a path below the file"),
        ({"/a.jpg": ""}, "expected a path below the file"),
        ({".": "x"}, "expected a path below the file"),
        ({"a.txt": ""}, "no images there"),
    ],
)
def test_what_is_refused(pack: Pack, members: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(pack({"0.tar": members}))


def test_some_named_as_splits(pack: Pack) -> None:
    with pytest.raises(SourceError, match=r"but more-0\.tar is not"):
        open_source(pack({"train-0.tar": {"1.jpg": ""}, "more-0.tar": {"2.jpg": ""}}))


@pytest.mark.parametrize("cut", [100, 600, 60_000, 95_000])
def test_a_damaged_file_is_no_shorter_one(pack: Pack, cut: int) -> None:
    root = pack({"0.tar": {"a.png": picture(0), "b.png": picture(1)}})
    content = (root / "0.tar").read_bytes()
    (root / "0.tar").write_bytes(content[:cut])
    with pytest.raises(SourceError, match=r"cut off within|cannot be read as a tar file"):
        open_source(root)
    second = content.index(b"b.png")
    (root / "0.tar").write_bytes(content[:second] + b"\xff" * 200 + content[second + 200 :])
    with pytest.raises(SourceError, match="damaged at byte"):
        open_source(root)


def test_members_are_read_in_place(pack: Pack) -> None:
    contents = {"x/a.png": picture(0), "b.png": picture(1), "c.jpg": b"<html>", "d.jpg": b""}
    root = pack({"train/0.tar": contents})
    source = open_source(root)
    for path in source.samples["path"].to_pylist():
        image = resolve_inside(source.folder, path)
        assert isinstance(image, TarMember)
        content = contents[path.removeprefix("train/0.tar/")]
        if content.startswith(b"\x89PNG"):
            assert len(content) > 1 << 16
            assert read_bytes(image) == content
            assert read_size(image) == decode_image(content).shape[:2]
        else:
            with pytest.raises(ImageError) as error:
                read_size(image)
            assert error.value.status == ("not_an_image" if content else "empty")
    with pytest.raises(ImageError, match="no such file"):
        read_bytes(resolve_inside(source.folder, "train/0.tar/gone.png"))
    (root / "train/0.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ImageError) as error:
        read_bytes(resolve_inside(source.folder, "train/0.tar/b.png"))
    assert error.value.status == "unreadable"


def test_a_tar_file_out_of_the_root(pack: Pack, tmp_path: Path) -> None:
    pack({"0.tar": {"a.png": picture(0)}})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.tar").symlink_to(tmp_path / "set/0.tar")
    with pytest.raises(SourceError, match="leads by a link out of the source's root"):
        open_source(tmp_path / "other")


def test_a_tar_file_that_was_packed_anew_is_noticed(pack: Pack) -> None:
    """Members of one size may lie where others lay."""
    plain = {f"{name}.ppm": b"P6 16 16 255\n" + bytes([k]) * 768 for k, name in enumerate("ab")}
    source = open_source(
        pack({"0.tar": {f"cat/{name}": content for name, content in plain.items()}})
    )
    places = source.samples.select(["path", "part"]).to_pylist()
    assert read_bytes(resolve_inside(source.root, **places[0])) == plain["a.ppm"]
    pack({"0.tar": {f"cat/{name}": plain[name] for name in ("b.ppm", "a.ppm")}})
    for read in (read_bytes, read_size):
        with pytest.raises(ImageError, match="has changed since it was listed") as error:
            read(resolve_inside(source.root, **places[0]))
        assert error.value.status == "changed"
