"""Whatever the bytes of a store are, a command succeeds or says what is wrong (docs/verify.md).

A few seconds of each kind with every run of the tests. For longer, with other inputs each time:
``LATENTSET_FUZZ_SECONDS=3600 python -m pytest -s tests/datasets/store/test_fuzz_store.py``.
"""

import operator
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.formats import Format
from tests.makers.confined import confined
from tests.makers.forging import lookup3, seal
from tests.makers.fuzzing import fuzz
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store
from tests.makers.using import check, use

SIZES = ((64, 64), (100, 50))


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    path = tmp_path / "latents"
    return write_synthetic_store(
        path, samples=12, sizes=SIZES, failed=(3,), sigma_hat=True, shard_bytes=1 << 10
    )


@pytest.fixture
def packed(latents: Path, tmp_path: Path) -> bytes:
    """The latents in HDF5."""
    convert(open_store(latents), Folder(tmp_path / "latents.h5"), "hdf5")
    return (tmp_path / "latents.h5").read_bytes()


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_forged_latents(container: Format, latents: Path, tmp_path: Path) -> None:
    fuzz(use, latents, container, tmp_path, f"latents, {container}")


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_forged_latents_in_large_shards(container: Format, tmp_path: Path) -> None:
    store = write_synthetic_store(tmp_path / "large", samples=40, sizes=SIZES)
    fuzz(use, store, container, tmp_path, f"latents in large shards, {container}")


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_forged_pixels(container: Format, tmp_path: Path) -> None:
    store = write_synthetic_pixels(tmp_path / "pixels", samples=6, decoded=True)
    fuzz(use, store, container, tmp_path, f"pixels, {container}")


def test_a_sound_store_passes(latents: Path, packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "sealed.h5").write_bytes(seal(packed))
    for store in (latents, tmp_path / "sealed.h5"):
        scratch = tmp_path / f"{store.name}.scratch"
        scratch.mkdir()
        assert use(store, scratch) == "opened"
        assert check(store, tmp_path) == "sound"


@pytest.mark.parametrize(
    ("message", "work", "arguments"),
    [
        ("killed by SIGSEGV", signal.raise_signal, (signal.SIGSEGV,)),
        ("ZeroDivisionError", operator.floordiv, (1, 0)),
        ("MemoryError", bytearray, (16 << 30,)),
        (r"took \d+,\d+,\d+ bytes", operator.mul, (b"x", 1 << 27)),
    ],
)
def test_the_test_can_fail(
    message: str, work: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    with pytest.raises(AssertionError, match=message):
        confined(work, *arguments, memory_bytes=1 << 25)


def test_checksums_are_those_of_hdf5(packed: bytes) -> None:
    assert lookup3(packed[512:556]) == int.from_bytes(packed[556:560], "little")
