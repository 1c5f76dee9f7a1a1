"""The paper's experiments, and the recipe of each, made from one table.

``recipes/experiments.toml`` has what all recipes of a data set have in common, ``table3_settings``
what a setting of Table 3 changes, ``published`` the paper's figures. A recipe is put together from
them when it is asked for, so that a hundred of them cannot drift apart.

=========  ================================================  ====================================
setting    what                                              name of the recipe
=========  ================================================  ====================================
anchor1    ResNet on the originals                           minc2500/anchor1
anchor2    ResNet on images that the codec decoded           minc2500/anchor2-msssim-4
cresnet    cResNet, initialised from Anchor 2                minc2500/cresnet-msssim-4
fa-cresnet FA-cResNet, initialised from Anchor 2             minc2500/fa-cresnet-msssim-4
…-scratch  one of these two, from random weights             imagenette/cresnet-scratch-msssim-4
NAME       a setting of Table 3, not the default             minc2500/table3/NAME-msssim-4
=========  ================================================  ====================================
"""

import re
import shlex
import tomllib
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import Field

from latentset.paper import published
from latentset.paper.table3_settings import SETTINGS
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import FROM_RECIPE

EXPERIMENTS = "experiments.toml"
"""The table of hyperparameters, in ``recipes/``."""

TITLES = {
    "anchor1": "Anchor 1",
    "anchor2": "Anchor 2",
    "cresnet": "cResNet",
    "fa-cresnet": "FA-cResNet",
}
"""Settings of Table 1, in the order of its columns."""

SCRATCH = "-scratch"
"""Ends the name of a setting of latents that is not initialised from Anchor 2."""

SCRATCH_TITLES = {
    f"{setting}{SCRATCH}": f"{TITLES[setting]} from scratch"
    for setting in ("cresnet", "fa-cresnet")
}

ITEMS = {"table1": "Table 1", "table3": "Table 3", "figure6": "Figure 6", "figure7": "Figure 7"}
"""What a sweep trains, and what it is called in the paper."""

TABLE3 = {setting.name: setting for setting in SETTINGS}
"""Settings of Table 3, by name."""

TABLE3_TITLES = {
    name: f"{TITLES['fa-cresnet']}, {setting.group}: {setting.title}"
    for name, setting in TABLE3.items()
}

PIXEL_KINDS = ("resnet", "fa-resnet")
"""Kinds of networks of pixels: the anchors, and one of Table 3's."""

ORIGINALS = "none"
"""``data.codec`` of a recipe that learns from the originals."""


class SweepTable(Table):
    """What `latentset sweep DATA_SET/TABLE` trains."""

    settings: tuple[str, ...]
    """Settings, or ``table3`` for all of Table 3."""
    codecs: tuple[str, ...]
    """Loss and quality of each codec, such as ``msssim-4``."""


class DataSet(Table):
    """What all recipes of a data set have in common."""

    title: str
    images: str
    """What `latentset encode` is given."""
    root: str = ""
    """The folder that the paths of a list are below."""
    resize_latents: str = "none"
    resize_pixels: str
    """Resize rules of stores of latents, and of pixels, original or decoded."""
    codecs: str
    """Name of its codecs; {} stands for loss and quality."""
    tables: dict[str, SweepTable]
    pixels: dict[str, Any]
    latents: dict[str, Any]
    """Tables of recipes of pixels, and of latents."""
    own: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of one setting's recipes beside those, by setting and table."""


