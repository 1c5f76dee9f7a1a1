"""The code blocks of docs/python.md and of the README, as they are."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.makers.synthetic import write_synthetic_store

ROOT = Path(__file__).parents[2]
SIZES = {"even": ((256, 256),), "mixed": ((256, 256), (200, 300), (128, 90))}


def blocks(page: str) -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture(params=list(SIZES))
def in_folder_of_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Changes to a folder with a store ``images.zarr``, made once."""
    folder = tmp_path_factory.getbasetemp() / f"documents-{request.param}"
    if not folder.exists():
        folder.mkdir()
        sizes = SIZES[request.param]
        write_synthetic_store(folder / "images.zarr", samples=120, sizes=sizes, failed=(5,))
    request.getfixturevalue("monkeypatch").chdir(folder)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "example.py", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 on torch 2.14
@pytest.mark.usefixtures("in_folder_of_store")
@pytest.mark.parametrize(
    "block", [*blocks("docs/python.md"), *blocks("README.md")], ids=lambda block: None
)
def test_block(block: str) -> None:
    names = run(block)
    if "knn_accuracy" in names:
        assert names["probe_accuracy"] > 0.9
        assert names["knn_accuracy"] > 0.9
    if "seen" in names:
        assert len(names["seen"]) == 89  # of 90 in train one has failed
    if "loss" in names:
        assert names["loss"].isfinite()


def test_the_page_has_its_blocks() -> None:
    assert len(blocks("docs/python.md")) == 6
    assert len(blocks("README.md")) == 1
