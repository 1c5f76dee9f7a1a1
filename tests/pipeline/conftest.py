"""Images made up, a stand-in codec, and Dask workers that live as long as the session."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.sources import Source, open_source
from latentset.datasets.store import Store
from latentset.pipeline.cpu_isa import VARIABLE, choose_cpu_isa
from latentset.pipeline.encode.encode import EncodeOptions, encode, encode_all
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import standin as module
from tests.makers.commands import content_of
from tests.makers.workers import thread_workers

# The default vector instructions, or what there is on a CPU without them.
os.environ.setdefault(VARIABLE, choose_cpu_isa())

SIZES = ((64, 64), (48, 100), (130, 70))


@pytest.fixture(scope="session")
def standin() -> Any:
    """The stand-in codec's module."""
    return module


@pytest.fixture(autouse=True)
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stamps are equal, so that stores can be compared byte for byte."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")


@pytest.fixture
def mixed(standin: Any, tmp_path: Path) -> Source:
    """40 images of three sizes."""
    standin.write_images(tmp_path / "mixed", SIZES, 40)
    return open_source(tmp_path / "mixed")


@pytest.fixture
def uniform(standin: Any, tmp_path: Path) -> Source:
    """32 images of one size."""
    standin.write_images(tmp_path / "uniform", ((64, 64),), 32)
    return open_source(tmp_path / "uniform")


@pytest.fixture(scope="session")
def scheduler(standin: Any) -> Iterator[str]:
    """Address of a Dask scheduler with two workers that are threads of this process."""
    with thread_workers() as address:
        yield address


Run = Callable[..., JobResult]


@pytest.fixture
def run(standin: Any, scheduler: str) -> Run:
    """Encode with the stand-in on the session's workers; takes fields of EncodeOptions."""

    def run_it(source: Source, store: Path, codec: str = "standin", **options: Any) -> JobResult:
        options = {"scheduler": scheduler, "engine": standin.ENGINE} | options
        return encode(source, store, codec, EncodeOptions(**options))

    return run_it


@pytest.fixture
def run_all(standin: Any, scheduler: str) -> Callable[..., list[JobResult]]:
    """Encode with several stand-ins on the session's workers: store by codec, and options."""

    def run_it(source: Source, stores: dict[Path, str], **options: Any) -> list[JobResult]:
        options = {"scheduler": scheduler, "engine": standin.ENGINE} | options
        return encode_all(source, list(stores.items()), EncodeOptions(**options))

    return run_it


@pytest.fixture
def content() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a store by its path."""
    return content_of


@pytest.fixture
def row() -> Callable[[Store, str], dict[str, Any]]:
    """The row of a sample by its id."""

    def find(store: Store, name: str) -> dict[str, Any]:
        rows = [r for r in store.samples.to_pylist() if r["id"] == name]
        assert len(rows) == 1
        found: dict[str, Any] = rows[0]
        return found

    return find
