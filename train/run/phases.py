"""The paper's two phases, and the learning rates: which apply in an epoch."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from latentset.train.recipe.recipe import Schedule


class Phases(Callback):
    """Freezes the adopted weights in the first phase and sets the learning rates.

    Source: section 4.2, equations 8 to 13; section 5.3. Both are functions of the epoch and, where
    the first phase ends at a plateau, of the losses so far, which are part of the run's state.

    Args:
        schedule: The recipe's.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.frozen_epochs = schedule.frozen_epochs
        self._schedule = schedule
        self._best: float | None = None
        self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """What goes into the state of the run."""
        return {"frozen_epochs": self.frozen_epochs, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was seen before.

        Args:
            state_dict: From :meth:`state_dict`.
        """
        self.frozen_epochs = state_dict["frozen_epochs"]
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set phase and rates of an epoch that is taken up in its middle."""
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set phase and rates."""
        self._apply(trainer, pl_module)
        for group in trainer.optimizers[0].param_groups:
            pl_module.log(f"lr/{group['name']}", group["lr"], sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the first phase if the loss has reached its plateau."""
        if not self._schedule.plateau_epochs or trainer.current_epoch + 1 >= self.frozen_epochs:
            return
        loss = trainer.callback_metrics["val/loss"].item()
        if self._best is None or loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited == self._schedule.plateau_epochs:
            self.frozen_epochs = trainer.current_epoch + 1

    def _apply(self, trainer: Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch
        if epoch < self.frozen_epochs:
            pl_module.network.freeze_adopted()
        else:
            pl_module.network.unfreeze()
        rates = self._schedule.rates(epoch)
        for group, rate in zip(trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = rate
