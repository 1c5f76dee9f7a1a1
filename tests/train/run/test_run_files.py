"""The lock of a run's folder, and figures that are not those of a run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.fit import fit
from latentset.train.run.run_files import lock_run, read_result
from tests.makers.runs import RESULT, write_run

MakeRecipe = Callable[..., Recipe]


def test_two_do_not_train_in_one_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__epochs=2, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "run", stop_after=1)
    metrics = (tmp_path / "run/metrics.csv").read_bytes()
    with (
        lock_run(tmp_path / "run"),
        pytest.raises(TrainingError, match=r"run is being trained by another process"),
    ):
        fit(recipe, tmp_path / "run")
    assert (tmp_path / "run/metrics.csv").read_bytes() == metrics
    assert fit(recipe, tmp_path / "run")["epochs"] == 2  # the lock has ended


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"recipe": ', "not the figures of a run: Invalid JSON"),
        ("{}", "not the figures of a run: recipe: Field required.* codec: Field required"),
        ("[]", "not the figures of a run: Input should be an object"),
        ("[" * 100_000, "not the figures of a run: Invalid JSON: recursion limit exceeded"),
        (json.dumps(RESULT | {"test": []}), "not the figures of a run: test: "),
        (json.dumps(RESULT | {"codec": 7}), "codec: Input should be a valid string, got 7"),
        (json.dumps(RESULT | {"rate_bpp": 1e400}), "rate_bpp: Input should be "),
        (json.dumps(RESULT | {"store_bytes": 10**400}), "store_bytes: "),
    ],
)
def test_torn_figures_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "trashnet/anchor1", 0.5)
    (folder / "result.json").write_text(text)
    expected = re.escape(str(folder / "result.json")) + f".*{message}.*remove result.json"
    with pytest.raises(TrainingError, match=expected):
        read_result(folder)


def test_without_its_figures_a_run_ends_once_more(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__epochs=2, schedule__decay_epochs=[], data__test_split="test")
    before = fit(recipe, tmp_path / "run")
    metrics = (tmp_path / "run/metrics.csv").read_bytes()
    (tmp_path / "run/result.json").write_text("{")
    with pytest.raises(TrainingError, match=r"remove result\.json and repeat the run's"):
        fit(recipe, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    assert fit(recipe, tmp_path / "run") == before
    assert json.loads((tmp_path / "run/result.json").read_text()) == before
    assert (tmp_path / "run/metrics.csv").read_bytes() == metrics


def test_a_file_without_permission_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").touch(mode=0)
    code = (
        "import sys; from pathlib import Path; "
        "from latentset.train.run.run_files import check_regular; check_regular(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "best.safetensors")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read every file, and setpriv is not there")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
