"""CAU: the channel-wise attention unit, an affine transform of every channel."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.pooling import AttentionPooling

MakePooling = Callable[[int], nn.Module]
"""From a number of channels C to a module, float (B, C, H, W) -> float (B, C)."""


def fc_bottleneck(channels: int, r: int) -> nn.Module:
    """FC2 after ReLU after LN after FC1 of equations 3 and 4: float (B, C) -> float (B, C).

    At least 2 values are between them: layer norm makes a constant of one, and r = 16 would leave
    none of sigma_hat's 4 channels.
    """
    if r < 1 or channels < 2:
        raise RecipeError(
            f"a CAU of {channels} channels cannot have r = {r}: expected at least 2 channels and "
            "r of at least 1"
        )
    reduced = max(2, channels // r)
    return nn.Sequential(
        nn.Linear(channels, reduced),
        nn.LayerNorm(reduced),
        nn.ReLU(inplace=True),
        nn.Linear(reduced, channels),
    )


class CAU(nn.Module):
    """Scales and shifts each channel, by a weight and a bias computed from the whole feature map.

    Source: section 4.1, equations 2 to 5; figure 4b. With another pooling: section 5.7, "CAU
    Pooling Function" max and avg.

    ::

        f~ = w * f + b                                          (2)
        w  = sigmoid(FC2_w(ReLU(LN(FC1_w(f_C^w)))))             (3)   FC1: C -> C/r
        b  =         FC2_b(ReLU(LN(FC1_b(f_C^b))))              (4)   FC2: C/r -> C
        f_C^w, f_C^b: two independent attention poolings of f   (5)

    Not in the paper: C / r is rounded down and at least 2; layers start as PyTorch's do, with w
    near 1/2 and b near 0.
    """

    def __init__(
        self,
        channels: int,
        r: int = 16,
        *,
        pooling: MakePooling = AttentionPooling,
        fc: Callable[[int, int], nn.Module] = fc_bottleneck,
    ) -> None:
        super().__init__()
        self.pool_w = pooling(channels)
        self.pool_b = pooling(channels)
        self.fc_w = fc(channels, r)
        self.fc_b = fc(channels, r)

    @torch.no_grad()
    def begin_near_identity(self) -> None:
        """Set the last layers so that w is near 1 (0.98) and b near 0, whatever f is."""
        for fc, bias in ((self.fc_w, 4.0), (self.fc_b, 0.0)):
            weights, biases = list(fc.parameters())[-2:]
            weights.mul_(0.1)
            biases.fill_(bias)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> f~, of the same shape."""
        w: Tensor = self.fc_w(self.pool_w(f)).sigmoid()  # (B, C)
        b: Tensor = self.fc_b(self.pool_b(f))  # (B, C)
        return w[:, :, None, None] * f + b[:, :, None, None]
