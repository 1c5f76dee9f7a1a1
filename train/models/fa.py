"""FA, the feature adaptation module, and those that differ from it in one thing (Table 3)."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from latentset.train.models.blocks import MakeFA, initialise_convolutions
from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.feu import FEU, conv_block
from latentset.train.models.networks import Attention, FeatureAdaptation
from latentset.train.models.pooling import AveragePooling, MaxPooling

MakeCAU = Callable[[int], nn.Module]
"""From a number of channels C to a module, float (B, C, H, W) -> the same shape."""

CAUS: dict[Attention, Callable[..., nn.Module]] = {
    "affine": CAU,
    "scale": ScaleCAU,
    "bias": BiasCAU,
    "max": partial(CAU, pooling=MaxPooling),
    "avg": partial(CAU, pooling=AveragePooling),
    "max-avg": MaxAverageCAU,
    "shared": SharedPoolingCAU,
    "one-fc": OneLayerCAU,
}
"""By a recipe's ``cau``."""


class FA(nn.Module):
    """Adapts features: FA(f) = FEU(CAU(f)).

    Source: section 4.1; figure 4b; the CAU's position "pre" of Table 3 (before the FEU's skip).
    """

    def __init__(self, in_channels: int, out_channels: int, n: int, *, cau: MakeCAU = CAU) -> None:
        super().__init__()
        self.cau = cau(in_channels)
        self.feu = FEU(in_channels, out_channels, n)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W), at least 0."""
        adapted: Tensor = self.feu(self.cau(f))
        return adapted


def fa_near_identity(in_channels: int, out_channels: int, n: int, *, r: int = 16) -> FA:
    """An FA module that at first changes little, where channels stay the same (not the paper's)."""
    cau = CAU(in_channels, r)
    cau.begin_near_identity()
    fa = FA(in_channels, out_channels, n, cau=lambda _: cau)
    fa.feu.begin_near_identity()
    return fa


class FASkip(FA):
    """An FA module whose CAU stands in the FEU's skip: FA(f) = ReLU(blocks(f) + skip(CAU(f))).

    Source: section 5.7, "CAU Position" skip; Table 3. Not in the paper: the CAU precedes the skip's
    projection.
    """

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W), at least 0."""
        return F.relu(self.feu.blocks(f) + self.feu.skip(self.cau(f)), inplace=True)


class FAInner(nn.Module):
    """An FA module whose CAU precedes the FEU's addition: FA(f) = ReLU(CAU(blocks(f)) + skip(f)).

    Source: section 5.7, "CAU Position" inner; Table 3.
    """

    def __init__(self, in_channels: int, out_channels: int, n: int, *, cau: MakeCAU = CAU) -> None:
        super().__init__()
        self.cau = cau(out_channels)
        self.feu = FEU(in_channels, out_channels, n)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W), at least 0."""
        return F.relu(self.cau(self.feu.blocks(f)) + self.feu.skip(f), inplace=True)


class FAPost(nn.Module):
    """An FA module whose CAU follows the FEU: FA(f) = CAU(FEU(f)).

    Source: section 5.7, "CAU Position" post; Table 3. Not in the paper: the CAU follows the ReLU
    too, as in the SE-POST of squeeze-and-excitation networks (Hu et al., its reference 19).
    """

    def __init__(self, in_channels: int, out_channels: int, n: int, *, cau: MakeCAU = CAU) -> None:
        super().__init__()
        self.feu = FEU(in_channels, out_channels, n)
        self.cau = cau(out_channels)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W)."""
        adapted: Tensor = self.cau(self.feu(f))
        return adapted


class CAUOnly(nn.Module):
    """An FA module that is a CAU alone: FA(f) = CAU(f), or adjust(CAU(f)) where C != out.

    Source: section 5.7, "FA Module" CAU; Table 3. Not in the paper: adjust, one 1x1 convolutional
    block, changes the number of channels.
    """

    def __init__(self, in_channels: int, out_channels: int, *, cau: MakeCAU = CAU) -> None:
        super().__init__()
        self.cau = cau(in_channels)
        self.adjust: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.adjust = conv_block(in_channels, out_channels, kernel_size=1)
            initialise_convolutions(self.adjust)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, in_channels, H, W) -> (B, out_channels, H, W)."""
        adapted: Tensor = self.adjust(self.cau(f))
        return adapted


def make_fa(network: FeatureAdaptation) -> MakeFA:
    """Choose what makes the FA modules that a recipe names."""
    if network.near_identity:
        return partial(fa_near_identity, r=network.r)
    if network.fa == "feu":
        return FEU
    cau = partial(CAUS[network.cau], r=network.r)
    if network.fa == "cau":
        return lambda in_channels, out_channels, _: CAUOnly(in_channels, out_channels, cau=cau)
    positions = {"pre": FA, "skip": FASkip, "inner": FAInner, "post": FAPost}
    return partial(positions[network.fa], cau=cau)
