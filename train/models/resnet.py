"""ResNet from torchvision's blocks, of any depth and width: the pixel anchors."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentset.train.models.adoption import AdoptingModel
from latentset.train.models.blocks import Blocks, initialise_convolutions


class PixelNet(AdoptingModel):
    """A ResNet's stem, its four layers, and a classifier.

    Source: section 4.2, equations 6 and 7.

    ::

        x (3,H,W) -> conv 7x7 /2 -> max 3x3 /2 -> layer1 -> layer2 /2 -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits

    Deviations: none known.

    Args:
        layers: Layers 1 to 4.
        width: Channels of the stem.
        features: Channels that leave layer4.
        num_classes: Number of classes.
    """

    inputs: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(
        self, layers: list[nn.Sequential], width: int, features: int, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)
        initialise_convolutions(self.conv1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Classify images.

        Args:
            pixels: Float (B, 3, H, W), normalised as the training recipe says.

        Returns:
            Logits, float (B, num_classes).
        """
        f = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))  # (B, width, H/4, W/4)
        f = self.layer1(f)  # (B, e*width, H/4, W/4), e the expansion of the blocks: 1 or 4
        f = self.layer2(f)  # (B, 2*e*width, H/8, W/8)
        f = self.layer3(f)  # (B, 4*e*width, H/16, W/16)
        f = self.layer4(f)  # (B, 8*e*width, H/32, W/32)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, num_classes)
        return logits


class PixelResNet(PixelNet):
    """ResNet on pixels: Anchor 1 when trained on originals, Anchor 2 on decoded images.

    Source: sections 5.2 and 4.2, equations 6 and 7; torchvision's ResNet, whose function and names
    of tensors it has exactly, so that checkpoints fit both ways.

    ::

        layer i = block 0 -> blocks 1…

    Deviations: none at ``width=64``. Another width scales every layer's channels (torchvision's
    own ``width_per_group`` scales only the inside of a block).

    Args:
        num_classes: Number of classes.
        depth: Which of the published ResNets: 18, 34, 50, 101 or 152; the paper's is 50.
        depths: Blocks of layer1 to layer4, in place of that ResNet's.
        width: Planes of layer1's blocks; 64 is the published network.

    Raises:
        RecipeError: A depth or the width is not possible.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int, int] | None = None,
        width: int = 64,
    ) -> None:
        blocks = Blocks.of(depth, depths, width)
        super().__init__(
            [
                nn.Sequential(OrderedDict({"0": blocks.first(i), **blocks.rest(i)}))
                for i in (1, 2, 3, 4)
            ],
            width,
            blocks.features(4),
            num_classes,
        )

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """None: a checkpoint of the same depths, width and classes fills it."""
        return ()
