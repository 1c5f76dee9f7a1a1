"""cResNet and FA-cResNet: classifiers of latents, on the trunk of a ResNet."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.adoption import AdoptingModel
from latentset.train.models.fa import FA
from latentset.train.models.head import Head
from latentset.train.models.resnet import EXPANSION, bottleneck, rest, stage


class CompressedNet(AdoptingModel):
    """A ResNet that begins at layer2 and takes latents there.

    Source: section 4.2, equations 6 and 7: cResNet is a ResNet without its first 11 layers (conv1
    and layer1; bn1 and maxpool go with them).

    ::

        y_hat, sigma_hat (C,H,W) -> head -> layer2[1:] -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits

    y_hat and sigma_hat enter as they are, symbols and standard deviations as floats: the paper
    states no normalisation, and none is added.

    The trunk's tensors have torchvision's names (``layer3.0.conv1.weight``), so that a ResNet's
    weights are adopted by name; what is new has names of its own.

    Args:
        head: Takes the place of layer2's first block.
        layer2: The other blocks of layer2, named "1", "2", ….
        layer3: Layer 3.
        layer4: Layer 4.
        features: Channels that leave layer4.
        num_classes: Number of classes.
    """

    replaced: ClassVar[tuple[str, ...]] = ("conv1.", "bn1.", "layer1.", "layer2.0.")

    def __init__(
        self,
        head: nn.Module,
        layer2: nn.Module,
        layer3: nn.Module,
        layer4: nn.Module,
        features: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.head = head
        self.layer2 = layer2
        self.layer3 = layer3
        self.layer4 = layer4
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)

    def new_modules(self) -> tuple[nn.Module, ...]:
        """The head, and every FA module that stands between the adopted blocks."""
        return (self.head, *(m for name, m in self.named_modules() if name.endswith(".fa")))

    def forward(self, y_hat: Tensor, sigma_hat: Tensor) -> Tensor:
        """Classify latents.

        Args:
            y_hat: Float (B, C, H, W), whole numbers: the quantised latents. Any H and W.
            sigma_hat: Float (B, C, H, W), at least 0.11: their standard deviations.

        Returns:
            Logits, float (B, num_classes).
        """
        f = self.head(y_hat, sigma_hat)  # (B, 8*width, H, W)
        f = self.layer2(f)
        f = self.layer3(f)  # (B, 16*width, H/2, W/2)
        f = self.layer4(f)  # (B, 32*width, H/4, W/4)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, num_classes)
        return logits


class CResNet(CompressedNet):
    """The baseline: cResNet-39 with a plain residual block for each of its two inputs.

    Source: sections 4, 5.3 and 5.5.

    ::

        head = bottleneck block C -> 512 of y_hat, C -> 4 of sigma_hat (one 3x3 each); 516 -> 512

    Deviations: none known; the paper gives no figures for cResNet that would pin its head down
    further.

    Args:
        channels: C, channels of y_hat and of sigma_hat.
        num_classes: Number of classes.
        depths: Blocks of layer2 to layer4, layer2's first (the head) counted; the default is
            ResNet-50's and makes cResNet-39.
        width: Width of the ResNet, as in ``PixelResNet``; 64 in the paper.
        sigma_features: Channels that the branch of sigma_hat gives, a multiple of 4; 4 in the
            paper.

    Raises:
        RecipeError: A depth or ``sigma_features`` is not possible.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depths: tuple[int, int, int] = (4, 6, 3),
        width: int = 64,
        sigma_features: int = 4,
    ) -> None:
        if sigma_features < EXPANSION or sigma_features % EXPANSION:
            raise RecipeError(
                f"sigma_features of a cResNet must be a multiple of {EXPANSION}, the expansion of "
                f"its bottleneck block, got {sigma_features}"
            )
        p2, p3, p4 = trunk_planes(width, depths)
        super().__init__(
            Head(
                bottleneck(channels, p2),
                bottleneck(channels, sigma_features // EXPANSION),
                EXPANSION * p2,
                sigma_features,
            ),
            nn.Sequential(numbered(rest(p2, depths[0]))),
            stage(EXPANSION * p2, p3, depths[1], stride=2),
            stage(EXPANSION * p3, p4, depths[2], stride=2),
            EXPANSION * p4,
            num_classes,
        )


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
        depths: Blocks of layer2 to layer4, layer2's first (the head) counted.
        width: Width of the ResNet, as in ``PixelResNet``; 64 in the paper.
        n: 3x3 convolutional blocks of the FA modules in the head, layer3 and layer4; in the paper
            2/3/4 for quality 1, 3/4/5 for all others.
        sigma_features: Channels that the branch of sigma_hat gives; 4 in the paper.
        r: Reduction ratio of every CAU; 16 in the paper.

    Raises:
        RecipeError: A depth, ``n``, ``sigma_features`` or ``r`` is not possible.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depths: tuple[int, int, int] = (4, 6, 3),
        width: int = 64,
        n: tuple[int, int, int] = (2, 3, 4),
        sigma_features: int = 4,
        r: int = 16,
    ) -> None:
        if sigma_features < 1:
            raise RecipeError(f"sigma_features must be at least 1, got {sigma_features}")
        p2, p3, p4 = trunk_planes(width, depths)
        super().__init__(
            Head(
                FA(channels, EXPANSION * p2, n[0], r),
                FA(channels, sigma_features, n[0], r),
                EXPANSION * p2,
                sigma_features,
            ),
            nn.Sequential(numbered(rest(p2, depths[0]))),
            adapted_stage(EXPANSION * p2, p3, depths[1], n[1], r),
            adapted_stage(EXPANSION * p3, p4, depths[2], n[2], r),
            EXPANSION * p4,
            num_classes,
        )


def adapted_stage(in_channels: int, planes: int, depth: int, n: int, r: int) -> nn.Sequential:
    """Layer 3 or 4 with an FA module after its first block.

    Source: equation 10. The module is named "fa"; the blocks keep torchvision's "0", "1", ….

    Args:
        in_channels: Channels that enter.
        planes: Channels inside the blocks; four times as many leave.
        depth: Number of blocks.
        n: 3x3 convolutional blocks of the FA module.
        r: Reduction ratio of its CAU.

    Returns:
        A module, float (B, in_channels, H, W) -> float (B, 4*planes, H/2, W/2).
    """
    first = bottleneck(in_channels, planes, stride=2)
    fa = FA(EXPANSION * planes, EXPANSION * planes, n, r)
    return nn.Sequential(
        OrderedDict([("0", first), ("fa", fa), *numbered(rest(planes, depth)).items()])
    )


def numbered(blocks: list[nn.Module]) -> OrderedDict[str, nn.Module]:
    """Name the blocks of a layer after its first one as torchvision does: "1", "2", …."""
    return OrderedDict((str(j), block) for j, block in enumerate(blocks, start=1))


def trunk_planes(width: int, depths: tuple[int, int, int]) -> tuple[int, int, int]:
    """Planes of layer2 to layer4 of a ResNet of some width.

    Args:
        width: Planes of its layer1; 64 is the published network.
        depths: Blocks of layer2 to layer4, checked.

    Returns:
        Twice, four and eight times the width.

    Raises:
        RecipeError: The width, or a depth, is below 1.
    """
    if width < 1 or min(depths) < 1:
        raise RecipeError(f"width and depths must be at least 1, got {width} and {depths}")
    return 2 * width, 4 * width, 8 * width
