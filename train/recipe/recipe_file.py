"""Reading a recipe: a TOML file or one of the paper's, with keys set on the command line."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from latentset.datasets.errors import RecipeError
from latentset.paper.experiments import Experiment, compose, data_sets, experiments, standard
from latentset.paper.table3_settings import SETTINGS
from latentset.train.recipe.recipe import Recipe
from latentset.train.recipe.shipped import shipped_folder

_OF_TABLE3 = re.compile(r"([^/]+)/table3/(.+)-((?:msssim|mse)-\d+)")
"""How recipes of Table 3 are named: data set, setting, loss and quality."""


def load_recipe(name: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and set keys of it.

    Args:
        name: Path of a TOML file, or name of a recipe that ships, such as
            ``trashnet/fa-cresnet-slim``.
        settings: ``key=value`` each, the key with dots (``schedule.epochs=3``), the value in TOML;
            a value that is no TOML is taken as text. An empty value is the empty text.

    Returns:
        The recipe.

    Raises:
        RecipeError: There is no such recipe, it is no TOML, or a key or value is not valid.
    """
    tables = _read(name)
    for setting in settings:
        _set(tables, setting)
    return parse_recipe(tables, name)


def parse_recipe(tables: dict[str, Any], where: str) -> Recipe:
    """Check what a recipe file holds.

    Args:
        tables: The parsed file.
        where: The file, for messages.

    Returns:
        The recipe.

    Raises:
        RecipeError: A key is missing or not known, or a value is not valid; all are named.
    """
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        lines = dict.fromkeys(_word(item, tables) for item in error.errors())
        raise RecipeError(f"{where}: " + "; ".join(lines)) from error


def recipe_names() -> list[str]:
    """List the recipes that ship: those of the paper's experiments, and those in files.

    Returns:
        Names such as ``minc2500/fa-cresnet-msssim-4``, sorted.
    """
    return sorted([*experiments(), *recipe_files()])


def recipe_files() -> dict[str, Path]:
    """List the recipes that ship as files.

    Returns:
        Files by the recipe's name.
    """
    root = shipped_folder()
    found = sorted(root.glob("*/*.toml"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def _read(name: str) -> dict[str, Any]:
    path, shipped = Path(name), name.removesuffix(".toml")
    try:
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))
        if shipped in recipe_files():
            return tomllib.loads(recipe_files()[shipped].read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name}: not a recipe: expected TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name}: the recipe cannot be read: {error}") from error
    if shipped in experiments():
        return compose(experiments()[shipped])
    raise no_recipe(name, "the path of a TOML file, or a name that `latentset recipes` lists")


def no_recipe(name: str, expected: str) -> RecipeError:
    """Say that there is no such recipe.

    Args:
        name: What was given.
        expected: What may be given.

    Returns:
        The error, with the name that is nearest, if one is near.
    """
    said = _suggest(name, recipe_names())
    found = _OF_TABLE3.fullmatch(name)
    settings = {setting.name for setting in SETTINGS}
    if found and found[1] in data_sets() and found[2] in settings:
        run = standard(Experiment(*found.groups())).name
        said = f"; that setting is FA-cResNet as it is, {run}" if run in experiments() else said
    return RecipeError(f"no recipe {name!r}: expected {expected}{said}")


def _set(tables: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set: expected key=value, got {setting!r}")
    *parents, last = key.strip().split(".")
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {setting}: {parent!r} is a value, not a table of the recipe")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value


def _word(item: Any, tables: dict[str, Any]) -> str:
    """Put one of pydantic's errors into words: key, what was wrong, what was found."""
    # Inside a union, pydantic puts the chosen kind into the path: model.fa-cresnet.width.
    kinds = {
        kind for table in _networks() for kind in get_args(table.model_fields["kind"].annotation)
    }
    path = [str(part) for part in item["loc"] if part not in kinds]
    key = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = _keys(path[:-1], tables)
        return f"unknown key {key}" + (
            _suggest(path[-1], known) or f"; expected one of {', '.join(known)}"
        )
    if item["type"] == "missing" and path[-1].isdigit():  # one of a tuple's values
        return f"{'.'.join(path[:-1])}: expected more values, got {item['input']}"
    if item["type"] == "missing":
        return f"{key}: missing; it has no default"
    if item["type"] == "union_tag_not_found":
        return f"{key}.kind: missing; expected one of {', '.join(sorted(kinds))}"
    if item["type"] == "union_tag_invalid":
        got = item["ctx"]["tag"]
        return f"{key}.kind: expected one of {', '.join(sorted(kinds))}, got {got!r}" + _suggest(
            got, sorted(kinds)
        )
    message: str = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _networks() -> tuple[type[BaseModel], ...]:
    return get_args(Recipe.model_fields["model"].annotation)


def _keys(path: list[str], tables: dict[str, Any]) -> list[str]:
    """The keys of the table at a path of a recipe."""
    if not path:
        return list(Recipe.model_fields)
    if path == ["model"]:
        kind = tables["model"].get("kind")
        for table in _networks():
            if kind in get_args(table.model_fields["kind"].annotation):
                return list(table.model_fields)
    annotation = Recipe.model_fields[path[0]].annotation
    for table in (annotation, *get_args(annotation)):
        if isinstance(table, type) and issubclass(table, BaseModel):
            return list(table.model_fields)
    return []


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
