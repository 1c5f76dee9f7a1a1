"""Tables 1 and 3, cell by cell, from runs written by hand."""

import re
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import open_store
from latentset.paper.report.figures_6_and_7 import write_figure6, write_figure7
from latentset.paper.report.results import gather
from latentset.paper.report.runs import find_runs, group_runs
from latentset.paper.report.stores import Stores
from latentset.paper.report.table1 import write_table1
from latentset.paper.report.table3 import write_table3
from tests.makers import stores as made_stores
from tests.makers.runs import read_csv, write_run

NO_STORES = Stores()


def test_table_1_of_the_papers_networks(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "minc2500/anchor1", 0.75, rate_bpp=2.5)
    for seed, top1 in enumerate((0.70, 0.72, 0.77)):
        write_run(runs, "minc2500/cresnet-msssim-1", top1, seed=seed, rate_bpp=0.09)
    write_run(runs, "minc2500/fa-cresnet-msssim-1", 0.755, rate_bpp=0.09)
    write_run(runs, "minc2500/fa-cresnet-mse-1", 0.5)  # Figure 7's, not Table 1's
    write_run(runs, "trashnet/cresnet-slim", 0.5)  # of no table
    part = write_table1(group_runs(find_runs([runs])), NO_STORES, tmp_path)
    assert (part.files, part.remark) == (("table1.md", "table1.csv"), "")
    assert (tmp_path / "table1.md").read_text() == (
        "# Table 1: accuracy at each rate\n"
        "\n"
        "## MINC-2500\n"
        "\n"
        "MINC-2500. Top-1 in percent, on split test (430 samples); mean over seeds 0, 1, 2, "
        "± half of its 95 % interval (Student's t), number of seeds in parentheses.\n"
        "Anchor 1: resnet, ResNet-50, width 64, 224x224 pixels, 90 epochs.\n"
        "cResNet: cresnet, ResNet-50, width 64, 28x28 positions, 70 epochs.\n"
        "FA-cResNet: fa-cresnet, ResNet-50, width 64, 28x28 positions, 70 epochs.\n"
        "\n"
        "| codec | bpp | paper's | Anchor 1 | paper's | Anchor 2 | paper's | cResNet | paper's "
        "| FA-cResNet | paper's |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| originals | 2.500 | 2.604 | 75.0 (1) | 75.7 |  |  |  |  |  |  |\n"
        "| bmshj2018-hyperprior-msssim-1 | 0.0900 | 0.0888 |  |  | – | 71.8 "
        "| 73.0 ± 9.0 (3) | 70.3 | 75.5 (1) | 73.2 |\n"
    )
    rows = read_csv(tmp_path / "table1.csv")
    assert [row["setting"] for row in rows] == ["anchor1", "cresnet", "fa-cresnet"]
    cresnet = rows[1]
    assert float(cresnet["top1"]) == pytest.approx(73)
    # sqrt(26 / 2) / sqrt(3) * 4.30265
    assert float(cresnet["top1_interval"]) == pytest.approx(8.9567, abs=1e-4)
    assert (cresnet["seeds"], cresnet["paper_top1"], cresnet["rate_of"]) == (
        "3",
        "70.3",
        "all samples",
    )


