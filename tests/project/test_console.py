"""What commands print to terminals, files and pipes."""

import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from latentset.cli.console import make_console
from latentset.cli.main import app

LONG = "word " * 60


@pytest.mark.parametrize(("columns", "wrapped"), [(None, False), ("80", True)])
def test_lines_to_a_pipe_are_wrapped_only_on_demand(
    columns: str | None,
    wrapped: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    table = Table(show_header=False)
    table.add_row(LONG)
    make_console().print(table)
    assert (LONG.strip() in capsys.readouterr().out) != wrapped


def test_an_ascii_terminal_gets_escapes_and_status_0() -> None:
    program = (
        "from latentset.cli import main\nmain.app = lambda: print('caf\\xe9 \\u2026')\nmain.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "caf\\xe9 \\u2026\n"), done.stderr


def test_choices_are_named_plainly() -> None:
    result = CliRunner().invoke(app, ["convert", "a", "b", "--format", "hdf"])
    assert result.exit_code == 2
    text = " ".join(result.output.replace("│", " ").split())
    assert "Invalid value for '--format': 'hdf' is not one of 'zarr', 'hdf5'." in text


def test_usage_errors_to_a_pipe_are_one_line() -> None:
    program = "import sys; from latentset.cli.main import main; sys.argv[0] = 'latentset'; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "convert", "a", "b", "--shard-bytes", f"{LONG}TB"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"expected bytes, for instance 256MiB, got '{LONG}TB'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        "encode . store --codec none --devkit s3:/x",
        "train cresnet --store x --out gs://bucket/run",
        "report hf://a hf://b -o out",
        "codec train . https://host/images -o x --lmbda 1 --steps 1",
        "sweep trashnet/table1 --out s3:/x",
        "card store -o S3://x",
    ],
)
def test_paths_are_not_addresses(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2, result.output
    text = " ".join(result.output.replace("│", " ").split())
    assert "is an address (" in text
    assert not list(tmp_path.iterdir())
