"""A recipe of the paper as the text of a TOML file, and all recipes as a list."""

import json
from collections.abc import Iterator
from typing import Any

from latentset.paper import published as paper
from latentset.paper.commands import store_commands, store_name
from latentset.paper.experiments import (
    ORIGINALS,
    Experiment,
    adopts,
    codec_name,
    compose,
    data_sets,
    experiments,
    items,
    learns_pixels,
    sweeps,
)
from latentset.train.recipe.recipe_file import no_recipe, parse_recipe, recipe_files
from latentset.train.run.run_files import chosen_weights


def recipe_text(name: str) -> str:
    """Write a recipe that ships as the text of its file.

    Args:
        name: One of ``recipe_names()``.

    Returns:
        TOML with a comment at its head: what it is, how to run it, what the paper found.

    Raises:
        RecipeError: No recipe of this name ships.
    """
    if name in recipe_files():
        return recipe_files()[name].read_text(encoding="utf-8")
    if name not in experiments():
        raise no_recipe(name, "a name that `latentset recipes` lists")
    experiment = experiments()[name]
    header = "\n".join(f"# {line}".rstrip() for line in _header(experiment))
    return f"{header}\n\n{toml_text(compose(experiment))}"


def toml_text(tables: dict[str, Any]) -> str:
    """Write the tables of a recipe as TOML.

    Args:
        tables: Texts, numbers, lists, and tables of those.

    Returns:
        The text.
    """
    top = [f"{key} = {_value(value)}\n" for key, value in tables.items() if not _is_table(value)]
    below = [
        f"\n[{key}]\n" + "".join(f"{name} = {_value(value)}\n" for name, value in table.items())
        for key, table in tables.items()
        if _is_table(table)
    ]
    return "".join([*top, *below])


def recipe_lines() -> Iterator[tuple[str, str, str]]:
    """List the recipes that ship; those that differ in their codec alone, in one line.

    Yields:
        Name, what it reproduces, the paper's top-1.
    """
    groups: dict[tuple[str, str], list[Experiment]] = {}
    for experiment in experiments().values():
        kind = experiment.codec.partition("-")[0]
        groups.setdefault((experiment.data_set, f"{experiment.setting} {kind}"), []).append(
            experiment
        )
    for members in groups.values():
        first = members[0]
        name = first.name
        if len(members) > 1:
            kind = first.codec.partition("-")[0]
            qualities = ",".join(e.codec.partition("-")[2] for e in members)
            name = name.removesuffix(first.codec) + f"{kind}-{{{qualities}}}"
        expected = [_expected(e) for e in members]
        yield (
            name,
            ", ".join(dict.fromkeys(item for e in members for item in items(e))),
            "" if None in expected else " ".join(f"{top1:.1f}" for top1 in expected if top1),
        )
    for name in recipe_files():
        yield name, "", ""


def _expected(experiment: Experiment) -> float | None:
    if experiment.data_set != paper.DATA_SET:
        return None
    return paper.top1(experiment.setting, experiment.codec)


def _header(experiment: Experiment) -> Iterator[str]:
    data_set, codec = data_sets()[experiment.data_set], codec_name(experiment)
    if not learns_pixels(experiment):
        what = f"latents of {codec}"
    else:
        what = "the originals" if codec == ORIGINALS else f"images decoded by {codec}"
    found = items(experiment)
    where = f" (the paper's {' and '.join(found)})" if found else ""
    yield f"{experiment.title} on {data_set.title}: {what}{where}."
    yield ""
    yield from (f"  {command}" for command in store_commands(experiment))
    adopted = " \\" if adopts(experiment) else ""
    yield f"  latentset train {experiment.name} --store {store_name(experiment)}{adopted}"
    if adopts(experiment):
        yield "      --set weights.adopt=ANCHOR2"
        anchor2 = Experiment(experiment.data_set, "anchor2", experiment.codec)
        yield ""
        chosen = chosen_weights(parse_recipe(compose(anchor2), anchor2.name))
        yield f"ANCHOR2: {chosen} of a run of {anchor2.name}. All at once, in order:"
    else:
        yield ""
        yield "With all others of its table, in order:"
    table = next(name for name, swept in sweeps().items() if _belongs(experiment, swept))
    yield f"  latentset sweep {table} --store STORE --store … --out runs"
    yield ""
    yield from _expectation(experiment)


def _belongs(experiment: Experiment, swept: tuple[Experiment, ...]) -> bool:
    needed = {Experiment(e.data_set, "anchor2", e.codec) for e in swept if adopts(e)}
    return experiment in swept or experiment in needed


def _expectation(experiment: Experiment) -> Iterator[str]:
    figure = paper.top1(experiment.setting, experiment.codec)
    if experiment.data_set == paper.DATA_SET and figure is not None:
        yield f"Expected: top-1 {figure:.1f} % on the test split (the paper's figure)."
    elif figure is not None and experiment.data_set != "imagenet":
        yield "Expected: the paper has no figure for this data set and these slim networks; for"
        yield f"MINC-2500 and the full ones it has {figure:.1f} %. docs/results.md has ours,"
        yield "of those that were run."
    else:
        yield "Expected: a point that the paper draws and gives no number for."
    if experiment.setting == "cresnet":
        yield "The paper does not say how cResNet was trained: here in FA-cResNet's two phases."


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _value(value: Any) -> str:
    """A value in TOML; JSON writes texts, truth values and lists of them the same way."""
    return json.dumps(value, ensure_ascii=False)
