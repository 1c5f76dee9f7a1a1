"""The processes that train together, by the variables of torchrun, and the device of each."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from latentset.datasets.errors import RecipeError
from latentset.train.recipe.recipe import Device, Recipe


@dataclass(frozen=True)
class World:
    """The processes of a run: one a GPU, or one in all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "World":
        """Read the variables that torchrun sets, if any."""
        names = ("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")
        return cls(*(int(os.environ.get(name, default)) for name, default in names))

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    def check(self, recipe: Recipe) -> None:
        """Refuse a batch that cannot be divided evenly, or whose micro-batches mixup cannot mix."""
        parts = self.world_size * recipe.schedule.accumulate
        if recipe.data.batch_size % parts:
            raise RecipeError(
                f"data.batch_size: expected a multiple of {parts} ({self.world_size} processes, "
                f"schedule.accumulate={recipe.schedule.accumulate}), got {recipe.data.batch_size}; "
                "every process must get the same number of samples"
            )
        if recipe.schedule.mixup and recipe.data.batch_size == parts:
            raise RecipeError(
                f"schedule.mixup: expected at least 2 samples in each of {parts} micro-batches, "
                f"got 1 (data.batch_size={recipe.data.batch_size}): each sample is mixed with "
                "another of its micro-batch; raise data.batch_size, or set schedule.mixup=0"
            )

    def connect(self, device: torch.device) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes."""
        total = values.clone()
        if self.world_size > 1:
            distributed.all_reduce(total)
        return total

    def copy_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's buffers (statistics of batch norm)."""
        if self.world_size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def disconnect(self) -> None:
        """Leave the other processes."""
        if self.world_size > 1:
            distributed.destroy_process_group()


def select_device(settings: Device, local_rank: int = 0) -> torch.device:
    """Choose where a process computes, and apply ``deterministic``."""
    available = torch.cuda.is_available()
    if settings.accelerator == "cuda" and not available:
        raise RecipeError(
            "device.accelerator: expected a CUDA device, found none; "
            "set device.accelerator=auto or cpu, or check the driver with nvidia-smi"
        )
    on_cuda = available and settings.accelerator != "cpu"
    if settings.sync_batchnorm and not on_cuda:
        raise RecipeError(
            "device.sync_batchnorm: PyTorch has it for GPUs only; set it to false, and each "
            "process uses the statistics of its own samples"
        )
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(settings.deterministic)
    return torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
