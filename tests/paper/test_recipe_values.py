"""All that the recipes of the paper's experiments say, word for word (sections 5.2 and 5.3)."""

import tomllib
from typing import Any

import pytest

from latentset.paper.experiments import data_sets, experiments
from latentset.paper.recipes import load_recipe
from latentset.train.models.networks import FeatureAdaptation
from latentset.train.recipe.recipe import Data

VALUES = tomllib.loads("""
[minc2500.pixels]
data = {test_split = "test", batch_size = 32, size = 224, resize = 256, flip = true, eval_crop = "central"}
schedule = {epochs = 90, learning_rate = 0.01, decay_epochs = [60, 80], momentum = 0.9, weight_decay = 1e-3}

[minc2500.latents]
data = {test_split = "test", batch_size = 32, size = 28}
schedule = {epochs = 70, frozen_epochs = 20, learning_rate = 0.01, decay_epochs = [40, 60], momentum = 0.9, weight_decay = 1e-3}

[imagenet.pixels]
data = {val_split = "", test_split = "val", batch_size = 64, size = 224, resize = 256, flip = true, eval_crop = "central"}
schedule = {epochs = 5, learning_rate = 1e-4, momentum = 0.9, weight_decay = 1e-4}
device = {precision = "bf16", channels_last = true}
weights = {adopt = "torchvision:ResNet50_Weights.IMAGENET1K_V1"}

[imagenet.latents]
data = {val_split = "", test_split = "val", batch_size = 64, size = 28}
schedule = {epochs = 35, frozen_epochs = 15, learning_rate = 0.01, decay_epochs = [10, 25], adopted_learning_rate = 1e-4, momentum = 0.9, weight_decay = 5e-4}
device = {precision = "bf16", channels_last = true}

[trashnet.pixels]
data = {test_split = "test", batch_size = 32, size = 128, resize = 144, crop_scale = [0.35, 1.0], flip = true}
schedule = {epochs = 20, learning_rate = 0.02, decay_epochs = [13, 17], momentum = 0.9, weight_decay = 1e-3}
device = {channels_last = true}

[trashnet.latents]
data = {test_split = "test", batch_size = 32, size = 16, crop_scale = [0.35, 1.0]}
schedule = {epochs = 20, frozen_epochs = 6, learning_rate = 0.02, decay_epochs = [13, 17], momentum = 0.9, weight_decay = 1e-3}
device = {channels_last = true}

[imagenette.pixels]
data = {val_split = "", test_split = "val", batch_size = 32, size = 112, resize = 128, flip = true, eval_crop = "central"}
schedule = {epochs = 30, learning_rate = 0.01, decay_epochs = [20, 26], momentum = 0.9, weight_decay = 1e-3}
device = {channels_last = true}

[imagenette.latents]
data = {val_split = "", test_split = "val", batch_size = 32, size = 16}
schedule = {epochs = 24, frozen_epochs = 7, learning_rate = 0.01, decay_epochs = [14, 21], momentum = 0.9, weight_decay = 1e-3}
device = {channels_last = true}
""")  # fmt: skip  # noqa: E501
"""Tables of every recipe of pixels, and of latents, of a data set; the codec aside."""

CLASSES = {"minc2500": 23, "imagenet": 1000, "trashnet": None, "imagenette": 10}
CODECS = {
    "minc2500": "bmshj2018-hyperprior-",
    "imagenet": "bmshj2018-hyperprior-",
    "trashnet": "demo-hyperprior-",
    "imagenette": "demo-hyperprior-",
}
RESIZE = {  # of latents, of pixels
    "minc2500": ("none", "exact:256"),
    "imagenet": ("none", "exact:256"),
    "trashnet": ("short:192", "exact:144"),
    "imagenette": ("none", "exact:128"),
}


@pytest.mark.parametrize("name", experiments())
def test_values(name: str) -> None:
    data_set = name.partition("/")[0]
    recipe = load_recipe(name)
    assert recipe.paper
    of_pixels = recipe.model.kind in ("resnet", "fa-resnet")
    expected: dict[str, Any] = VALUES[data_set]["pixels" if of_pixels else "latents"]
    schedule, weights = expected["schedule"], expected.get("weights", {})
    if name == "imagenet/anchor1":  # as it is published
        schedule = schedule | {"epochs": 0}
    if name.startswith("imagenette/") and "-scratch-" in name:
        schedule = schedule | {"frozen_epochs": 0}
    elif not of_pixels:
        weights = {"adopt": f"recipe:{data_set}/anchor2-{recipe.paper.codec}"}
    codec = CODECS[data_set] + recipe.paper.codec if recipe.paper.codec else "none"
    said = recipe.model_dump(mode="json", exclude_unset=True, exclude={"paper", "model", "name"})
    assert said == {
        "data": expected["data"] | {"codec": codec},
        "schedule": schedule,
        **({"weights": weights} if weights else {}),
        **({"device": expected["device"]} if "device" in expected else {}),
    }
    assert recipe.model.num_classes == CLASSES[data_set]
    assert (recipe.seed, recipe.model.depth) == (0, 50)
    slim = data_set in ("trashnet", "imagenette")
    assert recipe.model.width == (16 if slim else 64)
    assert recipe.model.depths == (((2,) * (4 if of_pixels else 3)) if slim else None)
    if data_set == "imagenette" and isinstance(recipe.model, FeatureAdaptation):
        assert recipe.model.r == 4


@pytest.mark.parametrize("name", RESIZE)
def test_images_are_stored_so(name: str) -> None:
    data_set = data_sets()[name]
    assert (data_set.resize_latents, data_set.resize_pixels) == RESIZE[name]


def test_crops_are_torchvisions_where_recipes_are_silent() -> None:
    data = Data(batch_size=1)
    assert (data.crop_scale, data.crop_ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
    assert (data.eval_crop, data.eval_share) == ("whole", 224 / 256)
