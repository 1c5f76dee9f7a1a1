"""Lightning's trainer, set up the way every command of this package uses it."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn

from latentset.datasets.errors import RecipeError
from latentset.train.data.reader import Batch, LatentReader
from latentset.train.recipe.recipe import Device
from latentset.train.run.checkpoint import SafetensorsIO
from latentset.train.run.ranks import Ranks

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Lightning's words for a recipe's."""

ALONE = Ranks()

Result = TypeVar("Result")


class EpochLoader:
    """One epoch of a reader, in the form that Lightning iterates over.

    Args:
        reader: The reader.
        epoch: The epoch.
        first_batch: Batches that were learnt before the run was interrupted.
    """

    def __init__(self, reader: LatentReader, epoch: int, first_batch: int = 0) -> None:
        self._reader = reader
        self._epoch = epoch
        self._first_batch = first_batch

    def __len__(self) -> int:
        """Number of batches of the whole epoch; Lightning knows how many of them it has had."""
        return len(self._reader)

    def __iter__(self) -> Iterator[Batch]:
        """Read what is left of the epoch."""
        return self._reader.batches(self._epoch, self._first_batch)


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
        # Ours begins where the run stopped (EpochLoader).
        warnings.filterwarnings("ignore", r".*your dataloader is not resumable")
        yield


def make_trainer(
    device: Device, ranks: Ranks = ALONE, *, frozen: bool = False, **options: Any
) -> Trainer:
    """Make a Lightning trainer that says nothing of its own.

    Args:
        device: The recipe's table.
        ranks: The processes that train together; alone, also if torchrun has started this process.
        frozen: Some weights take part in no gradient until the second phase.
        **options: Further arguments of ``lightning.pytorch.Trainer``.

    Returns:
        The trainer.

    Raises:
        RecipeError: The device cannot do what is asked for.
    """
    cuda = uses_cuda(device)
    if device.sync_batchnorm and not cuda:
        raise RecipeError(
            "device.sync_batchnorm: PyTorch has it for GPUs only; set it to false, and each "
            "process uses the statistics of its own share"
        )
    # Tips, and lines about devices that are not there.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    plugins: list[Any] = [SafetensorsIO()]
    if ranks.ranks > 1:
        options["strategy"] = DDPStrategy(find_unused_parameters=frozen)
        options["sync_batchnorm"] = device.sync_batchnorm
    else:
        plugins.append(LightningEnvironment())
    with _without_noise():
        return Trainer(
            accelerator="gpu" if cuda else "cpu",
            devices=ranks.ranks_a_node,
            num_nodes=ranks.ranks // ranks.ranks_a_node,
            precision=PRECISIONS[device.precision],
            plugins=plugins,
            deterministic=device.deterministic,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **options,
        )


class StoppedBetweenSteps(KeyboardInterrupt):
    """Ctrl-C, taken before a step of training began: the state is whole."""


class StopBetweenSteps(Callback):
    """Ends training before its next step once Ctrl-C was pressed; a second Ctrl-C ends it at once.

    An exception out of the signal's handler would come anywhere, also where Python can but report
    and forget it (a generator that is closed, a weak reference's callback): the run would go on.
    """

    def __init__(self) -> None:
        self.pressed = False

    def press(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal.

        Args:
            number: The signal's.
            frame: Where it came.

        Raises:
            KeyboardInterrupt: It is the second one.
        """
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        # Not by print: the signal may have come within one.
        os.write(2, b"stopping after this step; Ctrl-C again stops at once\n")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look whether to end, unless the batch is a further part of a step."""
        if self.pressed and batch_idx % trainer.accumulate_grad_batches == 0:
            raise StoppedBetweenSteps

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Look whether to end; that of an epoch is finished first, so that nothing is lost."""
        if self.pressed and trainer.state.fn != TrainerFn.FITTING:
            raise KeyboardInterrupt


def run_lightning(trainer: Trainer, action: Callable[[], Result]) -> Result:
    """Run Lightning without its noise, and so that Ctrl-C comes out as KeyboardInterrupt.

    Lightning ends the process with status 1 instead, and leaves Ctrl-C ignored.

    Args:
        trainer: The trainer.
        action: What to run with it.

    Returns:
        Its result.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    stop, before = StopBetweenSteps(), signal.getsignal(signal.SIGINT)
    trainer.callbacks.append(stop)  # type: ignore[attr-defined]  # set by one of its parts
    # Python lets the main thread alone handle signals; a Ctrl-C that is ignored, as in a shell's
    # background jobs, or handled by the caller stays so.
    ours = threading.current_thread() is threading.main_thread()
    if ours and before is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop.press)
    try:
        with _without_noise():
            result = action()
        if stop.pressed:  # within the last batch
            raise KeyboardInterrupt
        return result
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
