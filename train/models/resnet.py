"""ResNet from torchvision's bottleneck blocks, of any depth and width: the pixel anchors."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from latentset.datasets.errors import RecipeError
from latentset.train.models.adoption import AdoptingModel

EXPANSION = 4
"""Channels that leave a bottleneck block, per plane (torchvision's ``Bottleneck.expansion``)."""


class PixelResNet(AdoptingModel):
    """ResNet on pixels: Anchor 1 when trained on originals, Anchor 2 on decoded photographs.

    Source: sections 5.2 and 4.2, equations 6 and 7; torchvision's ResNet, whose function and names
    of tensors it has exactly, so that checkpoints fit both ways.

    ::

        x (3,H,W) -> conv 7x7 /2 -> max 3x3 /2 -> layer1 -> layer2 /2 -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits

    Deviations: none at ``width=64``. Another width scales every layer's channels (torchvision's
    own ``width_per_group`` scales only the inside of a block).

    Args:
        num_classes: Number of classes.
        depths: Blocks of layer1 to layer4; the default is ResNet-50.
        width: Planes of layer1's blocks; 64 is the published network.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        depths: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
    ) -> None:
        super().__init__()
        planes = [width * 2**i for i in range(4)]
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = stage(width, planes[0], depths[0], stride=1)
        self.layer2 = stage(EXPANSION * planes[0], planes[1], depths[1], stride=2)
        self.layer3 = stage(EXPANSION * planes[1], planes[2], depths[2], stride=2)
        self.layer4 = stage(EXPANSION * planes[2], planes[3], depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(EXPANSION * planes[3], num_classes)
        initialise_convolutions(self)

    def new_modules(self) -> tuple[nn.Module, ...]:
        """None: a checkpoint of the same depths, width and classes fills it."""
        return ()

    def forward(self, x: Tensor) -> Tensor:
        """Classify photographs.

        Args:
            x: Float (B, 3, H, W), normalised as the training recipe says.

        Returns:
            Logits, float (B, num_classes).
        """
        f = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, width, H/4, W/4)
        f = self.layer1(f)  # (B, 4*width, H/4, W/4)
        f = self.layer2(f)  # (B, 8*width, H/8, W/8)
        f = self.layer3(f)  # (B, 16*width, H/16, W/16)
        f = self.layer4(f)  # (B, 32*width, H/32, W/32)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, num_classes)
        return logits


def stage(in_channels: int, planes: int, depth: int, *, stride: int) -> nn.Sequential:
    """One of a ResNet's four layers: a block that changes the size, then blocks that keep it.

    Source: equation 7. The blocks are named "0", "1", …, as torchvision names them.

    Args:
        in_channels: Channels that enter.
        planes: Channels inside the blocks; four times as many leave.
        depth: Number of blocks, at least 1.
        stride: Stride of the first block.

    Returns:
        A module, float (B, in_channels, H, W) -> float (B, 4*planes, H/stride, W/stride).

    Raises:
        RecipeError: ``depth`` is below 1.
    """
    if depth < 1:
        raise RecipeError(f"a layer of a ResNet has at least 1 block, got depth {depth}")
    return nn.Sequential(bottleneck(in_channels, planes, stride=stride), *rest(planes, depth))


def rest(planes: int, depth: int) -> list[nn.Module]:
    """The blocks of a layer after its first one.

    Args:
        planes: Channels inside the blocks; four times as many enter and leave.
        depth: Number of blocks of the layer, with the first one.

    Returns:
        depth - 1 modules, float (B, 4*planes, H, W) -> the same shape.
    """
    return [bottleneck(EXPANSION * planes, planes) for _ in range(1, depth)]


def bottleneck(in_channels: int, planes: int, *, stride: int = 1) -> nn.Module:
    """Torchvision's bottleneck block, with a projection on the skip where the shape changes.

    Args:
        in_channels: Channels that enter.
        planes: Channels inside; four times as many leave.
        stride: Stride of its 3x3 convolution.

    Returns:
        A module, float (B, in_channels, H, W) -> float (B, 4*planes, H/stride, W/stride).
    """
    out_channels = EXPANSION * planes
    projection = None
    if stride != 1 or in_channels != out_channels:
        projection = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    block: nn.Module = Bottleneck(in_channels, planes, stride, projection)
    initialise_convolutions(block)
    return block


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution's weights as torchvision's ResNet does (Kaiming normal, fan out).

    Args:
        module: Changed in place, with all modules below it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
