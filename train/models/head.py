"""Head: where y_hat and sigma_hat enter a compressed-domain network."""

import torch
from torch import Tensor, nn

from latentset.train.models.blocks import initialise_convolutions
from latentset.train.models.feu import conv_block


class Head(nn.Module):
    r"""Two parallel branches, one for each input, whose outputs are joined and mapped.

    Source: sections 4 and 5.3, equation 9 (its + is a concatenation); figure 4a. Takes the place of
    the first block of layer2, at stride 1.

    ::

        y_hat     (C,H,W) -> branch -> (512,H,W) \
                                                  (516,H,W) -> mapping -> (512,H,W)
        sigma_hat (C,H,W) -> branch -> (4,H,W)   /

        mapping = 1x1 convolution without bias, batch norm, ReLU

    Deviations: none known.

    Args:
        y_hat: Branch of y_hat, to ``features`` channels.
        sigma_hat: Branch of sigma_hat, to ``sigma_features`` channels.
        features: Channels that leave; 512 in the paper.
        sigma_features: Channels of the branch of sigma_hat; 4 in the paper.
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
        """Join the two inputs.

        Args:
            y_hat: Float (B, C, H, W).
            sigma_hat: Float (B, C, H, W), positive.

        Returns:
            Float (B, features, H, W), not negative.
        """
        f = torch.cat([self.y_hat(y_hat), self.sigma_hat(sigma_hat)], dim=1)
        mapped: Tensor = self.mapping(f)  # (B, features + sigma_features, H, W) -> (B, features, …)
        return mapped
