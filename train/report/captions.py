"""What stands above a table or below a figure, so that no number is taken for another's."""

from collections.abc import Iterable

from latentset.train import paper
from latentset.train.experiments import TITLES, data_sets
from latentset.train.report.groups import Group
from latentset.train.report.runs import describe_network, is_slim

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
        setting: As a recipe's table [paper] names it.

    Returns:
        Its name in the paper, or the same.
    """
    return TITLES.get(setting, setting)


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
    slim = False
    for group in groups:
        if group.first.recipe is not None and group.first.paper is not None:
            setting = setting_title(group.first.paper.setting)
            if setting in TITLES.values():
                said = describe_network(group.first.recipe)
                epochs = f"{group.first.recipe.schedule.epochs} epochs"
                networks.setdefault(f"{said}, {epochs}", []).append(setting)
            slim = slim or is_slim(group.first.recipe)
    lines += [
        f"{' and '.join(dict.fromkeys(settings))}: {network}."
        for network, settings in networks.items()
    ]
    if slim:
        lines.append(
            "**Slim networks, not the paper's**: the paper's figures beside them are of other "
            f"networks, on {PAPER}; only the order of the settings can be compared."
        )
    elif data_set != paper.DATA_SET:
        lines.append(f"The paper's figures beside them are of {PAPER}.")
    return lines


def _measured(group: Group) -> str:
    run = group.first
    samples = f" ({run.samples:,} samples)" if run.samples else ""
    split = run.split
    if run.recipe is not None and split == "test":
        split = run.recipe.data.test_split
    return f"on split {split}{samples}"
