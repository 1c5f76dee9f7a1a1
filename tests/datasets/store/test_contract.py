"""What every store gives, in whichever format it is kept: one suite over both."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_store

FAILED = 3


@pytest.fixture(scope="module")
def zarr_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 64x64 and 100x330 pixels, one failed: 12 samples in 6 shards."""
    return write_synthetic_store(
        tmp_path_factory.mktemp("zarr") / "store.zarr",
        samples=12,
        sizes=((64, 64), (100, 330)),
        failed=(FAILED,),
        sigma_hat=True,
        shard_bytes=1 << 12,
    )


@pytest.fixture(scope="module")
def hdf5_store(zarr_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdf5") / "store.h5"
    convert(open_store(zarr_store), Folder(path), "hdf5")
    return path


@pytest.fixture(params=["zarr", "hdf5"])
def path(request: pytest.FixtureRequest, zarr_store: Path, hdf5_store: Path) -> Path:
    return zarr_store if request.param == "zarr" else hdf5_store


@pytest.fixture
def store(path: Path) -> Store:
    return open_store(path)


def test_it_opens_by_path_and_by_text(path: Path, store: Store) -> None:
    assert open_store(str(path)).header == store.header
    assert store.location == Folder(path)


def test_samples_have_the_shapes_of_their_images(store: Store) -> None:
    assert store.samples.num_rows == 12
    assert store.header.layout.shards > 1
    for k in (0, 2, 11):
        sample = store.read_sample(k)
        height, width, z_size = (4, 4, (1, 1)) if k % 2 == 0 else (7, 21, (2, 6))
        assert sample["y_hat"].shape == (height, width, 8)
        assert sample["scale_index"].shape == sample["sigma_hat"].shape == (height, width, 8)
        assert sample["z_hat"].shape == (*z_size, 4)
        assert {name: str(values.dtype) for name, values in sample.items()} == {
            "y_hat": "int16",
            "scale_index": "uint8",
            "z_hat": "int16",
            "sigma_hat": "float32",
        }
        assert sample["y_hat"].std() > 1


@pytest.mark.parametrize("name", ["y_hat", "scale_index", "z_hat", "sigma_hat"])
def test_arrays_are_rows_and_channels(store: Store, name: ArrayName) -> None:
    layout = store.header.layout
    rows = layout.shards * (layout.z_shard_rows if name == "z_hat" else layout.shard_rows)
    array = store.array(name)
    assert array.shape == store.shape(name) == (rows, 4 if name == "z_hat" else 8)
    everything = np.asarray(array[:])
    assert everything.shape == array.shape
    assert everything.dtype == array.dtype
    for first, stop in ((0, 1), (3, rows - 2), (rows - 1, rows + 5), (4, 4)):
        assert np.array_equal(np.asarray(array[first:stop]), everything[first:stop])


def test_sigma_hat_is_the_scale_of_the_index(store: Store) -> None:
    sample = store.read_sample(5)
    expected = np.exp(np.log(0.11) + sample["scale_index"] * np.log(256 / 0.11) / 63)
    np.testing.assert_allclose(sample["sigma_hat"], expected, rtol=1e-6)
    first = store.samples["first_row"][5].as_py()
    stored = np.asarray(store.array("sigma_hat")[first : first + 7 * 21])
    np.testing.assert_allclose(stored.reshape(7, 21, 8), expected, rtol=1e-3)


def test_a_sample_that_failed_has_no_latents(store: Store) -> None:
    row = store.samples.slice(FAILED, 1).to_pylist()[0]
    assert (row["status"], row["rate_bpp"], row["first_row"]) == ("truncated", None, -1)
    with pytest.raises(StoreError, match=r"sample 3 \(odd/000003\) has no latents: truncated"):
        store.read_sample(FAILED)


def test_an_array_that_is_not_there(zarr_store: Path, store: Store, tmp_path: Path) -> None:
    assert store.header.arrays == ("y_hat", "scale_index", "z_hat", "sigma_hat")
    plain = open_store(write_synthetic_store(tmp_path / "plain.zarr", samples=2))
    if store.location.name.endswith(".h5"):
        plain = convert(plain, Folder(tmp_path / "plain.h5"), "hdf5")
    with pytest.raises(StoreError, match=r"has no array 'sigma_hat'; it has y_hat, scale_index, z"):
        plain.array("sigma_hat")


def test_stored_bytes_are_told_apart(path: Path, store: Store) -> None:
    stored = store.stored_bytes()
    assert {"y_hat", "scale_index", "z_hat", "sigma_hat", "samples.parquet"} <= stored.keys()
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    assert all(0 < value < size for value in stored.values())
    assert sum(stored.values()) < size


def test_it_is_sound(path: Path) -> None:
    findings = verify(path)
    assert findings.problems == []
    assert findings.outcome == "sound"


def damage(path: Path, what: Callable[[bytearray], object], target: Path) -> Path:
    """Copy a store and alter the bytes in which latents lie."""
    if path.is_file():
        shutil.copy(path, target)
        file = target
        with h5py.File(path) as opened:
            start = opened["y_hat"].id.get_chunk_info(0).byte_offset
    else:
        shutil.copytree(path, target)
        file, start = target / "y_hat" / "c" / "0" / "0", 0
    content = bytearray(file.read_bytes())
    piece = content[start : start + 40]
    what(piece)
    content[start : start + 40] = piece
    file.write_bytes(bytes(content))
    return target


def test_an_altered_chunk_is_refused_when_read(path: Path, tmp_path: Path) -> None:
    def flip(piece: bytearray) -> None:
        piece[30] ^= 4

    store = open_store(damage(path, flip, tmp_path / path.name))
    with pytest.raises(StoreCorruptError, match="y_hat"):
        store.read_sample(0)
    findings = verify(tmp_path / path.name)
    assert any("y_hat" in problem and "rows 0 to" in problem for problem in findings.problems)
    assert any("even/000000" in problem for problem in findings.problems)


def test_a_store_that_was_cut_off_is_refused(path: Path, tmp_path: Path) -> None:
    def shorten(piece: bytearray) -> None:
        del piece[-1]

    with pytest.raises(StoreCorruptError, match=r"expected .* bytes.*, got"):
        open_store(damage(path, shorten, tmp_path / path.name))


@pytest.mark.parametrize("name", ["nothing", "nothing.h5"])
def test_what_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match="spelling"):
        open_store(tmp_path / name)
