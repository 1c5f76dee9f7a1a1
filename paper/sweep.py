"""The runs of a sweep: which recipes, from which stores, in which order. ``sweep_run`` trains them.

A run is kept in ``RUNS/RECIPE/seed-SEED``. A recipe names the one that its weights are initialised
from (``weights.adopt = "recipe:NAME"``): the run of that recipe with the same seed, in the same
folder of runs, which therefore comes first.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Header, Store, open_store
from latentset.paper.experiments import experiments, sweeps
from latentset.paper.recipes import load_recipe
from latentset.train.models.networks import PixelNetwork
from latentset.train.recipe.recipe import FROM_RECIPE, Recipe, codec_name, differences, resolve
from latentset.train.run.run_files import RECIPE, RESULT, chosen_weights, read_result
from latentset.train.run.run_folder import read_start

Content = tuple[bool, str]
"""What a store has, as far as recipes care: whether pixels, and the codec's name."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    recipe: Recipe
    """With its store, seed and file of weights."""
    settings: tuple[str, ...]
    """What of it is set on the command line."""
    fingerprint: str
    """Of the store."""
    folder: Path
    """Of the run."""
    needs: Path | None
    """Folder of the run that its weights are initialised from, if any."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.recipe.name}, seed {self.recipe.seed}"

    @property
    def log(self) -> Path:
        """File of its output, beside its folder; locked by the sweep that trains it."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``latentset`` that train it."""
        options = [word for setting in self.settings for word in ("--set", setting)]
        name, store = self.recipe.name, self.recipe.data.store
        return ["train", name, "--store", store, *options, "--out", str(self.folder)]

    @property
    def command(self) -> str:
        """The command that trains it, for a shell."""
        return shlex.join(["latentset", *self.arguments])

    def is_finished(self) -> bool:
        """Whether its result, which is written last, is there."""
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
    """Plan the runs of a sweep, each after the one that it is initialised from. Writes nothing.

    ``stores`` are locations of all that may be needed, in any order; all runs of a seed come before
    those of the next. ``only`` is a pattern (``*`` and ``?``) of recipes: those that they are
    initialised from come with them. ``latent_settings`` are of the recipes of latents alone.

    Raises:
        RecipeError: There is no such sweep, no recipe fits the pattern or its store, a store is
            missing or given twice, or stores are not of the same images or latents.
        StoreError: A store cannot be used.
        TrainingError: A folder has a run of other settings, or a file that cannot be read.
    """
    for setting in (*settings, *latent_settings):
        key = setting.partition("=")[0].strip()
        if key in ("seed", "data.store"):
            option = f"--{key.rpartition('.')[2]}"
            raise RecipeError(f"--set {setting}: a sweep sets {key} itself; give it with {option}")
    if table not in sweeps():
        raise RecipeError(f"no table {table!r}: expected one of {', '.join(sweeps())}")
    wanted = [e.name for e in sweeps()[table] if fnmatch(e.name, only)]
    if not wanted:
        raise RecipeError(
            f"--only {only}: expected a pattern that fits a recipe of {table}, such as "
            f"{sweeps()[table][0].name}; latentset recipes lists them"
        )
    opened = _match([open_store(store) for store in stores])

    def given(name: str) -> list[str]:
        return [*settings, *(() if experiments()[name].learns_pixels else latent_settings)]

    recipes: dict[str, Recipe] = {}
    for name in wanted:
        recipe = load_recipe(name, given(name))
        if origin := _origin(recipe):
            recipes.setdefault(origin, load_recipe(origin, given(origin)))
        recipes.setdefault(name, recipe)
    _check_teacher(settings, recipes)
    missing: dict[Content, list[str]] = {}
    for name, recipe in recipes.items():
        if _content(recipe) not in opened:
            missing.setdefault(_content(recipe), []).append(name)
    if missing:
        raise RecipeError(_describe_missing(table, missing.values()))
    jobs = []
    for seed, (name, recipe) in product(dict.fromkeys(seeds), recipes.items()):
        own, needs, store = [*given(name), f"seed={seed}"], None, opened[_content(recipe)]
        if origin := _origin(recipe):
            needs = out / origin / f"seed-{seed}"
            own.append(f"weights.adopt={needs / chosen_weights(recipes[origin])}")
        location = str(store.location)
        recipe = resolve(
            load_recipe(name, [*own, f"data.store={location}"]), store.header, location
        )
        folder = out / name / f"seed-{seed}"
        jobs.append(Job(recipe, tuple(own), store.fingerprint, folder, needs))
    for job in jobs:
        _check_started(job)
    return jobs


