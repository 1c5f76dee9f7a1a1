"""``latentset.torch`` against ``Store.read_sample``, in this process and in workers."""

import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from latentset import Store, open_store
from latentset.datasets.errors import RecipeError, StoreError, TrainingError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.convert import convert
from latentset.torch import (
    Batch,
    CentralCrop,
    LatentBatches,
    LatentDataset,
    LatentInput,
    PixelInput,
    RandomCrop,
    WholeGrid,
    YHatInput,
    collate,
)
from tests.makers.synthetic import write_synthetic_pixels


@pytest.fixture(params=["zarr", "hdf5"])
def store(request: pytest.FixtureRequest, mixed_store: Store, tmp_path: Path) -> Store:
    if request.param == "zarr":
        return mixed_store
    return convert(mixed_store, Folder(tmp_path / "mixed.h5"), "hdf5")


def assert_values(store: Store, batch: Batch) -> None:
    """Whole grids, resized to a block of 24 x 24 by repeating, are what the store holds."""
    y_hat, sigma_hat = LatentInput(24, store.header)(batch)
    (alone,) = YHatInput(24)(batch)
    assert torch.equal(alone, y_hat)
    for k, sample in enumerate(batch.samples.tolist()):
        expected = store.read_sample(sample)
        height, width = expected["y_hat"].shape[:2]
        rows, columns = np.arange(24) * height // 24, np.arange(24) * width // 24
        for name, found in (("y_hat", y_hat), ("sigma_hat", sigma_hat)):
            values = expected[name][rows][:, columns].transpose(2, 0, 1)
            np.testing.assert_array_equal(found[k].numpy(), values)
        assert batch.labels[k] == store.samples["label"][sample].as_py()


def test_batches(store: Store) -> None:
    batches = LatentBatches(store, split="val", batch_size=10)
    found = list(batches)
    assert [len(batch.labels) for batch in found] == [10, 10, 4]
    assert len(batches) == 3
    for batch in found:
        assert_values(store, batch)
    assert torch.cat([batch.samples for batch in found]).tolist() == store.indices("val").tolist()


def test_the_ways_to_name_a_store(mixed_store: Store) -> None:
    path = str(mixed_store.location)
    for where in (mixed_store, mixed_store.location, path, Path(path), f"file://{path}"):
        assert len(LatentBatches(where, batch_size=8)) == 6
        assert len(LatentDataset(where)) == 47


