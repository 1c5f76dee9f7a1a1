"""Statistics of channels, against the same computed from every sample at once."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import open_store
from latentset.datasets.store import statistics as module
from latentset.datasets.store.convert import convert
from latentset.datasets.store.statistics import ChannelStatistics, measure_channels
from latentset.datasets.store.store import Store
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

FAILED = (2,)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine samples of two sizes in several shards, one without latents."""
    return open_store(
        write_synthetic_store(
            tmp_path_factory.mktemp("mixed") / "store",
            samples=9,
            sizes=((64, 64), (100, 50), (260, 70)),
            failed=FAILED,
            shard_bytes=1 << 10,
        )
    )


def rows_of_samples(store: Store, name: str) -> NDArray[np.float64]:
    """All positions of all samples, (n, C)."""
    grids = [store.read_sample(k)[name] for k in range(store.samples.num_rows) if k not in FAILED]
    rows: NDArray[np.float64] = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids])
    return rows.astype(np.float64)


def check(found: ChannelStatistics, rows: NDArray[np.float64]) -> None:
    assert found.count == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.deviation, rows.std(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.least, rows.min(axis=0))
    np.testing.assert_array_equal(found.greatest, rows.max(axis=0))


def test_y_hat(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of_samples(mixed, "y_hat")
    assert mixed.header.layout.shards > 1
    assert len(rows) < mixed.shape("y_hat")[0], "there is padding"
    found = measure_channels(mixed, "y_hat")
    check(found, rows)
    np.testing.assert_allclose(found.zeros, (rows == 0).mean(axis=0), rtol=1e-12)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)  # a chunk at a time
    check(measure_channels(mixed, "y_hat"), rows)


def test_sigma_hat(mixed: Store) -> None:
    table = np.asarray(mixed.header.codec.scale_table if mixed.header.codec else ())
    grids = [mixed.read_grid(k, "scale_index") for k in range(9) if k not in FAILED]
    rows = table[np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids])]
    found = measure_channels(mixed, "sigma_hat")
    check(found, rows)
    np.testing.assert_allclose(found.zeros, (rows == table.min()).mean(axis=0), rtol=1e-12)
    assert found.zeros.any()


def test_the_same_of_hdf5(mixed: Store, tmp_path: Path) -> None:
    other = convert(mixed, open_location(tmp_path / "store.h5"), "hdf5")
    for name in ("y_hat", "sigma_hat"):
        one, two = measure_channels(mixed, name), measure_channels(other, name)
        np.testing.assert_array_equal(one.mean, two.mean)
        np.testing.assert_array_equal(one.deviation, two.deviation)


def test_pixels(tmp_path: Path) -> None:
    path = write_synthetic_pixels(
        tmp_path / "store", samples=5, sizes=((20, 30), (16, 16)), failed=FAILED
    )
    store = open_store(path)
    check(measure_channels(store, "pixels"), rows_of_samples(store, "pixels"))


def test_large_values_are_exact(tmp_path: Path) -> None:
    """A mean far from 0, small deviation: the usual formula in floats would lose it."""
    store = open_store(write_synthetic_store(tmp_path / "store", samples=4, channels=2))
    values = np.array([[32767, -32768]] * 999 + [[32766, -32768]], np.int16)
    blocks = [values] * 1000

    class Made:
        location, header = store.location, store.header

        def shape(self, name: str) -> tuple[int, int]:
            return 0, 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_sample_rows", lambda *_: iter(blocks))
        found = measure_channels(Made(), "y_hat")  # type: ignore[arg-type]
    assert found.mean.tolist() == [32766.999, -32768.0]
    assert found.deviation[0] == pytest.approx((0.001 * 0.999) ** 0.5, rel=1e-12)
    assert found.deviation[1] == 0


def test_no_samples(mixed: Store) -> None:
    store = type(mixed)(mixed.location, mixed.header, mixed.samples.slice(0, 0), mixed.manifest)
    for name in ("y_hat", "sigma_hat"):
        found = measure_channels(store, name)
        assert found.count == 0
        assert np.isnan(found.mean).all()


def test_a_scale_that_is_not_in_the_table(mixed: Store) -> None:
    codec = mixed.header.codec
    assert codec is not None
    short = codec.model_copy(update={"scale_table": codec.scale_table[:4]})
    header = mixed.header.model_copy(update={"codec": short})
    store = type(mixed)(mixed.location, header, mixed.samples, mixed.manifest)
    with pytest.raises(StoreCorruptError, match="scale_index: expected less than 4"):
        measure_channels(store, "sigma_hat")