def test_slim_networks_are_never_taken_for_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "slim", "trashnet/cresnet-msssim-4", 0.7)
    write_run(tmp_path / "full", "minc2500/cresnet-msssim-4", 0.7, settings=["model.width=32"])
    for name in ("slim", "full"):
        write_table1(group_runs(find_runs([tmp_path / name])), NO_STORES, tmp_path)
        text = (tmp_path / "table1.md").read_text()
        assert "**Slim networks, not the paper's**" in text
    assert "cResNet: cresnet, ResNet-50, width 32, 28x28 positions, 70 epochs." in text
    write_table1(group_runs(find_runs([tmp_path / "slim"])), NO_STORES, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "## TrashNet\n" in text
    assert "blocks 2/2/2, width 16, 16x16 positions, 20 epochs" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), None),
        (["model.depths=[3,6,3]"], "Slim networks, not the paper's"),
        (["model.depths=[4,6,3]"], None),
        (
            ["model.depths=[5,6,3]"],
            "Another input, another beginning, or more blocks, than the paper's",
        ),
        (["model.depth=101"], "Another ResNet than the paper's"),
        (["model.depth=18"], "Another ResNet than the paper's"),
        (["model.depth=101", "model.width=63"], "Slim networks, not the paper's"),
        (["model.width=128"], "Another ResNet than the paper's"),
        (["data.size=14"], "Another input, another beginning, or more blocks, than the paper's"),
    ],
)
def test_networks_are_called_what_they_are(
    settings: list[str], said: str | None, tmp_path: Path
) -> None:
    write_run(tmp_path / "runs", "minc2500/cresnet-msssim-4", 0.7, settings=settings)
    write_table1(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    bold = [line.split("**")[1] for line in text.splitlines() if "**" in line]
    assert bool(settings) == any("changed from the recipe" in words for words in bold)
    bold = [words for words in bold if "changed from the recipe" not in words]
    assert bold == ([said] if said else [])


def test_recipes_that_were_changed_are_named(tmp_path: Path) -> None:
    changed = ["schedule.mixup=0.4", "schedule.frozen_epochs=0", "seed=3", "device.compile=true"]
    for codec in ("msssim-1", "msssim-4"):
        name = f"minc2500/fa-cresnet-{codec}"
        write_run(tmp_path / "runs", name, 0.7, seed=3, settings=changed)
    write_run(tmp_path / "runs", "minc2500/cresnet-msssim-4", 0.7)
    write_table1(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    lines = (tmp_path / "table1.md").read_text().splitlines()
    assert [line for line in lines if "changed" in line] == [
        "**FA-cResNet changed from the recipe**: schedule.frozen_epochs: 20 -> 0; "
        "schedule.mixup: 0.0 -> 0.4."
    ]


def test_rate_is_of_the_split_that_is_measured(tmp_path: Path) -> None:
    path = made_stores.write_latents(tmp_path / "l", "demo-hyperprior-msssim-4", rate_bpp=0.125)
    store = open_store(path)
    write_run(tmp_path / "runs", "trashnet/cresnet-msssim-4", 0.7, store=store.fingerprint)
    stores = Stores.open([str(path)], [])
    write_table1(group_runs(find_runs([tmp_path / "runs"])), stores, tmp_path)
    (row,) = read_csv(tmp_path / "table1.csv")
    assert (row["rate_bpp"], row["rate_of"]) == ("0.125", "test")
    assert "| demo-hyperprior-msssim-4 | 0.1250 | 0.309 |" in (tmp_path / "table1.md").read_text()


def test_runs_that_differ_in_more_than_their_seed_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7)
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7, seed=1, settings=["model.width=32"])
    with pytest.raises(
        TrainingError, match=r"differ by their seed alone, got model\.width: 64 -> 32;"
    ):
        group_runs(find_runs([tmp_path]))
    (tmp_path / "minc2500/cresnet-msssim-4/seed-1").rename(tmp_path / "elsewhere")
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7, seed=1, store="e" * 64)
    with pytest.raises(TrainingError, match=r"got the store; report them apart"):
        group_runs(find_runs([tmp_path / "minc2500"]))
    write_run(tmp_path / "shared", "minc2500/cresnet-msssim-4", 0.7)
    write_run(tmp_path / "shared", "minc2500/cresnet-msssim-4", 0.7, seed=1, processes=2)
    with pytest.raises(TrainingError, match=r"got processes: 1 -> 2; report them apart"):
        group_runs(find_runs([tmp_path / "shared"]))


