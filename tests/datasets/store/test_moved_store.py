"""A store that is moved and renamed, below names with odd characters, read by many at once."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_store

NAMES = ("a b", "#1", "100%20", "what?", "[b]x[", "caf\u00e9", "cafe\u0301", "a\nb", "-x", "a;b&c")


def read_sum(path: str) -> int:
    """What the first sample's symbols sum up to, in a process of its own."""
    return int(open_store(path).read_sample(0)["y_hat"].sum())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_store(tmp_path_factory.mktemp("made") / "store.zarr", samples=6)


@pytest.mark.parametrize("name", NAMES)
def test_moved_below_any_name(made: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / f"{name}.zarr"
    shutil.copytree(made, path)
    expected = open_store(made)
    for address in (path, str(path), f"file://{quote(str(path))}"):
        store = open_store(address)
        assert store.fingerprint == expected.fingerprint
        assert (store.read_sample(3)["y_hat"] == expected.read_sample(3)["y_hat"]).all()
    assert not verify(path, lambda *_: None).problems
    packed = convert(open_store(path), Folder(path.with_suffix(".h5")), "hdf5")
    assert (packed.read_sample(3)["y_hat"] == expected.read_sample(3)["y_hat"]).all()


def test_many_processes_at_once(made: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as processes:
        sums = set(processes.map(read_sum, [str(made)] * 6))
    assert sums == {read_sum(str(made))}


def test_reading_leaves_the_folder_as_it_was(made: Path) -> None:
    def look() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in (made, *made.rglob("*")))

    before = look()
    open_store(made).read_sample(1)
    verify(made, lambda *_: None)
    assert look() == before
