"""Training from stores that the other environment has encoded with graphs of the published form."""

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from latentset.cli.train import train


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior-msssim-4", "bmshj2018-hyperprior-mse-8"])
def test_fa_cresnet_trains(name: str, tmp_path: Path) -> None:
    store = Path(os.environ.get("LATENTSET_EXCHANGE", tmp_path)) / "published" / f"{name}.zarr"
    if not store.is_dir():
        pytest.skip("made by the tests of the encode environment, in LATENTSET_EXCHANGE")
    app = typer.Typer()
    app.command()(train)
    changed = {"schedule.epochs": 1, "schedule.decay_epochs": [], "data.batch_size": 4}
    changed |= {"data.size": 4, "device.accelerator": "cpu"}
    sets = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
    words = ["demo/fa-cresnet", "--store", str(store), "--out", str(tmp_path / "run"), *sets]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["test"]["top1"] <= 1
