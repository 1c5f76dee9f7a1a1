"""`latentset verify` on the command line: its words and its exit statuses."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentset.cli.main import app


@pytest.mark.usefixtures("wide_terminal")
def test_the_command(store: Path) -> None:
    run = CliRunner().invoke
    sound = run(app, ["verify", str(store)])
    assert sound.exit_code == 0, sound.output
    assert "store.zarr is sound." in sound.output
    assert "12: 11 with latents, 1 failed" in sound.output
    assert "even" in sound.output
    (store / "y_hat/c/1/0").unlink()
    (store / "z_hat/c/1/0").unlink()
    damaged = run(app, ["verify", str(store)])
    assert damaged.exit_code == 1
    assert "wrong: y_hat/c/1/0 is missing" in damaged.output
    assert "store.zarr is damaged: 2 problems. Fetch it again" in damaged.output


def test_the_command_where_there_is_nothing_to_check(store: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    (store / "manifest.json").unlink()
    begun = run(app, ["verify", str(store)])
    assert begun.exit_code == 2, begun.output
    assert "not checked: manifest.json is missing" in begun.output
    assert "run the same latentset encode again" in begun.output
    assert "store.zarr is not complete; nothing that was read is wrong." in begun.output
    misspelt = run(app, ["verify", str(tmp_path / "storr.zarr")])
    assert misspelt.exit_code == 2, misspelt.output
    assert "look at the spelling" in misspelt.output
    assert "storr.zarr could not be checked" in misspelt.output
    for done in (begun, misspelt):
        assert "damaged" not in done.output
        assert "encode the store again" not in done.output


def test_the_command_says_how_many_lines_it_leaves_out(store: Path) -> None:
    for k in range(130):
        (store / f"stray{k}").touch()
    done = CliRunner().invoke(app, ["verify", str(store)])
    assert done.output.count("is not listed in manifest.json") == 100
    assert "wrong: … and 30 more" in done.output
    assert "is whole, but holds 130 objects that are no part of it: remove them" in done.output
    (store / "y_hat/c/0/0").unlink()
    assert "is damaged: 131 problems" in CliRunner().invoke(app, ["verify", str(store)]).output


@pytest.mark.usefixtures("wide_terminal")
def test_what_encoding_again_needs_is_looked_at_first(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError("the store was read")

    command = ["verify", str(made), "--recompute", "3", "--source", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("latentset.datasets.store.verify.verify", forbidden)
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert "Invalid value for --source" in done.output
        assert "is not the root of the images" in done.output
        patch.setitem(sys.modules, "latentset.pipeline.recompute", None)
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert "which this environment lacks: run it in the environment that encodes" in done.output


@pytest.mark.usefixtures("wide_terminal")
def test_a_store_that_cannot_be_opened_is_not_encoded_again(store: Path, tmp_path: Path) -> None:
    (store / "samples.parquet").write_bytes(b"?")
    command = ["verify", str(store), "--recompute", "3", "--source", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "no sample was encoded again: the store cannot be opened" in done.output
    assert "wrong: samples.parquet: expected" in done.output


@pytest.mark.parametrize(
    "options", [["--recompute", "3"], ["--source", "x"], ["--codec", "x"], ["--recompute", "0"]]
)
def test_options_that_do_not_go_together(options: list[str], made: Path) -> None:
    assert CliRunner().invoke(app, ["verify", str(made), *options]).exit_code == 2


def test_json_is_all_that_standard_output_gets(store: Path) -> None:
    sound = CliRunner().invoke(app, ["verify", str(store), "--json"])
    found = json.loads(sound.stdout)
    assert (sound.exit_code, found["exit_status"], found["outcome"]) == (0, 0, "sound")
    assert (found["problems"], found["recomputed"]) == ([], None)
    (store / "samples.parquet").write_bytes(b"?")
    damaged = CliRunner().invoke(app, ["verify", str(store), "--json"])
    found = json.loads(damaged.stdout)
    assert (damaged.exit_code, found["exit_status"], found["outcome"]) == (1, 1, "damaged")
    assert any(line.startswith("samples.parquet: expected") for line in found["problems"])
    (store / "manifest.json").unlink()
    found = json.loads(CliRunner().invoke(app, ["verify", str(store), "--json"]).stdout)
    assert (found["exit_status"], found["complete"], found["samples"]) == (2, False, None)


def test_json_of_a_store_that_is_not_complete(store: Path) -> None:
    (store / "manifest.json").unlink()
    done = CliRunner().invoke(app, ["inspect", str(store), "--json"])
    found = json.loads(done.stdout)
    assert (found["complete"], found["fingerprint"]) == (False, None)
    assert set(found) == {"store", "format", "complete", "fingerprint", "header"}
