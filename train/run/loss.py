"""The loss: cross entropy, and what can be added to it (smoothing, mixup, a teacher)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentset.train.data.order import MIXUP, random_bits
from latentset.train.recipe.recipe import Distill


def mixup_share(alpha: float, *, seed: int, epoch: int, sample: int) -> float:
    """Draw by how much a batch is mixed: a function of its key, as order and crops are.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond empirical risk minimization", 2018.
    Of share and 1 - share the larger is taken; which of two inputs is called the first is chance.

    Args:
        alpha: Parameter of Beta(alpha, alpha).
        seed: The recipe's seed.
        epoch: Number of the epoch.
        sample: Row of the batch's first sample in the store's table.

    Returns:
        The share that an input keeps of itself, 0.5 to 1.
    """
    key = int(random_bits(MIXUP, seed, epoch, sample)[0])
    share = float(np.random.Generator(np.random.PCG64(key)).beta(alpha, alpha))
    return max(share, 1 - share)


def mix(values: Tensor, share: float) -> Tensor:
    """Mix each entry of a batch with the one before it.

    Args:
        values: Float (B, ...).
        share: What it keeps of itself.

    Returns:
        Float (B, ...).
    """
    return values.lerp(values.roll(1, 0), 1 - share)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    share: float = 1.0,
    teacher: Tensor | None = None,
    distill: Distill | None = None,
) -> Tensor:
    """Compute the loss that is learnt from (formula: ``recipe.Distill``).

    Args:
        logits: Float (B, classes), of inputs mixed by ``share``.
        labels: int64 (B,), of the inputs before they were mixed.
        label_smoothing: Share of each label that is spread over all classes.
        share: As for :func:`mix`; 1 = not mixed.
        teacher: Float (B, classes), a teacher's logits of the inputs before they were mixed.
        distill: Weight and temperature of the teacher.

    Returns:
        A scalar, nats.
    """
    targets = labels
    if share < 1:
        targets = mix(F.one_hot(labels, logits.shape[1]).to(logits.dtype), share)
    loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if teacher is None or distill is None:
        return loss
    t = distill.temperature
    wanted = mix((teacher.to(logits.dtype) / t).softmax(dim=1), share)
    divergence = F.kl_div((logits / t).log_softmax(dim=1), wanted, reduction="batchmean")
    return torch.lerp(loss, t**2 * divergence, distill.weight)
