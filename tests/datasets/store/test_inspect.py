from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.cli.store import inspect
from latentset.datasets.errors import StoreFormatError
from latentset.datasets.store.summary import format_bytes
from tests.makers.synthetic import write_synthetic_store

pytestmark = pytest.mark.usefixtures("wide_terminal")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_synthetic_store(tmp_path / "made", samples=8, sizes=((64, 64),), failed=(7,))


def printed(store: Path, capsys: pytest.CaptureFixture[str]) -> str:
    inspect(str(store))
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_store_is_summarised(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(store, capsys)
    for part in (
        "complete yes",
        "samples 8: 7 with latents, 1 failed",
        "splits train 6, val 2",
        "classes 2: even, odd",
        "images 64x64 (height x width)",
        "latent grids 4x4 (height x width)",
        "rate 0.2543 bpp on average (0.2500 to 0.2600)",  # 4 of 0.25 and 3 of 0.26
        "channels 8 of y_hat, 4 of z_hat",
        "scale table 64 values, 0.11 to 256",
        "codec synthetic (tfc2)",
        "created 1970-01-01T00:00:00Z",
        "codec's own bitstreams 911 bytes",  # (4 * 0.25 + 3 * 0.26) * 64 * 64 / 8
        "1 images could not be encoded:",
        "odd/000007.png: truncated: made up",
    ):
        assert part in text, part
    sizes = [f.stat().st_size for f in store.rglob("*") if f.is_file()]
    total = sum(sizes) - (store / "manifest.json").stat().st_size
    assert f"store {format_bytes(total)} in {len(sizes) - 1} objects" in text
    assert f"the store is {total / 7021:.3f} times that" in text  # source_bytes 1000 to 1006


def test_an_incomplete_store_is_summarised_too(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "manifest.json").unlink()
    text = printed(store, capsys)
    assert "complete no: run the same latentset encode again" in text
    assert "images 8 listed" in text


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match="not a LatentSet store"):
        inspect(str(tmp_path))


def test_names_cannot_command_the_terminal(
    tmp_path: Path,
    alter_table: Callable[[Path, Callable[[dict[str, list[Any]]], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = write_synthetic_store(tmp_path / "store", failed=(0,))
    name = "red\x1b[31m/000000.png"
    alter_table(store, lambda columns: columns["path"].__setitem__(0, name))
    text = printed(store, capsys)
    assert "\x1b" not in text
    assert "red\N{REPLACEMENT CHARACTER}[31m/000000.png: truncated" in text
