"""Sweeps: what is planned, and real training processes that crash, are killed and resume."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from latentset.cli.paper import sweep
from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.storage.atomic import try_lock
from latentset.paper.sweep import Job, plan_sweep
from latentset.paper.sweep_run import STOP_TIMEOUT_S, Sweep
from tests.makers import stores as made_stores
from tests.makers.runs import write_run

SMALL = (
    "model.width=2",
    "data.batch_size=8",
    "data.size=16",
    "data.resize=48",
    "schedule.epochs=7",
    "device.accelerator=cpu",
)
CODECS = [f"demo-hyperprior-msssim-{quality}" for quality in (1, 4, 8)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Latents of three codecs, what they decode to, and the originals; in no order."""
    folder = tmp_path_factory.mktemp("stores")
    latents = [made_stores.write_latents(folder / f"l-{codec}", codec) for codec in CODECS]
    pixels = [
        made_stores.write_pixels(folder / f"p-{codec}", one, decoded=True)
        for codec, one in zip(CODECS, latents, strict=True)
    ]
    originals = made_stores.write_pixels(folder / "originals", latents[0], decoded=False)
    return [str(one) for one in (*pixels, *latents, originals)]


def run(jobs: list[Job], limit: int = 1) -> str:
    """Train; return what was printed."""
    text = io.StringIO()
    try:
        Sweep(jobs, limit, Console(file=text, width=1000)).run()
    except TrainingError as error:
        text.write(f"error: {error}")
    return text.getvalue()


def test_runs_come_after_what_they_are_initialised_from(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, seeds=(0, 7), settings=SMALL)
    names = [(job.recipe.name.removeprefix("trashnet/"), job.recipe.seed) for job in jobs]
    one_seed = [
        "anchor1",
        *(f"{s}-msssim-{q}" for s in ("anchor2", "cresnet", "fa-cresnet") for q in (1, 4, 8)),
    ]
    assert names == [(name, seed) for seed in (0, 7) for name in one_seed]
    by_name = {(job.recipe.name, job.recipe.seed): job for job in jobs}
    anchor2 = by_name["trashnet/anchor2-msssim-4", 7]
    adopting = by_name["trashnet/fa-cresnet-msssim-4", 7]
    assert adopting.needs == anchor2.folder == tmp_path / "trashnet/anchor2-msssim-4/seed-7"
    assert adopting.recipe.weights.adopt == str(anchor2.folder / "best.safetensors")
    assert anchor2.needs is None
    assert adopting.arguments == [
        *("train", "trashnet/fa-cresnet-msssim-4", "--store", stores[4]),
        *(word for setting in SMALL for word in ("--set", setting)),
        *("--set", "seed=7", "--set", f"weights.adopt={anchor2.folder}/best.safetensors"),
        *("--out", str(tmp_path / "trashnet/fa-cresnet-msssim-4/seed-7")),
    ]


def test_each_recipe_gets_its_store(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path)
    given = {job.recipe.name.removeprefix("trashnet/"): job.recipe.data.store for job in jobs}
    assert [Path(given[f"anchor2-msssim-{q}"]).name for q in (1, 4, 8)] == [
        f"p-{codec}" for codec in CODECS
    ]
    assert [Path(given[f"cresnet-msssim-{q}"]).name for q in (1, 4, 8)] == [
        f"l-{codec}" for codec in CODECS
    ]
    assert Path(given["anchor1"]).name == "originals"


def test_last_weights_are_used_where_nothing_chose_the_best(tmp_path: Path) -> None:
    codec = "bmshj2018-hyperprior-msssim-3"
    latents = made_stores.write_latents(tmp_path / "l", codec)
    pixels = made_stores.write_pixels(tmp_path / "p", latents, decoded=True)
    given, settings = [str(latents), str(pixels)], ["model.num_classes=2"]
    jobs = plan_sweep("imagenet/figure6", given, tmp_path, only="*/fa-*-3", settings=settings)
    adopted = [job.recipe.weights.adopt for job in jobs]
    assert adopted == [
        "torchvision:ResNet50_Weights.IMAGENET1K_V1",
        f"{tmp_path}/imagenet/anchor2-msssim-3/seed-0/last.safetensors",
    ]


