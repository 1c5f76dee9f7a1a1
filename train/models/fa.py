"""FA: the feature adaptation module."""

from collections.abc import Callable

from torch import Tensor, nn

from latentset.train.models.cau import CAU
from latentset.train.models.feu import FEU

MakeCAU = Callable[[int], nn.Module]
"""From a number of channels C to a module, float (B, C, H, W) -> the same shape."""


class FA(nn.Module):
    """Adapts features, FA(f) = FEU(CAU(f)): attention realigns channels, convolutions enhance.

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
    """An FA module that at first changes little, where channels stay the same.

    Pretrained blocks behind it then see nearly what they were trained on. Not the paper's, which
    says nothing of initialisation.
    """
    cau = CAU(in_channels, r)
    cau.begin_near_identity()
    fa = FA(in_channels, out_channels, n, cau=lambda _: cau)
    fa.feu.begin_near_identity()
    return fa
