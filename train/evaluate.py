"""Top-1, top-5 and loss of a network on splits of a store."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Store, open_store
from latentset.train.build import build_network
from latentset.train.checkpoint import StoreRecord, load_weights
from latentset.train.engine import EpochLoader, make_trainer, run_lightning, uses_cuda
from latentset.train.module import LatentClassifier
from latentset.train.reader import LatentReader
from latentset.train.recipe import Accelerator, Recipe, Table
from latentset.train.run_folder import BEST, LAST
from latentset.train.split import select_split, split_names


class SplitFigures(Table):
    """How good a network is on one split."""

    samples: int
    """Samples of the split."""
    loss: float
    """Mean cross entropy, nats."""
    top1: float
    """Share whose class has the highest logit."""
    top5: float
    """Share whose class is among the five highest."""


class Evaluation(Table):
    """What ``latentset evaluate`` finds out."""

    checkpoint: str
    """File of the weights."""
    recipe: str
    """Name of the recipe they come from."""
    epoch: int
    """Epochs that were trained."""
    codec: str
    """Codec of the store."""
    store_fingerprint: str
    """The store's fingerprint."""
    notes: tuple[str, ...]
    """In what the store differs from the one that the network was trained from."""
    splits: dict[str, SplitFigures]
    """Figures by split."""


def evaluate_checkpoint(
    checkpoint: Path,
    store: Path,
    *,
    splits: Sequence[str] = (),
    accelerator: Accelerator | None = None,
) -> Evaluation:
    """Evaluate saved weights.

    Args:
        checkpoint: A file of weights, or a run's folder: its best weights, or its last where it
            had no validation split.
        store: The store.
        splits: Names of splits; all that have samples where empty.
        accelerator: Where to compute; where the recipe says if None.

    Returns:
        The figures.

    Raises:
        TrainingError: The weights cannot be read, or the store is of another codec or has other
            classes than the one they were trained from.
        StoreError: The store cannot be used.
        RecipeError: A split is empty.
    """
    if checkpoint.is_dir():
        checkpoint = checkpoint / (BEST if (checkpoint / BEST).exists() else LAST)
    tensors, record = load_weights(checkpoint)
    opened = open_store(store)
    notes = compare_stores(record.store, StoreRecord.of(opened), str(store))
    recipe = record.recipe
    if accelerator is not None:
        device = recipe.device.model_copy(update={"accelerator": accelerator})
        recipe = recipe.model_copy(update={"device": device})
    module = LatentClassifier(build_network(recipe.model), recipe, opened.header.codec.scale_table)
    try:
        module.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint}: its tensors are not those of the network in its own record: {error}. "
            "The file was altered: take it from where it came from, or train again"
        ) from error
    return Evaluation(
        checkpoint=str(checkpoint),
        recipe=recipe.name,
        epoch=record.epoch,
        codec=opened.header.codec.name,
        store_fingerprint=opened.fingerprint,
        notes=notes,
        splits=evaluate_splits(module, recipe, opened, splits or split_names(opened)),
    )


def evaluate_splits(
    module: LatentClassifier, recipe: Recipe, store: Store, splits: Sequence[str]
) -> dict[str, SplitFigures]:
    """Evaluate a network.

    Args:
        module: The network.
        recipe: Its resolved recipe.
        store: The store.
        splits: Names of splits.

    Returns:
        Figures by split.

    Raises:
        RecipeError: A split is empty.
    """
    figures = {}
    for chosen in [select_split(store, name) for name in splits]:
        reader = LatentReader(
            store,
            chosen,
            recipe.data,
            seed=recipe.seed,
            training=False,
            pin_memory=uses_cuda(recipe.device),
        )
        trainer = make_trainer(
            recipe.device, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        validate = partial(trainer.validate, module, EpochLoader(reader, 0), verbose=False)
        found = run_lightning(validate)[0]
        figures[chosen.name] = SplitFigures(
            samples=len(chosen),
            loss=found["val/loss"],
            top1=found["val/top1"],
            top5=found["val/top5"],
        )
    return figures


def compare_stores(trained: StoreRecord, given: StoreRecord, where: str) -> tuple[str, ...]:
    """Say whether a network can be used with a store.

    Args:
        trained: The store that it was trained from.
        given: The store.
        where: The store, for messages.

    Returns:
        In what they differ although the network can be used.

    Raises:
        TrainingError: It cannot.
    """
    if trained.codec_sha256 != given.codec_sha256:
        raise TrainingError(
            f"{where} is of another codec than the network was trained with: expected "
            f"{trained.codec} ({trained.codec_sha256[:12]}), got {given.codec} "
            f"({given.codec_sha256[:12]}); their latents have different meanings. Encode the "
            f"photographs with {trained.codec}"
        )
    if trained.classes != given.classes:
        raise TrainingError(
            f"{where} has other classes than the network was trained with: expected "
            f"{_shorten(trained.classes)}, got {_shorten(given.classes)}; encode from a source "
            "with the same classes in the same order"
        )
    notes = []
    if trained.fingerprint != given.fingerprint:
        notes.append("not the store that the network was trained from (same codec and classes)")
    if trained.resize != given.resize:
        notes.append(f"resize rule: trained with {trained.resize}, this store has {given.resize}")
    return tuple(notes)


def _shorten(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
    return f"{len(classes)} ({shown})"