@pytest.mark.parametrize("name", ["a b", "#1", "100%20", "what?", "[b]", "caf\u00e9", "a\nb"])
def test_below_any_name(mixed_store: Store, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / f"{name}.zarr"
    shutil.copytree(str(mixed_store.location), path)
    (batch,) = LatentBatches(path, split="val", batch_size=24)
    (expected,) = LatentBatches(mixed_store, split="val", batch_size=24)
    assert torch.equal(batch.rows["y_hat"], expected.rows["y_hat"])


def test_samples_of_a_dataset(store: Store) -> None:
    dataset = LatentDataset(store)
    indices = store.indices("train").tolist()
    assert len(dataset) == len(indices)
    sample = dataset[5]
    assert sample["sample"] == indices[5]
    assert sample["label"] == indices[5] % 3
    for name in ("y_hat", "scale_index"):
        assert sample[name].is_contiguous()
        stored = store.read_grid(indices[5], name)
        np.testing.assert_array_equal(sample[name].permute(1, 2, 0).numpy(), stored)
    assert dataset[-1]["sample"] == indices[-1]
    with pytest.raises(IndexError):
        dataset[47]


def test_collate_takes_any_sizes(store: Store) -> None:
    dataset = LatentDataset(store)
    batch = collate(dataset.__getitems__([4, 0, 9, 4]))
    assert_values(store, batch)
    (same,) = LatentBatches(store, batch_size=47)
    whole = collate([dataset[k] for k in range(47)])
    assert torch.equal(whole.windows, same.windows)
    assert torch.equal(whole.samples, same.samples)
    for name, rows in same.rows.items():
        assert torch.equal(whole.rows[name], rows)


def test_random_crops_of_collate_follow_torchs_seed(mixed_store: Store) -> None:
    samples = LatentDataset(mixed_store).__getitems__(list(range(40)))

    def windows(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return collate(samples, crop=RandomCrop()).windows.tolist()

    assert windows(1) == windows(1) != windows(2)
    assert collate(samples, crop=CentralCrop(0.5)).windows[0].tolist()[3:] == [1, 1, 2, 2, 0]


def test_default_collate_where_sizes_are_equal(even_store: Store) -> None:
    loader: Any = DataLoader(LatentDataset(even_store, arrays=["y_hat"]), batch_size=5)
    batch = next(iter(loader))
    indices = even_store.indices("train")[:5]
    expected = even_store.read(indices, ["y_hat"])["y_hat"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch["y_hat"].numpy(), expected)
    assert batch["sample"].tolist() == indices.tolist()
    assert batch.keys() == {"y_hat", "label", "sample"}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_this_process_reads(mixed_store: Store, method: str) -> None:
    store, dataset = mixed_store, LatentDataset(mixed_store)
    alone: list[Batch] = list(DataLoader(dataset, batch_size=8, collate_fn=collate))
    next(iter(LatentBatches(store, batch_size=8)))  # TensorStore's threads do not survive a fork
    loader: Any = DataLoader(
        dataset, batch_size=8, collate_fn=collate, num_workers=1, multiprocessing_context=method
    )
    for found, expected in zip(loader, alone, strict=True):
        assert torch.equal(found.samples, expected.samples)
        assert torch.equal(found.rows["y_hat"], expected.rows["y_hat"])


def test_a_dataset_is_pickled_without_what_is_open(store: Store) -> None:
    dataset = LatentDataset(store)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["y_hat"], dataset[3]["y_hat"])


def make_batches(store: Store) -> Any:
    batches = LatentBatches(store, batch_size=8, shuffle=True, seed=3)
    return StatefulDataLoader(batches, batch_size=None)


def make_samples(store: Store) -> Any:
    dataset = LatentDataset(store)
    return StatefulDataLoader(dataset, batch_size=8, collate_fn=collate, num_workers=2)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 on torch 2.14
@pytest.mark.parametrize("make", [make_batches, make_samples])
@pytest.mark.parametrize("steps", [0, 2, 6])
def test_stateful_dataloader(make: Callable[[Store], Any], steps: int, mixed_store: Store) -> None:
    def samples(loader: Any, count: int | None = None) -> list[list[int]]:
        found: list[list[int]] = []
        iterator = iter(loader)
        while count is None or count > len(found):
            batch = next(iterator, None)
            if batch is None:
                break
            found.append(batch.samples.tolist())
        return found

    whole = samples(make(mixed_store))
    assert len(whole) == 6
    loader = make(mixed_store)
    assert samples(loader, steps) == whole[:steps]
    state = loader.state_dict()
    other = make(mixed_store)
    other.load_state_dict(state)
    assert samples(other) == whole[steps:]
    assert len(samples(other)) == 6


def test_the_reader_refuses_workers(mixed_store: Store) -> None:
    batches = LatentBatches(mixed_store, batch_size=8)
    loader: Any = DataLoader(batches, batch_size=None, num_workers=1)
    with pytest.raises(TrainingError, match="expected num_workers=0"):
        next(iter(loader))


def test_pixels_need_no_square(tmp_path: Path) -> None:
    store = open_store(write_synthetic_pixels(tmp_path / "p.zarr", sizes=((20, 30), (16, 16))))
    (batch,) = LatentBatches(store, batch_size=18)
    whole = collate(LatentDataset(store).__getitems__(range(18)))
    assert torch.equal(whole.windows, batch.windows)
    (x,) = PixelInput(16)(batch)
    assert x.shape == (18, 3, 16, 16)
    image = store.read_sample(int(batch.samples[1]))["pixels"]
    normal = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x[1].numpy(), normal.transpose(2, 0, 1), atol=1e-5)
    square = LatentBatches(store, batch_size=18, resize=24, crop=CentralCrop(0.5))
    same = collate(LatentDataset(store).__getitems__(range(18)), CentralCrop(0.5), 24)
    assert torch.equal(next(iter(square)).windows, same.windows)
    assert same.windows[0].tolist() == [0, 20, 30, 6, 6, 12, 12, 0]


def test_what_cannot_be_read_is_refused(mixed_store: Store) -> None:
    for make in (LatentDataset, partial(LatentBatches, batch_size=8)):
        with pytest.raises(RecipeError, match="expected samples of split 'valid'"):
            make(mixed_store, split="valid")
        with pytest.raises(StoreError, match="expected some of y_hat, scale_index, got 'z_hat'"):
            make(mixed_store, arrays=["z_hat"])
    wrong: list[dict[str, Any]] = [{"batch_size": 0}, {"world_size": 9}, {"rank": 1}]
    for options in wrong:
        with pytest.raises(ValueError, match="expected 0 <= rank < world_size <= batch_size"):
            LatentBatches(mixed_store, **({"batch_size": 8} | options))
    with pytest.raises(ValueError, match="seed: expected 0 to"):
        LatentBatches(mixed_store, batch_size=8, seed=-1)
    for crop in (partial(RandomCrop, (0.5, 0.2)), partial(RandomCrop, (0.5, 2.0))):
        with pytest.raises(ValueError, match="expected 0 < least <= greatest"):
            crop()
    with pytest.raises(ValueError, match="expected a share above 0"):
        CentralCrop(0)


def test_the_crop_is_the_readers(mixed_store: Store) -> None:
    def boxes(**options: Any) -> list[list[int]]:
        (batch,) = LatentBatches(mixed_store, batch_size=47, **options)
        return batch.windows[:, 3:].tolist()

    assert boxes(crop=RandomCrop(), seed=1) == boxes(crop=RandomCrop(), seed=1)
    assert boxes(crop=RandomCrop(), seed=1) != boxes(crop=RandomCrop(), seed=2)
    assert boxes() == boxes(crop=WholeGrid()) != boxes(crop=CentralCrop())
