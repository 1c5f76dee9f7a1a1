"""Poolings: from a feature map to one value a channel, for the channel attention."""

import torch
from torch import Tensor, nn


class AttentionPooling(nn.Module):
    """Pools each channel over the positions, with weights that the feature map itself gives.

    f_C(c) = sum_{i,j} k(i,j) f(c,i,j), k = softmax over all (i,j) of conv1x1(f)

    Source: section 4.1, equation 5; GCNet's global context block. Not in the paper: the bias, which
    softmax takes out again.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> float (B, C)."""
        k = self.conv(f).flatten(1).softmax(dim=1)  # (B, H*W)
        return torch.einsum("bcp,bp->bc", f.flatten(2), k.to(f.dtype))


class AveragePooling(nn.Module):
    """The mean of each channel, f_C(c) = 1/(H W) sum_{i,j} f(c,i,j).

    Source: section 5.7, "CAU Pooling Function" avg; Table 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> float (B, C)."""
        return f.mean(dim=(2, 3))


class MaxPooling(nn.Module):
    """The greatest value of each channel, f_C(c) = max_{i,j} f(c,i,j).

    Source: section 5.7, "CAU Pooling Function" max; Table 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> float (B, C)."""
        return f.amax(dim=(2, 3))
