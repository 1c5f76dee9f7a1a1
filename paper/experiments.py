"""The paper's experiments, and the recipe of each, made from one table.

``recipes/experiments.toml`` says what all recipes of a data set share, ``table3_settings`` what a
setting of Table 3 changes, ``published`` what the paper found. A recipe is put together from them
when it is asked for, so that a hundred of them cannot drift apart.

=========  ================================================  ====================================
setting    what                                              name of the recipe
=========  ================================================  ====================================
anchor1    ResNet on the originals                           minc2500/anchor1
anchor2    ResNet on images that the codec decoded      minc2500/anchor2-msssim-4
cresnet    cResNet, adopts Anchor 2                          minc2500/cresnet-msssim-4
fa-cresnet FA-cResNet, adopts Anchor 2                       minc2500/fa-cresnet-msssim-4
NAME       a setting of Table 3, not the default             minc2500/table3/NAME-msssim-4
=========  ================================================  ====================================
"""

import tomllib
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import Field

from latentset.paper import published as paper
from latentset.paper.table3_settings import SETTINGS, Setting
from latentset.train.models.networks import Table
from latentset.train.recipe.shipped import shipped_folder

EXPERIMENTS = "experiments.toml"
"""The table of hyperparameters, in ``recipes/``."""

TITLES = {
    "anchor1": "Anchor 1",
    "anchor2": "Anchor 2",
    "cresnet": "cResNet",
    "fa-cresnet": "FA-cResNet",
}
"""Settings of Table 1, in the order of its columns."""

ITEMS = {"table1": "Table 1", "table3": "Table 3", "figure6": "Figure 6", "figure7": "Figure 7"}
"""What can be swept, and what it is called in the paper."""

PIXEL_KINDS = ("resnet", "fa-resnet")
"""Kinds of networks of pixels: the anchors, and one of Table 3's."""

ORIGINALS = "none"
"""``data.codec`` of a recipe that learns from the originals."""


class SweepTable(Table):
    """What `latentset sweep DATA_SET/TABLE` trains."""

    settings: tuple[str, ...]
    """Keys of :data:`TITLES`, or ``table3`` for all settings of Table 3."""
    codecs: tuple[str, ...]
    """Loss and quality of each codec, such as ``msssim-4``."""


class DataSet(Table):
    """What all recipes of a data set share."""

    title: str
    """Its name, for people."""
    images: str
    """What `latentset encode` is given."""
    root: str = ""
    """The folder that the paths of a list are below."""
    resize_latents: str = "none"
    """Resize rule of its stores of latents."""
    resize_pixels: str
    """Resize rule of its stores of pixels, original or decoded."""
    codecs: str
    """Name of its codecs; {} stands for loss and quality."""
    tables: dict[str, SweepTable]
    """What can be swept."""
    pixels: dict[str, Any]
    """Tables of recipes of pixels."""
    latents: dict[str, Any]
    """Tables of recipes of latents."""
    own: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of one setting's recipes beside those, by setting and table."""


@dataclass(frozen=True)
class Experiment:
    """One setting, at one codec, on one data set."""

    data_set: str
    """Key of :func:`data_sets`."""
    setting: str
    """Key of :data:`TITLES`, or the name of a setting of Table 3."""
    codec: str
    """Loss and quality; empty for Anchor 1."""

    @property
    def name(self) -> str:
        """Name of its recipe."""
        if self.setting == "anchor1":
            return f"{self.data_set}/anchor1"
        folder = "" if self.setting in TITLES else "table3/"
        return f"{self.data_set}/{folder}{self.setting}-{self.codec}"

    @property
    def title(self) -> str:
        """What its setting is called, for people."""
        if self.setting in TITLES:
            return TITLES[self.setting]
        setting = table3_setting(self.setting)
        return f"{TITLES['fa-cresnet']}, {setting.group}: {setting.title}"


@cache
def data_sets() -> dict[str, DataSet]:
    """Read what the recipes of each data set share.

    Returns:
        By the first part of the recipes' names.
    """
    text = (shipped_folder() / EXPERIMENTS).read_text(encoding="utf-8")
    return {name: DataSet.model_validate(table) for name, table in tomllib.loads(text).items()}


@cache
def sweeps() -> dict[str, tuple[Experiment, ...]]:
    """List what can be swept.

    Returns:
        By name, such as ``minc2500/table1``: the experiments, without those that they adopt from,
        in the paper's order.
    """
    found = {}
    for name, data_set in data_sets().items():
        for table, swept in data_set.tables.items():
            settings = [
                one
                for given in swept.settings
                for one in ([s.name for s in SETTINGS] if given == "table3" else [given])
            ]
            found[f"{name}/{table}"] = tuple(
                dict.fromkeys(
                    standard(Experiment(name, setting, "" if setting == "anchor1" else codec))
                    for setting in settings
                    for codec in swept.codecs
                )
            )
    return found