ADOPT = "weights.adopt="
NO_FREEZE = "schedule.frozen_epochs=0"


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (ADOPT, f"{ADOPT}teacher.pth", "none -> teacher.pth"),
        (
            f"{ADOPT}a/minc2500/anchor2-msssim-4/seed-0/best.safetensors",
            f"{ADOPT}/b/c/minc2500/anchor2-msssim-4/seed-1/last.safetensors",
            None,
        ),
        (
            f"{ADOPT}a/minc2500/anchor2-msssim-4/seed-0/best.safetensors",
            f"{ADOPT}a/minc2500/anchor1/seed-1/best.safetensors",
            "a/minc2500/anchor2-msssim-4/seed-0/best.safetensors -> "
            "a/minc2500/anchor1/seed-1/best.safetensors",
        ),
        (
            f"{ADOPT}torchvision:ResNet50_Weights.IMAGENET1K_V1",
            f"{ADOPT}torchvision:ResNet50_Weights.IMAGENET1K_V2",
            "torchvision:ResNet50_Weights.IMAGENET1K_V1 -> "
            "torchvision:ResNet50_Weights.IMAGENET1K_V2",
        ),
        (
            f"{ADOPT}torchvision:ResNet50_Weights.IMAGENET1K_V1",
            f"{ADOPT}recipe:minc2500/anchor1",
            "torchvision:ResNet50_Weights.IMAGENET1K_V1 -> recipe:minc2500/anchor1",
        ),
        (f"{ADOPT}teacher.pth", f"{ADOPT}/b/other.pth", None),
    ],
)
def test_runs_that_adopt_from_elsewhere_are_not_averaged(
    first: str, second: str, refused: str | None, tmp_path: Path
) -> None:
    name = "minc2500/cresnet-msssim-4"
    write_run(tmp_path, name, 0.7, settings=[first, NO_FREEZE])
    write_run(tmp_path, name, 0.8, seed=1, settings=[second, NO_FREEZE])
    runs = find_runs([tmp_path])
    if refused is None:
        assert len(group_runs(runs)["minc2500"]["cresnet", "msssim-4"].runs) == 2
        assert gather(runs)[0].seeds == 2
        return
    said = re.escape(f"got weights.adopt: {refused}; report them apart")
    for average in (group_runs, gather):
        with pytest.raises(TrainingError, match=said):
            average(runs)


def test_runs_of_another_precision_are_not_averaged(tmp_path: Path) -> None:
    name = "minc2500/cresnet-msssim-4"
    write_run(tmp_path, name, 0.7)
    write_run(tmp_path, name, 0.7, seed=1, settings=["device.accelerator=cuda"])
    group_runs(find_runs([tmp_path]))
    write_run(tmp_path, name, 0.7, seed=2, settings=["device.precision=bf16"])
    with pytest.raises(TrainingError, match=r"got device\.precision: fp32 -> bf16; report them"):
        group_runs(find_runs([tmp_path]))


