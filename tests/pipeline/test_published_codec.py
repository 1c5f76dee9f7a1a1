"""Every command of this environment with a graph of the published form at its real sizes.

The store stays in LATENTSET_EXCHANGE, where the other environment's tests train from it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.store import open_store
from tests.makers.published import build_published

CODECS = {
    "bmshj2018-hyperprior-msssim-4": {"N": 128, "M": 192, "z_width": 40},
    "bmshj2018-hyperprior-mse-8": {"N": 192, "M": 320, "z_width": 89},
}
"""With random weights: of the published files only names, sizes and form are at hand."""


def latentset(*words: object) -> str:
    program = "from latentset.cli.main import main; main()"
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def latentset_here(*words: object) -> str:
    """Run the command in this process, which has imported TensorFlow already."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of two classes, some of another size."""
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("source") / "images"
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for k in range(2):
                size = (64, 64) if k else (50, 75)
                coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
                coarse.resize(size).save(root / split / name / f"{k}.png")
    return root


def cached(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a codec where `latentset codec fetch` would."""
    monkeypatch.setenv("LATENTSET_CACHE", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    folder.mkdir()
    graph = build_published(**CODECS[name]).SerializeToString()
    (folder / f"{name}.metagraph").write_bytes(graph)


def encode(name: str, images: Path, store: Path) -> None:
    """Encode; keep the store for the other environment."""
    latentset("encode", images, store, "--codec", name, "--workers", 1)
    opened = open_store(store)
    assert opened.header.codec is not None
    assert opened.header.codec.channels == CODECS[name]["M"]
    assert opened.samples["status"].to_pylist() == ["ok"] * 12
    if exchange := os.environ.get("LATENTSET_EXCHANGE"):
        kept = Path(exchange) / "published" / f"{name}.zarr"
        shutil.copytree(store, kept, dirs_exist_ok=True)


def test_encode_the_smaller_form(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "bmshj2018-hyperprior-msssim-4"
    cached(name, tmp_path / "cache", monkeypatch)
    encode(name, images, tmp_path / "store.zarr")


def test_inspect_encode_verify_decode_and_evaluate_the_larger_form(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "bmshj2018-hyperprior-mse-8"
    cached(name, tmp_path / "cache", monkeypatch)
    assert "320 channels" in latentset_here("codec", "inspect", name)

    store, pixels = tmp_path / "store.zarr", tmp_path / "pixels.zarr"
    encode(name, images, store)
    checked = latentset_here("verify", store, "--recompute", 12, "--source", images)
    assert "12 samples: 0 of" in checked

    latentset("decode", store, pixels, "--originals", images, "--workers", 1)
    decoded = open_store(pixels).samples["psnr_db"].to_pylist()
    assert all(np.isfinite(decoded))

    large = tmp_path / "large"
    large.mkdir()
    Image.open(images / "test" / "a" / "0.png").resize((176, 168)).save(large / "0.png")
    assert name in latentset_here("codec", "evaluate", large, name)
