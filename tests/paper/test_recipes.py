"""The recipes that ship, against the paper."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from latentset.cli.paper import recipes
from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store, open_store
from latentset.paper.experiments import sweeps
from latentset.paper.recipes import load_recipe, recipe_lines, recipe_names, recipe_text
from latentset.train.data.split import select_split
from latentset.train.models.build import build_network
from latentset.train.models.networks import PixelNetwork
from latentset.train.models.pretrained import load_pretrained
from latentset.train.recipe.recipe import FROM_RECIPE, Recipe, resolve
from latentset.train.recipe.recipe_file import parse_recipe, toml_text
from latentset.train.run.classifier import Classifier, open_reader
from latentset.train.run.loop import compute_loss
from tests.makers import stores as made_stores

TABLE1 = """
anchor2     71.8 75.3 75.9
cresnet     70.3 72.9 74.4
fa-cresnet  73.2 76.5 77.9
"""
"""The paper's Table 1, a column a line: HyperMS-SSIM-1, -4, -8."""

TABLE3 = {
    "input-y input-y-sigma fa-effect-resnet fa-effect-cresnet fa-module-cau fa-module-feu "
    "fa-module-fa": """
72.4 73.1 73.0 73.1 71.8 72.9 73.1
75.5 76.5 75.7 76.5 74.5 75.9 76.5
76.7 77.9 75.4 77.9 76.0 76.7 77.9""",
    "fa-position-pre fa-position-post cau-pooling-max cau-pooling-avg cau-pooling-max-avg "
    "cau-pooling-1att cau-pooling-2att": """
73.1 71.7 72.9 72.7 72.6 72.8 73.1
76.5 75.5 75.8 76.1 76.1 75.5 76.5
77.9 76.7 77.0 77.4 77.3 77.5 77.9""",
    "cau-position-pre cau-position-skip cau-position-inner cau-position-post cau-module-scale "
    "cau-module-bias cau-module-affine": """
73.1 73.6 71.8 72.2 73.1 72.5 73.1
76.5 76.0 74.9 75.0 75.4 74.9 76.5
77.9 77.4 75.9 76.3 77.3 76.5 77.9""",
    "cau-bottleneck-1fc cau-bottleneck-r1 cau-bottleneck-r2 cau-bottleneck-r4 cau-bottleneck-r8 "
    "cau-bottleneck-r16 cau-bottleneck-r32 cau-bottleneck-r64": """
72.1 68.5 72.0 72.8 73.1 73.1 72.5 73.0
74.5 74.8 75.7 74.7 76.1 76.5 76.5 75.4
73.0 76.3 76.8 76.8 76.2 77.9 77.3 77.3""",
    "feu-depth-2-2-2 feu-depth-1-2-3 feu-depth-3-3-3 feu-depth-2-3-4 feu-depth-4-4-4 "
    "feu-depth-3-4-5 feu-depth-5-5-5 feu-depth-4-5-6": """
72.8 72.3 72.8 73.1 72.6 72.6 72.5 73.0
75.3 75.8 75.4 75.6 76.3 76.5 75.8 76.1
77.1 77.4 77.1 77.6 77.0 77.9 76.6 77.0""",
}
"""The paper's Table 3 as it prints it: columns, and a row for HyperMS-SSIM-1, -4, -8."""

DEFAULTS = {
    "input-y-sigma", "fa-effect-cresnet", "fa-module-fa", "fa-position-pre", "cau-pooling-2att",
    "cau-position-pre", "cau-module-affine", "cau-bottleneck-r16",
}  # fmt: skip
DEFAULT_DEPTHS = {1: "feu-depth-2-3-4", 4: "feu-depth-3-4-5", 8: "feu-depth-3-4-5"}


def table3_cells() -> Iterator[tuple[str, int, float]]:
    for columns, block in TABLE3.items():
        for quality, row in zip((1, 4, 8), block.split("\n")[1:], strict=True):
            for setting, top1 in zip(columns.split(), row.split(), strict=True):
                yield setting, quality, float(top1)


def test_all_load_and_come_back_from_their_text() -> None:
    names = recipe_names()
    assert len(names) == len(set(names)) > 200
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        text = recipe_text(name)
        assert parse_recipe(tomllib.loads(text), name) == recipe
        header = text.split("\n\n")[0]
        assert all(line.startswith("#") for line in header.splitlines()), name
        assert f"latentset train {name} " in header, name
        assert "Expected:" in header, name


def test_names_from_before_are_still_there() -> None:
    before = {
        *(f"minc2500/{kind}cresnet-msssim-{q}" for kind in ("", "fa-") for q in (1, 4, 8)),
        "imagenet/fa-cresnet-msssim-4",
        "trashnet/cresnet-slim",
        "trashnet/fa-cresnet-slim",
    }
    assert before <= set(recipe_names())


