"""Pretrained weights: a trained ResNet's in another network, frozen while its new modules learn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError

_OPTIONAL = "num_batches_tracked"  # a counter that checkpoints older than PyTorch 0.4.1 lack
_SHOWN = 8  # mismatches that an error names, of what may be hundreds


class PretrainableModel(nn.Module, ABC):
    """A network whose tensors are partly a ResNet's (pretrained) and partly its own (new).

    Source: section 4.2, equations 8 to 13. Frozen, the pretrained modules take no gradient and stay
    in evaluation mode, so that the statistics of their batch norms stay the same.
    """

    fc: nn.Linear
    inputs: ClassVar[tuple[str, ...]]
    """What ``forward`` takes, in order: ("y_hat", "sigma_hat"), ("y_hat",) or ("pixels",)."""
    replaced: ClassVar[tuple[str, ...]] = ()
    """Prefixes of a ResNet's tensors that have no place here."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False
        self._excluded: tuple[str, ...] = ()

    @abstractmethod
    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The modules that no ResNet has."""

    def exclude(self, names: Sequence[str]) -> None:
        """Count modules (``fc``) as new although a ResNet has them; not saved with the weights."""
        self._excluded = tuple(dict.fromkeys((*self._excluded, *_module_names(self, names))))

    def new_modules(self) -> tuple[nn.Module, ...]:
        """The modules that are not pretrained."""
        return (*self.inserted_modules(), *map(self.get_submodule, self._excluded))

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the new modules."""
        parameters = (p for module in self.new_modules() for p in module.parameters())
        return iter(dict.fromkeys(parameters))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are not in a new module."""
        new = {id(parameter) for parameter in self.new_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in new)

    def freeze_pretrained(self) -> None:
        """Let only the new modules train: phase 1 (equations 8 to 10)."""
        self.frozen = True
        for parameter in self.pretrained_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer would still apply the last one
        self.train(self.training)

    def unfreeze(self) -> None:
        """Let everything train: phase 2 (equations 11 to 13)."""
        self.frozen = False
        for parameter in self.pretrained_parameters():
            parameter.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen modules are always in evaluation mode."""
        super().train(mode)
        if self.frozen:
            new = {module for root in self.new_modules() for module in root.modules()}
            for module in self.modules():
                module.training = mode and not new.isdisjoint(module.modules())
        return self


@dataclass(frozen=True)
class PretrainedReport:
    """Names of tensors after pretrained weights were loaded."""

    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    """The ResNet's that have no place in the model, or were excluded."""
    new: tuple[str, ...]
    """The model's, as they were initialised."""

    def __str__(self) -> str:
        """Three lines: how many tensors, and of which modules."""
        rows = ("pretrained", self.loaded), ("excluded", self.excluded), ("new", self.new)
        return "\n".join(
            f"{title:<11}{len(names):4d} tensors" + (f": {_modules(names)}" if names else "")
            for title, names in rows
        )


def load_pretrained(
    model: PretrainableModel, state_dict: Mapping[str, Tensor], *, exclude: Sequence[str] = ()
) -> PretrainedReport:
    """Copy a trained ResNet's weights into all tensors of a model that are not new.

    ``state_dict`` has torchvision's names; ``exclude=("fc",)`` where it is of other classes. A
    tensor that is missing, misshapen or has no place in the model is an error; then nothing is
    copied.

    Source: section 4.2, equation 6: layer2 to layer4 and the fully connected layer.
    """
    own = model.state_dict()
    excluded = tuple(f"{name}." for name in _module_names(model, exclude))
    modules = set(model.new_modules())
    inserted = tuple(f"{name}." for name, module in model.named_modules() if module in modules)
    wanted = {k: own[k] for k in own if not k.startswith((*inserted, *excluded))}
    given = {k: state_dict[k] for k in state_dict if not k.startswith((*model.replaced, *excluded))}
    mismatches = _mismatches(wanted, given)
    if mismatches:
        more = len(mismatches) - _SHOWN
        only_fc = all(mismatch.startswith("fc.") for mismatch in mismatches)
        raise TrainingError(
            f"these weights do not fit {type(model).__name__}:\n  "
            + "\n  ".join(mismatches[:_SHOWN])
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nGive the weights of a ResNet of the same depths, width and number of classes"
            + (", or exclude fc, which then starts at random." if only_fc else ".")
        )

    model.exclude(exclude)
    loaded = tuple(name for name in wanted if name in given)
    with torch.no_grad():
        for name in loaded:
            wanted[name].copy_(given[name])
    return PretrainedReport(
        loaded,
        excluded=tuple(name for name in state_dict if name not in given),
        new=tuple(name for name in own if name not in wanted),
    )


def _mismatches(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing, unusable = [], []
    for name, tensor in wanted.items():
        expected, got = _shape(tensor), _shape(given.get(name))
        if expected != got:
            if not (name.endswith(_OPTIONAL) and name not in given):
                missing.append(f"{name}: expected {expected}, got {got}")
            continue
        kind, found = _kind(tensor), _kind(given[name])
        finite = given[name].is_meta or bool(given[name].isfinite().all())
        if kind != found or not finite:
            more = " that are not all finite" if kind == found else ""
            unusable.append(f"{name}: expected finite {kind} numbers, got {found} ones{more}")
    extra = {name: _shape(given[name]) for name in given if name not in wanted}
    unexpected = [f"{name}: expected no such tensor, got {got}" for name, got in extra.items()]
    return missing + unusable + unexpected


def _module_names(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Names of modules, without a dot at their ends; each is there."""
    modules = dict(model.named_modules())
    found = tuple(name.removesuffix(".") for name in names)
    for name in found:
        if not name or name not in modules:
            raise TrainingError(
                f"{type(model).__name__} has no module {name!r} to exclude: expected one of "
                f"{', '.join(child for child, _ in model.named_children())}, or a part of one"
            )
    return found


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "floating-point"
    return "complex" if tensor.is_complex() else "whole"


def _shape(value: object) -> str:
    match value:
        case Tensor() if value.layout == torch.strided:
            return str(tuple(value.shape))
        case Tensor():
            return f"a tensor of {value.layout}"
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"


def _modules(names: tuple[str, ...]) -> str:
    parts = (name.split(".") for name in names)
    return ", ".join(dict.fromkeys(".".join(p[:2]) if p[1] == "fa" else p[0] for p in parts))
