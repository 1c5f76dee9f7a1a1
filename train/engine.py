"""Lightning's trainer, set up the way every command of this package uses it."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from latentset.datasets.errors import RecipeError
from latentset.train.checkpoint import SafetensorsIO
from latentset.train.reader import Batch, LatentReader
from latentset.train.recipe import Device

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Lightning's words for a recipe's."""

Result = TypeVar("Result")


class EpochLoader:
    """One epoch of a reader, in the form that Lightning iterates over.

    Args:
        reader: The reader.
        epoch: The epoch.
    """

    def __init__(self, reader: LatentReader, epoch: int) -> None:
        self._reader = reader
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._reader)

    def __iter__(self) -> Iterator[Batch]:
        """Read the epoch from its beginning."""
        return self._reader.batches(self._epoch)


class EpochBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1 as everywhere else here."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


def uses_cuda(device: Device) -> bool:
    """Decide where a run computes.

    Args:
        device: The recipe's table.

    Returns:
        Whether on a CUDA device.

    Raises:
        RecipeError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device.accelerator == "cuda" and not available:
        raise RecipeError(
            "device.accelerator: expected a CUDA device, found none; "
            "set device.accelerator=auto or cpu, or look at the driver with nvidia-smi"
        )
    return available and device.accelerator != "cpu"


@contextmanager
def _without_noise() -> Iterator[None]:
    """Leave out warnings of Lightning's that nobody can act on."""
    with warnings.catch_warnings():
        # Lightning 2.6 uses a class of torch's that torch 2.10 and later call deprecated.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        # Where Slurm's commands are, it asks for srun, which one device has no use for.
        warnings.filterwarnings("ignore", r".*The `srun` command is available")
        yield


def make_trainer(device: Device, **options: Any) -> Trainer:
    """Make a Lightning trainer that says nothing of its own.

    Args:
        device: The recipe's table.
        **options: Further arguments of ``lightning.pytorch.Trainer``.

    Returns:
        The trainer.
    """
    # Tips, and lines about devices that are not there.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with _without_noise():
        return Trainer(
            accelerator="gpu" if uses_cuda(device) else "cpu",
            devices=1,
            precision=PRECISIONS[device.precision],
            plugins=[SafetensorsIO()],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **options,
        )


def run_lightning(action: Callable[[], Result]) -> Result:
    """Run Lightning without its noise, and so that Ctrl-C comes out as KeyboardInterrupt.

    Lightning ends the process with status 1 instead, and leaves Ctrl-C ignored.

    Args:
        action: What to run.

    Returns:
        Its result.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _without_noise():
            return action()
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from end
        raise
