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


@pytest.mark.parametrize("name", CODECS)
def test_inspect_encode_verify_decode_and_evaluate(
    name: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    size = CODECS[name]
    (tmp_path / "cache").mkdir()
    metagraph = build_published(**size)
    (tmp_path / "cache" / f"{name}.metagraph").write_bytes(metagraph.SerializeToString())

    found = latentset_here("codec", "inspect", name)
    assert f"{size['M']} channels" in found

    store, pixels = tmp_path / "store.zarr", tmp_path / "pixels.zarr"
    latentset("encode", images, store, "--codec", name, "--workers", 2)
    opened = open_store(store)
    assert opened.header.codec is not None
    assert opened.header.codec.channels == size["M"]
    assert opened.samples["status"].to_pylist() == ["ok"] * 12

    checked = latentset_here("verify", store, "--recompute", 12, "--source", images)
    assert "12 samples: 0 of" in checked

    latentset("decode", store, pixels, "--originals", images, "--workers", 1)
    decoded = open_store(pixels).samples["psnr_db"].to_pylist()
    assert all(np.isfinite(decoded))

    large = tmp_path / "large"
    large.mkdir()
    Image.open(images / "test" / "a" / "0.png").resize((176, 168)).save(large / "0.png")
    assert name in latentset_here("codec", "evaluate", large, name)

    if exchange := os.environ.get("LATENTSET_EXCHANGE"):
        kept = Path(exchange) / "published" / f"{name}.zarr"
        shutil.copytree(store, kept, dirs_exist_ok=True)
