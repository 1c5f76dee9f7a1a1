"""The loss: cross entropy, and what can be added to it (smoothing, mixup, a teacher)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentset.train.data.order import MIXUP, random_bits
from latentset.train.recipe.recipe import Distill


def mixup_weight(alpha: float, *, seed: int, epoch: int, sample: int) -> float:
    """Draw the weight that each input keeps of itself, 0.5 to 1, from Beta(alpha, alpha).

    A function of its key, as order and crops are; ``sample`` is the batch's first.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond empirical risk minimization", 2018.
    """
    key = int(random_bits(MIXUP, seed, epoch, sample)[0])
    weight = float(np.random.Generator(np.random.PCG64(key)).beta(alpha, alpha))
    return max(weight, 1 - weight)


def mix(values: Tensor, weight: float) -> Tensor:
    """Mix each entry of a batch, float (B, ...), with the one before it."""
    return values.lerp(values.roll(1, 0), 1 - weight)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: float = 1.0,
    teacher: Tensor | None = None,
    distill: Distill | None = None,
) -> Tensor:
    """The loss that is minimised, in nats (formula: ``recipe.Distill``).

    ``logits`` are those of inputs mixed by ``weight`` (1 = not mixed); ``labels`` and ``teacher``,
    a teacher's logits, those of the inputs before they were mixed.
    """
    targets = labels
    if weight < 1:
        targets = mix(F.one_hot(labels, logits.shape[1]).to(logits.dtype), weight)
    loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if teacher is None or distill is None:
        return loss
    t = distill.temperature
    wanted = mix((teacher.to(logits.dtype) / t).softmax(dim=1), weight)
    divergence = F.kl_div((logits / t).log_softmax(dim=1), wanted, reduction="batchmean")
    return torch.lerp(loss, t**2 * divergence, distill.weight)
