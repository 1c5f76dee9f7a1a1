"""The codec's training input: crops of images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import SourceError, TrainingError
from latentset.pipeline.codec.train.crops import training_crops
from tests.makers.odd_images import write_odd_images
from tests.makers.training_images import write_images


def crops_of(folders: list[Path], seed: int = 1, skipped: dict[str, str] | None = None) -> Any:
    skipped = {} if skipped is None else skipped
    return training_crops(folders, crop=32, batch=2, seed=seed, skipped=skipped)


def test_crops_are_cut_and_flipped_images(tmp_path: Path) -> None:
    folder = tmp_path / "class" / "sub"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:40, :50].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], -1)).save(folder / "position.png")
    corners, flips = set(), set()
    for batch in crops_of([tmp_path]).take(20):
        assert batch.shape == (2, 32, 32, 3)
        for crop in batch.numpy().astype(int):
            top, left = crop[0, 0, 0], min(crop[0, 0, 1], crop[0, -1, 1])
            flipped = bool(crop[0, 0, 1] > crop[0, -1, 1])
            expected = np.stack([rows, columns, rows], -1)[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(crop, expected[:, ::-1] if flipped else expected)
            corners.add((int(top), int(left)))
            flips.add(flipped)
    assert len(corners) > 20
    assert flips == {False, True}


def test_crops_are_a_function_of_the_seed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    first, again, other = (
        next(iter(crops_of([folder], seed))).numpy() for seed in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_small_images_are_enlarged(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "small", size=(16, 20))
    batch = next(iter(crops_of([folder])))
    assert batch.shape == (2, 32, 32, 3)


def test_folders_are_drawn_from_equally_often(tmp_path: Path) -> None:
    for name, level, count in (("many", 0, 9), ("one", 255, 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / name / f"{i}.png")
    batches = np.stack(list(crops_of([tmp_path / "many", tmp_path / "one"]).take(10)))
    assert batches.mean() == pytest.approx(127.5)


def test_broken_files_are_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    statuses = write_odd_images(folder)
    (folder / "notes.txt").write_text("not looked at")
    skipped: dict[str, str] = {}
    for _ in crops_of([folder], skipped=skipped).take(8):
        pass
    found = {Path(path).name: reason.partition(":")[0] for path, reason in skipped.items()}
    assert found == statuses


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a folder of images"),
        ({}, "no images"),
        ({"a.jpg": b"x"}, "none of its 1 images"),
    ],
    ids=["missing", "empty", "broken"],
)
def test_folder_without_images_is_refused(
    tmp_path: Path, content: dict[str, bytes] | None, message: str
) -> None:
    folder = tmp_path / "images"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    with pytest.raises((SourceError, TrainingError), match=message):
        crops_of([folder])
