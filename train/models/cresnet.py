"""cResNet: a classifier of latents, on the trunk of a ResNet."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.blocks import Blocks, initialise_convolutions
from latentset.train.models.feu import conv_block
from latentset.train.models.networks import CResNetNetwork, LatentNetwork
from latentset.train.models.pretrained import PretrainableModel


class CompressedNet(PretrainableModel):
    """A ResNet that starts at layer2 and takes latents there.

    Source: section 4.2, equations 6 and 7: cResNet is a ResNet without its first 11 layers (conv1
    and layer1; bn1 and maxpool go with them).

    ::

        y_hat, sigma_hat (C,H,W) -> head -> layer2[1:] -> layer3 /2 -> layer4 /2
          -> average -> fc -> logits

    y_hat and sigma_hat enter as floats: the paper states no normalisation. The trunk's tensors have
    torchvision's names.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y_hat", "sigma_hat")
    replaced: ClassVar[tuple[str, ...]] = ("conv1.", "bn1.", "layer1.", "layer2.0.")

    def __init__(self, network: LatentNetwork, head: nn.Module, *layers: nn.Module) -> None:
        super().__init__()
        self.head = head  # in place of layer2's first block; takes ``inputs``, in order
        self.layer2, self.layer3, self.layer4 = layers  # layer2: the other blocks, "1", "2", …
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(Blocks.of(network).features(4), network.num_classes or 0)

    def inserted_modules(self) -> tuple[nn.Module, ...]:
        """The head, and every FA module between the pretrained blocks."""
        return (self.head, *(m for name, m in self.named_modules() if name.endswith(".fa")))

    def forward(self, *latents: Tensor) -> Tensor:
        """Float (B, C, H, W) for each name of ``inputs`` -> logits (B, classes)."""
        f = self.head(*latents)  # (B, 2*e*width, H, W), e the expansion of the blocks: 1 or 4
        f = self.layer2(f)
        f = self.layer3(f)  # (B, 4*e*width, H/2, W/2)
        f = self.layer4(f)  # (B, 8*e*width, H/4, W/4)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(f), 1))  # (B, classes)
        return logits


class CResNet(CompressedNet):
    """The baseline: cResNet-39 with a plain residual block for each of its two inputs.

    head = residual block C -> 512 of y_hat, C -> 4 of sigma_hat (stride 1); 516 -> 512

    Source: sections 4, 5.3 and 5.5.
    """

    def __init__(self, network: CResNetNetwork) -> None:
        blocks = Blocks.of(network)
        super().__init__(
            network,
            residual_head(blocks, network.channels or 0, network.sigma_features),
            blocks.rest(2),
            blocks.layer(3),
            blocks.layer(4),
        )


class Head(nn.Module):
    r"""Two parallel branches, one for each input, whose outputs are joined and mapped.

    Source: sections 4 and 5.3, equation 9 (its + is a concatenation); figure 4a.

    ::

        y_hat     (C,H,W) -> branch -> (512,H,W) \
                                                  (516,H,W) -> mapping -> (512,H,W)
        sigma_hat (C,H,W) -> branch -> (4,H,W)   /

        mapping = 1x1 convolution without bias, batch norm, ReLU
    """

    def __init__(
        self, y_hat: nn.Module, sigma_hat: nn.Module, features: int, sigma_features: int
    ) -> None:
        super().__init__()
        self.y_hat = y_hat
        self.sigma_hat = sigma_hat
        self.mapping = conv_block(features + sigma_features, features, kernel_size=1)
        initialise_convolutions(self.mapping)

    def forward(self, y_hat: Tensor, sigma_hat: Tensor) -> Tensor:
        """Float (B, C, H, W) each, sigma_hat positive -> float (B, features, H, W), at least 0."""
        f = torch.cat([self.y_hat(y_hat), self.sigma_hat(sigma_hat)], dim=1)
        mapped: Tensor = self.mapping(f)  # (B, features + sigma_features, H, W) -> (B, features, …)
        return mapped


def residual_head(blocks: Blocks, channels: int, sigma_features: int) -> Head:
    """A head of two parallel residual blocks (section 5.5; section 5.3 gives their channels)."""
    if sigma_features % blocks.expansion:
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
