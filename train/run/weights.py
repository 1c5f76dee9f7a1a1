"""The pretrained weights that a run starts from: files, other runs, or torchvision's by name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from latentset.datasets.errors import RecipeError, TrainingError, suggest
from latentset.datasets.sources.devkit import WNID
from latentset.train.models.blocks import PUBLISHED
from latentset.train.recipe.recipe import FROM_RECIPE, TORCHVISION
from latentset.train.run.checkpoint import load_resnet
from latentset.train.run.run_files import BEST, LAST

IMAGENET_CLASSES = 1000
NO_FC = """--set 'weights.leave_out=["fc"]'"""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())  # bfloat16 too
    return found.hexdigest()


def find_weights(adopt: str, classes: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Read what a recipe's ``weights.adopt`` names: tensors by torchvision's names, on the CPU.

    ``classes`` are the store's, where fc is used too: weights that record others are refused.
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
            _check_imagenet(adopt, classes)  # before anything is downloaded
        return load_torchvision(adopt.removeprefix(TORCHVISION))
    if Path(adopt).is_dir():
        raise TrainingError(
            f"weights.adopt: expected a file, got the folder {adopt}; a run's weights are its "
            f"{BEST}, or {LAST}"
        )
    tensors, record = load_resnet(Path(adopt))
    if classes is not None and record:
        _check_classes(adopt, record.store.classes, classes)
    return tensors


def load_torchvision(name: str) -> dict[str, Tensor]:
    """Load a ResNet's published weights, such as ``ResNet50_Weights.IMAGENET1K_V2``.

    From the cache of torch.hub (``$TORCH_HOME/hub/checkpoints``), or torchvision's server. Not
    ``DEFAULT``, which names other weights with each version.
    """
    known: dict[str, Any] = {
        str(weights): weights
        for depth in PUBLISHED
        for weights in get_model_weights(f"resnet{depth}")
    }
    if name not in known:
        raise TrainingError(
            f"torchvision has no weights {name!r} of a ResNet: expected one of {', '.join(known)}"
            + suggest(name, list(known))
        )
    weights = known[name]
    try:
        loaded: dict[str, Tensor] = weights.get_state_dict(
            map_location="cpu", check_hash=True, weights_only=True
        )
    except Exception as error:  # whatever a network, a disk or torch's readers raise
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
        raise TrainingError(
            f"torchvision's weights {name} cannot be loaded: {error}. Fetch {weights.url} by other "
            f"means and put it at {cached}, in place of a broken one"
        ) from error
    return loaded


def _check_imagenet(adopt: str, classes: tuple[str, ...]) -> None:
    """Refuse classes that are not ImageNet's in torchvision's order, as far as names show."""
    wnids = sorted(name for name in classes if WNID.fullmatch(name))
    if len(classes) == IMAGENET_CLASSES and list(classes) == wnids:
        return
    shown = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    raise TrainingError(
        f"weights.adopt: {adopt} has {IMAGENET_CLASSES} classes in the order of their WNIDs "
        f"(n01440764, …), the store has {len(classes)}: {shown}; exclude fc ({NO_FC}), or encode "
        "images of ImageNet in folders named by WNIDs"
    )


def _check_classes(adopt: str, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if found == wanted:
        return
    if len(found) == len(wanted):
        k = next(k for k, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        what = f"class {k} is {found[k]!r}, the store's is {wanted[k]!r}"
    else:
        what = f"{len(found)} classes, the store has {len(wanted)}"
    raise TrainingError(
        f"weights.adopt: {adopt} was trained on other classes: {what}; use weights that were "
        f"trained on the same classes in the same order, or exclude fc ({NO_FC})"
    )
