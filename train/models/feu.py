"""FEU: the feature enhancement unit, a residual block of cascaded convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.blocks import initialise_convolutions


class FEU(nn.Module):
    r"""Enhances features across channels and neighbours, by n 3x3 convolutions in a bottleneck.

    Source: section 4.1; figure 4b; Table 2, as far as it decides (docs/models.md).

    ::

        f~ -> conv1x1 C->m -> n times conv3x3 m->m -> conv1x1 m->out -> (+) -> ReLU
         \_____________________ skip ________________________________/

        m = out / 4, at least 1; conv = convolution without bias, batch norm, ReLU;
        skip = identity where C = out, else 1x1 convolution and batch norm
    """

    def __init__(self, in_channels: int, out_channels: int, n: int) -> None:
        super().__init__()
        if n < 1:
            raise RecipeError(f"an FEU has at least 1 block of 3x3 convolutions, got n = {n}")
        m = max(1, out_channels // 4)
        self.blocks = nn.Sequential(
            conv_block(in_channels, m, kernel_size=1),
            *(conv_block(m, m, kernel_size=3) for _ in range(n)),
            conv_block(m, out_channels, kernel_size=1),
        )
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        initialise_convolutions(self)

    @torch.no_grad()
    def begin_near_identity(self) -> None:
        """Let the blocks add a tenth of what they would, where the skip is the identity."""
        if isinstance(self.skip, nn.Identity):
            scale, _ = list(self.blocks.parameters())[-2:]  # of the last batch norm
            scale.fill_(0.1)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W), at least 0."""
        return F.relu(self.blocks(f) + self.skip(f), inplace=True)


def conv_block(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Sequential:
    """The paper's convolutional block: convolution without bias, batch norm, ReLU; same size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
