"""One step of training or evaluation: a batch as it is stored, to loss and accuracy."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Header
from latentset.train.data.inputs import Input, make_input
from latentset.train.data.reader import Batch
from latentset.train.models import AdoptingModel
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.loss import classification_loss, mix, mixup_share
from latentset.train.run.run_files import RESUME

Tensors = tuple[Tensor, ...] | list[Tensor]

TOP = 5
"""k of the second accuracy; the number of classes where that is smaller."""


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Any], None]:
    """Make what AveragedModel averages by: torch's own, but counters are taken as they are.

    Args:
        decay: Share that stays, a step.

    Returns:
        A function of averaged tensors, current tensors, both of one type, and the number of steps.
    """
    average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(averaged: Tensors, current: Tensors, steps: Any) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, steps)
            return
        for own, tensor in zip(averaged, current, strict=True):
            own.copy_(tensor)

    return update


class Classifier(LightningModule):
    """A network, what it is fed, its loss and its optimiser.

    Args:
        network: The network.
        recipe: The resolved recipe.
        header: The store's header.
    """

    def __init__(self, network: AdoptingModel, recipe: Recipe, header: Header) -> None:
        super().__init__()
        self.network = network
        self.input: Input = make_input(network.inputs, recipe, header)
        self._recipe = recipe
        self.average: AveragedModel | None = None
        if decay := recipe.schedule.ema_decay:
            self.average = AveragedModel(
                network, multi_avg_fn=moving_average(decay), use_buffers=True
            )
            self.average.requires_grad_(False)
        classes = recipe.model.num_classes or 0
        # A loss that is not a number is to be seen, not left out of the mean. With "disable"
        # MeanMetric takes no notice of weights (torchmetrics 1.9), so it is given none.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.train_top1 = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_top1 = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_top5 = MulticlassAccuracy(
            classes, top_k=min(TOP, classes), average="micro", validate_args=False
        )
        for metric in (self.train_loss, self.train_top1):
            metric.persistent(True)  # part of the state of a run that is saved within an epoch

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    def forward(self, batch: Batch) -> Tensor:
        """Classify.

        Args:
            batch: On the module's device.

        Returns:
            Logits, float32 (B, classes).
        """
        logits: Tensor = self.evaluated(*self.input(batch))
        return logits.float()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch.

        Args:
            batch: The batch, on the device.
            batch_index: Not used.

        Returns:
            The loss, a scalar.
        """
        recipe, share = self._recipe, 1.0
        inputs: Iterable[Tensor] = self.input(batch)
        if alpha := recipe.schedule.mixup:
            first = int(batch.samples[0])
            share = mixup_share(alpha, seed=recipe.seed, epoch=self.current_epoch, sample=first)
            inputs = (mix(values, share) for values in inputs)
        logits = self.network(*inputs).float()
        loss = classification_loss(
            logits,
            batch.labels,
            label_smoothing=recipe.schedule.label_smoothing,
            share=share,
            teacher=batch.teacher,
            distill=recipe.distill,
        )
        self.train_loss(loss.detach())  # all batches have the same size
        self.train_top1(logits, batch.labels)
        self.log("step/loss", loss, on_step=True, on_epoch=False)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True)
        return loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Look whether the state of a run is one of this network.

        Args:
            checkpoint: Lightning's, which is loaded next.

        Raises:
            TrainingError: Its tensors have other names or shapes.
        """
        saved, own = checkpoint["state_dict"], self.state_dict()
        differ = sorted(
            name
            for name in saved.keys() | own.keys()
            if name not in saved or name not in own or saved[name].shape != own[name].shape
        )
        if differ:
            raise TrainingError(
                f"{RESUME} is of another network: {len(differ)} tensors differ in name or shape, "
                f"{differ[0]} first; was it copied here? Remove it, and the run begins anew"
            )

    def on_train_epoch_start(self) -> None:
        """Begin the figures anew; an epoch that is taken up in its middle goes on with them."""
        self.train_loss.reset()
        self.train_top1.reset()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step; the moving average follows.

        Args:
            *args: Lightning's.
            **kwargs: Lightning's.
        """
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Figures of one batch.

        Args:
            batch: The batch, on the device.
            batch_index: Not used.

        Returns:
            Logits, float32 (B, classes).
        """
        logits: Tensor = self(batch)
        self.val_loss(F.cross_entropy(logits, batch.labels, reduction="none"))
        self.val_top1(logits, batch.labels)
        self.val_top5(logits, batch.labels)
        for name in ("loss", "top1", "top5"):
            metric = getattr(self, f"val_{name}")
            self.log(f"val/{name}", metric, on_step=False, on_epoch=True)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser: one group for the new modules, one for the adopted."""
        schedule = self._recipe.schedule
        new, adopted = schedule.rates(0)
        return torch.optim.SGD(
            [
                {"params": list(self.network.new_parameters()), "lr": new, "name": "new"},
                {
                    "params": list(self.network.adopted_parameters()),
                    "lr": adopted,
                    "name": "adopted",
                },
            ],
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )
