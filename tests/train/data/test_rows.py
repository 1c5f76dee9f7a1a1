"""The training reader gives the same batches from both formats, and the same refusals."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.torch import load_file

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.data.crop import RandomCrop, WholeGrid
from latentset.train.data.rows import Hdf5Rows, UnreadableError, ZarrRows, open_rows
from latentset.train.data.split import select_split
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.fit import fit
from tests.makers.synthetic import write_synthetic_store


def silence(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def hdf5_store(mixed_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("hdf5") / "mixed.h5"
    return convert(mixed_store, Folder(path), "hdf5", silence)


def same(first: Batch, second: Batch) -> None:
    assert first.rows.keys() == second.rows.keys()
    for name, rows in first.rows.items():
        assert rows.dtype == second.rows[name].dtype
        assert rows.is_contiguous()
        assert second.rows[name].is_contiguous()
        assert rows.equal(second.rows[name])
    for name in ("windows", "labels", "samples"):
        assert getattr(first, name).equal(getattr(second, name))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_are_identical(
    training: bool, epoch: int, mixed_store: Store, hdf5_store: Store
) -> None:
    batches = [
        list(
            LatentReader(
                store,
                select_split(store, "train"),
                batch_size=8,
                seed=1,
                shuffle=training,
                drop_last=training,
                crop=RandomCrop() if training else WholeGrid(),
            ).batches(epoch)
        )
        for store in (mixed_store, hdf5_store)
    ]
    assert len(batches[0]) == (5 if training else 6)
    for first, second in zip(*batches, strict=True):
        same(first, second)
        assert first.rows["y_hat"].any()


def test_chunks_of_one_sample_and_arrays_of_one_shard(tmp_path: Path) -> None:
    made = open_store(write_synthetic_store(tmp_path / "s.zarr", samples=9, sizes=((50, 80),)))
    hdf5 = convert(made, Folder(tmp_path / "s.h5"), "hdf5", silence)
    firsts, counts = [20, 0, 160], [20, 40, 5]
    ours, theirs = (open_rows(s, ("y_hat", "scale_index")) for s in (made, hdf5))
    assert isinstance(ours, ZarrRows)
    assert isinstance(theirs, Hdf5Rows)
    expected, found = ours.read(firsts, counts), theirs.read(firsts, counts)
    for name in ("y_hat", "scale_index"):
        assert found[name].shape == (8, 65)
        assert found[name].dtype == expected[name].dtype
        assert np.array_equal(found[name], expected[name])


def test_flipped_bit_is_found_and_named(tmp_path: Path) -> None:
    made = open_store(write_synthetic_store(tmp_path / "s.zarr", samples=40))
    path = tmp_path / "s.h5"
    store = convert(made, Folder(path), "hdf5", silence)
    with h5py.File(path) as opened:
        location = opened["scale_index"].id.get_chunk_info(6).byte_offset
    content = bytearray(path.read_bytes())
    content[location + 9] ^= 32
    path.write_bytes(bytes(content))
    # One chunk a sample, 16 rows each: the seventh chunk is of the sample that begins at row 96.
    (owner,) = (row for row in store.samples.to_pylist() if row["first_row"] == 96)
    reader = LatentReader(
        open_store(path),
        select_split(store, owner["split"]),
        batch_size=4,
    )
    with pytest.raises(
        StoreCorruptError, match=rf"scale_index of sample {owner['id']} \(row .*fle"
    ):
        list(reader.batches(0))
    with pytest.raises(UnreadableError, match=r"scale_index: .*fletcher32"):
        open_rows(store, ("y_hat", "scale_index")).read([96], [16])


def test_training_comes_out_the_same(
    make_recipe: Callable[..., Recipe], hdf5_store: Store, tmp_path: Path
) -> None:
    fit(make_recipe(schedule__epochs=1), tmp_path / "zarr")
    fit(make_recipe(schedule__epochs=1, data__store=str(hdf5_store.location)), tmp_path / "hdf5")
    weights = [load_file(tmp_path / name / "last.safetensors") for name in ("zarr", "hdf5")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert tensor.equal(weights[1][name])
