"""Adoption: a trained ResNet's weights in another network, frozen while its new modules learn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
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
    """

    replaced: ClassVar[tuple[str, ...]] = ()
    """How names of a ResNet's tensors begin that have no place in this network."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    @abstractmethod
    def new_modules(self) -> tuple[nn.Module, ...]:
        """The modules that no ResNet has; all others' tensors can be adopted."""

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the new modules."""
        for module in self.new_modules():
            yield from module.parameters()

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
    """Tensors of the ResNet that have no place in the model."""
    newly_made: tuple[str, ...]
    """Tensors of the model that the ResNet cannot give, as they were initialised."""

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


def adopt_weights(model: AdoptingModel, state_dict: Mapping[str, Tensor]) -> AdoptionReport:
    """Copy a trained ResNet's weights into all tensors of a model that are not new.

    Source: section 4.2, equation 6: layer2 to layer4 and the fully connected layer.

    Args:
        model: Changed in place; untouched if an error is raised.
        state_dict: A ResNet's tensors by torchvision's names (``PixelResNet`` has the same), of the
            depths, width and classes of the model.

    Returns:
        What was adopted, left out and newly made.

    Raises:
        TrainingError: A tensor is missing, has another shape, or has no place in the model although
            nothing new stands there.
    """
    own = model.state_dict()
    new = set(model.new_modules())
    new_prefixes = tuple(f"{name}." for name, module in model.named_modules() if module in new)
    wanted = {name: own[name] for name in own if not name.startswith(new_prefixes)}
    given = {name: state_dict[name] for name in state_dict if not name.startswith(model.replaced)}

    mismatches = [
        f"{name}: expected {_shape(tensor)}, got {_shape(given.get(name))}"
        for name, tensor in wanted.items()
        if _shape(tensor) != _shape(given.get(name))
        and not (name.endswith(_OPTIONAL) and name not in given)
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
            + "\nGive the weights of a ResNet of the same depths, width and number of classes."
        )

    adopted = tuple(name for name in wanted if name in given)
    with torch.no_grad():
        for name in adopted:
            wanted[name].copy_(given[name])
    return AdoptionReport(
        adopted,
        left_out=tuple(name for name in state_dict if name not in given),
        newly_made=tuple(name for name in own if name not in wanted),
    )


def _shape(value: object) -> str:
    match value:
        case Tensor():
            return str(tuple(value.shape))
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"


def _modules(names: tuple[str, ...]) -> str:
    """Name the top-level modules of some tensors, and an inserted FA module by its layer."""
    parts = (name.split(".") for name in names)
    return ", ".join(dict.fromkeys(".".join(p[:2]) if p[1] == "fa" else p[0] for p in parts))
