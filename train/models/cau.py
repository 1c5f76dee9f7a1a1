"""CAU: the channel-wise attention unit, an affine transform of every channel."""

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError


class AttentionPooling(nn.Module):
    """Pools each channel over the positions, with weights that the feature map itself gives.

    Source: section 4.1, equation 5; the pooling of GCNet's global context block.

    ::

        f_C(c) = sum_{i,j} k(i,j) f(c,i,j),    k = softmax over all (i,j) of conv1x1(f)

    Deviations: none known. The 1x1 convolution has a bias, as Table 2's parameters show, though
    softmax takes it out again: its gradient is zero.

    Args:
        channels: C of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, f: Tensor) -> Tensor:
        """Pool a feature map.

        Args:
            f: Float (B, C, H, W).

        Returns:
            Float (B, C).
        """
        k = self.conv(f).flatten(1).softmax(dim=1)  # (B, H*W)
        return torch.einsum("bcp,bp->bc", f.flatten(2), k.to(f.dtype))


class CAU(nn.Module):
    """Scales and shifts each channel, by a weight and a bias computed from the whole feature map.

    Source: section 4.1, equations 2 to 5; figure 4b.

    ::

        f~ = w * f + b                                          (2)
        w  = sigmoid(FC2_w(ReLU(LN(FC1_w(f_C^w)))))             (3)   FC1: C -> C/r
        b  =         FC2_b(ReLU(LN(FC1_b(f_C^b))))              (4)   FC2: C/r -> C
        f_C^w, f_C^b: two independent attention poolings of f   (5)

    Deviations: none known. Not stated in the paper: that C / r is rounded down, and that layers
    begin with PyTorch's default initialisation, at which w is near 1/2 and b near 0.

    Args:
        channels: C.
        r: Reduction ratio of the bottleneck of fully connected layers.

    Raises:
        RecipeError: C // r is below 2; layer norm makes a constant of a single value.
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        if r < 1 or channels // r < 2:
            raise RecipeError(
                f"a CAU of {channels} channels cannot have r = {r}: C // r must be at least 2 "
                f"for layer norm; choose r from 1 to {channels // 2}"
            )
        self.pool_w = AttentionPooling(channels)
        self.pool_b = AttentionPooling(channels)
        self.fc_w = fc_bottleneck(channels, channels // r)
        self.fc_b = fc_bottleneck(channels, channels // r)

    def forward(self, f: Tensor) -> Tensor:
        """Transform a feature map.

        Args:
            f: Float (B, C, H, W).

        Returns:
            f~, float (B, C, H, W).
        """
        w: Tensor = self.fc_w(self.pool_w(f)).sigmoid()  # (B, C)
        b: Tensor = self.fc_b(self.pool_b(f))  # (B, C)
        return w[:, :, None, None] * f + b[:, :, None, None]


def fc_bottleneck(channels: int, reduced: int) -> nn.Sequential:
    """FC2 after ReLU after LN after FC1 of equations 3 and 4.

    Args:
        channels: C, in and out.
        reduced: C / r, in between.

    Returns:
        A module, float (B, C) -> float (B, C).
    """
    return nn.Sequential(
        nn.Linear(channels, reduced),
        nn.LayerNorm(reduced),
        nn.ReLU(inplace=True),
        nn.Linear(reduced, channels),
    )
