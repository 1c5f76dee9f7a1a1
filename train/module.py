"""One step of training or evaluation: integers to latents, latents to loss and accuracy."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from latentset.train.crop import gather, gather_index
from latentset.train.models import CompressedNet
from latentset.train.reader import Batch
from latentset.train.recipe import Recipe

TOP = 5
"""k of the second accuracy; the number of classes where that is smaller."""


class Example(NamedTuple):
    """What a network and its loss take."""

    y_hat: Tensor
    """float32 (B, C, S, S), whole numbers."""
    sigma_hat: Tensor
    """float32 (B, C, S, S), standard deviations."""
    labels: Tensor
    """int64 (B,)."""


class LatentClassifier(LightningModule):
    """A network of latents, its loss and its optimiser.

    Args:
        network: The network.
        recipe: The resolved recipe.
        scale_table: sigma_hat of each scale index.
    """

    scale_table: Tensor

    def __init__(
        self, network: CompressedNet, recipe: Recipe, scale_table: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network = network
        self._recipe = recipe
        # An index beyond the table shows as a loss that is not a number, not as a wrong sigma.
        table = torch.full((256,), float("nan"))
        table[: len(scale_table)] = torch.tensor(scale_table)
        self.register_buffer("scale_table", table, persistent=False)
        classes = network.fc.out_features
        self.train_top1 = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_top1 = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_top5 = MulticlassAccuracy(
            classes, top_k=min(TOP, classes), average="micro", validate_args=False
        )

    def forward(self, example: Example) -> Tensor:
        """Classify.

        Args:
            example: Latents.

        Returns:
            Logits, float (B, classes).
        """
        logits: Tensor = self.network(example.y_hat, example.sigma_hat)
        return logits

    def dequantise(self, batch: Batch) -> Example:
        """Cut the crops out and turn integers into latents.

        Source: docs/store-spec.md, 3: the integers of y_hat are its values, and
        sigma_hat = scale_table[scale_index].

        Args:
            batch: On the module's device.

        Returns:
            What the network takes.
        """
        index = gather_index(batch.windows, self._recipe.data.size)
        order = (
            torch.channels_last if self._recipe.device.channels_last else torch.contiguous_format
        )
        y_hat = gather(batch.rows["y_hat"], index)
        scale_index = gather(batch.rows["scale_index"], index)
        sigma_hat = self.scale_table[scale_index.to(torch.int32)]
        return Example(
            y_hat.to(torch.float32, memory_format=order),
            sigma_hat.contiguous(memory_format=order),
            batch.labels,
        )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch.

        Args:
            batch: The batch, on the device.
            batch_index: Not used.

        Returns:
            Cross entropy, a scalar.
        """
        example = self.dequantise(batch)
        logits = self(example).float()
        loss = F.cross_entropy(logits, example.labels)
        self.train_top1(logits, example.labels)
        size = len(example.labels)
        self.log("step/loss", loss, on_step=True, on_epoch=False, batch_size=size)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Figures of one batch.

        Args:
            batch: The batch, on the device.
            batch_index: Not used.
        """
        example = self.dequantise(batch)
        logits = self(example).float()
        self.val_top1(logits, example.labels)
        self.val_top5(logits, example.labels)
        size = len(example.labels)
        self.log("val/loss", F.cross_entropy(logits, example.labels), batch_size=size)
        self.log("val/top1", self.val_top1, batch_size=size)
        self.log("val/top5", self.val_top5, batch_size=size)

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

    def on_train_epoch_start(self) -> None:
        """Set phase and learning rates: functions of the epoch, so a resumed run has them too."""
        schedule, epoch = self._recipe.schedule, self.current_epoch
        if epoch < schedule.frozen_epochs:
            self.network.freeze_adopted()
        else:
            self.network.unfreeze()
        for group, rate in zip(
            self.trainer.optimizers[0].param_groups, schedule.rates(epoch), strict=True
        ):
            group["lr"] = rate
            self.log(f"lr/{group['name']}", rate)