def test_only_some_and_what_they_need(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table3", stores, tmp_path, only="*bottleneck-r2-*-4")
    assert [job.recipe.name for job in jobs] == [
        "trashnet/anchor2-msssim-4",
        "trashnet/table3/cau-bottleneck-r2-msssim-4",
    ]
    with pytest.raises(RecipeError, match=r"--only r2: expected a pattern that fits a recipe of"):
        plan_sweep("trashnet/table3", stores, tmp_path, only="r2")


def test_missing_stores_are_all_named_before_anything_starts(
    stores: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        plan_sweep("trashnet/table1", stores[1:5], tmp_path / "runs")
    lines = str(error.value).splitlines()
    assert [line for line in lines if not line.startswith("    ")] == [
        "trashnet/table1 needs stores that were not given (--store STORE, once for each):",
        "  the original images, for trashnet/anchor1:",
        "  images decoded by demo-hyperprior-msssim-1, for trashnet/anchor2-msssim-1:",
        "  latents of demo-hyperprior-msssim-8, for trashnet/cresnet-msssim-8 and 1 more:",
    ]
    assert lines[-1] == (
        "    latentset encode recipes/trashnet/split.csv trashnet-msssim-8.zarr "
        "--codec demo-hyperprior-msssim-8 --root TRASHNET_FOLDER --resize short:192"
    )
    assert not (tmp_path / "runs").exists()


def test_without_stores_the_command_says_how_to_make_them(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(sweep)
    result = CliRunner().invoke(app, ["trashnet/table1", "--out", str(tmp_path / "runs")])
    assert isinstance(result.exception, RecipeError)
    assert str(result.exception).count("    latentset encode ") == 7
    assert "latentset decode trashnet-msssim-8.zarr" in str(result.exception)


def test_wrong_table_and_two_stores_for_one_thing(stores: list[str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no table 'minc2500/table2': expected one of minc2500/"):
        plan_sweep("minc2500/table2", stores, tmp_path)
    with pytest.raises(RecipeError, match=r"are both decoded images of demo-.*-1; give"):
        plan_sweep("trashnet/table1", [*stores, stores[0]], tmp_path)


def test_stores_of_other_images_are_refused(stores: list[str], tmp_path: Path) -> None:
    listing = {"name": "others", "listing_sha256": "b" * 64}
    source = made_stores.SOURCE.model_copy(update=listing)
    other = made_stores.write_latents(tmp_path / "other", CODECS[1], source=source)
    given = [*stores[:4], str(other), *stores[5:]]
    with pytest.raises(RecipeError) as error:
        plan_sweep("trashnet/table1", given, tmp_path / "runs")
    mine = "e3b0c44298fc"  # SHA-256 of nothing
    assert str(error.value).splitlines() == [
        "the stores are not of the same images: expected one listing of ids, paths, labels "
        "and splits, got 2:",
        f"  made-up, 32 images (listing {mine}): {', '.join(stores[:4] + stores[5:])}",
        f"  others, 32 images (listing bbbbbbbbbbbb): {other}",
        "Give stores of one data set only; where they should be of one, encode those that differ "
        "again, from the same list or folder",
    ]


def test_pixels_decoded_from_other_latents_are_refused(stores: list[str], tmp_path: Path) -> None:
    again = made_stores.write_latents(tmp_path / "again", CODECS[1], resize="short:24")
    given = [*stores[:4], str(again), *stores[5:]]
    with pytest.raises(
        RecipeError, match=rf"p-{CODECS[1]} was not decoded from .*/again: .* decode again"
    ):
        plan_sweep("trashnet/table1", given, tmp_path / "runs")
    without = [store for store in stores if store != stores[4]]
    plan_sweep("trashnet/table1", without, tmp_path / "runs", only="*/anchor2-*")


def test_trains_in_order_and_then_has_nothing_to_do(stores: list[str], tmp_path: Path) -> None:
    def plan() -> list[Job]:
        return plan_sweep("trashnet/table1", stores, tmp_path, only="*/cresnet*-4", settings=SMALL)

    lines = run(plan(), limit=2).splitlines()
    words = [line.split(" ", 5)[:5] for line in lines]
    assert [" ".join(four) for four in words] == [
        "[1/2] trashnet/anchor2-msssim-4, seed 0: starts",
        "[1/2] trashnet/anchor2-msssim-4, seed 0: test",
        "[2/2] trashnet/cresnet-msssim-4, seed 0: starts",
        "[2/2] trashnet/cresnet-msssim-4, seed 0: test",
    ]
    folder = tmp_path / "trashnet/cresnet-msssim-4"
    assert json.loads((folder / "seed-0/result.json").read_text())["recipe"].endswith(
        "cresnet-msssim-4"
    )
    log = (folder / "seed-0.log").read_text()
    assert "trashnet/anchor2-msssim-4/seed-0/best.safetensors:\npretrained " in log

    again = run(plan())
    assert again.count("done already: test top-1 ") == 2
    assert (folder / "seed-0.log").read_text() == log

    with pytest.raises(
        TrainingError, match=r"(?s)started with other settings:\n  data\.size: 16 -> 24\n.*--out"
    ):
        plan_sweep("trashnet/table1", stores, tmp_path, settings=[*SMALL, "data.size=24"])


def test_a_crash_ends_one_run_and_what_needs_it(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, only="*/cresnet*-1", settings=SMALL)
    jobs += plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor1", settings=SMALL)
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / "notes.txt").write_text("not a run")
    lines = run(jobs).splitlines()
    anchor2, cresnet = (f"trashnet/{name}-msssim-1, seed 0" for name in ("anchor2", "cresnet"))
    assert lines[:3] == [
        f"[1/3] {anchor2}: starts",
        f"[1/3] {anchor2}: FAILED: ended with status 1; see {jobs[0].log}",
        f"[2/3] {cresnet}: FAILED: not run, because {anchor2} failed",
    ]
    assert lines[4].startswith("[3/3] trashnet/anchor1, seed 0: test top-1 ")
    assert lines[5:] == [
        "error: 2 of 3 runs failed:",
        f"  {anchor2}: ended with status 1; see {jobs[0].log}",
        f"  {cresnet}: not run, because {anchor2} failed",
        "The same command trains them again",
    ]
    assert "is not empty and not the folder of a run" in " ".join(jobs[0].log.read_text().split())
    assert not jobs[1].folder.exists()


def test_a_killed_run_is_resumed(stores: list[str], tmp_path: Path) -> None:
    settings = (*SMALL, "schedule.epochs=40")
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor1", settings=settings)
    metrics = jobs[0].folder / "metrics.csv"

    def kill() -> None:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            time.sleep(0.02)
        children = subprocess.run(
            ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=True
        )
        for line in children.stdout.split():
            command = Path(f"/proc/{line}/cmdline").read_bytes().decode()
            if str(jobs[0].folder) in command:
                os.kill(int(line), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    text = run(jobs)
    killer.join()
    assert "FAILED: ended by signal 9 (SIGKILL)" in text
    assert not jobs[0].is_finished()

    text = run(jobs)
    assert "[1/1] trashnet/anchor1, seed 0: resumes" in text
    assert "resuming where it stopped" in jobs[0].log.read_text()
    epochs = [line.partition(",")[0] for line in metrics.read_text().splitlines()[1:]]
    assert epochs == [str(k) for k in range(1, 41)]


def test_a_run_of_another_sweep_is_waited_for(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor1", settings=SMALL)
    jobs[0].log.parent.mkdir(parents=True)
    log = jobs[0].log.open("ab")
    assert try_lock(log)

    def finish() -> None:
        time.sleep(1)
        write_run(tmp_path / "made", "trashnet/anchor1", 0.625).rename(jobs[0].folder)
        log.close()

    other = threading.Thread(target=finish)
    other.start()
    text = run(jobs)
    other.join()
    assert text.splitlines() == [
        "[1/1] trashnet/anchor1, seed 0: another process trains it: waiting",
        "[1/1] trashnet/anchor1, seed 0: done elsewhere: test top-1 62.5 %",
    ]


def test_figures_that_cannot_be_read_stop_everything(stores: list[str], tmp_path: Path) -> None:
    settings = (*SMALL, "schedule.epochs=5000")
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor*", settings=settings)
    first, other = jobs[:2]

    def tear() -> None:
        while not (first.folder / "metrics.csv").exists():
            time.sleep(0.02)
        other.folder.mkdir(parents=True)
        (other.folder / "result.json").write_text('{"test":')

    someone = threading.Thread(target=tear)
    someone.start()
    text = run(jobs)
    someone.join()
    assert "stopping 1 runs; the same command resumes them" in text
    assert f"error: {other.folder}/result.json: not the figures of a run: " in text
    with first.log.open("ab") as log:  # its process has ended, and the lock with it
        assert try_lock(log)
    assert not first.is_finished()

    (other.folder / "recipe.json").write_bytes((first.folder / "recipe.json").read_bytes())
    with pytest.raises(TrainingError, match=r"result.json: not the figures of a run: Invalid JSON"):
        plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor*", settings=settings)


@pytest.mark.parametrize(("key", "option"), [("seed", "--seed"), ("data.store", "--store")])
def test_what_a_sweep_sets_itself(stores: list[str], tmp_path: Path, key: str, option: str) -> None:
    with pytest.raises(RecipeError, match=f"--set {key}=3: .* give it with {option}$"):
        plan_sweep("trashnet/table1", stores, tmp_path, settings=[f"{key}=3"])


def test_settings_of_latents_leave_the_anchors_as_they_are(
    stores: list[str], tmp_path: Path
) -> None:
    latent = ("model.near_identity=true", "schedule.plateau_epochs=2", "distill.logits=f")
    only = "*/fa-cresnet-msssim-4"
    jobs = plan_sweep(
        "trashnet/table1", stores, tmp_path, only=only, settings=SMALL, latent_settings=latent
    )
    plain = plan_sweep("trashnet/table1", stores, tmp_path, only=only, settings=SMALL)
    assert [job.recipe == other.recipe for job, other in zip(jobs, plain, strict=True)] == [
        True,
        False,
    ]
    assert jobs[1].recipe.model.model_dump()["near_identity"]
    assert jobs[1].recipe.schedule.plateau_epochs == 2
    assert jobs[1].recipe.distill.logits == "f"
    with pytest.raises(RecipeError, match=r"would teach trashnet/anchor2-msssim-4 too; give it wi"):
        plan_sweep("trashnet/table1", stores, tmp_path, only=only, settings=["distill.logits=f"])


def test_a_seed_that_is_given_twice(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path, only="*/anchor1", seeds=(1, 1))
    assert [job.recipe.seed for job in jobs] == [1]


@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_stops_the_runs(stores: list[str], tmp_path: Path, background: bool) -> None:
    """A script's background job ignores Ctrl-C, and so does what it starts; SIGTERM remains."""
    settings = (*SMALL, "schedule.epochs=5000")
    command = ["sweep", "trashnet/table1", "--out", str(tmp_path), "--only", "*/anchor1"]
    for store in stores:
        command += ["--store", store]
    for setting in settings:
        command += ["--set", setting]
    metrics = tmp_path / "trashnet/anchor1/seed-0/metrics.csv"
    handler = signal.getsignal(signal.SIGINT)
    if background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sweep = subprocess.Popen(
            [sys.executable, "-c", "from latentset.cli.main import main; main()", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        while not metrics.exists():
            assert sweep.poll() is None
            time.sleep(0.02)
        sweep.send_signal(signal.SIGTERM if background else signal.SIGINT)
        text, _ = sweep.communicate(timeout=2 * STOP_TIMEOUT_S)
    finally:
        sweep.kill()
        sweep.communicate()
    assert sweep.returncode == 130
    assert text.splitlines()[-1] == "stopping 1 runs; the same command resumes them"
    log = metrics.parent.with_name("seed-0.log")
    with log.open("ab") as handle:
        assert try_lock(handle)  # nobody trains it any more
    # It ended by itself, and was not killed: at most the epoch's line came after. On some CPUs the
    # first validation loss is far off, with a warning.
    _, said, after = log.read_text().partition("stopping after this step; Ctrl-C again stops at ")
    assert said
    lines = [line for line in after.splitlines() if "times the training loss" not in line]
    assert len(lines) <= 2


def test_dry_run_prints_commands(stores: list[str], tmp_path: Path) -> None:
    jobs = plan_sweep("trashnet/table1", stores, tmp_path / "a b", only="*/anchor1")
    assert jobs[0].command == (
        f"latentset train trashnet/anchor1 --store {stores[-1]} --set seed=0 "
        f"--out '{tmp_path}/a b/trashnet/anchor1/seed-0'"
    )
