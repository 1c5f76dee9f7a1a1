"""Recipes by name: a TOML file, a file that ships, or an experiment of the paper."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

from latentset.datasets.errors import RecipeError, suggest
from latentset.paper import published
from latentset.paper.experiments import (
    TABLE3,
    Experiment,
    as_installed,
    compose,
    data_sets,
    experiments,
    shipped_folder,
    standard,
    sweeps,
)
from latentset.train.recipe.recipe import Recipe
from latentset.train.recipe.recipe_file import parse_recipe, read_tables, set_key, toml_text
from latentset.train.run.run_files import chosen_weights


def load_recipe(name: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe, a TOML file or one that ships by its name, and set keys of it.

    ``settings`` are ``key=value`` each, the key with dots (``schedule.epochs=3``), the value in
    TOML; a value that is no TOML is text. An empty value is the empty text.

    Raises:
        RecipeError: There is no such recipe, it is no TOML, or a key or value is not valid.
    """
    path, shipped = Path(name), name.removesuffix(".toml")
    file = path if path.is_file() else recipe_files().get(shipped)
    if file is not None:
        tables = read_tables(file, name)
    elif shipped in experiments():
        tables = compose(experiments()[shipped])
    else:
        expected = "the path of a TOML file, or a name that `latentset recipes` lists"
        raise _no_recipe(name, expected)
    for setting in settings:
        set_key(tables, setting)
    return parse_recipe(tables, name)


def recipe_names() -> list[str]:
    """Names of the recipes that ship, sorted: the paper's experiments, and files."""
    return sorted([*experiments(), *recipe_files()])


@cache
def recipe_files() -> dict[str, Path]:
    """The recipes that ship as files, by name."""
    root = shipped_folder()
    found = [p for p in sorted(root.glob("**/*.toml")) if p.name != "experiments.toml"]
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def _no_recipe(name: str, expected: str) -> RecipeError:
    hint = suggest(name, recipe_names())
    for run, setting in product(experiments().values(), TABLE3):
        given = replace(run, setting=setting)
        if given.name == name and standard(given) == run:
            hint = f"; that setting is FA-cResNet as it is, {run.name}"
    return RecipeError(f"no recipe {name!r}: expected {expected}{hint}")


def recipe_text(name: str) -> str:
    """A recipe that ships as the text of its file.

    TOML with a comment at its head: what it is, how to run it, the paper's figure.

    Raises:
        RecipeError: No recipe of this name ships.
    """
    if name in recipe_files():
        return as_installed(recipe_files()[name].read_text(encoding="utf-8"))
    if name not in experiments():
        raise _no_recipe(name, "a name that `latentset recipes` lists")
    experiment = experiments()[name]
    header = "\n".join(f"# {line}".rstrip() for line in _header(experiment))
    return f"{header}\n\n{toml_text(compose(experiment))}"


def recipe_lines() -> Iterator[tuple[str, str, str]]:
    """List the recipes that ship: name, what it reproduces, the paper's top-1.

    Those that differ in their codec alone are one line.
    """
    for name, path in recipe_files().items():
        with path.open(encoding="utf-8") as file:
            yield name, file.readline().strip("# .\n"), ""
    groups: dict[tuple[str, str, str], list[Experiment]] = {}
    for experiment in experiments().values():
        loss = experiment.codec.partition("-")[0]
        key = experiment.data_set, experiment.setting, loss
        groups.setdefault(key, []).append(experiment)
    for (_, _, loss), members in groups.items():
        first = members[0]
        name = first.name
        if len(members) > 1:
            qualities = ",".join(e.codec.partition("-")[2] for e in members)
            name = name.removesuffix(first.codec) + f"{loss}-{{{qualities}}}"
        items = dict.fromkeys(item for e in members for item in e.items)
        figures = [e.top1 for e in members if e.top1 is not None]
        whole = len(figures) == len(members)
        yield name, ", ".join(items), " ".join(f"{f:.1f}" for f in figures) if whole else ""


def _header(experiment: Experiment) -> Iterator[str]:
    title = data_sets()[experiment.data_set].title
    what = experiment.learns_from if experiment.codec else "the originals"
    items = experiment.items
    where = f" (the paper's {' and '.join(items)})" if items else ""
    yield f"{experiment.title} on {title}: {what}{where}."
    yield ""
    yield from (f"  {command}" for command in experiment.store_commands)
    train = f"  latentset train {experiment.name} --store {experiment.store_name}"
    if anchor2 := experiment.anchor2:
        chosen = chosen_weights(parse_recipe(compose(anchor2), anchor2.name))
        yield f"{train} \\"
        yield "      --set weights.adopt=ANCHOR2"
        yield ""
        yield f"ANCHOR2: {chosen} of a run of {anchor2.name}. All at once, in order:"
    else:
        yield train
        yield ""
        yield "With all others of its table, in order:"
    table = next(
        name
        for name, swept in sweeps().items()
        if experiment in swept or any(experiment == e.anchor2 for e in swept)
    )
    yield f"  latentset sweep {table} --store STORE --store … --out runs"
    yield ""
    figure = published.top1(experiment.setting, experiment.codec)
    if experiment.top1 is not None:
        yield f"Expected: top-1 {experiment.top1:.1f} % on the test split (the paper's figure)."
    elif experiment.data_set in ("imagenet", published.DATA_SET):
        yield "Expected: a point that the paper draws and gives no number for."
    else:
        yield "Expected: the paper has no figure for this data set and these slim networks;"
        if figure is not None:
            yield f"for MINC-2500 and the full ones it has {figure:.1f} %."
        yield "docs/results.md has ours, of those that were run."
    if experiment.setting == "cresnet":
        yield "The paper does not say how cResNet was trained: here in FA-cResNet's two phases."
