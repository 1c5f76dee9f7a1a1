"""What an experiment is: the frozen, typed content of a recipe file.

``recipe_file`` reads one; docs/training.md lists the keys for people. A resolved recipe is one that
was held against a store: what it left open (channels, classes, codec) is filled in.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Header
from latentset.train.networks import AnyNetwork, Table

WHERE_NOT_WHAT = frozenset({"data.store", "data.read_ahead", "device", "weights.adopt"})
"""Keys that say where or how fast, not what is learnt: they may change when a run goes on. (The
store is held to its fingerprint; adopted weights are in the checkpoint.)"""

Accelerator = Literal["auto", "cpu", "cuda"]
"""Where to compute."""

Share = Annotated[float, Field(gt=0, le=1)]
"""A part of a whole."""


class Data(Table):
    """Which samples, and what the network sees of them."""

    store: str = ""
    """Path of the store; mostly given on the command line."""
    codec: str | None = None
    """Name of the codec that the store must be of; any where absent."""
    train_split: str = "train"
    """Split that is learnt."""
    val_split: str = "val"
    """Split that is looked at after each epoch and chooses the best checkpoint; "" = none."""
    test_split: str = ""
    """Split that the chosen checkpoint is evaluated on at the end; "" = none."""
    batch_size: PositiveInt
    """Samples a step, over all ranks."""
    size: PositiveInt = 28
    """Side of the network's input, positions."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Least and greatest share of the grid's area in a random crop."""
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Least and greatest aspect ratio of a random crop."""
    flip: bool = False
    """Mirror half of the crops. The paper does not mirror latents."""
    eval_crop: Literal["whole", "central"] = "whole"
    """What evaluation sees: the whole grid, or its central square."""
    eval_share: Share = 0.875
    """Side of the central square over the grid's shorter side."""
    read_ahead: PositiveInt = 4
    """Batches that are read before they are asked for; bounds the memory."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected [least, greatest], got [{low}, {high}]")
        return self


class Weights(Table):
    """Where the first weights come from."""

    adopt: str = ""
    """Checkpoint of a pixel-domain ResNet (.safetensors, or .pth of tensors) whose weights the
    trunk adopts; from scratch where empty."""


class Schedule(Table):
    """SGD, its learning rates, and the paper's two phases (paper sections 4.2 and 5.3)."""

    epochs: PositiveInt
    """Epochs in all."""
    frozen_epochs: NonNegativeInt = 0
    """Epochs of the first phase: the adopted weights stand still, only the new modules train."""
    learning_rate: PositiveFloat
    """Of the new modules at the beginning, and of the adopted ones if those have no rate of
    their own."""
    decay_epochs: tuple[PositiveInt, ...] = ()
    """Epochs after which that rate is multiplied by ``decay``."""
    decay: Share = 0.1
    """Factor of each decay."""
    adopted_learning_rate: PositiveFloat | None = None
    """Constant rate of the adopted modules once they train."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of SGD, on every parameter."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs: expected at most epochs ({self.epochs}), got {self.frozen_epochs}"
            )
        return self

    def rates(self, epoch: int) -> tuple[float, float]:
        """Learning rates of an epoch.

        Args:
            epoch: Its number, from 0.

        Returns:
            Rate of the new modules, rate of the adopted ones (not applied while they are frozen).
        """
        new = self.learning_rate * self.decay ** sum(epoch >= after for after in self.decay_epochs)
        return new, self.adopted_learning_rate or new


class Device(Table):
    """What the run computes with."""

    accelerator: Accelerator = "auto"
    """``auto``: the first CUDA device where there is one, else the CPU."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16``: mixed precision by autocast; weights stay in float32."""
    channels_last: bool = False
    """Keep feature maps channel by channel at each position; faster on tensor cores."""
    compile: bool = False
    """Compile the network with torch.compile."""


class Recipe(Table):
    """An experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
    """Its name, as in ``recipes/``: NAME.toml."""
    seed: NonNegativeInt = 0
    """Decides the initial weights, the order and the crops."""
    model: AnyNetwork
    """The network."""
    data: Data
    """The samples."""
    weights: Weights = Weights()
    """The first weights."""
    schedule: Schedule
    """The optimisation."""
    device: Device = Device()
    """The hardware."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule.frozen_epochs and not self.weights.adopt:
            raise ValueError(
                "weights.adopt: expected a checkpoint, because schedule.frozen_epochs is "
                f"{self.schedule.frozen_epochs} and random weights would be frozen; give one "
                "(--set weights.adopt=FILE), or train from scratch "
                "(--set schedule.frozen_epochs=0)"
            )
        return self


def resolve(recipe: Recipe, header: Header, where: str) -> Recipe:
    """Hold a recipe against a store and fill in what it leaves to the store.

    Args:
        recipe: The recipe.
        header: The store's header.
        where: The store, for messages.

    Returns:
        The recipe with ``model.channels``, ``model.num_classes`` and ``data.codec`` set.

    Raises:
        RecipeError: The store has other channels, classes or another codec than the recipe says.
    """
    codec, classes = header.codec, len(header.source.classes)
    facts: tuple[tuple[str, Any, Any, str], ...] = (
        ("data.codec", recipe.data.codec, codec.name, "codec"),
        ("model.channels", recipe.model.channels, codec.channels, "number of channels"),
        ("model.num_classes", recipe.model.num_classes, classes, "number of classes"),
    )
    for key, expected, got, what in facts:
        if expected is not None and expected != got:
            raise RecipeError(
                f"{where} does not fit the recipe {recipe.name}: {what} ({key}): expected "
                f"{expected}, got {got}; give the store that the recipe is for, or change the "
                f"recipe with --set {key}={got}"
            )
    model = recipe.model.model_copy(update={"channels": codec.channels, "num_classes": classes})
    data = recipe.data.model_copy(update={"codec": codec.name})
    return recipe.model_copy(update={"model": model, "data": data})


def differences(before: Recipe, after: Recipe) -> list[str]:
    """List where two recipes would not learn the same.

    Args:
        before: A recipe.
        after: Another.

    Returns:
        One line a key, ``key: before -> after``; keys of ``WHERE_NOT_WHAT`` are left out.
    """
    old, new = _flatten(before.model_dump()), _flatten(after.model_dump())
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == skip or key.startswith(f"{skip}.") for skip in WHERE_NOT_WHAT)
    ]


def _flatten(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