def test_table_1_has_the_papers_figures() -> None:
    for line in TABLE1.strip().splitlines():
        setting, *row = line.split()
        for quality, top1 in zip((1, 4, 8), row, strict=True):
            recipe = load_recipe(f"minc2500/{setting}-msssim-{quality}")
            assert recipe.paper
            assert recipe.paper.top1 == float(top1), recipe.name
            assert "Table 1" in recipe.paper.items
            assert f"Expected: top-1 {top1} %" in recipe_text(recipe.name)
    anchor1 = load_recipe("minc2500/anchor1")
    assert anchor1.paper
    assert anchor1.paper.top1 == 75.7
    assert anchor1.data.codec == "none"
    assert [e.name for e in sweeps()["minc2500/table1"]] == [
        "minc2500/anchor1",
        *(f"minc2500/{s}-msssim-{q}" for s in TABLE1.split()[::4] for q in (1, 4, 8)),
    ]


def test_table_3_has_the_papers_figures() -> None:
    swept = {e.name for e in sweeps()["minc2500/table3"]}
    seen = set()
    for setting, quality, top1 in table3_cells():
        if setting in DEFAULTS or setting == DEFAULT_DEPTHS[quality]:
            name = f"minc2500/fa-cresnet-msssim-{quality}"
            expected = {1: 73.2, 4: 76.5, 8: 77.9}[quality]  # Table 1's
        else:
            name = f"minc2500/table3/{setting}-msssim-{quality}"
            expected = top1
        recipe = load_recipe(name)
        assert recipe.paper
        assert (name, recipe.paper.top1) == (name, expected)
        assert "Table 3" in recipe.paper.items
        seen.add(name)
    assert swept == seen


def test_a_changed_recipe_leaves_those_that_share_its_tables_as_they_are() -> None:
    before = load_recipe("trashnet/cresnet-msssim-8")
    changed = load_recipe("trashnet/fa-cresnet-msssim-4", ["schedule.momentum=0.5"])
    assert changed.schedule.momentum == 0.5
    assert load_recipe("trashnet/cresnet-msssim-8") == before


def test_figures_6_and_7() -> None:
    assert [e.name for e in sweeps()["imagenet/figure6"]] == ["imagenet/anchor1"] + [
        f"imagenet/{s}-msssim-{q}" for s in ("anchor2", "fa-cresnet") for q in (1, 3, 4, 5)
    ]
    assert {e.name for e in sweeps()["minc2500/figure7"]} == {
        "minc2500/anchor1",
        *(
            f"minc2500/{setting}-{loss}-{q}"
            for setting in ("anchor2", "cresnet", "fa-cresnet")
            for loss in ("msssim", "mse")
            for q in (1, 4, 8)
        ),
    }
    for quality in (1, 4, 8):  # 2/3/4 is of HyperMS-SSIM-1 alone (section 5.3)
        drawn = load_recipe(f"minc2500/fa-cresnet-mse-{quality}")
        assert drawn.model.model_dump()["n"] == (3, 4, 5)
    assert drawn.paper
    assert (drawn.paper.items, drawn.paper.top1) == (("Figure 7",), None)
    assert drawn.data.codec == "bmshj2018-hyperprior-mse-8"
    assert "draws and gives no number" in recipe_text(drawn.name)


def test_latents_of_minc2500_are_trained_as_section_5_3_says() -> None:
    recipe = load_recipe("minc2500/fa-cresnet-msssim-1")
    assert recipe.model.model_dump()["n"] == (2, 3, 4)
    assert recipe.model.model_dump()["r"] == 16
    assert (recipe.data.batch_size, recipe.data.size, recipe.data.flip) == (32, 28, False)
    assert recipe.data.codec == "bmshj2018-hyperprior-msssim-1"
    assert (recipe.schedule.epochs, recipe.schedule.frozen_epochs) == (70, 20)
    assert (recipe.schedule.momentum, recipe.schedule.weight_decay) == (0.9, 1e-3)
    rates = [recipe.schedule.rates(epoch) for epoch in (0, 39, 40, 59, 60, 69)]
    expected = [0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    assert [new for new, _ in rates] == pytest.approx(expected)
    assert [adopted for _, adopted in rates] == pytest.approx(expected)
    assert recipe.weights.adopt == "recipe:minc2500/anchor2-msssim-1"
    for quality in (4, 8):
        other = load_recipe(f"minc2500/fa-cresnet-msssim-{quality}")
        assert other.model.model_dump()["n"] == (3, 4, 5)


def test_pixels_of_minc2500_are_trained_as_section_5_2_says() -> None:
    for name in ("minc2500/anchor1", "minc2500/anchor2-mse-4"):
        recipe = load_recipe(name)
        assert recipe.model.kind == "resnet"
        assert (recipe.data.size, recipe.data.resize, recipe.data.flip) == (224, 256, True)
        assert (recipe.data.batch_size, recipe.schedule.epochs) == (32, 90)
        rates = [recipe.schedule.rates(epoch)[0] for epoch in (0, 59, 60, 79, 80, 89)]
        assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])
        assert (recipe.schedule.momentum, recipe.schedule.weight_decay) == (0.9, 1e-3)
        assert recipe.weights.adopt == ""


