"""Recipe files: TOML to a recipe, keys set on the command line, and tables back to TOML."""

import json
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from latentset.datasets.errors import RecipeError, suggest
from latentset.train.recipe.recipe import Recipe

NETWORKS: dict[str, type[BaseModel]] = {
    table.model_fields["kind"].default: table
    for table in get_args(Recipe.model_fields["model"].annotation)
}
"""The tables ``[model]``, by kind."""


def read_tables(path: Path, name: str) -> dict[str, Any]:
    """Read the tables of a recipe file; errors call it ``name``."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name}: not a recipe: expected TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name}: the recipe cannot be read: {error}") from error


def set_key(tables: dict[str, Any], setting: str) -> None:
    """Set ``key=value``: the key with dots, the value in TOML, or text where it is no TOML."""
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


def parse_recipe(tables: dict[str, Any], where: str) -> Recipe:
    """Validate the tables of a recipe file; errors call it ``where`` and name every wrong key."""
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(item, tables) for item in error.errors())
        raise RecipeError(f"{where}: " + "; ".join(lines)) from error


def toml_text(tables: dict[str, Any]) -> str:
    """Write tables of texts, numbers and lists as TOML."""
    top, below = "", ""
    for key, value in tables.items():
        if isinstance(value, dict):
            lines = (f"{name} = {_toml_value(one)}\n" for name, one in value.items())
            below += f"\n[{key}]\n" + "".join(lines)
        else:
            top += f"{key} = {_toml_value(value)}\n"
    return top + below


def _toml_value(value: Any) -> str:
    # JSON writes texts, truth values and lists of them as TOML does.
    return json.dumps(value, ensure_ascii=False)


def _describe(item: Any, tables: dict[str, Any]) -> str:
    """Put one of pydantic's errors into words: key, expected, got."""
    # Inside a union, pydantic puts the chosen kind into the path: model.fa-cresnet.width.
    kinds = sorted(NETWORKS)
    path = [str(part) for part in item["loc"] if part not in kinds]
    key = ".".join(path)
    match item["type"]:
        case "extra_forbidden":
            known = _keys(path[:-1], tables)
            return f"unknown key {key}" + (
                suggest(path[-1], known) or f"; expected one of {', '.join(known)}"
            )
        case "missing" if path[-1].isdigit():  # one of a tuple's values
            return f"{'.'.join(path[:-1])}: expected more values, got {item['input']}"
        case "missing":
            return f"{key}: missing; it has no default"
        case "union_tag_not_found":
            return f"{key}.kind: missing; expected one of {', '.join(kinds)}"
        case "union_tag_invalid":
            got = item["ctx"]["tag"]
            expected = f"{key}.kind: expected one of {', '.join(kinds)}, got {got!r}"
            return expected + suggest(got, kinds)
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
    message = item["msg"]
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _keys(path: list[str], tables: dict[str, Any]) -> list[str]:
    """The keys of the table at a path of a recipe."""
    if not path:
        return list(Recipe.model_fields)
    if path == ["model"]:
        return list(NETWORKS[tables["model"]["kind"]].model_fields)
    annotation = Recipe.model_fields[path[0]].annotation
    for table in (annotation, *get_args(annotation)):
        if isinstance(table, type) and issubclass(table, BaseModel):
            return list(table.model_fields)
    return []
