"""What an experiment is: the frozen, typed content of a recipe file (keys: docs/training.md)."""

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
from latentset.train.models.networks import AnyNetwork, Table

WHERE_NOT_WHAT: Any = {
    "paper": True,
    "data": {"store", "read_ahead"},
    "device": {"accelerator", "channels_last", "compile", "deterministic", "save_steps"},
}
"""Keys that may change when a run resumes; the store is compared by its fingerprint."""

FILES = frozenset({"weights.adopt", "distill.logits"})
"""Keys whose file may move, but not be added or removed; digests are compared."""

FROM_RECIPE, TORCHVISION = "recipe:", "torchvision:"
"""How ``weights.adopt`` begins where it names another recipe, or torchvision's weights."""

MAX_CLASSES = 100_000
"""The last layer then has 800 MB of weights, and as much momentum."""

Accelerator = Literal["auto", "cpu", "cuda"]

EvalCrop = Literal["whole", "central"]
"""What evaluation sees of a sample: its whole grid, or the central square."""

Side = Annotated[int, Field(ge=1, le=4096)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Data(Table):
    """Which samples, and what the network sees of them."""

    store: str = ""
    codec: str | None = None
    """Any where absent."""
    train_split: str = "train"
    val_split: str = "val"
    """Chooses the best checkpoint; "" = none."""
    test_split: str = ""
    """The chosen checkpoint is evaluated on it; "" = none."""
    batch_size: PositiveInt
    """Over all ranks."""
    size: Side = 28
    """Side of the network's input."""
    resize: Side = 256
    """Pixels only: side of the square that an image is resized to before the crop."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Least and greatest part of the grid's area."""
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    flip: bool = False
    """Mirror half of the crops. The paper mirrors images, not latents."""
    eval_crop: EvalCrop = "whole"
    eval_share: Fraction = 0.875
    """Side of the central square over the grid's shorter side."""
    read_ahead: PositiveInt = 4

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
    """A checkpoint of a pixel-domain ResNet (.safetensors, or .pth of tensors),
    ``torchvision:NAME``, or ``recipe:NAME``, the run of another recipe."""
    leave_out: tuple[str, ...] = ()
    """Modules to exclude; ``["fc"]`` where the checkpoint is of other classes."""


class Schedule(Table):
    """SGD, its learning rates, and the paper's two phases (paper sections 4.2 and 5.3)."""

    epochs: NonNegativeInt
    """0: the pretrained weights are evaluated as they are."""
    frozen_epochs: NonNegativeInt = 0
    """Epochs of the first phase, in which only the new modules train."""
    plateau_epochs: NonNegativeInt = 0
    """The first phase ends once the validation loss has not fallen for so many; 0 = never."""
    learning_rate: PositiveFloat
    """Of the new modules at the start; of the pretrained ones too unless they have their own."""
    decay_epochs: tuple[PositiveInt, ...] = ()
    """Epochs after which that rate is multiplied by ``decay``."""
    decay: Fraction = 0.1
    adopted_learning_rate: PositiveFloat | None = None
    """Constant rate of the pretrained modules once they train."""
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 0.0
    accumulate: PositiveInt = 1
    """Micro-batches of each batch, to save memory."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the moving average that is evaluated and kept, a step; 0 = none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of each label that is spread over all classes."""
    mixup: NonNegativeFloat = 0.0
    """alpha: inputs are mixed in pairs, weighted by Beta(alpha, alpha); 0 = none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs: expected at most epochs ({self.epochs}), got {self.frozen_epochs}"
            )
        if self.plateau_epochs and not self.frozen_epochs:
            raise ValueError(
                "plateau_epochs: it ends the first phase, but frozen_epochs is 0; "
                "set schedule.frozen_epochs to the most epochs that it may take"
            )
        return self

    def rates(self, epoch: int) -> tuple[float, float]:
        """Learning rates of an epoch (from 0): of the new modules, of the pretrained ones."""
        new = self.learning_rate * self.decay ** sum(epoch >= after for after in self.decay_epochs)
        return new, self.adopted_learning_rate or new


class Distill(Table):
    """Learning from a teacher's logits as well as from the labels (Hinton, Vinyals, Dean 2015).

    ::

        loss = (1 - weight) * cross_entropy(labels)
               + weight * T**2 * KL(softmax(teacher / T) || softmax(student / T))
    """

    logits: str = ""
    """File of ``latentset evaluate RUN STORE --logits FILE``; no teacher where empty."""
    weight: Fraction = 0.5
    temperature: PositiveFloat = 2.0


class Device(Table):
    """What the run computes with."""

    accelerator: Accelerator = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16``: mixed precision by autocast."""
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    """Refuse operations whose result differs from run to run on a GPU."""
    sync_batchnorm: bool = False
    """Several GPUs: batch norm's statistics of the whole batch, not of each rank's part."""
    save_steps: PositiveInt = 1000
    """Steps between saves of the state within an epoch."""


class Paper(Table):
    """What of the paper a recipe reproduces."""

    items: tuple[str, ...] = ()
    setting: str
    """``anchor1``, ``anchor2``, ``cresnet``, ``fa-cresnet``, or a setting of Table 3."""
    codec: str = ""
    """Loss and quality, such as ``msssim-4``; empty for the originals."""
    top1: float | None = None
    """The paper's, percent."""
    top5: float | None = None


class Recipe(Table):
    """An experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    paper: Paper | None = None
    model: AnyNetwork
    data: Data
    weights: Weights = Weights()
    schedule: Schedule
    distill: Distill = Distill()
    device: Device = Device()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule.frozen_epochs and not self.weights.adopt:
            raise ValueError(
                "weights.adopt: expected a checkpoint, because schedule.frozen_epochs is "
                f"{self.schedule.frozen_epochs} and random weights would be frozen; give one "
                "(--set weights.adopt=FILE), or train from scratch "
                "(--set schedule.frozen_epochs=0)"
            )
        if not self.distill.logits and self.distill != Distill():
            raise ValueError(
                "distill.logits: expected a teacher's logits, because distill.weight or "
                ".temperature is set (latentset evaluate RUN STORE --logits FILE makes them)"
            )
        if not self.schedule.epochs and not self.weights.adopt:
            raise ValueError(
                "schedule.epochs: 0 evaluates pretrained weights, but weights.adopt is empty; give "
                "a checkpoint, or train for 1 epoch or more"
            )
        if self.schedule.plateau_epochs and not self.data.val_split:
            raise ValueError(
                "schedule.plateau_epochs: it needs a validation split, but data.val_split "
                "is empty; name one"
            )
        if self.data.batch_size % self.schedule.accumulate:
            raise ValueError(
                f"schedule.accumulate: expected a divisor of data.batch_size "
                f"({self.data.batch_size}), got {self.schedule.accumulate}"
            )
        return self


def resolve(recipe: Recipe, header: Header, where: str) -> Recipe:
    """Check a recipe against a store, and fill in what it leaves open: channels, classes, codec."""
    takes_pixels = "channels" not in type(recipe.model).model_fields
    if takes_pixels != (header.arrays == ("pixels",)):
        wanted = (
            "pixels (latentset encode --codec none, or decode, makes such a store)"
            if takes_pixels
            else "latents (recipes resnet and resnet-slim take pixels)"
        )
        raise RecipeError(
            f"{where} does not fit the recipe {recipe.name}: {recipe.model.kind} takes {wanted}, "
            f"the store holds {', '.join(header.arrays)}"
        )
    if (count := len(header.source.classes)) > MAX_CLASSES:
        raise RecipeError(
            f"{where}: expected at most {MAX_CLASSES:,} classes, got {count:,}: the weights of the "
            "last layer grow with them"
        )
    facts: dict[str, Any] = {"num_classes": count}
    if not takes_pixels and header.codec is not None:
        facts["channels"] = header.codec.channels
    name = codec_name(header)
    given = [("codec", "data.codec", recipe.data.codec, name)]
    for key, got in facts.items():
        what = f"number of {key.removeprefix('num_')}"
        given.append((what, f"model.{key}", getattr(recipe.model, key), got))
    for what, key, expected, got in given:
        if expected not in (None, got):
            raise RecipeError(
                f"{where} does not fit the recipe {recipe.name}: {what} ({key}): expected "
                f"{expected}, got {got}; give the store that the recipe is for, or change the "
                f"recipe with --set {key}={got}"
            )
    model = recipe.model.model_copy(update=facts)
    data = recipe.data.model_copy(update={"codec": name})
    return recipe.model_copy(update={"model": model, "data": data})


def codec_name(header: Header) -> str:
    """Name of a store's codec; ``none`` where it holds the images themselves."""
    return "none" if header.codec is None else header.codec.name


def differences(before: Recipe, after: Recipe) -> list[str]:
    """List where two recipes would not train the same, ``key: before -> after`` a line."""
    old, new = _flatten(before), _flatten(after)
    return [
        f"{key}: {_shown(old.get(key))} -> {_shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not (key in FILES and old.get(key) and new.get(key))
    ]


def _shown(value: Any) -> str:
    return "none" if value == "" else str(value)


def _flatten(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.model_dump(exclude=WHERE_NOT_WHAT).items():
        table = value.items() if isinstance(value, dict) else ()
        flat |= {f"{name}.{key}": each for key, each in table} or {name: value}
    return flat
