"""FA-cResNet: cResNet with feature adaptation, and the two ablations that move it or its input."""

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.blocks import Blocks
from latentset.train.models.cresnet import CompressedNet, residual_head
from latentset.train.models.fa import FA, MakeFA
from latentset.train.models.head import Head


class FACResNet(CompressedNet):
    """FA-cResNet: cResNet whose head is two FA modules, with one more in layer3 and in layer4.

    Source: sections 4 to 5.3, equations 8 to 13; figure 4a.

    ::

        head   = FA C -> 512 of y_hat, FA C -> 4 of sigma_hat; then 516 -> 512     (9)
        layer3 = block 0 -> FA 1024 -> 1024 -> blocks 1…                           (10)
        layer4 = block 0 -> FA 2048 -> 2048 -> blocks 1…                           (10)

    Deviations: none known.

    Args:
        channels: C, channels of y_hat and of sigma_hat.
        num_classes: Number of classes.
        depth: The ResNet whose trunk it has: 18, 34, 50, 101 or 152; the paper's is 50.
        depths: Blocks of layer2 to layer4, layer2's first (the head) counted, in place of that
            ResNet's.
        width: Width of the ResNet, as in ``PixelResNet``; 64 in the paper.
        n: 3x3 convolutional blocks of the FA modules in the head, layer3 and layer4; in the paper
            2/3/4 for quality 1, 3/4/5 for all others.
        sigma_features: Channels that the branch of sigma_hat gives; 4 in the paper.
        fa: Makes each FA module.

    Raises:
        RecipeError: A depth, the width, ``n``, ``sigma_features`` or an FA module is not possible.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int] | None = None,
        width: int = 64,
        n: tuple[int, int, int] = (2, 3, 4),
        sigma_features: int = 4,
        fa: MakeFA = FA,
    ) -> None:
        if sigma_features < 1:
            raise RecipeError(f"sigma_features must be at least 1, got {sigma_features}")
        blocks = Blocks.of(depth, depths, width)
        features = blocks.features(2)
        super().__init__(
            Head(
                fa(channels, features, n[0]),
                fa(channels, sigma_features, n[0]),
                features,
                sigma_features,
            ),
            nn.Sequential(OrderedDict(blocks.rest(2))),
            adapted_layer(blocks, 3, n[1], fa),
            adapted_layer(blocks, 4, n[2], fa),
            blocks.features(4),
            num_classes,
        )


class FACResNetY(CompressedNet):
    """FA-cResNet that takes y_hat alone.

    Source: section 5.7, "Input"; Table 3.

    ::

        head = FA C -> 512 of y_hat; layer3, layer4 as in FACResNet

    Deviations: none known. Without a second branch there is nothing to concatenate, and so no
    mapping after it; the paper does not say.

    Args:
        channels: C, channels of y_hat.
        num_classes: Number of classes.
        depth: As in ``FACResNet``, like all that follow.
        depths: Blocks of layer2 to layer4.
        width: Width of the ResNet.
        n: 3x3 convolutional blocks of the FA modules in the head, layer3 and layer4.
        fa: Makes each FA module.

    Raises:
        RecipeError: A depth, the width, ``n`` or an FA module is not possible.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y_hat",)

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int] | None = None,
        width: int = 64,
        n: tuple[int, int, int] = (2, 3, 4),
        fa: MakeFA = FA,
    ) -> None:
        blocks = Blocks.of(depth, depths, width)
        super().__init__(
            fa(channels, blocks.features(2), n[0]),
            nn.Sequential(OrderedDict(blocks.rest(2))),
            adapted_layer(blocks, 3, n[1], fa),
            adapted_layer(blocks, 4, n[2], fa),
            blocks.features(4),
            num_classes,
        )


class FACResNetPost(CompressedNet):
    """cResNet with an FA module after the last block of each of its layers.

    Source: section 5.7, "FA Position" post; Table 3.

    ::

        head   = residual block C -> 512 of y_hat, C -> 4 of sigma_hat; then 516 -> 512
        layer2 = blocks 1… -> FA 512 -> 512
        layer3 = blocks 0… -> FA 1024 -> 1024
        layer4 = blocks 0… -> FA 2048 -> 2048

    Deviations: none known. That layer2's first block is then cResNet's, the paper does not say: its
    FA modules stand there in FA-cResNet, and are moved to the layer's end.

    Args:
        channels: C, channels of y_hat and of sigma_hat.
        num_classes: Number of classes.
        depth: As in ``FACResNet``, like all that follow.
        depths: Blocks of layer2 to layer4.
        width: Width of the ResNet.
        n: 3x3 convolutional blocks of the FA modules of layer2, layer3 and layer4.
        sigma_features: Channels that the branch of sigma_hat gives. From depth 50 a multiple of 4.
        fa: Makes each FA module.

    Raises:
        RecipeError: A depth, the width, ``n``, ``sigma_features`` or an FA module is not possible.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int] | None = None,
        width: int = 64,
        n: tuple[int, int, int] = (2, 3, 4),
        sigma_features: int = 4,
        fa: MakeFA = FA,
    ) -> None:
        blocks = Blocks.of(depth, depths, width)
        f2, f3, f4 = (blocks.features(i) for i in (2, 3, 4))
        super().__init__(
            residual_head(blocks, channels, sigma_features),
            nn.Sequential(OrderedDict({**blocks.rest(2), "fa": fa(f2, f2, n[0])})),
            nn.Sequential(
                OrderedDict({"0": blocks.first(3), **blocks.rest(3), "fa": fa(f3, f3, n[1])})
            ),
            nn.Sequential(
                OrderedDict({"0": blocks.first(4), **blocks.rest(4), "fa": fa(f4, f4, n[2])})
            ),
            f4,
            num_classes,
        )


def adapted_layer(blocks: Blocks, layer: int, n: int, fa: MakeFA) -> nn.Sequential:
    """A layer with an FA module after its first block.

    Source: equation 10. The module is named "fa"; the blocks keep torchvision's "0", "1", ….

    Args:
        blocks: Of the trunk.
        layer: 1 to 4.
        n: 3x3 convolutional blocks of the FA module.
        fa: Makes the FA module.

    Returns:
        A module, float (B, features(layer - 1), H, W) -> (B, features(layer), H/2, W/2); in layer 1
        H and W stay.
    """
    features = blocks.features(layer)
    first = blocks.first(layer)
    return nn.Sequential(
        OrderedDict({"0": first, "fa": fa(features, features, n), **blocks.rest(layer)})
    )
