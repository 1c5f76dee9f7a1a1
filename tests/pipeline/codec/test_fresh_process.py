"""Every form of graph is loaded by the command line in a process of its own.

The other tests have imported tensorflow-compression before, to build the graphs.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.codec import by_hand, graphs

COMMAND = "from latentset.datasets.cli import main; main()"

FORMS: dict[str, Callable[[by_hand.Weights], Any]] = {
    "v1": graphs.build_v1,
    "v1, functional": lambda weights: graphs.build_v1(weights, functional=True),
    "v1, batch of 1": lambda weights: graphs.build_v1(weights, bake_batch=True),
    "v2": graphs.build_v2,
    "v2, calls": lambda weights: graphs.build_v2(weights, calls=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_codec_inspect_loads_it(form: str, weights: by_hand.Weights, tmp_path: Path) -> None:
    path = tmp_path / "tiny.metagraph"
    path.write_bytes(FORMS[form](weights).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "codec", "inspect", str(path)],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "passed: latents imply" in done.stdout
