"""The runs of a table of the paper: which recipes, from which stores, in which order.

A run is kept in ``RUNS/RECIPE/seed-SEED``. One that adopts weights names the recipe they come from
(``weights.adopt = "recipe:NAME"``): the run of that recipe with the same seed, in the same folder
of runs, which therefore comes first. ``sweep_run`` trains them.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentset.datasets.errors import RecipeError, TrainingError, describe_invalid
from latentset.datasets.store import Header, Store, open_store
from latentset.paper.commands import store_commands
from latentset.paper.experiments import Experiment, experiments, learns_pixels, sweeps
from latentset.train.models.networks import PixelNetwork
from latentset.train.recipe.recipe import FROM_RECIPE, Recipe, codec_name, differences, resolve
from latentset.train.recipe.recipe_file import load_recipe
from latentset.train.run.run_files import RECIPE, RESULT, chosen_weights, read_result

Content = tuple[bool, str]
"""What a store holds, as far as recipes care: whether pixels, and the codec's name."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    recipe: Recipe
    """What is trained, with its store, seed and file of weights."""
    settings: tuple[str, ...]
    """What of it is set on the command line."""
    fingerprint: str
    """Of the store."""
    folder: Path
    """Where the run is kept."""
    needs: Path | None
    """Folder of the run whose weights are adopted, if any."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.recipe.name}, seed {self.recipe.seed}"

    @property
    def log(self) -> Path:
        """File of what it prints, beside its folder; locked by the sweep that trains it."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def arguments(self) -> list[str]:
        """The command that trains it, after the word ``latentset``."""
        options = [word for setting in self.settings for word in ("--set", setting)]
        name, store = self.recipe.name, self.recipe.data.store
        return ["train", name, "--store", store, *options, "--out", str(self.folder)]

    @property
    def command(self) -> str:
        """The command as it is typed in a shell."""
        return shlex.join(["latentset", *self.arguments])

    def is_finished(self) -> bool:
        """Whether its figures are there; they are written last."""
        return (self.folder / RESULT).is_file()


def plan_sweep(
    table: str,
    stores: Sequence[str],
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    only: str = "*",
    settings: Sequence[str] = (),
    latent_settings: Sequence[str] = (),
) -> list[Job]:
    """Decide what a sweep trains. Nothing is written, and nothing is trained yet.

    Args:
        table: Name of a table, such as ``minc2500/table1``.
        stores: All stores that may be needed, in any order.
        out: Folder of runs.
        seeds: Seeds; all runs of one come before those of the next.
        only: Pattern (``*`` and ``?``) of the recipes that are wanted; what they adopt from comes
            with them.
        settings: Keys of all recipes to set, ``key=value``.
        latent_settings: Keys of the recipes of latents alone to set; the anchors stay as they are.

    Returns:
        The runs, each after the one that it adopts from.

    Raises:
        RecipeError: There is no such table, no recipe fits the pattern, a store is missing or given
            twice, stores are not of the same images or latents, or a recipe does not fit its
            store.
        StoreError: A store cannot be used.
        TrainingError: A folder holds a run that was begun otherwise, or figures that cannot be
            read.
    """
    for setting in (*settings, *latent_settings):
        key = setting.partition("=")[0].strip()
        if key in ("seed", "data.store"):
            option = f"--{key.rpartition('.')[2]}"
            raise RecipeError(f"--set {setting}: a sweep sets {key} itself; give it with {option}")
    wanted = [e for e in _experiments(table) if fnmatch(e.name, only)]
    if not wanted:
        raise RecipeError(
            f"--only {only}: expected a pattern that fits a recipe of {table}, such as "
            f"{_experiments(table)[0].name}; latentset recipes lists them"
        )
    opened = _match([open_store(store) for store in stores])
    recipes = _with_adopted([e.name for e in wanted], settings, latent_settings)
    _check_teacher(settings, recipes)
    missing: dict[Content, list[Recipe]] = {}
    for recipe in recipes:
        if _content(recipe) not in opened:
            missing.setdefault(_content(recipe), []).append(recipe)
    if missing:
        raise RecipeError(_missing(table, missing.values()))
    jobs = [
        _job(recipe, opened[_content(recipe)], out, s, settings, latent_settings)
        for s in dict.fromkeys(seeds)
        for recipe in recipes
    ]
    for job in jobs:
        _check_begun(job)
    return jobs


def _experiments(table: str) -> tuple[Experiment, ...]:
    if table not in sweeps():
        raise RecipeError(f"no table {table!r}: expected one of {', '.join(sweeps())}")
    return sweeps()[table]


def _with_adopted(
    names: Iterable[str], settings: Sequence[str], latent_settings: Sequence[str]
) -> list[Recipe]:
    """The recipes, each after the one that it adopts from."""
    ordered: dict[str, Recipe] = {}
    for name in names:
        recipe = _load(name, settings, latent_settings)
        if adopted := _adopted(recipe):
            ordered.setdefault(adopted, _load(adopted, settings, latent_settings))
        ordered.setdefault(name, recipe)
    return list(ordered.values())


def _load(name: str, settings: Sequence[str], latent_settings: Sequence[str]) -> Recipe:
    return load_recipe(name, _own(name, settings, latent_settings))


def _own(name: str, settings: Sequence[str], latent_settings: Sequence[str]) -> list[str]:
    """What is set of one recipe."""
    return [*settings, *(() if learns_pixels(experiments()[name]) else latent_settings)]


