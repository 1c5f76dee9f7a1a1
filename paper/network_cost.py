"""What networks cost: parameters, mult-adds and pass size as Table 2 counts them, and time."""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
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

WARM_UP = 5
"""Passes of each network before the clock starts."""

LEAST, MOST, ENOUGH_S = 10, 200, 5.0
"""Passes of each network that are timed: at least, at most; none starts after so many seconds."""

NETWORKS = (
    Setting("Networks", "resnet", "ResNet, Anchors 1 and 2", {"kind": "resnet"}),
    Setting("Networks", "cresnet", "cResNet", {"kind": "cresnet"}),
    Setting("Networks", "fa-cresnet", "FA-cResNet", {"kind": "fa-cresnet"}, default=True),
)
"""The networks of Table 1."""


class NetworkSize(Table):
    """How large a network is, for one sample."""

    parameters: int
    """Trainable parameters."""
    mult_adds: int
    """Multiplications (each with an addition) of a forward pass, in convolutions and fully
    connected layers."""
    pass_bytes: int
    """Bytes of the feature maps that layers with parameters make, and of as many gradients
    (torchinfo's ``total_output_bytes``)."""


def measure_size(network: Network, side: int | None = None) -> NetworkSize:
    """Count a resolved recipe's ``model``, without memory or time: on PyTorch's meta device.

    ``side`` is of its input, 28 positions or 224 pixels where None. Source: Table 2; torchinfo.
    """
    with torch.device("meta"):
        model = build_network(network)
        inputs = [torch.empty(_input_shape(network, side)) for _ in model.inputs]
    found = torchinfo.summary(model, input_data=inputs, device="meta", verbose=0)
    return NetworkSize(
        parameters=found.trainable_params,
        mult_adds=found.total_mult_adds,
        pass_bytes=found.total_output_bytes,
    )


def measure_settings(
    channels: int, num_classes: int, n: tuple[int, ...], depth: int
) -> Iterator[tuple[Setting, Network, NetworkSize]]:
    """Count the networks of Table 1 and all settings of Table 3, in the paper's order.

    ``n`` is the depth of the FEU in layer2 to layer4, where a setting has no other; ``depth`` that
    of the ResNet that they are made of.

    Raises:
        RecipeError: There is no network of these sizes.
    """
    counted: dict[Network, NetworkSize] = {}
    for setting in (*NETWORKS, *SETTINGS):
        network = _network(setting, channels, num_classes, n, depth)
        if network not in counted:
            counted[network] = measure_size(network)
        yield setting, network, counted[network]


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


def _input_shape(network: Network, side: int | None) -> tuple[int, int, int, int]:
    if isinstance(network, LatentNetwork):
        return 1, network.channels or 0, side or LATENT_SIDE, side or LATENT_SIDE
    return 1, 3, side or PIXEL_SIDE, side or PIXEL_SIDE


@torch.inference_mode()
def measure_times(networks: Sequence[tuple[Network, int]]) -> list[list[float]]:
    """Seconds of forward passes of one sample, for networks and the sides of their inputs.

    Their passes take turns, so that what else the machine does slows all of them down.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [build_network(network).to(device).eval() for network, _ in networks]
    inputs = [
        [torch.randn(_input_shape(network, side), device=device) for _ in model.inputs]
        for (network, side), model in zip(networks, models, strict=True)
    ]
    for model, tensors in zip(models, inputs, strict=True):
        for _ in range(WARM_UP):
            model(*tensors)
    times: list[list[float]] = [[] for _ in models]
    while waiting := [k for k, own in enumerate(times) if not _is_enough(own)]:
        for k in waiting:
            _wait(device)
            start = time.perf_counter()
            models[k](*inputs[k])
            _wait(device)
            times[k].append(time.perf_counter() - start)
    return times


def _is_enough(times: list[float]) -> bool:
    return len(times) >= LEAST and (len(times) >= MOST or sum(times) >= ENOUGH_S)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def describe_machine() -> str:
    """Device and version that were timed, such as ``CPU (AMD EPYC), 2 threads, PyTorch 2.10.0``."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    threads = torch.get_num_threads()
    plural = "s" if threads > 1 else ""
    return f"CPU ({_cpu_name()}), {threads} thread{plural}, PyTorch {torch.__version__}"


def _cpu_name() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(v.partition(":")[2].strip() for v in lines if v.startswith("model name"))
    return platform.machine()