def test_imagenet_is_trained_as_sections_5_2_and_5_3_say() -> None:
    latents = load_recipe("imagenet/fa-cresnet-msssim-4")
    assert (latents.data.batch_size, latents.schedule.epochs) == (64, 35)
    assert (latents.schedule.frozen_epochs, latents.schedule.weight_decay) == (15, 5e-4)
    assert latents.schedule.momentum == 0.9
    assert (latents.data.size, latents.data.flip) == (28, False)
    assert latents.data.codec == "bmshj2018-hyperprior-msssim-4"
    assert latents.weights.adopt == "recipe:imagenet/anchor2-msssim-4"
    rates = [latents.schedule.rates(epoch) for epoch in (9, 10, 24, 25)]
    assert [new for new, _ in rates] == pytest.approx([0.01, 1e-3, 1e-3, 1e-4])
    assert {adopted for _, adopted in rates} == {1e-4}
    assert "ANCHOR2: last.safetensors of a run of imagenet/anchor2" in recipe_text(latents.name)
    pixels = load_recipe("imagenet/anchor2-msssim-3")
    assert (pixels.data.size, pixels.data.resize, pixels.data.flip) == (224, 256, True)
    assert pixels.weights.adopt == "torchvision:ResNet50_Weights.IMAGENET1K_V1"
    assert (pixels.data.batch_size, pixels.schedule.epochs) == (64, 5)
    assert {pixels.schedule.rates(epoch) for epoch in range(5)} == {(1e-4, 1e-4)}
    assert (pixels.schedule.momentum, pixels.schedule.weight_decay) == (0.9, 1e-4)


def test_trashnet_has_minc2500s_experiments_slim() -> None:
    for table in ("table1", "table3"):
        ours = [e.name.removeprefix("trashnet/") for e in sweeps()[f"trashnet/{table}"]]
        papers = [e.name.removeprefix("minc2500/") for e in sweeps()[f"minc2500/{table}"]]
        assert ours == papers
    recipe = load_recipe("trashnet/table3/cau-module-bias-msssim-8")
    assert (recipe.model.width, recipe.model.depths) == (16, (2, 2, 2))
    assert recipe.paper
    assert recipe.paper.top1 is None
    assert "no figure for this data set" in recipe_text(recipe.name)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Store]:
    """A store of latents (False) and one of pixels (True)."""
    folder = tmp_path_factory.mktemp("stores")
    latents = made_stores.write_latents(folder / "latents", "made-up")
    pixels = made_stores.write_pixels(folder / "pixels", latents, decoded=True)
    return {False: open_store(latents), True: open_store(pixels)}


SMALL = [
    "model.width=2",
    "data.codec=made-up",
    "data.batch_size=4",
    "device.accelerator=cpu",
    "device.precision=fp32",
]
SMALL_LATENTS = [*SMALL, "model.depths=[1, 1, 1]", "data.size=4"]
SMALL_PIXELS = [*SMALL, "model.depths=[1, 1, 1, 1]", "data.size=32", "data.resize=40"]


def load_small(name: str, store: Store, *, pixels: bool) -> Recipe:
    settings = SMALL_PIXELS if pixels else SMALL_LATENTS
    known = "num_classes" in load_recipe(name).model.model_fields_set
    recipe = load_recipe(name, [*settings, *(["model.num_classes=2"] if known else [])])
    return resolve(recipe, store.header, name)


def test_one_step_of_every_recipe(stores: dict[bool, Store]) -> None:
    done = set()
    for name in recipe_names():
        pixels = isinstance(load_recipe(name).model, PixelNetwork)
        recipe = load_small(name, stores[pixels], pixels=pixels)
        step = repr((recipe.model, recipe.data, recipe.schedule, recipe.device))
        if step not in done:  # many recipes differ in their codec alone
            done.add(step)
            take_steps(recipe, stores)
    assert len(done) > 30


