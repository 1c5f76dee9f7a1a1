"""The commands ``latentset codec ...``."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from latentset.datasets.errors import CodecGraphError, CodecNotFoundError, TrainingError
from latentset.pipeline.codec.cli import app

pytestmark = pytest.mark.usefixtures("wide_terminal")

NAME = "bmshj2018-hyperprior-msssim-2"


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_says_what_is_ready(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.metagraph").write_bytes(b"x" * 100_000)
    output = _run("list", "--cache", str(tmp_path)).output
    lines = (re.split(r"\s*[│┃]\s*", line)[1:-1] for line in output.splitlines())
    rows = {row[0]: row[1:] for row in lines if row}
    assert rows[NAME] == ["published", "0.1 MB", "in the cache"]
    assert rows["bmshj2018-hyperprior-mse-8"] == ["published", "", "to be fetched"]
    assert rows["demo-hyperprior-msssim-4"][::2] == ["shipped", "ready"]
    assert str(tmp_path) in output


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path))
    assert f"cache folder: {tmp_path}" in _run("list").output


def test_fetch(tmp_path: Path, v2_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in (NAME, "mine"):
        (mirror / f"{name}.metagraph").write_bytes(v2_path.read_bytes())
    options = ("--cache", str(tmp_path / "cache"), "--url-prefix", mirror.as_uri())
    output = _run("fetch", NAME, "mine", *options).output
    assert f"fetched {NAME}: {v2_path.stat().st_size} bytes" in output
    assert (tmp_path / "cache" / "mine.metagraph").read_bytes() == v2_path.read_bytes()
    assert "was there already: " in _run("fetch", NAME, *options).output


def test_fetch_says_which_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(CodecNotFoundError, match="--url-prefix says where another codec is"):
        _run("fetch", "nonsense", "--cache", str(tmp_path))


def test_inspect(v1_path: Path) -> None:
    output = _run("inspect", str(v1_path)).output
    for expected in (
        "tiny-v1",
        "tfc1 (tensorflow-compression 1)",
        "8 channels, one position per 16 pixels",
        "6 channels, one position per 64 pixels",
        "0.11 to 256, 64 scales",
        "any size",
        "self-check",
        "UnboundedIndexRangeEncode compress/while/UnboundedIndexRangeEncode",
        "compute_indexes",
        "sender in",
        "(1, ?, ?, 3)",
        "receiver out",
        "output_image",
        "Conv2D 1",
    ):
        assert expected in output, output
    assert re.search(r"SHA-256 +[0-9a-f]{64}", output)
    assert re.search(r"latents imply (\d+) bits, the strings have (\d+) \(\+0\.\d\d%\)", output)


def test_inspect_with_a_named_tensor(v1_path: Path) -> None:
    found = re.search(r"z_hat +│ (\S+)", _run("inspect", str(v1_path)).output)
    assert found is not None
    assert found[1] in _run("inspect", str(v1_path), "--tensor", f"z_hat={found[1]}").output
    with pytest.raises(CodecGraphError, match="no node 'other'"):
        _run("inspect", str(v1_path), "--tensor", "z_hat=other:0")
    with pytest.raises(CodecGraphError, match="expected KEY=NAME"):
        _run("inspect", str(v1_path), "--tensor", "z_hat")


def test_train_passes_what_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentset.pipeline.codec import training

    seen: list[Any] = []
    monkeypatch.setattr(training, "train_codec", lambda settings, console: seen.append(settings))
    output = tmp_path / "my.metagraph"
    arguments = ["train", str(tmp_path), "/more", "-o", str(output), "--lmbda", "30"]
    arguments += ["--steps", "9"]
    _run(*arguments, "--distortion", "mse", "-N", "48", "-M", "72", "--seed", "5")
    (settings,) = seen
    expected = training.TrainingSettings(
        photographs=(tmp_path, Path("/more")),
        output=output,
        lmbda=30,
        steps=9,
        distortion="mse",
        N=48,
        M=72,
        seed=5,
    )
    assert settings == expected
    with pytest.raises(TrainingError, match=r"steps: .* greater than or equal to 1, got 0"):
        _run(*arguments[:-1], "0")


def test_every_training_setting_has_an_option() -> None:
    from latentset.pipeline.codec.training import TrainingSettings

    text = _run("train", "--help").output
    other = {"photographs": "FOLDER", "N": "--filters", "M": "--channels"}
    for name in TrainingSettings.model_fields:
        assert other.get(name, "--" + name.replace("_", "-")) in text, name


def test_evaluate_finds_codecs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentset.pipeline.codec import evaluation

    seen: list[tuple[Path, Path]] = []

    def evaluate(metagraph: Path, photographs: Path, *, console: object) -> Any:
        seen.append((metagraph, photographs))
        quality = evaluation.Quality(0.9, 30.0)
        figures = (evaluation.PhotographFigures("a.png", 0.25, quality),)
        return evaluation.CodecFigures(metagraph.stem, figures, quality)

    monkeypatch.setattr(evaluation, "evaluate_codec", evaluate)
    output = _run("evaluate", str(tmp_path), "demo-hyperprior-msssim-1", "--markdown").output
    assert "| demo-hyperprior-msssim-1 | 0.2500 |" in output
    assert [(p.name, folder) for p, folder in seen] == [
        ("demo-hyperprior-msssim-1.metagraph", tmp_path)
    ]
    with pytest.raises(CodecNotFoundError):
        _run("evaluate", str(tmp_path), "nothing", "--cache", str(tmp_path))
