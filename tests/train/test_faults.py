"""A few of the faults of benchmarks/faults.py, in every run of the tests."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from tests.makers.synthetic import write_synthetic_store

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    spec = spec_from_file_location("faults", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["zarr", "hdf5"])
def store(request: pytest.FixtureRequest, tmp_path: Path, faults: ModuleType) -> Path:
    made = write_synthetic_store(tmp_path / "s.zarr", samples=16, sizes=((64, 64), (100, 50)))
    if request.param == "zarr":
        return made
    convert(open_store(made), Folder(tmp_path / "s.h5"), "hdf5", faults.silence)
    return tmp_path / "s.h5"


@pytest.mark.parametrize(("name", "count"), [("flip", 30), ("truncate", 5), ("delete", 5)])
def test_no_fault_is_missed(name: str, count: int, store: Path, faults: ModuleType) -> None:
    counts = faults.inject(store, getattr(faults, name), count, seed=5)
    assert counts["made"] == count
    assert counts["missed by verify"] == counts["read silently"] == counts["crashed"] == 0
    if name != "flip":
        assert counts["refused at opening"] == count


@pytest.mark.parametrize("name", ["exchange", "stale"])
def test_whole_objects_in_the_wrong_place(name: str, tmp_path: Path, faults: ModuleType) -> None:
    store, *earlier = (faults.write_small_store(tmp_path / f"{k}.zarr", k) for k in range(6))
    stale = faults.Stale(earlier)
    fault, among = (
        (faults.exchange, faults.with_twins) if name == "exchange" else (stale, stale.among)
    )
    counts = faults.inject(store, fault, 4, seed=5, among=among)
    assert counts["made"] == 4
    assert counts["missed by verify"] == counts["crashed"] == counts["refused at opening"] == 0
    assert counts["read silently"] == 0
    assert faults.verify(store, faults.silence).outcome == "sound"


def test_the_count_can_fail(store: Path, faults: ModuleType) -> None:
    counts = faults.inject(store, lambda path, random: "nothing", 3, seed=5)
    assert counts["missed by verify"] == 3
