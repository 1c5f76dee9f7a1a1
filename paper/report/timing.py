"""What classifying one sample takes: time on this machine, and Table 2's sizes."""

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchinfo

from latentset.train.models.build import build_network
from latentset.train.models.networks import LatentNetwork, Network

WARM_UP = 5
"""Passes of each network before the clock starts."""

LEAST, MOST, ENOUGH_S = 10, 200, 5.0
"""Passes of each network that are timed: at least, at most, and none more after so many seconds."""

Networks = Sequence[tuple[Network, int]]
"""A resolved recipe's ``model`` and the side of its input, positions or pixels, each."""


@dataclass(frozen=True)
class Cost:
    """What one sample costs."""

    inference_ms: float | None
    """Median time of a forward pass of one sample, ms; None where it was not to be measured."""
    passes: int
    """Passes that were timed."""
    pass_mb: float
    """Features of a forward and backward pass, MB (torchinfo's ``total_output_bytes``)."""
    parameters: int
    """Parameters."""
    mult_adds: int
    """Multiplications with additions of a forward pass."""


def measure_costs(networks: Networks, *, timing: bool) -> list[Cost]:
    """Measure networks.

    Their passes take turns, so that what else the machine does falls on all of them.

    Args:
        networks: The networks.
        timing: Measure the time too.

    Returns:
        Their costs.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models, inputs, costs = [], [], []
    for network, size in networks:
        model = build_network(network).to(device).eval()
        channels = network.channels or 0 if isinstance(network, LatentNetwork) else 3
        tensors = [torch.randn(1, channels, size, size, device=device) for _ in model.inputs]
        found = torchinfo.summary(model, input_data=tensors, device=device, mode="eval", verbose=0)
        models.append(model)
        inputs.append(tensors)
        costs.append(
            Cost(
                inference_ms=None,
                passes=0,
                pass_mb=found.total_output_bytes / 1e6,
                parameters=found.total_params,
                mult_adds=found.total_mult_adds,
            )
        )
    if not timing:
        return costs
    times = _time(models, inputs)
    return [
        replace(cost, inference_ms=1000 * statistics.median(own), passes=len(own))
        for cost, own in zip(costs, times, strict=True)
    ]


@torch.inference_mode()
def _time(
    models: Sequence[torch.nn.Module], inputs: Sequence[list[torch.Tensor]]
) -> list[list[float]]:
    """Seconds of each pass, from the input on the device to the logits being there."""
    for model, tensors in zip(models, inputs, strict=True):
        for _ in range(WARM_UP):
            model(*tensors)
    times: list[list[float]] = [[] for _ in models]
    while waiting := [k for k, own in enumerate(times) if not _is_enough(own)]:
        for k in waiting:
            _wait(inputs[k][0])
            began = time.perf_counter()
            models[k](*inputs[k])
            _wait(inputs[k][0])
            times[k].append(time.perf_counter() - began)
    return times


def _is_enough(times: list[float]) -> bool:
    return len(times) >= LEAST and (len(times) >= MOST or sum(times) >= ENOUGH_S)


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def describe_machine() -> str:
    """Say what times are of.

    Returns:
        Such as ``CPU (AMD EPYC), 2 threads, PyTorch 2.10.0``.
    """
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    threads = torch.get_num_threads()
    plural = "s" if threads > 1 else ""
    return f"CPU ({_cpu()}), {threads} thread{plural}, PyTorch {torch.__version__}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
