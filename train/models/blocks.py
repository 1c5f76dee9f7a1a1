"""The residual blocks that ResNets, and all networks of this package, are made of."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from latentset.train.models.networks import LatentNetwork, PixelNetwork

MakeFA = Callable[[int, int, int], nn.Module]
"""From in, out and n to a module that adapts features, float (B, in, H, W) -> (B, out, H, W)."""

PUBLISHED: Mapping[int, tuple[Any, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""By depth, the kind and numbers of blocks of layer1 to layer4 in torchvision's ResNets."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of one ResNet."""

    kind: Any
    """torchvision's BasicBlock or Bottleneck."""
    depths: tuple[int, ...]
    """Blocks of layer1 to layer4."""
    width: int
    """Planes of layer1's blocks, and channels that enter it."""

    @classmethod
    def of(cls, network: LatentNetwork | PixelNetwork) -> "Blocks":
        """The blocks of a published ResNet, or of one that differs from it in size."""
        kind, published = PUBLISHED[network.depth]
        depths = network.depths or published
        return cls(kind, (*published[: 4 - len(depths)], *depths), network.width)

    @property
    def expansion(self) -> int:
        """Channels that leave a block, per plane: 1 or 4."""
        expansion: int = self.kind.expansion
        return expansion

    def features(self, layer: int) -> int:
        """Channels that leave a layer; those of layer 0 enter layer 1."""
        return self.expansion * self.planes(layer) if layer else self.width

    def planes(self, layer: int) -> int:
        """Channels inside the blocks of a layer, 1 to 4."""
        return self.width * (1, 2, 4, 8)[layer - 1]

    def layer(self, layer: int, fa: MakeFA | None = None, n: int = 0) -> nn.Sequential:
        """A whole layer, 1 to 4: (B, features(layer - 1), H, W) -> (B, features(layer), H/2, W/2).

        In layer 1, H and W stay. Blocks are named "0", "1", … as torchvision's; an FA module of
        depth n, after the first block (equation 10), "fa".
        """
        stride, features = 1 if layer == 1 else 2, self.features(layer)
        modules = {"0": self.make(self.features(layer - 1), self.planes(layer), stride=stride)}
        if fa is not None:
            modules["fa"] = fa(features, features, n)
        modules.update(self.rest(layer).named_children())
        return nn.Sequential(OrderedDict(modules))

    def rest(self, layer: int) -> nn.Sequential:
        """The blocks of a layer after its first one, "1", "2", …, which keep the shape."""
        names = map(str, range(1, self.depths[layer - 1]))
        features, planes = self.features(layer), self.planes(layer)
        return nn.Sequential(OrderedDict((name, self.make(features, planes)) for name in names))

    def make(self, in_channels: int, planes: int, *, stride: int = 1) -> nn.Module:
        """One block: (B, in_channels, H, W) -> (B, expansion*planes, H/stride, W/stride)."""
        out_channels = self.expansion * planes
        projection = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        block: nn.Module = self.kind(in_channels, planes, stride, projection)
        initialise_convolutions(block)
        return block


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution's weights as torchvision's ResNet does (Kaiming normal, fan out)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
