"""Adoption: a trained ResNet's weights in another network, frozen while its new modules learn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError

_OPTIONAL = "num_batches_tracked"  # a counter that checkpoints older than PyTorch 0.4.1 lack
_SHOWN = 8  # mismatches that an error names, of what may be hundreds


class AdoptingModel(nn.Module, ABC):
    """A network whose tensors are partly a ResNet's (adopted) and partly its own (new).

    Source: section 4.2, equations 8 to 13: adopt, train the new modules alone, then finetune all.

    Frozen, the adopted modules take no gradient and stay in evaluation mode, whatever ``train()``
    says, so that the statistics of their batch norms stand still as well as their weights.

    Every network ends in a fully connected layer of torchvision's name, ``fc``.
    """

    fc: nn.Linear
    inputs: ClassVar[tuple[str, ...]]
    """What ``forward`` takes, in order: ("y_hat", "sigma_hat"), ("y_hat",) or ("pixels",)."""
    replaced: ClassVar[tuple[str, ...]] = ()
    """How names of a ResNet's tensors begin that have no place in this network."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False
        self._left_out: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes: of the logits that leave."""
        return self.fc.out_features

    @abstractmethod
    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The modules that no ResNet has."""

    def leave_out(self, names: Sequence[str]) -> None:
        """Count modules as new although a ResNet has them: they are not adopted, never frozen.

        ``adopt_weights`` does it for its own ``leave_out``. Not saved with the weights, like the
        phase: a run that goes on calls it again, before it freezes and makes its optimiser.

        Args:
            names: Names of modules, such as ``fc`` (or ``fc.``, as its tensors' names begin).

        Raises:
            TrainingError: There is no such module.
        """
        self._left_out = tuple(dict.fromkeys((*self._left_out, *_module_names(self, names))))

    def new_modules(self) -> tuple[nn.Module, ...]:
        """The modules that are not adopted; all others' tensors can be."""
        return (*self.inserted_modules(), *map(self.get_submodule, self._left_out))

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the new modules, each once."""
        parameters = (p for module in self.new_modules() for p in module.parameters())
        return iter(dict.fromkeys(parameters))

    def adopted_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that a ResNet can give: all that are not in a new module."""
        new = {id(parameter) for parameter in self.new_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in new)

    def adopted_modules(self) -> Iterator[nn.Module]:
        """The modules that hold no new module: the adopted blocks and all that is in them."""
        new = {module for root in self.new_modules() for module in root.modules()}
        return (module for module in self.modules() if new.isdisjoint(module.modules()))

    def freeze_adopted(self) -> None:
        """Let only the new modules train: phase 1 (equations 8 to 10)."""
        self.frozen = True
        for parameter in self.adopted_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer would still apply the last one
        self.train(self.training)

    def unfreeze(self) -> None:
        """Let everything train: phase 2 (equations 11 to 13)."""
        self.frozen = False
        for parameter in self.adopted_parameters():
            parameter.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen modules are always in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for module in self.adopted_modules():
                module.training = False
        return self


@dataclass(frozen=True)
class AdoptionReport:
    """What became of each tensor when weights were adopted."""

    adopted: tuple[str, ...]
    """Tensors copied from the ResNet, by their common name."""
    left_out: tuple[str, ...]
    """Tensors of the ResNet that have no place in the model, or were not wanted."""
    newly_made: tuple[str, ...]
    """Tensors of the model that the ResNet does not give, as they were initialised."""

    def __str__(self) -> str:
        """Three lines: how many tensors, and of which modules."""
        return "\n".join(
            f"{title:<11}{len(names):4d} tensors" + (f": {_modules(names)}" if names else "")
            for title, names in (
                ("adopted", self.adopted),
                ("left out", self.left_out),
                ("newly made", self.newly_made),
            )
        )


def adopt_weights(
    model: AdoptingModel, state_dict: Mapping[str, Tensor], *, leave_out: Sequence[str] = ()
) -> AdoptionReport:
    """Copy a trained ResNet's weights into all tensors of a model that are not new.

    Source: section 4.2, equation 6: layer2 to layer4 and the fully connected layer.

    Args:
        model: Changed in place; untouched if an error is raised.
        state_dict: A ResNet's tensors by torchvision's names (``PixelResNet`` has the same), of the
            depths, width and classes of the model.
        leave_out: Modules that are not adopted but count as new, as in ``AdoptingModel.leave_out``:
            ``("fc.",)`` where the ResNet was trained on other classes.

    Returns:
        What was adopted, left out and newly made.

    Raises:
        TrainingError: A tensor is missing, has another shape, or has no place in the model although
            nothing new stands there; or there is no module to leave out.
    """
    own = model.state_dict()
    left_out = tuple(f"{name}." for name in _module_names(model, leave_out))
    new = set(model.new_modules())
    inserted = tuple(f"{name}." for name, module in model.named_modules() if module in new)
    wanted = {name: own[name] for name in own if not name.startswith((*inserted, *left_out))}
    given = {
        name: state_dict[name]
        for name in state_dict
        if not name.startswith((*model.replaced, *left_out))
    }

    mismatches = [
        f"{name}: expected {_shape(tensor)}, got {_shape(given.get(name))}"
        for name, tensor in wanted.items()
        if _shape(tensor) != _shape(given.get(name))
        and not (name.endswith(_OPTIONAL) and name not in given)
    ]
    mismatches += [
        f"{name}: expected finite {_kind(wanted[name])} numbers, got {_kind(tensor)} ones"
        + (" that are not all finite" if _kind(tensor) == _kind(wanted[name]) else "")
        for name, tensor in given.items()
        if name in wanted
        and _shape(tensor) == _shape(wanted[name])
        and (_kind(tensor) != _kind(wanted[name]) or not _is_finite(tensor))
    ]
    mismatches += [
        f"{name}: expected no such tensor, got {_shape(tensor)}"
        for name, tensor in given.items()
        if name not in wanted
    ]
    if mismatches:
        more = len(mismatches) - _SHOWN
        raise TrainingError(
            f"these weights do not fit {type(model).__name__}:\n  "
            + "\n  ".join(mismatches[:_SHOWN])
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nGive the weights of a ResNet of the same depths, width and number of classes"
            + (
                ", or leave fc out, which then begins at random."
                if all(mismatch.startswith("fc.") for mismatch in mismatches)
                else "."
            )
        )

    model.leave_out(leave_out)
    adopted = tuple(name for name in wanted if name in given)
    with torch.no_grad():
        for name in adopted:
            wanted[name].copy_(given[name])
    return AdoptionReport(
        adopted,
        left_out=tuple(name for name in state_dict if name not in given),
        newly_made=tuple(name for name in own if name not in wanted),
    )


def _module_names(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Names of modules, without a dot at their ends; each is there."""
    modules = dict(model.named_modules())
    found = tuple(name.removesuffix(".") for name in names)
    for name in found:
        if not name or name not in modules:
            raise TrainingError(
                f"{type(model).__name__} has no module {name!r} to leave out: expected one of "
                f"{', '.join(child for child, _ in model.named_children())}, or a part of one"
            )
    return found


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or bool(tensor.isfinite().all())


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
    """Name the top-level modules of some tensors, and an inserted FA module by its layer."""
    parts = (name.split(".") for name in names)
    return ", ".join(dict.fromkeys(".".join(p[:2]) if p[1] == "fa" else p[0] for p in parts))
