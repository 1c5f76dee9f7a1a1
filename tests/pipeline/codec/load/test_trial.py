"""Codecs whose graph ends TensorFlow's process."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import CodecGraphError, FetchError
from latentset.pipeline.codec.fetch import fetch_codec
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.tensorflow_setup import tf
from tests.makers import by_hand, graphs

NAME = "bmshj2018-hyperprior-msssim-4"

_LOAD = """
import sys
from latentset.pipeline.codec.load.codec import load_codec
load_codec(sys.argv[1], self_check=False).check_decoding()
"""


@pytest.fixture
def fatal(weights: by_hand.Weights, tmp_path: Path) -> Path:
    """A codec with a transposed convolution of a negative size."""
    metagraph = graphs.build_v1(weights)
    nodes = metagraph.graph_def.node
    upsampling = next(node for node in nodes if node.op == "Conv2DBackpropInput")
    signs = nodes.add(name="signs", op="Const")
    signs.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([1, -1, -1, 1], tf.int32))
    negative = nodes.add(name="negative", op="Mul", input=[upsampling.input[0], "signs"])
    signs.attr["dtype"].type = negative.attr["T"].type = tf.int32.as_datatype_enum
    upsampling.input[0] = "negative"
    upsampling.attr["padding"].s = b"SAME"
    upsampling.attr["explicit_paddings"].list.Clear()
    path = tmp_path / f"{NAME}.metagraph"
    path.write_bytes(metagraph.SerializeToString())
    return path


def test_it_is_refused_with_the_reason(
    fatal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path / "cache"))
    in_this_process = [sys.executable, "-c", _LOAD, str(fatal)]
    assert subprocess.run(in_this_process, capture_output=True, check=False).returncode < 0
    expected = r"its graph ends TensorFlow's process \(SIGABRT: .*Dimension -.*\): it cannot"
    for _ in range(2):
        with pytest.raises(CodecGraphError, match=expected):
            load_codec(str(fatal))
    with pytest.raises(FetchError, match=f"is refused: .*{expected}"):
        fetch_codec(NAME, cache=tmp_path / "fetched", url_prefix=str(tmp_path), console=Console())
    assert not list((tmp_path / "fetched").rglob("*.*"))
    ended = CliRunner().invoke(app, ["codec", "inspect", str(fatal)])
    assert ended.exit_code == 1


def test_nothing_of_the_current_folder_is_imported(
    v1_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resource.py").write_text("open('was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    load_codec(str(v1_path), cache=tmp_path)
    assert not (tmp_path / "was-run").exists()


def test_a_trial_that_fails_otherwise_is_not_remembered(
    v1_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(CodecGraphError, match=r"ended with status 1: .*Run the same command"):
            load_codec(str(v1_path), cache=tmp_path)
    assert not (tmp_path / "tried").exists()


def test_a_file_is_tried_once(
    v1_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    run = subprocess.run

    def count(command: list[str], **options: Any) -> Any:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", count)
    first = load_codec(str(v1_path), cache=tmp_path)
    assert len(started) == 1
    load_codec(str(v1_path), cache=tmp_path)
    assert len(started) == 1
    named = {"z_hat": first.info.tensors["z_hat"]}
    for _ in range(2):
        load_codec(str(v1_path), cache=tmp_path, tensors=named)
        assert len(started) == 2
    load_codec("demo-hyperprior-msssim-4", cache=tmp_path)
    load_codec(str(v1_path), cache=tmp_path / "other", self_check=False)
    assert len(started) == 2
