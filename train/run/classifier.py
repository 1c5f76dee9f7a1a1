"""A network with what it is fed: from a batch as it is stored to logits and their figures."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from latentset.datasets.store import Header, Store
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.data.crop import CentralCrop, Crop, RandomCrop, WholeGrid
from latentset.train.data.inputs import Input, make_input
from latentset.train.data.split import Split
from latentset.train.models.pretrained import PretrainableModel
from latentset.train.recipe.recipe import Device, Recipe
from latentset.train.run.world import select_device

Tensors = tuple[Tensor, ...] | list[Tensor]

TOP = 5


class Classifier(nn.Module):
    """A network, what makes its inputs of a batch, and the moving average of its weights."""

    def __init__(self, network: PretrainableModel, recipe: Recipe, header: Header) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.input: Input = make_input(network.inputs, recipe, header)
        self.average: AveragedModel | None = None
        if recipe.schedule.ema_decay:
            self.average = AveragedModel(
                network, multi_avg_fn=_moving_average(recipe.schedule.ema_decay), use_buffers=True
            )
            self.average.requires_grad_(False)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    def update_average(self) -> None:
        """Let the moving average, if any, follow a step."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the evaluated network, float32 (B, classes); the batch is on the device."""
        with autocast(self.recipe.device, batch.labels.device):
            logits: Tensor = self.evaluated(*self.input(batch))
        return logits.float()

    def optimizer(self) -> torch.optim.SGD:
        """SGD with two groups of parameters: the new modules', and the pretrained ones'."""
        schedule = self.recipe.schedule
        parameters = self.network.new_parameters(), self.network.pretrained_parameters()
        groups = [
            {"params": list(each), "lr": rate, "name": name}
            for each, rate, name in zip(
                parameters, schedule.rates(0), ("new", "adopted"), strict=True
            )
        ]
        momentum, decay = schedule.momentum, schedule.weight_decay
        return torch.optim.SGD(groups, momentum=momentum, weight_decay=decay)


def autocast(settings: Device, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision, where the recipe asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")


def open_reader(
    store: Store, split: Split, recipe: Recipe, *, training: bool, **options: Any
) -> LatentReader:
    """Open a reader of a recipe's batches; ``options`` are LatentReader's.

    In training: random order, random crops, no incomplete last batch; else the table's order, the
    evaluation's crops, every sample.
    """
    data = recipe.data
    crop: Crop = CentralCrop(data.eval_share) if data.eval_crop == "central" else WholeGrid()
    if training:
        crop = RandomCrop(data.crop_scale, data.crop_ratio, data.flip)
    return LatentReader(
        store,
        split,
        batch_size=data.batch_size,
        seed=recipe.seed,
        shuffle=training,
        drop_last=training,
        crop=crop,
        resize=data.resize if "pixels" in store.header.arrays else None,
        read_ahead=data.read_ahead,
        **options,
    )


def predict_split(
    classifier: Classifier, recipe: Recipe, store: Store, split: Split, *, check_shards: bool
) -> Iterator[tuple[Batch, Tensor]]:
    """As ``predict``, of a store, in this process alone, on the recipe's device."""
    device = select_device(recipe.device)
    reader = open_reader(
        store,
        split,
        recipe,
        training=False,
        pin_memory=device.type == "cuda",
        names=classifier.input.names,
        check_shards=check_shards,
    )
    yield from predict(classifier.to(device), reader, device)


def predict(
    classifier: Classifier, reader: LatentReader, device: torch.device
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield a split's batches, on the device, with their logits."""
    classifier.eval()
    with closing(reader.batches(0)) as batches:
        for batch in batches:
            moved = batch.to(device)
            with torch.inference_mode():
                logits = classifier(moved)
            yield moved, logits


def score(logits: Tensor, labels: Tensor) -> Tensor:
    """Figures of predictions: float64 (4,): summed cross entropy in nats, top-1, top-5, samples."""
    ranked = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == labels[:, None]
    losses = F.cross_entropy(logits, labels, reduction="none")
    right = logits.argmax(dim=1) == labels
    sums = losses.double().sum(), right.sum(), ranked.sum(), torch.ones_like(labels).sum()
    return torch.stack([value.double() for value in sums])


def _moving_average(decay: float) -> Any:
    """Torch's own moving average, but counters are copied."""
    average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(averaged: Tensors, current: Tensors, steps: Any) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, steps)
        else:
            torch._foreach_copy_(averaged, current)

    return update
