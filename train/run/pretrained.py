"""torchvision's own ResNet weights, by name: Anchor 1 on ImageNet, and a start for other data."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from latentset.datasets.errors import TrainingError
from latentset.train.models.blocks import PUBLISHED


def load_torchvision(name: str) -> dict[str, Tensor]:
    """Load weights of a ResNet that torchvision publishes, from its cache or else its server.

    The file is kept where torch.hub keeps all of its own (``$TORCH_HOME/hub/checkpoints``), its
    digest compared with the one in its name when it is downloaded, and only tensors are read.

    Source: section 5.2: on ImageNet, Anchor 1 is torchvision's pretrained ResNet-50.

    Args:
        name: As torchvision writes it, such as ``ResNet50_Weights.IMAGENET1K_V2``. Not
            ``DEFAULT``: it names other weights with each version.

    Returns:
        Tensors by torchvision's names, on the CPU; of 1000 classes.

    Raises:
        TrainingError: torchvision has no such weights, or they cannot be loaded.
    """
    known = _resnet_weights()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise TrainingError(
            f"torchvision has no weights {name!r} of a ResNet: expected one of {', '.join(known)}"
            + (f"; did you mean {close[0]}?" if close else "")
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


def _resnet_weights() -> Mapping[str, Any]:
    """Torchvision's weights of all networks that ``PixelResNet`` can be, by their names."""
    return {
        str(weights): weights
        for depth in PUBLISHED
        for weights in get_model_weights(f"resnet{depth}")
    }
