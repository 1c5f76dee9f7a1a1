"""Every form of graph is loaded by the command line in a process that has built none.

The other tests have imported tensorflow-compression before, to build the graphs.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.makers import by_hand, graphs
from tests.makers.published import build_published

COMMAND = "from latentset.cli.main import main; main()"

EACH = """
import os, sys
import latentset.pipeline.tensorflow_setup  # once for all
from latentset.cli.main import main
for path in sys.argv[1:]:
    if not (process := os.fork()):
        sys.argv = ["latentset", "codec", "inspect", path]
        main()
        sys.exit()
    assert os.waitpid(process, 0)[1] == 0, path
"""
"""Inspects graphs, each in a process that has computed nothing before."""

FORMS: dict[str, Callable[[by_hand.Weights], Any]] = {
    "v1": graphs.build_v1,
    "v1, functional": lambda weights: graphs.build_v1(weights, functional=True),
    "v1, batch of 1": lambda weights: graphs.build_v1(weights, bake_batch=True),
    "v2": graphs.build_v2,
    "v2, calls": lambda weights: graphs.build_v2(weights, calls=True),
    "published": lambda _: build_published(),
}
"""The published form at its real sizes: ``tests/pipeline/test_published_codec.py``."""


def python(code: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_codec_inspect_loads_them(weights: by_hand.Weights, tmp_path: Path) -> None:
    paths = [tmp_path / f"{form}.metagraph" for form in FORMS]
    for path, build in zip(paths, FORMS.values(), strict=True):
        path.write_bytes(build(weights).SerializeToString())
    assert python(EACH, *paths).count("passed: latents imply") == len(FORMS)


def test_latents_need_no_range_coder(published_tiny_path: Path) -> None:
    code = (
        "import sys, numpy; from latentset.pipeline.codec.load.codec import load_codec; "
        f"codec = load_codec({str(published_tiny_path)!r}, self_check=False); "
        "codec.encode(numpy.zeros((1, 64, 64, 3), numpy.uint8)); "
        "print('tensorflow_compression' in sys.modules)"
    )
    assert python(code).strip() == "False"


def test_codec_evaluate(published_tiny_path: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 11, 12, 3), np.uint8)
    for k, image in enumerate(pixels):
        Image.fromarray(image).resize((176, 168)).save(tmp_path / f"{k}.png")
    output = python(COMMAND, "codec", "evaluate", tmp_path, published_tiny_path)
    (row,) = re.findall(r"tiny-published +│((?: +\d+\.\d+ +│){5})", output)
    rate_bpp, ms_ssim, psnr_db = (float(value) for value in row.split("│")[:3])
    assert rate_bpp > 0.01
    assert 0 < ms_ssim < 1
    assert psnr_db > 3


def test_codec_time(published_tiny_path: Path) -> None:
    output = python(COMMAND, "codec", "time", published_tiny_path, "--size", "64x80", "--repeat", 1)
    assert re.search(r"tiny-published +│(?: +\d+\.\d +│){4}", output)
