"""``Store.read`` against ``Store.read_sample``, which goes through zarr-python."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.zarr.reader import ZarrStore
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

MIXED = ((64, 64), (100, 50), (30, 170))
Open = Callable[..., Store]


@pytest.fixture(params=["zarr", "hdf5"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    def make_store(write: Callable[..., Path] = write_synthetic_store, **options: Any) -> Store:
        path = write(tmp_path / "store.zarr", shard_bytes=1 << 15, **options)
        if request.param == "zarr":
            return open_store(path)
        convert(open_store(path), Folder(tmp_path / "store.h5"), "hdf5")
        return open_store(tmp_path / "store.h5")

    return make_store


def assert_same(found: dict[str, Any], expected: dict[str, NDArray[Any]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("sizes", [((64, 64),), ((50, 80),), MIXED])
def test_values_are_those_of_each_sample(make: Open, sizes: Any) -> None:
    store = make(sizes=sizes, samples=40, failed=(1,))
    indices = [7, 0, 39, 7, -1]
    found = store.read(indices)
    assert store.header.layout.shards > 1
    assert isinstance(found["y_hat"], list) == (len(sizes) > 1) == (store.grid is None)
    for k, index in enumerate(indices):
        expected = store.read_sample(index % 40)
        assert_same({name: grids[k] for name, grids in found.items()}, expected)
        assert_same(store[index], expected)


def test_pixels(make: Open) -> None:
    store = make(write_synthetic_pixels, sizes=((20, 30),))
    pixels = store.read(store.indices("val"), ["pixels"])["pixels"]
    assert pixels.shape == (6, 20, 30, 3)
    expected = [store.read_sample(k)["pixels"] for k in store.indices("val").tolist()]
    np.testing.assert_array_equal(pixels, expected)


def test_arrays_are_chosen_by_name(make: Open) -> None:
    store = make(sigma_hat=True)
    assert list(store.read([0])) == ["y_hat", "scale_index", "z_hat", "sigma_hat"]
    assert list(store.read([0], ["sigma_hat"])) == ["sigma_hat"]
    with pytest.raises(StoreError, match="no array 'sigma'; it has y_hat, scale_index, z_hat, sig"):
        store.read([0], ["sigma"])


def test_indices_and_length(make: Open) -> None:
    store = make(samples=24, failed=(1, 20))
    splits = store.samples["split"].to_pylist()
    train = [k for k in range(24) if k not in (1, 20) and splits[k] == "train"]
    assert len(store) == 24
    assert store.indices("train").tolist() == train
    assert store.indices().tolist() == [k for k in range(24) if k not in (1, 20)]
    with pytest.raises(StoreError, match="got 'nothing'"):
        store.indices("nothing")
    assert store.read([], ["y_hat"])["y_hat"].shape == (0, 4, 4, 8)


def test_indices_that_cannot_be_read(make: Open) -> None:
    store = make(samples=24, failed=(1,))
    with pytest.raises(
        StoreError, match=r"sample 1 \(odd/000001\) has no latents: truncated: made"
    ):
        store.read([0, 1])
    with pytest.raises(IndexError, match="24 is out of bounds"):
        store.read([24])
    with pytest.raises(IndexError, match="-25 is out of bounds"):
        store[-25]
    with pytest.raises(IndexError, match=r"expected one dimension, got the shape \(\)"):
        store.read(3)
    with pytest.raises(IndexError, match="integer"):
        store.read([0.5])


def _read_in_child(store: Store, expected: NDArray[Any], answers: Any) -> None:
    answers.put(np.array_equal(store.read([3, 5], ["y_hat"])["y_hat"], expected))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_open_store(make: Open, method: str) -> None:
    store = make()
    expected = store.read([3, 5], ["y_hat"])["y_hat"]
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(store, expected, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get()


def test_pickle_leaves_what_is_open_out(make: Open) -> None:
    store = make()
    before = len(pickle.dumps(store))
    store.read([0])
    assert len(pickle.dumps(store)) == before
    assert_same(pickle.loads(pickle.dumps(store))[2], store.read_sample(2))


class Shard:
    """The first shard of ``y_hat``, to damage."""

    def __init__(self, store: Store) -> None:
        self.path = Path(str(store.location)) / "y_hat" / "c" / "0" / "0"
        layout = store.header.layout
        self.chunks = layout.shard_rows // layout.chunk_rows
        self.content = bytearray(self.path.read_bytes())
        self.index = np.frombuffer(self.content, "<u8", 2 * self.chunks, self.end).reshape(-1, 2)

    @property
    def end(self) -> int:
        return len(self.content) - 16 * self.chunks - 4

    def write(self) -> None:
        crc = google_crc32c.value(bytes(self.content[self.end : -4]))
        self.content[-4:] = crc.to_bytes(4, "little")
        self.path.write_bytes(self.content)


@pytest.fixture
def zarr_store(tmp_path: Path) -> ZarrStore:
    store = open_store(write_synthetic_store(tmp_path / "own.zarr", sizes=((64, 64),)))
    assert isinstance(store, ZarrStore)
    return store


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((2**64 - 1, 2**64 - 1), "chunk 0 is missing"),
        ((0, 0), "chunk 0 is missing"),
        ((0, 2**40), "impossible size"),
        ((2**63, 200), "beyond the end"),
        ((1, 200), "chunk 0 differs from its checksum"),
    ],
)
def test_a_wrong_index_is_found(
    zarr_store: ZarrStore, entry: tuple[int, int], message: str
) -> None:
    shard = Shard(zarr_store)
    shard.index[0] = entry
    shard.write()
    first = int(np.argmin(zarr_store.samples["first_row"].to_numpy()))
    with pytest.raises(StoreCorruptError, match=f"y_hat of sample {first} .*c/0/0: .*{message}"):
        zarr_store.read([first], ["y_hat"])


def test_a_chunk_that_claims_more_than_its_size(zarr_store: ZarrStore) -> None:
    shard = Shard(zarr_store)
    first, size = (int(number) for number in shard.index[0])
    shard.content[first + 4 : first + 8] = (1 << 30).to_bytes(4, "little")
    body = bytes(shard.content[first : first + size - 4])
    shard.content[first + size - 4 : first + size] = google_crc32c.value(body).to_bytes(4, "little")
    shard.write()
    with pytest.raises(StoreCorruptError, match=r"decompressed: expected 256, got 1073741824"):
        zarr_store.read(zarr_store.indices(), ["y_hat"])


def test_a_flipped_bit_and_a_missing_shard(zarr_store: ZarrStore) -> None:
    shard = Shard(zarr_store)
    shard.content[30] ^= 4
    shard.write()
    with pytest.raises(StoreCorruptError, match=r"differs from its checksum.*encode"):
        zarr_store.read(zarr_store.indices(), ["y_hat"])
    shard.path.unlink()
    with pytest.raises(StoreCorruptError, match=r"c/0/0: is missing"):
        pickle.loads(pickle.dumps(zarr_store)).read([0], ["y_hat"])


@pytest.mark.parametrize("make_other", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_unreachable(
    zarr_store: ZarrStore, make_other: Callable[[Path], None]
) -> None:
    shard = Shard(zarr_store)
    shard.path.unlink()
    make_other(shard.path)
    with pytest.raises(StoreUnreachableError, match="cannot be read"):
        zarr_store.read(zarr_store.indices(), ["y_hat"])


def test_an_index_beyond_the_scale_table(zarr_store: ZarrStore) -> None:
    codec = zarr_store.header.codec
    assert codec
    short = codec.model_copy(update={"scale_table": codec.scale_table[:4]})
    header = zarr_store.header.model_copy(update={"codec": short})
    damaged = replace(zarr_store, header=header)
    for read in (lambda: damaged.read([0]), lambda: damaged.read_sample(0)):
        with pytest.raises(StoreCorruptError, match=r"scale_index: expected less than 4, .* got"):
            read()
    assert damaged.read([0], ["y_hat"])["y_hat"].any()
