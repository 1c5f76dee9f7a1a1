"""The residual blocks that ResNets, and all networks of this package, are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from latentset.datasets.errors import RecipeError

PUBLISHED: Mapping[int, tuple[Any, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Of each published ResNet, by its depth: the kind of its blocks, and how many layer1 to layer4
have. Source: torchvision.models.resnet18 … resnet152."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of one ResNet: of which kind, how many in each layer, how wide."""

    kind: Any
    """torchvision's BasicBlock (two 3x3 convolutions) or Bottleneck (1x1, 3x3, 1x1)."""
    depths: tuple[int, ...]
    """Blocks of layer1 to layer4."""
    width: int
    """Planes of layer1's blocks, and channels that enter it; 64 in all published ones."""

    @classmethod
    def of(cls, depth: int, depths: tuple[int, ...] | None, width: int) -> "Blocks":
        """The blocks of a published ResNet, or of one that differs from it in size.

        Args:
            depth: Which ResNet: 18, 34, 50, 101 or 152.
            depths: Blocks of its last layers, in place of the published ones.
            width: Planes of layer1's blocks.

        Returns:
            The blocks.

        Raises:
            RecipeError: There is no such ResNet, or the width or one of ``depths`` is below 1.
        """
        if depth not in PUBLISHED:
            raise RecipeError(
                f"no ResNet has depth {depth}: expected one of {', '.join(map(str, PUBLISHED))}"
            )
        kind, published = PUBLISHED[depth]
        chosen = published if depths is None else (*published[: 4 - len(depths)], *depths)
        if width < 1 or min(chosen) < 1:
            raise RecipeError(
                f"width and depths must be at least 1, got {width} and {depths or chosen}"
            )
        return cls(kind, chosen, width)

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

    def first(self, layer: int) -> nn.Module:
        """Make the first block of a layer, which changes the size.

        Args:
            layer: 1 to 4.

        Returns:
            A module, float (B, features(layer - 1), H, W) -> (B, features(layer), H/2, W/2); in
            layer 1 H and W stay.
        """
        return self.make(
            self.features(layer - 1), self.planes(layer), stride=1 if layer == 1 else 2
        )

    def rest(self, layer: int) -> dict[str, nn.Module]:
        """Make the blocks of a layer after its first one.

        Args:
            layer: 1 to 4.

        Returns:
            Modules, float (B, features(layer), H, W) -> the same shape, by torchvision's names:
            "1", "2", ….
        """
        return {
            str(j): self.make(self.features(layer), self.planes(layer))
            for j in range(1, self.depths[layer - 1])
        }

    def make(self, in_channels: int, planes: int, *, stride: int = 1) -> nn.Module:
        """Make one block, with a projection on the skip where the shape changes.

        Args:
            in_channels: Channels that enter.
            planes: Channels inside.
            stride: Stride of its (first) 3x3 convolution.

        Returns:
            A module, float (B, in_channels, H, W) -> (B, expansion*planes, H/stride, W/stride).
        """
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
    """Draw every convolution's weights as torchvision's ResNet does (Kaiming normal, fan out).

    Args:
        module: Changed in place, with all modules below it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
