"""What stands above a table or below a figure, so that no number is taken for another's."""

from collections.abc import Iterable, Mapping

from latentset.paper import published as paper
from latentset.paper.experiments import TITLES, data_sets, experiments, sweeps
from latentset.paper.report.groups import DISTILLED, Group, Key
from latentset.paper.report.runs import describe_network, is_papers, is_slim
from latentset.paper.report.stores import Stores
from latentset.train.recipe.recipe import Recipe, differences
from latentset.train.recipe.recipe_file import load_recipe

PAPER = data_sets()[paper.DATA_SET].title
"""The data set of the paper's tables."""


def data_set_title(name: str) -> str:
    """Name a data set.

    Args:
        name: First part of its recipes' names.

    Returns:
        Its name for people, or the same.
    """
    return data_sets()[name].title if name in data_sets() else name


def setting_title(setting: str) -> str:
    """Name a setting.

    Args:
        setting: As a recipe's table [paper] names it; of distilled runs as groups name it.

    Returns:
        Its name in the paper, or the same.
    """
    plain = setting.removesuffix(DISTILLED)
    return TITLES.get(plain, plain) + setting[len(plain) :]


def papers_top1(data_set: str, setting: str, codec: str) -> float | None:
    """Look up the top-1 of Table 1 that stands beside ours.

    Args:
        data_set: First part of the recipes' names.
        setting: As groups name it.
        codec: Loss and quality; empty for the originals.

    Returns:
        Percent, of the paper's data set; None where the paper has no such run, or where its
        Table 1 is not repeated with this data set: beside ImageNet it says nothing.
    """
    return paper.top1(setting, codec) if repeats_table1(data_set) else None


def papers_bpp(data_set: str, codec: str) -> float | None:
    """Look up the bits per pixel of Table 1 that stand beside ours.

    Args:
        data_set: First part of the recipes' names.
        codec: Loss and quality; empty for the originals.

    Returns:
        Bits per pixel, under the conditions of :func:`papers_top1`.
    """
    if not repeats_table1(data_set):
        return None
    return paper.BPP.get(codec) if codec else paper.ORIGINAL_BPP


def repeats_table1(data_set: str) -> bool:
    """Say whether Table 1 is repeated with a data set: then the paper's figures stand beside ours.

    Args:
        data_set: First part of the recipes' names.

    Returns:
        Whether it is.
    """
    return f"{data_set}/table1" in sweeps()


def describe_rates(groups: Mapping[Key, Group], stores: Stores) -> str:
    """Say what bits per pixel are counted over, where images were resized first.

    Args:
        groups: All groups of a table or figure.
        stores: The stores that were given.

    Returns:
        Sentences on one line; empty where all were encoded as they are, as far as stores and runs
        say.
    """
    found = [stores.encoded_after(group) for (_, codec), group in groups.items() if codec]
    rules = {rule for rule in found if rule} - {"none"}
    if not rules:
        return ""
    return (
        "bits per pixel of the image as it was encoded; images were resized by "
        f"{' or '.join(sorted(rules))} first, so these do not compare with the paper's"
        + (
            ", nor with those of the originals, which are of their files at full size."
            if any(not codec for _, codec in groups)
            else "."
        )
    )


def codec_title(codec: str) -> str:
    """Name a codec as the paper does.

    Args:
        codec: Loss and quality, such as ``msssim-4``; empty for the originals.

    Returns:
        Such as ``HyperMS-SSIM-4``.
    """
    loss, _, quality = codec.partition("-")
    names = {"msssim": "HyperMS-SSIM", "mse": "HyperMSE"}
    return f"{names.get(loss, loss)}-{quality}" if codec else "originals"


def codec_order(codec: str) -> tuple[str, int]:
    """Key to sort codecs by: MS-SSIM before MSE, then the quality.

    Args:
        codec: Loss and quality.

    Returns:
        The key.
    """
    loss, _, quality = codec.partition("-")
    return ("" if loss == "msssim" else loss), int(quality) if quality.isdigit() else 0


