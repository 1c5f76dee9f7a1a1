"""The weights that a run adopts: found, and known again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.sources.devkit import WNID
from latentset.train.recipe.recipe import FROM_RECIPE, TORCHVISION
from latentset.train.run.checkpoint import load_resnet, read_record
from latentset.train.run.pretrained import load_torchvision
from latentset.train.run.run_files import BEST, LAST

IMAGENET_CLASSES = 1000
"""Classes of all of torchvision's weights."""

NO_FC = """--set 'weights.leave_out=["fc"]'"""
"""What leaves out fc on the command line."""


@dataclass(frozen=True)
class FoundWeights:
    """Weights of a pixel-domain ResNet."""

    where: str
    """The recipe's ``weights.adopt``."""
    tensors: dict[str, Tensor]
    """By torchvision's names, on the CPU."""

    @property
    def sha256(self) -> str:
        """Digest of the tensors."""
        return digest(self.tensors)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of tensors: of their names, types, shapes and values.

    Args:
        tensors: By name, on the CPU.

    Returns:
        The digest in hexadecimal.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())  # bfloat16 too
    return found.hexdigest()


def find_weights(adopt: str, classes: tuple[str, ...] | None = None) -> FoundWeights:
    """Read the weights that a recipe adopts.

    Args:
        adopt: The recipe's ``weights.adopt``.
        classes: Those of the store that is learnt from, whose logits are adopted too; None where fc
            is left out.

    Returns:
        The weights.

    Raises:
        RecipeError: They are to come from another recipe's run, which nobody has looked for.
        TrainingError: There are none, they cannot be read, or their logits mean other classes, or
            the same in another order, as far as anybody says: files of our runs do, and
            torchvision's are ImageNet's, whose names are WNIDs.
    """
    if adopt.startswith(FROM_RECIPE):
        name = adopt.removeprefix(FROM_RECIPE)
        raise RecipeError(
            f"weights.adopt: these are the weights of a run of {name}: train that first, then give "
            f"its {BEST}, or {LAST} where it has no validation split "
            "(--set weights.adopt=FILE); latentset sweep does both"
        )
    if adopt.startswith(TORCHVISION):
        if classes is not None:
            _check_imagenets(adopt, classes)  # before anything is downloaded
        return FoundWeights(adopt, load_torchvision(adopt.removeprefix(TORCHVISION)))
    if Path(adopt).is_dir():
        raise TrainingError(
            f"weights.adopt: expected a file, got the folder {adopt}; a run's weights are its "
            f"{BEST}, or {LAST}"
        )
    record = read_record(Path(adopt))
    if classes is not None and record:
        _check_classes(adopt, record.store.classes, classes)
    return FoundWeights(adopt, load_resnet(Path(adopt)))


def _check_imagenets(adopt: str, classes: tuple[str, ...]) -> None:
    """Refuse classes that are not ImageNet's in torchvision's order, as far as their names say."""
    wnids = sorted(name for name in classes if WNID.fullmatch(name))
    if len(classes) == IMAGENET_CLASSES and list(classes) == wnids:
        return
    shown = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    raise TrainingError(
        f"weights.adopt: {adopt} answers {IMAGENET_CLASSES} classes in the order of their WNIDs "
        f"(n01440764, …), the store has {len(classes)}: {shown}; leave out fc ({NO_FC}), or encode "
        "images of ImageNet in folders named by WNIDs"
    )


def _check_classes(adopt: str, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Refuse logits that mean other classes, or the same in another order."""
    if found == wanted:
        return
    if len(found) == len(wanted):
        k = next(k for k, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        what = f"class {k} is {found[k]!r}, the store's is {wanted[k]!r}"
    else:
        what = f"{len(found)} classes, the store has {len(wanted)}"
    raise TrainingError(
        f"weights.adopt: {adopt} was trained on other classes: {what}; adopt weights that were "
        f"trained on the same classes in the same order, or leave out fc ({NO_FC})"
    )
