"""How large networks are: parameters, mult-adds and pass size, as Table 2 counts them."""

from collections.abc import Iterator
from typing import Any

import torch
import torchinfo
from pydantic import TypeAdapter, ValidationError

from latentset.datasets.errors import RecipeError
from latentset.paper.table3_settings import SETTINGS, Setting
from latentset.train.models.build import build_network
from latentset.train.models.networks import AnyNetwork, LatentNetwork, Network, Table

LATENT_SIDE, PIXEL_SIDE = 28, 224
"""Sides of the paper's inputs (section 5.3): positions, pixels."""

NETWORKS = (
    Setting("Networks", "resnet", "ResNet, Anchors 1 and 2", {"kind": "resnet"}),
    Setting("Networks", "cresnet", "cResNet", {"kind": "cresnet"}),
    Setting("Networks", "fa-cresnet", "FA-cResNet", {"kind": "fa-cresnet"}, default=True),
)
"""The networks of Table 1."""


class Size(Table):
    """How large one network is."""

    parameters: int
    """Trainable parameters."""
    mult_adds: int
    """Multiplications (each with an addition) of one sample's forward pass, in convolutions and
    fully connected layers."""
    pass_bytes: int
    """Bytes of the feature maps that layers with parameters give of one sample, and of as many
    gradients (torchinfo's ``total_output_bytes``)."""


class SizedSetting(Size):
    """How large one of the paper's networks is."""

    group: str
    """The experiment that it belongs to, as Table 3 heads it; ``Networks`` for Table 1's."""
    name: str
    """Its name in recipes and results."""
    title: str
    """Its name in the paper."""
    default: bool
    """Whether it is the paper's FA-cResNet."""
    assignments: tuple[str, ...]
    """What ``latentset train RECIPE --set`` is given, once each, to make it."""
    model: dict[str, Any]
    """The whole table ``model`` of a recipe that makes it."""


def measure(network: Network) -> Size:
    """Count a network, without memory or time: on PyTorch's meta device.

    Source: Table 2; torchinfo, which gives its figures.

    Args:
        network: A resolved recipe's ``model``.

    Returns:
        Its size, for one sample of 28x28 latents or 224x224 pixels.
    """
    with torch.device("meta"):
        model = build_network(network)
    shape = (
        (1, network.channels or 0, LATENT_SIDE, LATENT_SIDE)
        if isinstance(network, LatentNetwork)
        else (1, 3, PIXEL_SIDE, PIXEL_SIDE)
    )
    found = torchinfo.summary(
        model,
        input_data=[torch.empty(shape, device="meta") for _ in model.inputs],
        device="meta",
        verbose=0,
    )
    return Size(
        parameters=found.trainable_params,
        mult_adds=found.total_mult_adds,
        pass_bytes=found.total_output_bytes,
    )


def measure_settings(
    channels: int, num_classes: int, n: tuple[int, ...], depth: int
) -> Iterator[SizedSetting]:
    """Count the networks of Table 1 and all settings of Table 3.

    Args:
        channels: C of the codec.
        num_classes: Number of classes.
        n: Depth of the FEU in layer2 to layer4, where a setting does not say another.
        depth: The ResNet that they are made of.

    Yields:
        Each, in the paper's order.

    Raises:
        RecipeError: The sizes are not possible.
    """
    counted: dict[Network, Size] = {}
    for setting in (*NETWORKS, *SETTINGS):
        network = _network(setting, channels, num_classes, n, depth)
        if network not in counted:
            counted[network] = measure(network)
        yield SizedSetting(
            **counted[network].model_dump(),
            group=setting.group,
            name=setting.name,
            title=setting.title,
            default=setting.default,
            assignments=setting.assignments,
            model=network.model_dump(exclude_none=True),
        )


def _network(
    setting: Setting, channels: int, num_classes: int, n: tuple[int, ...], depth: int
) -> Network:
    kind = setting.model.get("kind", "fa-cresnet")
    given: dict[str, Any] = {"kind": kind, "num_classes": num_classes, "depth": depth}
    if kind not in ("resnet", "fa-resnet"):
        given["channels"] = channels
    if kind.startswith("fa-cresnet"):
        given["n"] = n
    adapter: TypeAdapter[Network] = TypeAdapter(AnyNetwork)
    try:
        return adapter.validate_python(given | setting.model)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}, got {item['input']!r}"
            for item in error.errors()
        )
        raise RecipeError(f"no {kind} of these sizes: {problems}") from error
