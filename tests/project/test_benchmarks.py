"""Benchmarks run, at a tiny size; docs/performance.md says which do not, and why.

They run in this process, so that PyTorch is imported once; those that start processes of their own
from their main module run in one.
"""

import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.makers import PYTHONPATH
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
HERE = "encode" if find_spec("tensorflow") else "train"

IN_PROCESS = {
    "encode": {},
    "train": {
        "reader": "--samples 64 --repeats 1",
        "python_interface": "--samples 64 --repeats 1",
        "faults": "--flips 2 --truncations 1 --deletions 1 --exchanges 1 --stale 1",
        "hdf5_filters": "latents.zarr --shards 1",
        "pixel_coding": "pixels.zarr --samples 4",
        "store_coding": "latents.zarr --samples 4",
        "train_step": "latents.zarr --batch 8 --size 8 --width 4 --steps 1 --repeats 1 "
        "--seconds 0.01 --modes fp32",
    },
}
APART = {
    "encode": {"scale": "--samples 1500 --workers 1 --verify"},
    "train": {"reader_memory": "--samples 64 --epochs 2"},
}
MODULES = {"encoding_worker", "latent_formats", "measure"}
"""Not run by themselves."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("benchmarks")
    write_synthetic_store(
        made / "latents.zarr", samples=64, sizes=((256, 256),), channels=24, classes=("a", "b")
    )
    write_synthetic_pixels(made / "pixels.zarr", samples=8)
    return made


@pytest.mark.skipif(not IN_PROCESS[HERE], reason="none of this environment")
@pytest.mark.parametrize("name", list(IN_PROCESS[HERE]))
def test_in_process(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(BENCHMARKS)
    path = BENCHMARKS / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *IN_PROCESS[HERE][name].split()])
    status: object = 0
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    assert not status
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", list(APART[HERE]))
def test_apart(name: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *APART[HERE][name].split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_those_that_are_not_run() -> None:
    run = {name for group in (IN_PROCESS, APART) for names in group.values() for name in names}
    left = {path.stem for path in BENCHMARKS.glob("*.py")} - run - MODULES
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("Not run by tests: "))
    assert {name.strip(" `") for name in line.partition(":")[2].rstrip(".").split(",")} == left