def join_captions(captions: Mapping[str, str]) -> str:
    """Put the captions of one figure's pictures into one.

    Args:
        captions: By data set; empty ones are left out.

    Returns:
        Sentences.
    """
    said = (f"{data_set_title(name)}: {text}" for name, text in captions.items() if text)
    return " ".join(said)


def describe_runs(data_set: str, groups: Iterable[Group]) -> list[str]:
    """Say what was measured on what.

    Args:
        data_set: Name of the data set.
        groups: All groups of a table or figure.

    Returns:
        Sentences, one a line: data set, split, seeds, networks, and whether they are the paper's.
    """
    groups = list(groups)
    measured = {_measured(group) for group in groups}
    seeds = sorted({seed for group in groups for seed in group.seeds})
    over = f"mean over seeds {', '.join(map(str, seeds))}, ± standard deviation (n - 1)"
    lines = [
        f"{data_set_title(data_set)}. Top-1 in percent, {'; '.join(sorted(measured))}; "
        f"{over if len(seeds) > 1 else f'seed {seeds[0]}'}, number of seeds in parentheses."
    ]
    networks: dict[str, list[str]] = {}
    recipes = [group.first.recipe for group in groups if group.first.recipe is not None]
    for recipe in recipes:
        setting = setting_title(recipe.paper.setting) if recipe.paper else ""
        if setting in TITLES.values():
            said = f"{describe_network(recipe)}, {recipe.schedule.epochs} epochs"
            networks.setdefault(said, []).append(
                setting + (DISTILLED if recipe.distill.logits else "")
            )
    lines += [
        f"{' and '.join(dict.fromkeys(settings))}: {network}."
        for network, settings in networks.items()
    ]
    lines += _changes(recipes)
    what, beside = name_networks(recipes), repeats_table1(data_set)
    if what and beside:
        lines.append(
            f"**{what}**: the paper's figures beside them are of its own networks, on {PAPER}; "
            "only the order of the settings can be compared."
        )
    elif what:
        lines.append(f"**{what}**.")
    elif beside and data_set != paper.DATA_SET:
        lines.append(f"The paper's figures beside them are of {PAPER}.")
    return lines


def _changes(recipes: Iterable[Recipe]) -> list[str]:
    """Say where runs were not trained by the recipe that ships under their name."""
    said: dict[str, list[str]] = {}
    for recipe in recipes:
        changed = "; ".join(_differs(recipe))
        if changed:
            setting = recipe.paper.setting if recipe.paper else recipe.name
            taught = DISTILLED if recipe.distill.logits else ""
            said.setdefault(changed, []).append(setting_title(setting) + taught)
    return [
        f"**{' and '.join(dict.fromkeys(settings))} changed from the recipe**: {changed}."
        for changed, settings in said.items()
    ]


def _differs(recipe: Recipe) -> list[str]:
    if recipe.name not in experiments():
        return [f"{recipe.name} is no recipe that ships"]
    shipped = load_recipe(recipe.name)
    # What a store fills in, and what tells runs of one recipe apart.
    facts = {
        key: getattr(recipe.model, key)
        for key in ("num_classes", "channels")
        if getattr(shipped.model, key, 0) is None
    }
    shipped = shipped.model_copy(
        update={"model": shipped.model.model_copy(update=facts), "seed": recipe.seed}
    )
    changed = differences(shipped, recipe)
    return [line for line in changed if not line.startswith("distill.logits: ")]


def name_networks(recipes: Iterable[Recipe]) -> str:
    """Say how networks differ from the paper's.

    Args:
        recipes: Recipes of runs.

    Returns:
        A few words; empty where all are the paper's.
    """
    recipes = list(recipes)
    if any(is_slim(recipe) for recipe in recipes):
        return "Slim networks, not the paper's"
    if any((recipe.model.depth, recipe.model.width) != (50, 64) for recipe in recipes):
        return "Another ResNet than the paper's"
    if not all(is_papers(recipe) for recipe in recipes):
        return "Another input, another beginning, or more blocks, than the paper's"
    return ""


def _measured(group: Group) -> str:
    run = group.first
    samples = f" ({run.samples:,} samples)" if run.samples else ""
    split = run.split
    if run.recipe is not None and split == "test":
        split = run.recipe.data.test_split
    return f"on split {split}{samples}"
