from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store
from latentset.paper.recipes import load_recipe
from latentset.train.recipe.recipe import Recipe, Schedule, differences, resolve
from latentset.train.recipe.recipe_file import parse_recipe

MakeRecipe = Callable[..., Recipe]

TEXT = """
name = "tests/written"
[model]
kind = "cresnet"
[data]
batch_size = 4
[schedule]
epochs = 3
learning_rate = 0.1
"""


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "written.toml"
    path.write_text(TEXT)
    return str(path)


def test_recipe_is_read_and_frozen(written: str) -> None:
    recipe = load_recipe(written)
    assert recipe.name == "tests/written"
    assert recipe.data.size == 28
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def test_set_parses_toml(written: str) -> None:
    settings = [
        "schedule.epochs=7",
        "schedule.decay_epochs=[2, 5]",
        "model.depths=[1,1,1]",
        'data.codec="1"',
        "data.store=stores/a b.zarr",
        "data.val_split=",
        "device.compile=True",
        "schedule.learning_rate=.5",
        "seed=3",
    ]
    recipe = load_recipe(written, settings)
    assert recipe.schedule.epochs == 7
    assert recipe.schedule.decay_epochs == (2, 5)
    assert recipe.model.depths == (1, 1, 1)
    assert recipe.data.codec == "1"
    assert recipe.data.store == "stores/a b.zarr"
    assert recipe.data.val_split == ""
    assert recipe.device.compile is True
    assert recipe.schedule.learning_rate == 0.5
    assert recipe.seed == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule.epoch=3", r"unknown key schedule\.epoch; did you mean epochs\?"),
        ("shedule.epochs=3", r"unknown key shedule; did you mean schedule\?"),
        ("model.widht=3", r"unknown key model\.widht; did you mean width\?"),
        ("model.n=[1, 1, 1]", r"unknown key model\.n; expected one of .*num_classes.*, kind"),
        (
            "model.kind=fa-cresne",
            r"model\.kind: expected one of .*got 'fa-cresne'; did you mean fa-cresnet\?",
        ),
        ("paper.itms=[]", r"unknown key paper\.itms; did you mean items\?"),
        ("data.batch_size=0", r"data\.batch_size: input should be greater than 0, got 0"),
        (
            "data.crop_scale=[0.5, 0.2]",
            r"crop_scale: expected \[least, greatest\], got \[0.5, 0.2\]",
        ),
        ("schedule.frozen_epochs=4", r"frozen_epochs: expected at most epochs \(3\), got 4"),
        ("schedule.frozen_epochs=2", r"weights\.adopt: expected a checkpoint, .*from scratch"),
        ("schedule.mixup=true", r"mixup: expected no truth value, got true"),
        ("seed=false", r"seed: expected no truth value, got false"),
        ("model.width=true", r"width: expected no truth value, got true"),
        ("name=2026-01-01", r"name: input should be a valid string, got .*2026"),
        ("schedule.learning_rate=nan", r"schedule\.learning_rate: .*finite number, got nan"),
        ("distill.weight=0.3", r"distill\.logits: expected a teacher's logits, because"),
        ("model.depths=[1]", r"model\.depths: expected more values, got \[1\]$"),
        ("epochs", r"--set: expected key=value, got 'epochs'"),
        ("name.x=1", r"'name' is a value, not a table"),
    ],
)
def test_mistakes_are_worded(written: str, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written, [setting])


def test_missing_keys_are_all_named() -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe({"name": "x", "model": {}, "data": {}}, "x.toml")
    assert str(error.value) == (
        "x.toml: model.kind: missing; expected one of cresnet, fa-cresnet, fa-cresnet-post, "
        "fa-cresnet-y, fa-resnet, resnet; "
        "data.batch_size: missing; it has no default; schedule: missing; it has no default"
    )


def test_no_such_recipe_suggests_one() -> None:
    with pytest.raises(RecipeError, match=r"did you mean trashnet/fa-cresnet-slim\?"):
        load_recipe("trashnet/facresnet-slim")


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("trashnet/table3/cau-bottleneck-r16-msssim-4", "trashnet/fa-cresnet-msssim-4"),
        ("minc2500/table3/feu-depth-2-3-4-msssim-1", "minc2500/fa-cresnet-msssim-1"),
        ("minc2500/table3/feu-depth-3-4-5-msssim-8", "minc2500/fa-cresnet-msssim-8"),
    ],
)
def test_the_default_of_table_3_names_its_recipe(name: str, run: str) -> None:
    with pytest.raises(RecipeError, match=rf"; that setting is FA-cResNet as it is, {run}$"):
        load_recipe(name)
    assert load_recipe(run).name == run


@pytest.mark.parametrize("name", ["foo/table3/cau-position-pre", "trashnet/table3/fa-module-fa"])
def test_a_default_of_no_recipe_names_none(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(f"{name}-msssim-5")
    assert "FA-cResNet as it is" not in str(error.value)


def test_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("name = \n")
    with pytest.raises(RecipeError, match=r"x\.toml: not a recipe: expected TOML: .*line 1"):
        load_recipe(str(path))


def test_rates_of_a_schedule() -> None:
    schedule = Schedule(epochs=9, learning_rate=2, decay_epochs=(3, 6), decay=0.5)
    assert [schedule.rates(e)[0] for e in range(9)] == [2, 2, 2, 1, 1, 1, 0.5, 0.5, 0.5]


def test_resolving_fills_in_what_the_store_says(
    mixed_store: Store, make_recipe: MakeRecipe
) -> None:
    recipe = resolve(make_recipe(), mixed_store.header, "here")
    assert recipe.model.model_dump()["channels"] == 8
    assert recipe.model.num_classes == 3
    assert recipe.data.codec == "synthetic"
    assert resolve(recipe, mixed_store.header, "here") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__channels": 192}, r"number of channels \(model\.channels\): expected 192, got 8"),
        ({"model__num_classes": 23}, r"number of classes \(.*\): expected 23, got 3"),
        ({"data__codec": "mse-1"}, r"codec \(data\.codec\): expected mse-1, got synthetic"),
    ],
)
def test_store_that_does_not_fit(
    mixed_store: Store, make_recipe: MakeRecipe, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message + ".*--set"):
        resolve(make_recipe(**change), mixed_store.header, "here")


def test_differences_leave_out_where_and_how_fast(make_recipe: MakeRecipe) -> None:
    before = make_recipe()
    where = {"accelerator": "auto", "compile": True, "channels_last": True, "save_steps": 3}
    after = make_recipe(
        data__store="elsewhere", data__read_ahead=9, device=where, seed=1, data__size=9
    )
    assert differences(before, after) == ["data.size: 8 -> 9", "seed: 0 -> 1"]


@pytest.mark.parametrize(("key", "value"), [("precision", "bf16"), ("sync_batchnorm", True)])
def test_what_is_computed_otherwise_differs(
    make_recipe: MakeRecipe, key: str, value: str | bool
) -> None:
    changed = differences(make_recipe(), make_recipe(**{f"device__{key}": value}))
    assert [line.partition(":")[0] for line in changed] == [f"device.{key}"]


def test_a_file_may_lie_elsewhere_but_not_be_gone(make_recipe: MakeRecipe) -> None:
    first, second = (
        make_recipe(weights__adopt=f"{name}.pth", distill__logits=f"{name}.safetensors")
        for name in ("a", "b")
    )
    assert differences(first, second) == []
    assert differences(first, make_recipe()) == [
        "distill.logits: a.safetensors -> none",
        "weights.adopt: a.pth -> none",
    ]