@cache
def experiments() -> dict[str, Experiment]:
    """List all experiments.

    Returns:
        By the name of their recipe.
    """
    found = {e.name: e for swept in sweeps().values() for e in swept}
    adopted = [Experiment(e.data_set, "anchor2", e.codec) for e in found.values() if adopts(e)]
    return found | {e.name: e for e in adopted}


def items(experiment: Experiment) -> tuple[str, ...]:
    """Name the tables and figures that an experiment belongs to.

    Args:
        experiment: The experiment.

    Returns:
        Such as ("Table 1", "Figure 7").
    """
    found = [
        ITEMS[name.partition("/")[2]]
        for name, swept in sweeps().items()
        if name.startswith(f"{experiment.data_set}/") and experiment in swept
    ]
    return tuple(sorted(found, reverse=True, key=lambda item: item.startswith("Table")))


def table3_setting(name: str) -> Setting:
    """Look up a setting of Table 3.

    Args:
        name: Its name.

    Returns:
        The setting.
    """
    return next(setting for setting in SETTINGS if setting.name == name)


def standard(experiment: Experiment) -> Experiment:
    """Say which run an experiment is: a setting of Table 3 may be FA-cResNet as it is.

    Args:
        experiment: The experiment.

    Returns:
        FA-cResNet's, where its network is that; else the same.
    """
    if experiment.setting in TITLES:
        return experiment
    default = Experiment(experiment.data_set, "fa-cresnet", experiment.codec)
    return default if _model(experiment) == _model(default) else experiment


def adopts(experiment: Experiment) -> bool:
    """Say whether an experiment starts from Anchor 2 (section 4.2).

    Args:
        experiment: The experiment.

    Returns:
        Whether it does: all on latents do.
    """
    return not learns_pixels(experiment)


def learns_pixels(experiment: Experiment) -> bool:
    """Say what an experiment learns from.

    Args:
        experiment: The experiment.

    Returns:
        True: images, original or decoded; False: latents.
    """
    return _model(experiment)["kind"] in PIXEL_KINDS


def codec_name(experiment: Experiment) -> str:
    """Name the codec of the store that an experiment learns from.

    Args:
        experiment: The experiment.

    Returns:
        A codec's name, or :data:`ORIGINALS`.
    """
    name = data_sets()[experiment.data_set].codecs
    return name.format(experiment.codec) if experiment.codec else ORIGINALS


def compose(experiment: Experiment) -> dict[str, Any]:
    """Put the recipe of an experiment together.

    Args:
        experiment: The experiment.

    Returns:
        The tables of a recipe file, the caller's own to change.
    """
    data_set = data_sets()[experiment.data_set]
    pixels = learns_pixels(experiment)
    shared = data_set.pixels if pixels else data_set.latents
    tables: dict[str, Any] = {
        "name": experiment.name,
        "paper": _paper(experiment),
        "model": _model(experiment),
        "data": {"codec": codec_name(experiment)} | shared["data"],
    }
    if adopts(experiment):
        anchor2 = Experiment(experiment.data_set, "anchor2", experiment.codec)
        tables["weights"] = {"adopt": f"recipe:{anchor2.name}"}
    elif "weights" in shared:
        tables["weights"] = shared["weights"]
    tables |= {key: shared[key] for key in ("schedule", "device") if key in shared}
    own = data_set.own.get(experiment.setting, {})
    return deepcopy(tables | {key: tables.get(key, {}) | keys for key, keys in own.items()})


def _model(experiment: Experiment) -> dict[str, Any]:
    """The table [model]: n by codec (section 5.3), and what a setting of Table 3 changes."""
    setting, data_set = experiment.setting, data_sets()[experiment.data_set]
    own: dict[str, Any] = {
        "kind": "fa-cresnet",
        "n": (2, 3, 4) if experiment.codec == "msssim-1" else (3, 4, 5),
        "r": 16,
        "fa": "pre",
        "cau": "affine",
    }
    if setting in ("anchor1", "anchor2"):
        own = {"kind": "resnet"}
    elif setting == "cresnet":
        own = {"kind": "cresnet"}
    elif setting != "fa-cresnet":
        own |= table3_setting(setting).model
    tables = data_set.pixels if own["kind"] in PIXEL_KINDS else data_set.latents
    shared: dict[str, Any] = tables.get("model", {})
    return own | shared


def _paper(experiment: Experiment) -> dict[str, Any]:
    """The table [paper]."""
    found: dict[str, Any] = {"items": list(items(experiment)), "setting": experiment.setting}
    if experiment.codec:
        found["codec"] = experiment.codec
    top1 = paper.top1(experiment.setting, experiment.codec)
    if top1 is not None and experiment.data_set == paper.DATA_SET:
        found["top1"] = top1
    return found
