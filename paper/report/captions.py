"""Titles, the paper's figures beside ours, and what was measured on what."""

from collections.abc import Iterable, Sequence

from latentset.paper import published
from latentset.paper.experiments import (
    SCRATCH_TITLES,
    TABLE3_TITLES,
    TITLES,
    data_sets,
    experiments,
    sweeps,
)
from latentset.paper.recipes import load_recipe
from latentset.paper.report.runs import DISTILLED, Group
from latentset.train.models.blocks import PUBLISHED, Blocks
from latentset.train.models.networks import FeatureAdaptation, PixelNetwork
from latentset.train.recipe.recipe import Recipe, differences

PAPER = data_sets()[published.DATA_SET].title
"""The data set of the paper's tables."""


def data_set_title(name: str) -> str:
    """Title of a data set, by the first part of its recipes' names."""
    return data_sets()[name].title if name in data_sets() else name


def setting_title(setting: str) -> str:
    """Title of a setting, distilled or not, in the paper."""
    plain = setting.removesuffix(DISTILLED)
    titles = TITLES | SCRATCH_TITLES | TABLE3_TITLES
    return titles.get(plain, plain) + setting[len(plain) :]


def codec_order(codec: str) -> tuple[str, int]:
    """Key to sort codecs by: MS-SSIM before MSE, then the quality."""
    loss, _, quality = codec.partition("-")
    return ("" if loss == "msssim" else loss), int(quality) if quality.isdigit() else 0


def sort_codecs(codecs: Iterable[str]) -> list[str]:
    """Codecs without repetition, nor the originals, in their order."""
    return sorted({codec for codec in codecs if codec}, key=codec_order)


def repeats_table1(data_set: str) -> bool:
    """Whether Table 1 is repeated with a data set, so that the paper's figures stand beside ours.

    Beside ImageNet they would mean nothing.
    """
    return f"{data_set}/table1" in sweeps()


def papers_top1(data_set: str, setting: str, codec: str) -> float | None:
    """The top-1 of the paper that stands beside ours, percent."""
    return published.top1(setting, codec) if repeats_table1(data_set) else None


def papers_bpp(data_set: str, codec: str) -> float | None:
    """The bits per pixel of Table 1 that stand beside ours."""
    if not repeats_table1(data_set):
        return None
    return published.BPP.get(codec) if codec else published.ORIGINAL_BPP


def describe_runs(data_set: str, groups: Iterable[Group]) -> list[str]:
    """Describe what was measured on what, one sentence a line.

    Data set, split, seeds, networks, and how they differ from the paper's.
    """
    groups = list(groups)
    measured = set()
    for run in (group.first for group in groups):
        samples = f" ({run.samples:,} samples)" if run.samples else ""
        measured.add(f"on split {run.split}{samples}")
    seeds = sorted({run.seed for group in groups for run in group.runs})
    over = (
        f"mean over seeds {', '.join(map(str, seeds))}, ± half of its 95 % interval (Student's t)"
    )
    lines = [
        f"{data_set_title(data_set)}. Top-1 in percent, {'; '.join(sorted(measured))}; "
        f"{over if len(seeds) > 1 else f'seed {seeds[0]}'}, number of seeds in parentheses."
    ]
    networks: dict[str, dict[str, None]] = {}
    changed: dict[str, dict[str, None]] = {}
    recipes = [group.first.recipe for group in groups if group.first.recipe is not None]
    for recipe in recipes:
        distilled = DISTILLED if recipe.distill.logits else ""
        title = setting_title(recipe.paper.setting if recipe.paper else recipe.name)
        if recipe.paper and title in (TITLES | SCRATCH_TITLES).values():
            network = f"{describe_network(recipe)}, {recipe.schedule.epochs} epochs"
            networks.setdefault(network, {})[title + distilled] = None
        if difference := "; ".join(_differences(recipe)):
            changed.setdefault(difference, {})[title + distilled] = None
    lines += [f"{' and '.join(settings)}: {network}." for network, settings in networks.items()]
    lines += [
        f"**{' and '.join(settings)} changed from the recipe**: {difference}."
        for difference, settings in changed.items()
    ]
    what, beside = name_networks(recipes), repeats_table1(data_set)
    if what and beside:
        lines.append(
            f"**{what}**: the paper's figures beside them are of its own networks, on {PAPER}; "
            "only the order of the settings can be compared."
        )
    elif what:
        lines.append(f"**{what}**.")
    elif beside and data_set != published.DATA_SET:
        lines.append(f"The paper's figures beside them are of {PAPER}.")
    return lines


def _differences(recipe: Recipe) -> list[str]:
    """How a run was trained otherwise than by the recipe that ships under its name."""
    if recipe.name not in experiments():
        return [f"{recipe.name} is no recipe that ships"]
    shipped = load_recipe(recipe.name)
    # What a store fills in, and the seed, are no differences.
    facts = {
        key: getattr(recipe.model, key)
        for key in ("num_classes", "channels")
        if getattr(shipped.model, key, 0) is None
    }
    model = shipped.model.model_copy(update=facts)
    shipped = shipped.model_copy(update={"model": model, "seed": recipe.seed})
    changed = differences(shipped, recipe)
    return [line for line in changed if not line.startswith("distill.logits: ")]


def describe_network(recipe: Recipe) -> str:
    """Describe a network: ``cresnet, blocks 2/2/2, width 16, 16x16 positions``."""
    model, size = recipe.model, recipe.data.size
    unit = "pixels" if isinstance(model, PixelNetwork) else "positions"
    blocks = (
        f"blocks {'/'.join(map(str, model.depths))}" if model.depths else f"ResNet-{model.depth}"
    )
    begins = " (begins near the identity)" if _near_identity(recipe) else ""
    return f"{model.kind}{begins}, {blocks}, width {model.width}, {size}x{size} {unit}"


def name_networks(recipes: Sequence[Recipe]) -> str:
    """Name how networks differ from the paper's; empty where all are the paper's."""
    models = [recipe.model for recipe in recipes]
    blocks = [(Blocks.of(model).depths, PUBLISHED[model.depth][1]) for model in models]
    if any(model.width < 64 for model in models) or any(
        a < b for own, whole in blocks for a, b in zip(own, whole, strict=True)
    ):
        return "Slim networks, not the paper's"
    if any((model.depth, model.width) != (50, 64) for model in models):
        return "Another ResNet than the paper's"
    if any(own != whole for own, whole in blocks) or any(
        recipe.data.size != (224 if isinstance(recipe.model, PixelNetwork) else 28)
        or _near_identity(recipe)
        for recipe in recipes
    ):
        return "Another input, another beginning, or more blocks, than the paper's"
    return ""


def _near_identity(recipe: Recipe) -> bool:
    return isinstance(recipe.model, FeatureAdaptation) and recipe.model.near_identity