def _check_teacher(settings: Sequence[str], names: Iterable[str]) -> None:
    """A teacher for all would teach the anchors too, which nobody means who names the option."""
    given = [setting for setting in settings if setting.strip().startswith("distill.")]
    anchors = [name for name in names if experiments()[name].learns_pixels]
    if given and anchors:
        raise RecipeError(
            f"--set {given[0]}: it would teach {anchors[0]} too; give it with --set-latents, which "
            "is of the recipes of latents alone"
        )


def _origin(recipe: Recipe) -> str:
    """Name of the recipe that its weights are initialised from; empty where none."""
    adopt = recipe.weights.adopt
    return adopt.removeprefix(FROM_RECIPE) if adopt.startswith(FROM_RECIPE) else ""


def _content(recipe: Recipe) -> Content:
    return isinstance(recipe.model, PixelNetwork), str(recipe.data.codec)


def _match(stores: Sequence[Store]) -> dict[Content, Store]:
    """Sort stores by content; all must be of the same images."""
    found: dict[Content, Store] = {}
    for store in stores:
        content = store.header.pixels is not None, codec_name(store.header)
        if content in found:
            raise RecipeError(
                f"{found[content].location} and {store.location} are both "
                f"{_describe_store(store.header)}; give one of them"
            )
        found[content] = store
    _check_images(stores)
    for (_, codec), store in found.items():
        made = store.header.pixels.latents if store.header.pixels else None
        latents = found.get((False, codec))
        if made and latents is not None and made.fingerprint != latents.fingerprint:
            raise RecipeError(
                f"{store.location} was not decoded from {latents.location}: both are of {codec}, "
                f"but expected latents {latents.fingerprint[:12]}, got {made.fingerprint[:12]}; "
                f"decode again (latentset decode {latents.location} PIXELS), or give its latents: "
                "networks would be initialised from other latents than they learn from"
            )
    return found


def _check_images(stores: Sequence[Store]) -> None:
    """Refuse stores of other ids, paths, labels or splits: a test sample of one may train another.

    Only the listing is compared, not the files behind it.
    """
    listings: dict[str, list[Store]] = {}
    for store in stores:
        listings.setdefault(store.header.source.listing_sha256, []).append(store)
    if len(listings) < 2:
        return
    lines = [
        f"  {own[0].header.source.name}, {own[0].header.source.samples:,} images "
        f"(listing {listing[:12]}): {', '.join(str(store.location) for store in own)}"
        for listing, own in listings.items()
    ]
    raise RecipeError(
        "the stores are not of the same images: expected one listing of ids, paths, labels "
        f"and splits, got {len(listings)}:\n"
        + "\n".join(lines)
        + "\nGive stores of one data set only; where they should be of one, encode those that "
        "differ again, from the same list or folder"
    )


def _describe_store(header: Header) -> str:
    if header.pixels is None:
        return f"latents of {codec_name(header)}"
    return f"{header.pixels.kind} images" + (f" of {header.codec.name}" if header.codec else "")


def _describe_missing(table: str, groups: Iterable[list[str]]) -> str:
    lines = [f"{table} needs stores that were not given (--store STORE, once for each):"]
    for first, *others in groups:
        experiment = experiments()[first]
        more = f" and {len(others)} more" if others else ""
        lines.append(f"  {experiment.learns_from}, for {first}{more}:")
        lines += [f"    {command}" for command in experiment.store_commands]
    return "\n".join(lines)


def _check_started(job: Job) -> None:
    """A folder that is there must be of this very run: a finished one is not looked at again."""
    remedy = "Give another folder with --out"
    start = read_start(job.folder, remedy) if (job.folder / RECIPE).exists() else None
    if start is None:
        return
    if job.is_finished():
        read_result(job.folder)
    changed, fingerprint = differences(start.recipe, job.recipe), start.store.fingerprint
    if fingerprint != job.fingerprint:
        changed.append(f"store: fingerprint {fingerprint[:12]} -> {job.fingerprint[:12]}")
    if changed:
        raise TrainingError(
            f"{job.folder} has a run that was started with other settings:\n  "
            + "\n  ".join(changed)
            + "\nResume with its own settings, or give another folder with --out"
        )
