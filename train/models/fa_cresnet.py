"""FA-cResNet: cResNet with feature adaptation, and the two ablations that move it or its input."""

from typing import ClassVar

from latentset.train.models.blocks import Blocks, MakeFA
from latentset.train.models.cresnet import CompressedNet, Head, residual_head
from latentset.train.models.fa import make_fa
from latentset.train.models.networks import (
    FACResNetNetwork,
    FACResNetPostNetwork,
    FACResNetYNetwork,
)


class FACResNet(CompressedNet):
    """FA-cResNet: cResNet whose head is two FA modules, with one more in layer3 and in layer4.

    Source: sections 4 to 5.3, equations 8 to 13; figure 4a.

    ::

        head   = FA C -> 512 of y_hat, FA C -> 4 of sigma_hat; then 516 -> 512     (9)
        layer3 = block 0 -> FA 1024 -> 1024 -> blocks 1…                           (10)
        layer4 = block 0 -> FA 2048 -> 2048 -> blocks 1…                           (10)
    """

    def __init__(self, network: FACResNetNetwork, fa: MakeFA | None = None) -> None:
        blocks, fa, n = Blocks.of(network), fa or make_fa(network), network.n
        channels, features = network.channels or 0, blocks.features(2)
        super().__init__(
            network,
            Head(
                fa(channels, features, n[0]),
                fa(channels, network.sigma_features, n[0]),
                features,
                network.sigma_features,
            ),
            blocks.rest(2),
            blocks.layer(3, fa, n[1]),
            blocks.layer(4, fa, n[2]),
        )


class FACResNetY(CompressedNet):
    """FA-cResNet that takes y_hat alone: head = FA C -> 512 of y_hat.

    Source: section 5.7, "Input"; Table 3. Not in the paper: nothing is concatenated, so no mapping
    follows.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y_hat",)

    def __init__(self, network: FACResNetYNetwork, fa: MakeFA | None = None) -> None:
        blocks, fa, n = Blocks.of(network), fa or make_fa(network), network.n
        super().__init__(
            network,
            fa(network.channels or 0, blocks.features(2), n[0]),
            blocks.rest(2),
            blocks.layer(3, fa, n[1]),
            blocks.layer(4, fa, n[2]),
        )


class FACResNetPost(CompressedNet):
    """cResNet with an FA module after the last block of each of its layers.

    Source: section 5.7, "FA Position" post; Table 3. Not in the paper: layer2's first block is then
    cResNet's.

    ::

        head   = residual block C -> 512 of y_hat, C -> 4 of sigma_hat; then 516 -> 512
        layer2 = blocks 1… -> FA 512 -> 512
        layer3 = blocks 0… -> FA 1024 -> 1024
        layer4 = blocks 0… -> FA 2048 -> 2048
    """

    def __init__(self, network: FACResNetPostNetwork, fa: MakeFA | None = None) -> None:
        blocks, fa = Blocks.of(network), fa or make_fa(network)
        head = residual_head(blocks, network.channels or 0, network.sigma_features)
        layers = []
        for i, n in zip((2, 3, 4), network.n, strict=True):
            layer = blocks.rest(2) if i == 2 else blocks.layer(i)
            layer.add_module("fa", fa(blocks.features(i), blocks.features(i), n))
            layers.append(layer)
        super().__init__(network, head, *layers)