def test_distilled_runs_stand_apart(tmp_path: Path) -> None:
    runs, name = tmp_path / "runs", "minc2500/fa-cresnet-msssim-1"
    for seed in (0, 1):
        write_run(runs, name, 0.75, seed=seed)
        settings = [f"distill.logits=teacher-{seed}.safetensors"]
        write_run(runs / "with-teacher", name, 0.8 + 0.02 * seed, seed=seed, settings=settings)
    found = find_runs([runs])
    assert [(line.recipe, line.seeds, round(line.top1, 3)) for line in gather(found)] == [
        ("minc2500/fa-cresnet-msssim-1", 2, 0.75),
        ("minc2500/fa-cresnet-msssim-1, distilled", 2, 0.81),
    ]
    groups = group_runs(found)
    write_table1(groups, NO_STORES, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "| FA-cResNet | paper's | FA-cResNet, distilled |\n" in text
    assert "| 75.0 ± 0.0 (2) | 73.2 | 81.0 ± 12.7 (2) |\n" in text
    assert "FA-cResNet and FA-cResNet, distilled: fa-cresnet, ResNet-50, width 64" in text
    rows = {row["setting"]: row for row in read_csv(tmp_path / "table1.csv")}
    assert rows["fa-cresnet, distilled"]["paper_top1"] == ""
    write_run(runs, "minc2500/table3/cau-position-skip-msssim-1", 0.7)
    write_table3(group_runs(find_runs([runs])), tmp_path)
    assert "81.0" not in (tmp_path / "table3.md").read_text()
    write_figure6(groups, NO_STORES, tmp_path)
    assert [row["setting"] for row in read_csv(tmp_path / "figure6.csv")] == ["fa-cresnet"]


def test_figure_6_is_of_ms_ssim_codecs(tmp_path: Path) -> None:
    for codec in ("msssim-4", "mse-4"):  # whose runs are Figure 7's
        write_run(tmp_path / "runs", f"minc2500/fa-cresnet-{codec}", 0.7)
    write_figure6(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    assert [row["codec"] for row in read_csv(tmp_path / "figure6.csv")] == ["msssim-4"]


def test_the_papers_figures_do_not_stand_beside_imagenets(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "imagenet/anchor1", 0.76)
    write_run(tmp_path / "runs", "imagenet/anchor2-msssim-1", 0.6)
    write_run(tmp_path / "runs", "imagenet/fa-cresnet-msssim-1", 0.7)
    write_run(tmp_path / "runs", "trashnet/fa-cresnet-msssim-1", 0.7)
    write_table1(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    rows = read_csv(tmp_path / "table1.csv")
    beside = {row["data_set"]: (row["paper_top1"], row["paper_rate_bpp"]) for row in rows}
    assert beside == {"imagenet": ("", ""), "trashnet": ("73.2", "0.0888")}
    text = (tmp_path / "table1.md").read_text()
    imagenet = text[text.index("## ImageNet") : text.index("## TrashNet")]
    assert "MINC-2500" not in imagenet
    for figure in ("75.7", "71.8", "73.2", "2.604", "0.0888", "+1.4"):
        assert figure not in imagenet


@pytest.mark.parametrize("given", [True, False])
def test_rates_of_resized_images_are_explained(given: bool, tmp_path: Path) -> None:
    # Of stores that are not given, the runs of latents say how they were made.
    codec = "demo-hyperprior-msssim-4"
    latents = made_stores.write_latents(tmp_path / "l", codec, resize="short:96")
    decoded = made_stores.write_pixels(tmp_path / "d", latents, decoded=True, resize="exact:40")
    for name, path in (("cresnet", latents), ("anchor2", decoded)):
        store = open_store(path)
        recipe, found = f"trashnet/{name}-msssim-4", store.fingerprint
        write_run(tmp_path / "runs", recipe, 0.7, store=found, resize=store.header.resize)
    stores = Stores.open([str(latents)], [str(decoded)]) if given else NO_STORES
    groups = group_runs(find_runs([tmp_path / "runs"]))
    write_table1(groups, stores, tmp_path)
    said = (
        "bits per pixel of the image as it was encoded; images were resized by "
        "short:96 first, so these do not compare with the paper's"
    )
    assert f"bpp: {said}.\n" in (tmp_path / "table1.md").read_text()
    assert write_figure6(groups, stores, tmp_path).caption == f"TrashNet: {said}."
    if given:
        caption = write_figure7(groups, stores, tmp_path).caption
        assert caption == f"TrashNet: {said}."
    write_run(tmp_path / "runs", "trashnet/anchor1", 0.7)
    write_table1(group_runs(find_runs([tmp_path / "runs"])), stores, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "nor with those of the originals, which are of their files at full size.\n" in text


def test_another_beginning_than_the_papers_is_named(tmp_path: Path) -> None:
    near = ["model.near_identity=true"]
    write_run(tmp_path / "runs", "minc2500/fa-cresnet-msssim-4", 0.77, settings=near)
    write_table1(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "FA-cResNet: fa-cresnet (begins near the identity), ResNet-50, width 64, 28x28" in text
    assert "**Another input, another beginning, or more blocks, than the paper's**" in text


def test_nothing_is_said_of_a_size_that_nobody_knows(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "trashnet/anchor2-msssim-4", 0.7, resize="exact:40")
    write_table1(group_runs(find_runs([tmp_path / "runs"])), NO_STORES, tmp_path)
    assert "\nbpp:" not in (tmp_path / "table1.md").read_text()


def test_table_3_stands_in_the_papers_order(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "minc2500/anchor2-msssim-1", 0.72)
    write_run(runs, "minc2500/fa-cresnet-msssim-1", 0.73)
    write_run(runs, "minc2500/fa-cresnet-msssim-4", 0.76)
    write_run(runs, "minc2500/table3/feu-depth-3-4-5-msssim-1", 0.715)
    write_run(runs, "minc2500/table3/feu-depth-2-3-4-msssim-4", 0.75)
    write_run(runs, "minc2500/table3/cau-position-skip-msssim-4", 0.77)
    part = write_table3(group_runs(find_runs([runs])), tmp_path)
    assert part.files == ("table3.md", "table3.csv")
    text = (tmp_path / "table3.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    one, four = (f"bmshj2018-hyperprior-msssim-{q}" for q in (1, 4))
    assert lines[0] == f"| experiment | setting | {one} | paper's | {four} | paper's |"
    assert lines[2] == "|  | Anchor 2 | 72.0 (1) | 71.8 | – | 75.3 |"
    assert "| CAU Position | pre * | 73.0 (1) | 73.1 | 76.0 (1) | 76.5 |" in lines
    assert "|  | skip | – | 73.6 | 77.0 (1) | 76.0 |" in lines
    assert lines[-2:] == [
        "| FEU Architecture | 2/3/4 | 73.0 (1) * | 73.1 | 75.0 (1) | 75.6 |",
        "|  | 3/4/5 | 71.5 (1) | 72.6 | 76.0 (1) * | 76.5 |",
    ]
    assert (
        "Left out, because no run was given: Input: ŷ, FA Effect: FA-ResNet, FA Module: CAU, "
        in text
    )
    assert "FEU Architecture: 4/5/6.\n" in text
    rows = read_csv(tmp_path / "table3.csv")
    skip = [row for row in rows if row["setting"] == "cau-position-skip"]
    assert [(row["codec"], row["top1"], row["paper_top1"]) for row in skip] == [
        ("msssim-4", "77.0", "76.0")
    ]
    defaults = [row for row in rows if row["codec"] == "msssim-1" and row["default"] == "True"]
    assert len(defaults) == 2
    assert {row["paper_top1"] for row in defaults} == {"73.1"}  # Table 1 has 73.2


def test_table_3_of_networks_whose_defaults_are_others(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "imagenette/fa-cresnet-msssim-4", 0.75)  # r is 4, the paper's 16
    write_run(runs, "imagenette/table3/input-y-msssim-4", 0.73)
    write_table3(group_runs(find_runs([runs])), tmp_path)
    text = (tmp_path / "table3.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("|")][2:] == [
        "|  | Anchor 2 | – | – |",
        "| Input | ŷ | 73.0 (1) | – |",
        "|  | ŷ & σ̂ * | 75.0 (1) | – |",
    ]
    assert "CAU Bottleneck Architecture: r16" in text.split("no run was given:")[1]


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "trashnet/cresnet-slim", 0.5)
    groups = group_runs(find_runs([tmp_path / "runs"]))
    assert groups == {}
    none = "no runs of the paper's recipes (latentset recipes lists them)"
    assert write_table1(groups, NO_STORES, tmp_path).remark == none
    assert write_table3(groups, tmp_path).remark == none
    write_run(tmp_path / "runs", "trashnet/table3/cau-pooling-avg-msssim-4", 0.5)
    groups = group_runs(find_runs([tmp_path / "runs"]))
    assert write_table1(groups, NO_STORES, tmp_path).remark == "no runs of Table 1's recipes"
    write_run(tmp_path / "more", "trashnet/cresnet-msssim-4", 0.5)
    groups = group_runs(find_runs([tmp_path / "more"]))
    assert write_table3(groups, tmp_path).remark == "no runs of Table 3's recipes"
    assert not list(tmp_path.glob("table*"))
