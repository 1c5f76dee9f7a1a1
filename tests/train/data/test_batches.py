import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.datasets.errors import RecipeError, StoreCorruptError
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import DTYPES
from latentset.datasets.store.header import ArrayName
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.data.crop import RandomCrop
from latentset.train.data.split import select_split, split_names
from tests.makers.synthetic import write_synthetic_store

TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "shuffle": True,
    "drop_last": True,
    "crop": RandomCrop(),
}
ARRAYS: tuple[ArrayName, ...] = ("y_hat", "scale_index")


def read(store: Store, epoch: int = 0, first: int = 0, **options: Any) -> list[Batch]:
    reader = LatentReader(store, select_split(store, "train"), **(TRAINING | options))
    return list(reader.batches(epoch, first))


def test_split_leaves_failed_samples_out(mixed_store: Store) -> None:
    train = select_split(mixed_store, "train")
    # Sample k is in split (train, train, val, test)[k // 3 % 4]; sample 1 has failed.
    assert train.samples.tolist() == [k for k in range(96) if k // 3 % 4 < 2 and k != 1]
    assert train.labels.tolist() == [k % 3 for k in train.samples.tolist()]
    assert split_names(mixed_store) == ("train", "val", "test")


def test_values_are_those_that_zarr_reads(mixed_store: Store) -> None:
    seen = []
    for batch in read(mixed_store):
        for k, sample in enumerate(batch.samples.tolist()):
            row = mixed_store.samples.slice(sample, 1).to_pylist()[0]
            first, _, width = batch.windows[k, :3].tolist()
            count = row["latent_height"] * row["latent_width"]
            assert width == row["latent_width"]
            assert batch.labels[k] == row["label"] == sample % 3
            for name in ARRAYS:
                expected = mixed_store.array(name)[row["first_row"] : row["first_row"] + count]
                rows = batch.rows[name][:, first : first + count].numpy()
                assert rows.dtype == DTYPES[name]
                assert np.array_equal(rows.T, expected)
            seen.append(sample)
    assert len(set(seen)) == len(seen) == 40  # of 47 samples, five whole batches


def test_epochs_are_pure_and_differ(mixed_store: Store) -> None:
    def samples(epoch: int) -> list[list[int]]:
        return [batch.samples.tolist() for batch in read(mixed_store, epoch)]

    assert samples(1) == samples(1) != samples(2)


def test_the_middle_of_an_epoch_is_the_middle_of_the_epoch(mixed_store: Store) -> None:
    whole, rest = read(mixed_store, 3), read(mixed_store, 3, first=2)
    assert [b.samples.tolist() for b in whole[2:]] == [b.samples.tolist() for b in rest]
    assert [b.windows.tolist() for b in whole[2:]] == [b.windows.tolist() for b in rest]


def test_ranks_read_what_one_reads(mixed_store: Store) -> None:
    alone = read(mixed_store)
    ranks = [read(mixed_store, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, left, right in zip(alone, *ranks, strict=True):
        parts = [
            (batch.samples[k].item(), batch.windows[k, 3:].tolist())
            for batch in (left, right)
            for k in range(4)
        ]
        expected = [(whole.samples[k].item(), whole.windows[k, 3:].tolist()) for k in range(8)]
        assert sorted(parts) == sorted(expected)


def test_evaluation_reads_everything_in_order(mixed_store: Store) -> None:
    train = select_split(mixed_store, "train")
    reader = LatentReader(mixed_store, train, batch_size=8)
    batches = list(reader.batches(0))
    assert len(batches) == len(reader) == 6
    assert [k for b in batches for k in b.samples.tolist()] == train.samples.tolist()
    whole = np.stack([0 * train.heights, 0 * train.widths, train.heights, train.widths], axis=1)
    boxes = np.concatenate([b.windows[:, 3:7].numpy() for b in batches])
    assert boxes.tolist() == whole.tolist()


def test_reading_ahead_is_bounded(mixed_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = []

    class Immediate(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            submitted.append(args)
            future: Future[Any] = Future()
            future.set_result(fn(*args))
            return future

    monkeypatch.setattr("latentset.datasets.storage.threads.ThreadPoolExecutor", Immediate)
    train = select_split(mixed_store, "train")
    reader = LatentReader(mixed_store, train, batch_size=2, read_ahead=3, drop_last=True)
    batches = reader.batches(0)
    assert submitted == []
    next(batches)
    assert len(submitted) == 1 + 3
    next(batches)
    assert len(submitted) == 2 + 3
    assert len(list(batches)) == 23 - 2
    assert len(submitted) == 23


def test_one_size_has_one_chunk_a_sample(tmp_path: Path) -> None:
    store = open_store(write_synthetic_store(tmp_path / "s.zarr", samples=30, sizes=((50, 80),)))
    assert store.header.layout.chunk_rows == 4 * 5
    (batch, *_) = read(store)
    assert batch.rows["y_hat"].shape == (8, 8 * 20)
    assert batch.rows["y_hat"].is_contiguous()


@pytest.fixture
def own_store(tmp_path: Path) -> Store:
    return open_store(write_synthetic_store(tmp_path / "own.zarr", samples=40, sizes=((64, 64),)))


def test_flipped_bit_is_found_and_named(own_store: Store) -> None:
    first = next(  # whose chunk is the first of its shard
        row
        for row in own_store.samples.to_pylist()
        if row["split"] == "train" and row["first_row"] % own_store.header.layout.shard_rows == 0
    )
    path = Path(str(own_store.location)) / "y_hat" / "c" / str(first["shard"]) / "0"
    content = bytearray(path.read_bytes())
    content[5] ^= 16
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=rf"y_hat of sample {first['id']} \(row .*again"):
        read(own_store, shuffle=False, drop_last=False)


def test_missing_chunk_is_an_error_not_zeros(own_store: Store) -> None:
    shutil.rmtree(Path(str(own_store.location)) / "scale_index" / "c")
    with pytest.raises(StoreCorruptError, match=r"scale_index of sample .* is missing"):
        read(own_store)


def test_array_that_is_not_there(own_store: Store) -> None:
    shutil.rmtree(Path(str(own_store.location)) / "scale_index")
    with pytest.raises(StoreCorruptError, match="scale_index cannot be opened"):
        read(own_store)


def test_array_of_another_shape(own_store: Store) -> None:
    shutil.rmtree(Path(str(own_store.location)) / "scale_index")
    shutil.copytree(
        Path(str(own_store.location)) / "z_hat", Path(str(own_store.location)) / "scale_index"
    )
    with pytest.raises(StoreCorruptError, match=r"scale_index: expected integers .*, got int16"):
        read(own_store)


def test_empty_split_lists_what_there_is(mixed_store: Store) -> None:
    message = r"expected samples of split 'valid', got test 24, train 48, val 24"
    with pytest.raises(RecipeError, match=message):
        select_split(mixed_store, "valid")


def test_split_of_failures_says_so(tmp_path: Path) -> None:
    store = open_store(
        write_synthetic_store(
            tmp_path / "s.zarr", samples=4, splits=("train", "val"), failed=(2, 3)
        )
    )
    with pytest.raises(RecipeError, match=r"no sample that was encoded \(status: truncated 2\)"):
        select_split(store, "val")


def test_samples_without_label_are_refused(mixed_store: Store) -> None:
    labels = mixed_store.samples["label"].to_numpy().copy()
    labels[3] = -1
    table = mixed_store.samples
    table = table.set_column(
        table.column_names.index("label"), table.schema.field("label"), [labels]
    )
    unlabelled = type(mixed_store)(
        mixed_store.location, mixed_store.header, table, mixed_store.manifest
    )
    with pytest.raises(RecipeError, match=r"1 of 47 samples have no label, the first is "):
        select_split(unlabelled, "train")
