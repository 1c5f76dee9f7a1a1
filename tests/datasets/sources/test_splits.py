"""Names of splits, and splits for a source that has none."""

import pyarrow.compute as pc
import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import open_source
from latentset.datasets.sources.splits import assign_splits, find_split, parse_fractions
from tests.makers.plant import Plant


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN", "train"),
        ("train2017", "train"),
        ("seg_train", "train"),
        ("trainImages", "train"),
        ("valid", "val"),
        ("validation-set", "val"),
        ("dev", "val"),
        ("Test Images", "test"),
        ("testing_data", "test"),
        ("trainA", None),
        ("train_station", None),
        ("images", None),
        ("testament", None),
        ("", None),
    ],
)
def test_what_a_name_means(name: str, split: str | None) -> None:
    assert find_split(name) == split


def test_each_class_is_divided(plant: Plant) -> None:
    source = open_source(plant([f"{c}/{k:03d}.jpg" for c in "ab" for k in range(50)]))
    divided = assign_splits(source, (80, 10, 10), 0)
    for label in (0, 1):
        splits = divided.samples.filter(pc.equal(divided.samples["label"], label))["split"]
        counts = {row["values"]: row["counts"] for row in pc.value_counts(splits).to_pylist()}
        assert counts == {"train": 40, "val": 5, "test": 5}
    assert divided.samples.drop_columns("split").equals(source.samples.drop_columns("split"))
    assert assign_splits(source, (80, 10, 10), 0).samples.equals(divided.samples)
    assert not assign_splits(source, (80, 10, 10), 1).samples.equals(divided.samples)
    two = assign_splits(source, (80, 20), 0).samples["split"]
    assert pc.value_counts(two).to_pylist()[0]["counts"] in (80, 20)


def test_a_source_with_splits_is_refused(plant: Plant) -> None:
    source = open_source(plant(["val/a/1.jpg", "train/a/1.jpg"]))
    expected = r"--split is for images without splits, but these have train, val: drop the option"
    with pytest.raises(SourceError, match=expected):
        assign_splits(source, (80, 10, 10), 0)


@pytest.mark.parametrize("text", ["80/10", "80/10/10/0", "80/ten/10", "", "-80/180", "100"])
def test_fractions_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match="such as 80/10/10"):
        parse_fractions(text)