def take_steps(recipe: Recipe, stores: dict[bool, Store]) -> None:
    """One of the first phase, where there is one, and one of all weights."""
    store = stores[isinstance(recipe.model, PixelNetwork)]
    network = build_network(recipe.model)
    adopt = recipe.weights.adopt
    if adopt:
        anchor = recipe
        if adopt.startswith(FROM_RECIPE):
            anchor = load_small(adopt.removeprefix(FROM_RECIPE), stores[True], pixels=True)
        load_pretrained(network, build_network(anchor.model).state_dict())
    module = Classifier(network, recipe, store.header)
    split = select_split(store, recipe.data.train_split)
    reader = open_reader(store, split, recipe, training=True, names=module.input.names)
    batch = next(iter(reader.batches(0)))
    optimiser = module.optimizer()
    phases = [True, False] if recipe.schedule.frozen_epochs else [False]
    for frozen in phases:
        if frozen:
            network.freeze_pretrained()
        else:
            network.unfreeze()
        adopted = [p.detach().clone() for p in network.pretrained_parameters()]
        new = [p.detach().clone() for p in network.new_parameters()]
        optimiser.zero_grad()
        loss, _ = compute_loss(module, module.network, batch, 0)
        assert torch.isfinite(loss), recipe.name
        torch.autograd.backward(loss)
        optimiser.step()
        assert moved(adopted, network.pretrained_parameters()) == (not frozen), recipe.name
        assert not new or moved(new, network.new_parameters()), recipe.name


def moved(before: list[Tensor], after: Iterable[Tensor]) -> bool:
    """Whether most did; False only where none did."""
    differ = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert not any(differ) or sum(differ) > len(differ) / 2
    return any(differ)


def test_toml_keeps_texts_numbers_and_lists() -> None:
    tables: dict[str, Any] = {
        "name": 'a "quoted" back\\slash, ŷ & σ̂',
        "model": {"n": [2, 3, 4], "kind": "x"},
        "data": {"share": 1e-7, "flip": True, "size": 28, "scale": [0.35, 1.0], "none": ""},
    }
    assert tomllib.loads(toml_text(tables)) == tables


def test_list_is_short_and_whole() -> None:
    lines = list(recipe_lines())
    assert ("minc2500/cresnet-msssim-{1,4,8}", "Table 1, Figure 7", "70.3 72.9 74.4") in lines
    assert ("minc2500/table3/feu-depth-2-3-4-msssim-{4,8}", "Table 3", "75.6 77.6") in lines
    assert ("minc2500/table3/feu-depth-3-4-5-msssim-1", "Table 3", "72.6") in lines
    general = ["cresnet-slim", "cresnet", "demo/cresnet", "demo/fa-cresnet", "fa-cresnet-slim"]
    assert [name for name, _, _ in lines[:5]] == general
    assert lines[4][1].startswith("FA-cResNet on stored latents, from scratch, on images of your")
    named = 0
    for name, _, _ in lines:
        braces = re.search(r"\{(.*)\}", name)
        named += len(braces[1].split(",")) if braces else 1
    assert named == len(recipe_names())


def test_lists_that_printed_commands_name_exist_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "recipes/trashnet/split.csv"
    assert f"encode {name}" in recipe_text("trashnet/cresnet-slim")  # in a checkout
    monkeypatch.chdir(tmp_path)
    for recipe in ("trashnet/cresnet-slim", "trashnet/fa-cresnet-msssim-8", "trashnet/anchor1"):
        (command, *_) = re.findall(r"latentset encode (\S+)", recipe_text(recipe))
        assert Path(command).is_absolute()
        assert Path(command).read_text().startswith("path,label,split")


def test_command_lists_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer()
    app.command()(recipes)
    listed = CliRunner().invoke(app, [])
    assert "minc2500/table3/cau-bottleneck-1fc-msssim-{1,4,8} " in listed.stdout
    printed = CliRunner().invoke(app, ["trashnet/fa-cresnet-msssim-8"])
    path = tmp_path / "recipe.toml"
    path.write_text(printed.stdout)
    assert load_recipe(str(path)) == load_recipe("trashnet/fa-cresnet-msssim-8")
    for name in ("trashnet/facresnet-msssim-8", str(path)):
        wrong = CliRunner().invoke(app, [name])
        assert isinstance(wrong.exception, RecipeError)
        assert "expected a name that `latentset recipes` lists" in str(wrong.exception)
    wrong = CliRunner().invoke(app, ["trashnet/facresnet-msssim-8"])
    assert isinstance(wrong.exception, RecipeError)
    assert "did you mean trashnet/fa-cresnet-msssim-8?" in str(wrong.exception)
