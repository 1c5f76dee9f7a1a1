"""The published networks' sizes: Table 2, counted by torchinfo and by hand.

One sample of 23 classes (MINC-2500), 28x28 latents, 224x224 pixels. The meta device holds no
weights and computes nothing, so that the full sizes cost no memory and no time.
"""

from typing import Any

import pytest
import torch
import torchinfo
from torch import nn

from latentset.train.models.cresnet import CResNet
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.models.networks import CResNetNetwork, FACResNetNetwork, ResNetNetwork
from latentset.train.models.resnet import PixelResNet

CLASSES = 23


def count(model: nn.Module, *shapes: tuple[int, ...]) -> Any:
    inputs = [torch.empty(1, *shape, device="meta") for shape in shapes]
    return torchinfo.summary(model, input_data=inputs, device="meta", verbose=0)


def conv_bn(in_channels: int, out_channels: int, side: int) -> int:
    return side * side * in_channels * out_channels + 2 * out_channels


def block(in_channels: int, planes: int, projection: bool) -> int:
    """A bottleneck block's parameters."""
    convolutions = conv_bn(in_channels, planes, 1) + conv_bn(planes, planes, 3)
    convolutions += conv_bn(planes, 4 * planes, 1)
    return convolutions + (conv_bn(in_channels, 4 * planes, 1) if projection else 0)


def layers(depths: list[int], first_planes: int, in_channels: int) -> int:
    """Parameters of several of a ResNet's layers, in order."""
    total = 0
    for i, depth in enumerate(depths):
        planes = first_planes * 2**i
        total += block(in_channels, planes, True) + (depth - 1) * block(4 * planes, planes, False)
        in_channels = 4 * planes
    return total


def fa(in_channels: int, out_channels: int, n: int) -> int:
    """An FA module's parameters, r = 16."""
    c, reduced, m = in_channels, in_channels // 16, out_channels // 4
    pooling = c + 1
    fc = c * reduced + reduced + 2 * reduced + reduced * c + c
    cascade = conv_bn(c, m, 1) + n * conv_bn(m, m, 3) + conv_bn(m, out_channels, 1)
    skip = conv_bn(c, out_channels, 1) if c != out_channels else 0
    return 2 * (pooling + fc) + cascade + skip


FC = 2048 * CLASSES + CLASSES
MAPPING = conv_bn(516, 512, 1)
TRUNK = 3 * block(512, 128, False) + layers([6, 3], 256, 512) + FC


def test_resnet_50() -> None:
    with torch.device("meta"):
        found = count(PixelResNet(ResNetNetwork(num_classes=CLASSES)), (3, 224, 224))

    assert found.total_params == 23_555_159
    assert found.total_params == conv_bn(3, 64, 7) + layers([3, 4, 6, 3], 64, 64) + FC
    assert round(found.total_mult_adds / 1e9, 3) == 4.087
    assert round(found.total_output_bytes / 1e6, 2) == 177.82


@pytest.mark.parametrize(
    ("channels", "n", "parameters", "giga_mult_adds", "pass_megabytes"),
    [
        pytest.param(192, (2, 3, 4), 38_888_475, 4.533, 107.81, id="HyperMS-SSIM-1"),
        pytest.param(192, (3, 4, 5), 41_986_854, 4.880, 110.63, id="HyperMS-SSIM-4"),
        pytest.param(320, (3, 4, 5), 42_103_302, 4.945, 110.63, id="HyperMS-SSIM-8"),
    ],
)
def test_fa_cresnet(
    channels: int,
    n: tuple[int, int, int],
    parameters: int,
    giga_mult_adds: float,
    pass_megabytes: float,
) -> None:
    with torch.device("meta"):
        found = count(
            FACResNet(FACResNetNetwork(channels=channels, num_classes=CLASSES, n=n)),
            *[(channels, 28, 28)] * 2,
        )

    assert found.total_params == parameters
    head = fa(channels, 512, n[0]) + fa(channels, 4, n[0]) + MAPPING
    assert found.total_params == head + TRUNK + fa(1024, 1024, n[1]) + fa(2048, 2048, n[2])
    assert round(found.total_mult_adds / 1e9, 3) == giga_mult_adds
    assert round(found.total_output_bytes / 1e6, 2) == pass_megabytes


@pytest.mark.parametrize("channels", [192, 320])
def test_cresnet_39(channels: int) -> None:
    """Not in Table 2: against the hand formula alone."""
    with torch.device("meta"):
        found = count(
            CResNet(CResNetNetwork(channels=channels, num_classes=CLASSES)),
            *[(channels, 28, 28)] * 2,
        )

    head = block(channels, 128, True) + block(channels, 1, True) + MAPPING
    assert found.total_params == head + TRUNK
