"""`latentset codec time`: times of one image with real bitstreams."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from latentset.cli.codec import app
from latentset.datasets.errors import ImageError
from latentset.pipeline.codec.codec_timing import describe_machine, time_codec
from latentset.pipeline.codec.load.codec import Codec, load_codec
from latentset.pipeline.tensorflow_setup import CPU_ISA

pytestmark = pytest.mark.usefixtures("wide_terminal")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["time", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_file_has_what_the_report_reads(v2_path: Path, v1_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    arguments = (str(v2_path), str(v1_path), "--size", "70x90", "--repeat", "3")
    output = run(*arguments, "--json", str(file)).output
    found: dict[str, Any] = json.loads(file.read_text())
    assert found.keys() == {"machine", "codecs"}
    assert f"1 thread, TensorFlow 2.14.1 with oneDNN, {CPU_ISA.value}" in found["machine"]
    assert found["codecs"].keys() == {"tiny-v2", "tiny-v1"}
    for times in found["codecs"].values():
        assert times.keys() == {
            *("encode_ms", "decode_ms", "analysis_ms", "synthesis_ms"),
            *("image", "repeat"),
        }
        assert times["image"] == [70, 90]
        assert times["repeat"] == 3
        assert all(0 < times[name] < 60_000 for name in times if name.endswith("_ms"))
    assert "tiny-v1" in output
    assert "median of 3" in output


class Slow(Codec):
    """A codec whose functions take known times, the first of each much longer."""

    calls: dict[str, int]

    def _wait(self, name: str, seconds: float) -> None:
        count = self.calls[name] = self.calls.get(name, 0) + 1
        time.sleep(1.0 if count <= 2 else seconds)

    def sender(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        self._wait("sender", 0.010)
        return []

    def receiver(self, channels: list[NDArray[Any]]) -> NDArray[np.uint8]:
        self._wait("receiver", 0.100)
        return np.zeros((16, 16, 3), np.uint8)

    def decode(self, y_hat: Any, z_hat: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
        self._wait("decode", 0.300)
        return np.zeros((1, *size, 3), np.uint8)


def test_each_time_is_of_its_own_part_and_the_first_runs_do_not_count(v2_path: Path) -> None:
    codec = load_codec(str(v2_path))
    codec.__class__, codec.calls = Slow, {}  # type: ignore[attr-defined]
    found = time_codec(codec, np.zeros((16, 16, 3), np.uint8), 1)
    assert found.encode_ms >= 10
    assert found.encode_ms < found.decode_ms < found.synthesis_ms < 1000


def test_an_image_from_a_file(v2_path: Path, tmp_path: Path) -> None:
    Image.new("RGB", (48, 32)).save(tmp_path / "p.png")
    file = tmp_path / "times.json"
    options = ("--image", str(tmp_path / "p.png"), "--repeat", "1", "--json", str(file))
    run(str(v2_path), *options)
    assert json.loads(file.read_text())["codecs"]["tiny-v2"]["image"] == [32, 48]


def test_wrong_sizes_and_files_are_refused(v2_path: Path, tmp_path: Path) -> None:
    for size in ("nonsense", "8x8"):
        refused = run(str(v2_path), "--size", size)
        assert refused.exit_code == 2
        assert f"sides from 16 pixels, got '{size}'" in refused.output
    with pytest.raises(ImageError, match="no such file"):
        run(str(v2_path), "--image", str(tmp_path / "none.png"))


def test_threads_are_named() -> None:
    assert ", 2 threads, " in describe_machine(2)
