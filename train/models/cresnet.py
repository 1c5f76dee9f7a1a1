"""cResNet: a classifier of latents, on the trunk of a ResNet."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.adoption import AdoptingModel
from latentset.train.models.blocks import Blocks
from latentset.train.models.head import Head


class CompressedNet(AdoptingModel):
    """A ResNet that begins at layer2 and takes latents there.

    Source: section 4.2, equations 6 and 7: cResNet is a ResNet without its first 11 layers (conv1
    and layer1; bn1 and maxpool go with them).

    ::

        y_hat, sigma_hat (C,H,W) -> head -> layer2[1:] -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits

    y_hat and sigma_hat enter as they are, symbols and standard deviations as floats: the paper
    states no normalisation, and none is added.

    Deviations: none known.

    The trunk's tensors have torchvision's names (``layer3.0.conv1.weight``), so that a ResNet's
    weights are adopted by name; what is new has names of its own.

    Args:
        head: Takes the place of layer2's first block; it takes ``inputs``, in order.
        layer2: The other blocks of layer2, named "1", "2", ….
        layer3: Layer 3.
        layer4: Layer 4.
        features: Channels that leave layer4.
        num_classes: Number of classes.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y_hat", "sigma_hat")
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

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The head, and every FA module that stands between the adopted blocks."""
        return (self.head, *(m for name, m in self.named_modules() if name.endswith(".fa")))

    def forward(self, *latents: Tensor) -> Tensor:
        """Classify latents.

        Args:
            latents: One for each name of ``inputs``. y_hat: float (B, C, H, W), whole numbers, the
                quantised latents; any H and W. sigma_hat: float (B, C, H, W), at least 0.11, their
                standard deviations.

        Returns:
            Logits, float (B, num_classes).
        """
        f = self.head(*latents)  # (B, 2*e*width, H, W), e the expansion of the blocks: 1 or 4
        f = self.layer2(f)
        f = self.layer3(f)  # (B, 4*e*width, H/2, W/2)
        f = self.layer4(f)  # (B, 8*e*width, H/4, W/4)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, num_classes)
        return logits


class CResNet(CompressedNet):
    """The baseline: cResNet-39 with a plain residual block for each of its two inputs.

    Source: sections 4, 5.3 and 5.5.

    ::

        head = residual block C -> 512 of y_hat, C -> 4 of sigma_hat (stride 1); 516 -> 512

    Deviations: none known; the paper gives no figures for cResNet that would pin its head down
    further.

    Args:
        channels: C, channels of y_hat and of sigma_hat.
        num_classes: Number of classes.
        depth: The ResNet whose trunk it has: 18, 34, 50, 101 or 152; 50 makes the paper's
            cResNet-39.
        depths: Blocks of layer2 to layer4, layer2's first (the head) counted, in place of that
            ResNet's.
        width: Width of the ResNet, as in ``PixelResNet``; 64 in the paper.
        sigma_features: Channels that the branch of sigma_hat gives; 4 in the paper. From depth 50 a
            multiple of 4.

    Raises:
        RecipeError: A depth, the width or ``sigma_features`` is not possible.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int = 50,
        depths: tuple[int, int, int] | None = None,
        width: int = 64,
        sigma_features: int = 4,
    ) -> None:
        blocks = Blocks.of(depth, depths, width)
        super().__init__(
            residual_head(blocks, channels, sigma_features),
            nn.Sequential(OrderedDict(blocks.rest(2))),
            nn.Sequential(OrderedDict({"0": blocks.first(3), **blocks.rest(3)})),
            nn.Sequential(OrderedDict({"0": blocks.first(4), **blocks.rest(4)})),
            blocks.features(4),
            num_classes,
        )


def residual_head(blocks: Blocks, channels: int, sigma_features: int) -> Head:
    """A head whose two branches are residual blocks.

    Source: section 5.5: "two parallel residual blocks"; section 5.3 gives their channels.

    Args:
        blocks: Of the trunk.
        channels: C, channels of y_hat and of sigma_hat.
        sigma_features: Channels that the branch of sigma_hat gives.

    Returns:
        The head, to the channels of layer2.

    Raises:
        RecipeError: Blocks of this kind cannot give so many channels.
    """
    if sigma_features < 1 or sigma_features % blocks.expansion:
        raise RecipeError(
            "sigma_features of a head of residual blocks must be a multiple of "
            f"{blocks.expansion}, the expansion of its blocks, got {sigma_features}"
        )
    return Head(
        blocks.make(channels, blocks.planes(2)),
        blocks.make(channels, sigma_features // blocks.expansion),
        blocks.features(2),
        sigma_features,
    )