@dataclass(frozen=True)
class Experiment:
    """One setting, at one codec, on one data set."""

    data_set: str
    """Key of :func:`data_sets`."""
    setting: str
    """Key of :data:`TITLES` or :data:`SCRATCH_TITLES`, or the name of a setting of Table 3."""
    codec: str
    """Loss and quality; empty for Anchor 1."""

    @property
    def name(self) -> str:
        """Name of its recipe."""
        if self.setting == "anchor1":
            return f"{self.data_set}/anchor1"
        folder = "table3/" if self.setting in TABLE3 else ""
        return f"{self.data_set}/{folder}{self.setting}-{self.codec}"

    @property
    def title(self) -> str:
        """What its setting is called, for people."""
        return (TITLES | SCRATCH_TITLES | TABLE3_TITLES)[self.setting]

    @property
    def items(self) -> tuple[str, ...]:
        """Tables and figures that it belongs to, such as ("Table 1", "Figure 7")."""
        found = [
            item
            for name, swept in sweeps().items()
            if name.startswith(f"{self.data_set}/") and self in swept
            if (item := ITEMS.get(name.partition("/")[2]))
        ]
        return tuple(sorted(found, reverse=True, key=lambda item: item.startswith("Table")))

    @property
    def model(self) -> dict[str, Any]:
        """The table [model]: n by codec (section 5.3), and what a setting of Table 3 changes."""
        plain = self.setting.removesuffix(SCRATCH)
        own: dict[str, Any] = {"kind": "resnet" if "anchor" in plain else plain}
        if plain == "fa-cresnet" or plain in TABLE3:
            n = (2, 3, 4) if self.codec == "msssim-1" else (3, 4, 5)
            own = {"kind": "fa-cresnet", "n": n, "r": 16, "fa": "pre", "cau": "affine"}
        if self.setting in TABLE3:
            own |= TABLE3[self.setting].model
        data_set = data_sets()[self.data_set]
        tables = data_set.pixels if own["kind"] in PIXEL_KINDS else data_set.latents
        shared: dict[str, Any] = tables.get("model", {})
        return own | shared

    @property
    def learns_pixels(self) -> bool:
        """Whether it learns from images, original or decoded, not from latents."""
        return self.model["kind"] in PIXEL_KINDS

    @property
    def anchor2(self) -> "Experiment | None":
        """The experiment that its weights are initialised from (section 4.2), if any."""
        if self.learns_pixels or self.setting.endswith(SCRATCH):
            return None
        return Experiment(self.data_set, "anchor2", self.codec)

    @property
    def top1(self) -> float | None:
        """The paper's top-1, percent; None where it gives no number."""
        if self.data_set != published.DATA_SET:
            return None
        return published.top1(self.setting, self.codec)

    @property
    def learns_from(self) -> str:
        """What its store holds, for people."""
        if not self.learns_pixels:
            return f"latents of {self.codec_name}"
        return f"images decoded by {self.codec_name}" if self.codec else "the original images"

    @property
    def codec_name(self) -> str:
        """Codec of the store that it learns from, or :data:`ORIGINALS`."""
        name = data_sets()[self.data_set].codecs
        return name.format(self.codec) if self.codec else ORIGINALS

    @property
    def store_name(self) -> str:
        """A name for its store in examples, such as ``minc2500-msssim-4.zarr``."""
        decoded = "-decoded" if self.learns_pixels and self.codec else ""
        return f"{self.data_set}-{self.codec or 'originals'}{decoded}.zarr"

    @property
    def store_commands(self) -> list[str]:
        """The commands that make its store, in order."""
        data_set, store = data_sets()[self.data_set], self.store_name
        latent_resize, pixel_resize = (
            "" if rule == "none" else f" --resize {rule}"
            for rule in (data_set.resize_latents, data_set.resize_pixels)
        )
        root = f" --root {data_set.root}" if data_set.root else ""
        encode = f"latentset encode {as_installed(data_set.images)}"
        if not self.codec:
            return [f"{encode} {store} --codec {ORIGINALS}{root}{pixel_resize}"]
        latents = Experiment(self.data_set, "fa-cresnet", self.codec).store_name
        commands = [f"{encode} {latents} --codec {self.codec_name}{root}{latent_resize}"]
        if self.learns_pixels:
            originals = data_set.root or as_installed(data_set.images)
            commands.append(
                f"latentset decode {latents} {store}{pixel_resize} --originals {originals}"
            )
        return commands


@cache
def shipped_folder() -> Path:
    """Folder of the recipes that ship, in a checkout as in an installed package."""
    package = import_module("latentset.recipes")  # it has no modules
    return next(path for path in map(Path, package.__path__) if path.is_dir())


def as_installed(text: str) -> str:
    """Lists that ship by their installed path, unless they are where the text says: a checkout."""

    def find(match: re.Match[str]) -> str:
        if Path(match[0]).exists():
            return match[0]
        return shlex.quote(str(shipped_folder() / match[1]))

    return re.sub(r"\brecipes/([\w/]+\.csv)", find, text)


@cache
def data_sets() -> dict[str, DataSet]:
    """What the recipes of each data set have in common, by the first part of their names."""
    text = (shipped_folder() / EXPERIMENTS).read_text(encoding="utf-8")
    return {name: DataSet.model_validate(table) for name, table in tomllib.loads(text).items()}


@cache
def sweeps() -> dict[str, tuple[Experiment, ...]]:
    """The experiments of each sweep, such as ``minc2500/table1``, in the paper's order.

    Those that their weights are initialised from are not among them.
    """
    found = {}
    for name, data_set in data_sets().items():
        for table, swept in data_set.tables.items():
            settings: list[str] = []
            for given in swept.settings:
                settings += TABLE3 if given == "table3" else [given]
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
    """All experiments, by the name of their recipe."""
    found = {e.name: e for swept in sweeps().values() for e in swept}
    return found | {anchor2.name: anchor2 for e in found.values() if (anchor2 := e.anchor2)}


def standard(experiment: Experiment) -> Experiment:
    """The experiment whose run counts: FA-cResNet's where a setting of Table 3 is its default."""
    if experiment.setting not in TABLE3:
        return experiment
    default = Experiment(experiment.data_set, "fa-cresnet", experiment.codec)
    return default if experiment.model == default.model else experiment


def compose(experiment: Experiment) -> dict[str, Any]:
    """Put the recipe of an experiment together: tables that the caller may change."""
    data_set = data_sets()[experiment.data_set]
    shared = data_set.pixels if experiment.learns_pixels else data_set.latents
    paper: dict[str, Any] = {"items": list(experiment.items), "setting": experiment.setting}
    if experiment.codec:
        paper["codec"] = experiment.codec
    if experiment.top1 is not None:
        paper["top1"] = experiment.top1
    tables: dict[str, Any] = {
        "name": experiment.name,
        "paper": paper,
        "model": experiment.model,
        "data": {"codec": experiment.codec_name} | shared["data"],
    }
    if anchor2 := experiment.anchor2:
        tables["weights"] = {"adopt": f"{FROM_RECIPE}{anchor2.name}"}
    elif "weights" in shared:
        tables["weights"] = shared["weights"]
    tables |= {key: shared[key] for key in ("schedule", "device") if key in shared}
    own = data_set.own.get(experiment.setting, {})
    return deepcopy(tables | {key: tables.get(key, {}) | keys for key, keys in own.items()})