def _check_teacher(settings: Sequence[str], recipes: Iterable[Recipe]) -> None:
    """A teacher for all would teach the anchors too, which nobody means who names the option."""
    given = [setting for setting in settings if setting.strip().startswith("distill.")]
    anchors = [r.name for r in recipes if learns_pixels(experiments()[r.name])]
    if given and anchors:
        raise RecipeError(
            f"--set {given[0]}: it would teach {anchors[0]} too; give it with --set-latents, which "
            "is of the recipes of latents alone"
        )


def _adopted(recipe: Recipe) -> str:
    """Name of the recipe that weights come from; empty where none."""
    adopt = recipe.weights.adopt
    return adopt.removeprefix(FROM_RECIPE) if adopt.startswith(FROM_RECIPE) else ""


def _content(recipe: Recipe) -> Content:
    return isinstance(recipe.model, PixelNetwork), str(recipe.data.codec)


def _match(stores: Sequence[Store]) -> dict[Content, Store]:
    """Sort stores by what they hold; all must be of the same images."""
    found: dict[Content, Store] = {}
    for store in stores:
        content = store.header.pixels is not None, codec_name(store.header)
        if content in found:
            raise RecipeError(
                f"{found[content].location} and {store.location} hold the same: "
                f"{_say(store.header)}; "
                "give one of them"
            )
        found[content] = store
    _check_images(stores)
    for (_, codec), store in found.items():
        made = store.header.pixels.latents if store.header.pixels else None
        latents = found.get((False, codec))
        if made and latents is not None and made.fingerprint != latents.fingerprint:
            raise RecipeError(
                f"{store.location} was not decoded from {latents.location}: both are of "
                f"{codec}, but "
                f"expected latents {latents.fingerprint[:12]}, got {made.fingerprint[:12]}; decode "
                f"again (latentset decode {latents.location} PIXELS), or give the latents that "
                f"it is "
                "of: what a network adopts would be of other latents than it learns from"
            )
    return found


def _check_images(stores: Sequence[Store]) -> None:
    """Refuse stores of other ids, paths, labels or splits: a test sample of one may train another.

    Only the listing is compared: that the files behind it were the same, nothing here can tell.
    """
    listings: dict[str, list[Store]] = {}
    for store in stores:
        listings.setdefault(store.header.source.listing_sha256, []).append(store)
    if len(listings) < 2:
        return
    lines = []
    for listing, own in listings.items():
        source = own[0].header.source
        locations = ", ".join(str(store.location) for store in own)
        lines.append(
            f"  {source.name}, {source.samples:,} images (listing {listing[:12]}): {locations}"
        )
    raise RecipeError(
        "the stores are not of the same images: expected one listing of ids, paths, labels "
        f"and splits, got {len(listings)}:\n"
        + "\n".join(lines)
        + "\nGive stores of one data set only; where they should be of one, encode those that "
        "differ again, from the same list or folder"
    )


def _say(header: Header) -> str:
    if header.pixels is None:
        return f"latents of {codec_name(header)}"
    return f"{header.pixels.kind} images" + (f" of {header.codec.name}" if header.codec else "")


def _missing(table: str, groups: Iterable[list[Recipe]]) -> str:
    lines = [f"{table} needs stores that were not given (--store STORE, once for each):"]
    for recipes in groups:
        first, codec = recipes[0], recipes[0].data.codec
        experiment = experiments()[first.name]
        what = f"latents of {codec}"
        if learns_pixels(experiment):
            decoded = f"images decoded by {codec}"
            what = decoded if experiment.codec else "the original images"
        others = f" and {len(recipes) - 1} more" if len(recipes) > 1 else ""
        lines.append(f"  {what}, for {first.name}{others}:")
        lines += [f"    {command}" for command in store_commands(experiment)]
    return "\n".join(lines)


def _job(
    recipe: Recipe,
    store: Store,
    out: Path,
    seed: int,
    settings: Sequence[str],
    latent_settings: Sequence[str],
) -> Job:
    needs, own = None, [*_own(recipe.name, settings, latent_settings), f"seed={seed}"]
    if adopted := _adopted(recipe):
        needs = out / adopted / f"seed-{seed}"
        chosen = chosen_weights(_load(adopted, settings, latent_settings))
        own.append(f"weights.adopt={needs / chosen}")
    where = str(store.location)
    loaded = load_recipe(recipe.name, [*own, f"data.store={where}"])
    return Job(
        recipe=resolve(loaded, store.header, where),
        settings=tuple(own),
        fingerprint=store.fingerprint,
        folder=out / recipe.name / f"seed-{seed}",
        needs=needs,
    )


def _check_begun(job: Job) -> None:
    """A folder that is there must hold this very run: what is finished is not looked at again."""
    path = job.folder / RECIPE
    if not path.exists():
        return
    if job.is_finished():
        read_result(job.folder)
    try:
        start: dict[str, Any] = json.loads(path.read_bytes())
        before = Recipe.model_validate(start["recipe"])
        fingerprint = str(start["store"]["fingerprint"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise TrainingError(
            f"{path} cannot be read; was it written by another version? "
            f"Give another folder with --out. {describe_invalid(error)}"
        ) from error
    changed = differences(before, job.recipe)
    if fingerprint != job.fingerprint:
        changed.append(f"store: fingerprint {fingerprint[:12]} -> {job.fingerprint[:12]}")
    if changed:
        raise TrainingError(
            f"{job.folder} holds a run that was begun otherwise:\n  "
            + "\n  ".join(changed)
            + "\nGo on with its own settings, or give another folder with --out"
        )
