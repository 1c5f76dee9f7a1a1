"""CAUs that differ from the paper's in one thing: the ablations of Table 3."""

from torch import Tensor, nn

from latentset.train.models.cau import CAU, fc_bottleneck
from latentset.train.models.pooling import AttentionPooling, AveragePooling, MaxPooling


class ScaleCAU(nn.Module):
    """Scales each channel, and shifts none: f~ = w * f, w = sigmoid(FC2(ReLU(LN(FC1(f_C))))).

    Source: section 5.7, "CAU Module" scale; Table 3.
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        self.pool_w = AttentionPooling(channels)
        self.fc_w = fc_bottleneck(channels, r)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> f~, of the same shape."""
        w: Tensor = self.fc_w(self.pool_w(f)).sigmoid()  # (B, C)
        return w[:, :, None, None] * f


class BiasCAU(nn.Module):
    """Shifts each channel, and scales none: f~ = f + b, b = FC2(ReLU(LN(FC1(f_C)))).

    Source: section 5.7, "CAU Module" bias; Table 3.
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        self.pool_b = AttentionPooling(channels)
        self.fc_b = fc_bottleneck(channels, r)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> f~, of the same shape."""
        b: Tensor = self.fc_b(self.pool_b(f))  # (B, C)
        return f + b[:, :, None, None]


class SharedPoolingCAU(nn.Module):
    """Computes weight and bias, as ``CAU``, from one attention pooling f_C^w = f_C^b.

    Source: section 5.7, "CAU Pooling Function" 1att; Table 3.
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        self.pool = AttentionPooling(channels)
        self.fc_w = fc_bottleneck(channels, r)
        self.fc_b = fc_bottleneck(channels, r)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> f~, of the same shape."""
        f_C = self.pool(f)  # (B, C)
        w: Tensor = self.fc_w(f_C).sigmoid()  # (B, C)
        b: Tensor = self.fc_b(f_C)  # (B, C)
        return w[:, :, None, None] * f + b[:, :, None, None]


class MaxAverageCAU(nn.Module):
    """Computes weight and bias from the greatest value and the mean of each channel.

    Source: section 5.7, "CAU Pooling Function" max&avg; Table 3. Not in the paper: the sum of both,
    as in CBAM (Woo et al. 2018, equation 2).

    ::

        w = sigmoid(FC_w(max f) + FC_w(mean f)),  b = FC_b(max f) + FC_b(mean f)
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        self.pool_max = MaxPooling(channels)
        self.pool_mean = AveragePooling(channels)
        self.fc_w = fc_bottleneck(channels, r)
        self.fc_b = fc_bottleneck(channels, r)

    def forward(self, f: Tensor) -> Tensor:
        """Float (B, C, H, W) -> f~, of the same shape."""
        greatest, mean = self.pool_max(f), self.pool_mean(f)  # (B, C) each
        w: Tensor = (self.fc_w(greatest) + self.fc_w(mean)).sigmoid()  # (B, C)
        b: Tensor = self.fc_b(greatest) + self.fc_b(mean)  # (B, C)
        return w[:, :, None, None] * f + b[:, :, None, None]


class OneLayerCAU(CAU):
    """Computes weight and bias by one layer each: w = sigmoid(FC_w(f_C^w)), b = FC_b(f_C^b).

    Source: section 5.7, "CAU Bottleneck Architecture" 1fc; Table 3. Not in the paper: layer norm
    and ReLU are left out too. r is unused.
    """

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__(channels, r, fc=lambda c, _: nn.Linear(c, c))
