"""Where files cannot be written: tried before work begins, one line, nothing left behind."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from latentset.cli import main
from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Store, open_store
from latentset.train.recipe.recipe import MAX_CLASSES, Recipe, resolve
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from tests.makers.synthetic import write_synthetic_store

MakeRecipe = Callable[..., Recipe]
COMMAND = "from latentset.cli.main import main; main()"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[], data__test_split="test")
    fit(recipe, folder, console=QUIET)
    return folder


Latentset = Callable[..., str]


@pytest.fixture
def latentset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Latentset:
    """Run a command that fails, with a limit of file sizes as a full disk; return its last line."""

    def call(*words: object, file_bytes: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["latentset", *map(str, words)])
        before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes or before, hard))
        try:
            with pytest.raises(SystemExit) as ended:
                main.main()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
        assert ended.value.code == 1
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text.splitlines()[-1]  # the first line says what takes seconds

    return call


def _commands(run: Path, store: object, target: Path) -> dict[str, list[object]]:
    return {
        "evaluate --json": ["evaluate", run, store, "--json", target],
        "evaluate --confusion": ["evaluate", run, store, "--confusion", target],
        "evaluate --logits": ["evaluate", run, store, "--logits", target],
        "export weights": ["export", run, store, target.with_suffix(".safetensors")],
        "export program": ["export", run, store, target.with_suffix(".pt2")],
        "predict": ["predict", run, store, "-o", target.with_suffix(".csv")],
        "report": ["report", run, "-o", target],
        "train": ["train", "cresnet-slim", "--store", store, "--out", target],
        "models --json": ["models", "--json", target],
    }


NAMES = list(_commands(Path(), "", Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_a_parent_that_is_a_file(
    name: str, latentset: Latentset, run: Path, mixed_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    # Before the run is looked at, which is not there.
    nothing, target = run / "nothing", tmp_path / "file" / "x"
    text = latentset(*_commands(nothing, mixed_store.location, target)[name])
    assert text.startswith("error: ")
    assert str(tmp_path / "file") in text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "models --json"])
def test_nothing_is_written_into_a_store(
    name: str, latentset: Latentset, run: Path, mixed_store: Store
) -> None:
    store = Path(str(mixed_store.location))
    before = sorted(store.rglob("*"))
    text = latentset(*_commands(run, store, store / "x")[name])
    assert f"is inside the store {store}" in text
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("name", ["evaluate --json", "export program", "models --json"])
def test_a_name_that_is_a_folder(
    name: str, latentset: Latentset, run: Path, mixed_store: Store, tmp_path: Path
) -> None:
    words = _commands(run, mixed_store.location, tmp_path / "x")[name]
    target = Path(str(words[-1]))
    target.mkdir()
    assert f"error: cannot read or write {target}: Is a directory. Look" in latentset(*words)
    assert list(tmp_path.rglob("*")) == [target]


@pytest.mark.parametrize("name", ["export weights", "train", "report"])
def test_a_full_disk(
    name: str, latentset: Latentset, run: Path, mixed_store: Store, tmp_path: Path
) -> None:
    words = _commands(run, mixed_store.location, tmp_path / "x")[name]
    if name == "train":
        words += ["--set", "data.batch_size=8", "--set", "schedule.epochs=1"]
    text = latentset(*words, file_bytes=8000)
    assert text.startswith("error: ")
    assert "partial" not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if path.stat().st_size >= 8000 or "partial" in path.name]


def test_a_program_on_a_full_disk(run: Path, mixed_store: Store, tmp_path: Path) -> None:
    """torch aborts the process where it writes to the file itself."""
    words = _commands(run, mixed_store.location, tmp_path / "x")["export program"]
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)); {COMMAND}"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: cannot read or write {tmp_path / 'x.pt2'}: File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_write_the_same_report(run: Path, tmp_path: Path) -> None:
    words = ["report", run, "-o", tmp_path / "report", "--skip-timing"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert not list(tmp_path.rglob("*partial*"))


def test_swapped_arguments(run: Path, mixed_store: Store) -> None:
    store = Path(str(mixed_store.location))
    with pytest.raises(TrainingError, match=f"{run} is a run .*, as RUN STORE: {run} {store}"):
        evaluate_checkpoint(store, str(run))


def test_memory_does_not_grow_with_classes_squared(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """21,841 classes squared are 3.8 GB of int64."""
    names = [f"class {k}" for k in range(21_841)]
    store = write_synthetic_store(tmp_path / "s.zarr", samples=40, classes=names, splits=("train",))
    code = (
        "import atexit, resource; atexit.register(lambda: print('KiB:', "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)); " + COMMAND
    )
    words = ["train", "cresnet-slim", "--store", store, "--out", tmp_path / "run"]
    words += [
        f"--set=data.{key}" for key in ("batch_size=8", "test_split=train", "val_split=train")
    ]
    words += ["--set=schedule.epochs=1", "--set=model.width=2", "--set=device.accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.rpartition("KiB:")[2]) < 3 << 20
    assert not (tmp_path / "run/confusion.csv").exists()


def test_too_many_classes_are_refused(make_recipe: MakeRecipe, mixed_store: Store) -> None:
    header = open_store(mixed_store.location).header
    names = tuple(map(str, range(MAX_CLASSES + 1)))
    source = header.source.model_copy(update={"classes": names})
    many = header.model_copy(update={"source": source})
    with pytest.raises(RecipeError, match="here: expected at most 100,000 classes, got 100,001"):
        resolve(make_recipe(), many, "here")


def test_a_file_of_a_run_is_not_written_over(
    run: Path, mixed_store: Store, latentset: Latentset, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for name in ("best.safetensors", "recipe.json", "result.json", "metrics.csv", "confusion.csv"):
        target = tmp_path / "link" / name
        commands = _commands(run, mixed_store.location, target)
        endings = {"predict": ".csv", "export weights": ".safetensors"}
        for command in ("evaluate --json", "evaluate --confusion", "evaluate --logits", *endings):
            if name.endswith(endings.get(command, "")):
                assert f"is a file of the run in {run}: name another" in latentset(
                    *commands[command]
                )
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_outputs_are_different_files(run: Path, mixed_store: Store, tmp_path: Path) -> None:
    same = str(tmp_path / "same")
    command = ["evaluate", str(run), str(mixed_store.location), "--json", same, "--logits", same]
    done = CliRunner().invoke(main.app, command)
    assert done.exit_code == 2
    assert "expected different files" in done.output
    assert not Path(same).exists()
