"""Networks of pixels, from torchvision's blocks: the anchors, and FA-ResNet, an ablation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from latentset.train.models.blocks import Blocks, MakeFA, initialise_convolutions
from latentset.train.models.fa import make_fa
from latentset.train.models.networks import FAResNetNetwork, PixelNetwork, ResNetNetwork
from latentset.train.models.pretrained import PretrainableModel


class PixelNet(PretrainableModel):
    """A ResNet's stem, its four layers, and a classifier.

    Source: section 4.2, equations 6 and 7.

    ::

        x (3,H,W) -> conv 7x7 /2 -> max 3x3 /2 -> layer1 -> layer2 /2 -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits
    """

    inputs: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(self, network: PixelNetwork, layers: list[nn.Sequential]) -> None:
        super().__init__()
        blocks = Blocks.of(network)
        self.conv1 = nn.Conv2d(3, network.width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(network.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(blocks.features(4), network.num_classes or 0)
        initialise_convolutions(self.conv1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images, float (B, 3, H, W) -> logits, float (B, classes)."""
        f = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))  # (B, width, H/4, W/4)
        f = self.layer1(f)  # (B, e*width, H/4, W/4), e the expansion of the blocks: 1 or 4
        f = self.layer2(f)  # (B, 2*e*width, H/8, W/8)
        f = self.layer3(f)  # (B, 4*e*width, H/16, W/16)
        f = self.layer4(f)  # (B, 8*e*width, H/32, W/32)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, classes)
        return logits


class PixelResNet(PixelNet):
    """ResNet on pixels: Anchor 1 when trained on originals, Anchor 2 on decoded images.

    Source: sections 5.2 and 4.2, equations 6 and 7; torchvision's ResNet, with its function and
    names of tensors. A width other than 64 scales every layer's channels.
    """

    def __init__(self, network: ResNetNetwork) -> None:
        blocks = Blocks.of(network)
        super().__init__(network, [blocks.layer(i) for i in (1, 2, 3, 4)])

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """None: a checkpoint of the same depths, width and classes fills it."""
        return ()


class FAResNet(PixelNet):
    """ResNet on pixels with an FA module after the first block of each layer.

    Source: section 5.7, "FA Effect"; Table 3. The paper gives no depth n of the four FEUs: here its
    3/4/5 of layers 2 to 4, and one less in layer1.
    """

    def __init__(self, network: FAResNetNetwork, fa: MakeFA | None = None) -> None:
        blocks, fa = Blocks.of(network), fa or make_fa(network)
        super().__init__(network, [blocks.layer(i, fa, network.n[i - 1]) for i in (1, 2, 3, 4)])

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The FA modules; a ResNet's checkpoint fills all else."""
        return tuple(m for name, m in self.named_modules() if name.endswith(".fa"))
