import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from latentset.cli.main import app
from latentset.datasets.errors import JobError
from tests.makers.odd_images import write_odd_images

pytestmark = pytest.mark.usefixtures("wide_terminal")


def test_a_store_below_its_source_in_a_bucket_is_refused() -> None:
    for store in ("s3://bucket/images", "s3://bucket/images/store.zarr"):
        command = ["encode", "s3://bucket/images", store, "--codec", "none"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "is inside SOURCE" in " ".join(result.output.replace("│", " ").split())


def test_a_store_inside_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "a" / "1.png")
    command = ["encode", str(tmp_path / "images"), str(tmp_path / "images" / "store")]
    result = CliRunner().invoke(app, [*command, "--codec", "demo-hyperprior-msssim-1"])
    assert result.exit_code == 2
    assert "is inside SOURCE" in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "images" / "store").exists()


def encode_pixels(source: Path, store: Path, scheduler: str, *options: str) -> Result:
    command = ["encode", str(source), str(store), "--codec", "none", "--scheduler", scheduler]
    return CliRunner().invoke(app, [*command, *options])


def test_a_complete_store_names_its_failed_images(scheduler: str, tmp_path: Path) -> None:
    source, store = tmp_path / "images", tmp_path / "store"
    statuses = write_odd_images(source)
    first = encode_pixels(source, store, scheduler)
    assert first.exit_code == 0, first.output
    again = encode_pixels(source, store, scheduler)
    assert again.exit_code == 0, again.output
    assert (
        f"{store} is complete already; {len(statuses)} of its 7 images could not be encoded: "
        "--retry-failed tries them again." in again.output
    )
    for name in statuses:
        (source / name).unlink()
        (source / name).write_bytes((source / "good.png").read_bytes())
    repaired = encode_pixels(source, store, scheduler, "--retry-failed")
    assert repaired.exit_code == 0, repaired.output
    last = encode_pixels(source, store, scheduler)
    assert f"{store} is complete already; nothing to do." in last.output


@pytest.mark.parametrize("kept", [50, 2000], ids=["header", "pixels"])
def test_a_job_whose_every_image_fails_ends_with_status_1(
    kept: int, scheduler: str, tmp_path: Path
) -> None:
    """Whether the images fail when their headers are read, or when they are decoded."""
    source, store = tmp_path / "images", tmp_path / "store"
    write_odd_images(source)
    for path in source.iterdir():
        if path.name != "good.png":
            path.unlink()
    whole = (source / "good.png").read_bytes()
    (source / "good.png").write_bytes(whole[:kept])
    for _ in range(2):
        done = encode_pixels(source, store, scheduler)
        assert done.exit_code == 1
        assert isinstance(done.exception, JobError)
        assert str(done.exception).startswith("none of the 1 images ")


def test_json_is_all_that_standard_output_gets(scheduler: str, tmp_path: Path) -> None:
    source, store = tmp_path / "images", tmp_path / "store"
    statuses = write_odd_images(source / "train" / "caf\u00e9 [x]")
    plan = json.loads(encode_pixels(source, store, scheduler, "--json", "--plan-only").stdout)
    assert plan == {
        "layout": "imagefolder",
        "root": str(source),
        "images": 7,
        "splits": {"train": 7},
        "classes": {"caf\u00e9 [x]": 7},
        "without_class": 0,
        "skipped": {},
    }
    for was_complete in (False, True):
        done = encode_pixels(source, store, scheduler, "--json")
        assert done.exit_code == 0, done.output
        assert done.stdout.isascii()
        (found,) = json.loads(done.stdout)["stores"]
        assert found["was_complete"] == was_complete
        assert found["samples"] == {"total": 7, "ok": 1, "failed": 6}
        assert {Path(row["path"]).name: row["status"] for row in found["failed"]} == statuses
        assert (found["encoded"], found["store"]) == (0 if was_complete else 7, str(store))
    inspected = CliRunner().invoke(app, ["inspect", str(store), "--json"])
    shared = {name: found[name] for name in json.loads(inspected.stdout)}
    assert json.loads(inspected.stdout) == shared


def test_an_error_leaves_standard_output_empty(scheduler: str, tmp_path: Path) -> None:
    done = encode_pixels(tmp_path / "nothing", tmp_path / "store", scheduler, "--json")
    assert (done.exit_code, done.stdout) == (1, "")


def test_images_in_several_splits_or_classes_are_named(scheduler: str, tmp_path: Path) -> None:
    source, store = tmp_path / "images", tmp_path / "store"
    for k, path in enumerate(("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")):
        (source / path).parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), (k, k, k)).save(source / path)
    shutil.copy(source / "train/a/1.png", source / "val/a/same.png")
    shutil.copy(source / "val/b/1.png", source / "val/a/other.png")
    text = encode_pixels(source, store, scheduler).output
    lines = [line.strip("│ ") for line in text.splitlines() if "in several" in line]
    told = [
        "in several splits: 1 images (equal SHA-256): train/a/1.png = val/a/same.png",
        "in several classes: 1 images (equal SHA-256): val/a/other.png = val/b/1.png",
    ]
    # Before the first is encoded, and in the table at the end.
    assert [re.sub(r"\s+│\s+", ": ", line).strip() for line in lines] == told * 2
    assert text.index(told[0]) < text.index("is complete")
    inspected = CliRunner().invoke(app, ["inspect", str(store), "--json"])
    found = json.loads(inspected.stdout)
    assert found["in_several_splits"] == [["train/a/1.png", "val/a/same.png"]]
