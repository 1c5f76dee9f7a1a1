"""From the network that a recipe names to the network itself."""

from collections.abc import Callable
from functools import partial

from latentset.train.models import (
    CAU,
    FA,
    FEU,
    AdoptingModel,
    AveragePooling,
    BiasCAU,
    CAUOnly,
    CResNet,
    FACResNet,
    FACResNetPost,
    FACResNetY,
    FAInner,
    FAPost,
    FAResNet,
    FASkip,
    MakeCAU,
    MakeFA,
    MaxAverageCAU,
    MaxPooling,
    OneLayerCAU,
    PixelResNet,
    ScaleCAU,
    SharedPoolingCAU,
    fa_near_identity,
)
from latentset.train.models.networks import (
    Attention,
    CResNetNetwork,
    FACResNetNetwork,
    FACResNetPostNetwork,
    FACResNetYNetwork,
    FAResNetNetwork,
    FeatureAdaptation,
    Network,
    ResNetNetwork,
)

CAUS: dict[Attention, Callable[[int], MakeCAU]] = {
    "affine": lambda r: partial(CAU, r=r),
    "scale": lambda r: partial(ScaleCAU, r=r),
    "bias": lambda r: partial(BiasCAU, r=r),
    "max": lambda r: partial(CAU, r=r, pooling=MaxPooling),
    "avg": lambda r: partial(CAU, r=r, pooling=AveragePooling),
    "max-avg": lambda r: partial(MaxAverageCAU, r=r),
    "shared": lambda r: partial(SharedPoolingCAU, r=r),
    "one-fc": lambda _: OneLayerCAU,
}
"""What makes the CAU that a recipe's ``cau`` names, of its reduction ratio r."""


def build_network(network: Network) -> AdoptingModel:
    """Make the network of a resolved recipe, with random weights.

    Args:
        network: The recipe's ``model``, with classes and, for latents, channels.

    Returns:
        The network.

    Raises:
        RecipeError: It has sizes that are not possible.
    """
    classes = network.num_classes or 0
    match network:
        case FACResNetNetwork():
            return FACResNet(
                network.channels or 0,
                classes,
                depth=network.depth,
                depths=network.depths,
                width=network.width,
                n=network.n,
                sigma_features=network.sigma_features,
                fa=choose_fa(network),
            )
        case FACResNetYNetwork():
            return FACResNetY(
                network.channels or 0,
                classes,
                depth=network.depth,
                depths=network.depths,
                width=network.width,
                n=network.n,
                fa=choose_fa(network),
            )
        case FACResNetPostNetwork():
            return FACResNetPost(
                network.channels or 0,
                classes,
                depth=network.depth,
                depths=network.depths,
                width=network.width,
                n=network.n,
                sigma_features=network.sigma_features,
                fa=choose_fa(network),
            )
        case CResNetNetwork():
            return CResNet(
                network.channels or 0,
                classes,
                depth=network.depth,
                depths=network.depths,
                width=network.width,
                sigma_features=network.sigma_features,
            )
        case ResNetNetwork():
            return PixelResNet(
                classes, depth=network.depth, depths=network.depths, width=network.width
            )
        case FAResNetNetwork():
            return FAResNet(
                classes,
                depth=network.depth,
                depths=network.depths,
                width=network.width,
                n=network.n,
                fa=choose_fa(network),
            )
        case _:
            raise TypeError(f"no network for {type(network).__name__}")


def choose_fa(network: FeatureAdaptation) -> MakeFA:
    """Choose what makes the FA modules that a recipe names.

    Args:
        network: The recipe's ``model``.

    Returns:
        From channels that enter, channels that leave and n to a module.
    """
    if network.near_identity:
        return partial(fa_near_identity, r=network.r)
    cau = CAUS[network.cau](network.r)
    match network.fa:
        case "pre":
            return partial(FA, cau=cau)
        case "skip":
            return partial(FASkip, cau=cau)
        case "inner":
            return partial(FAInner, cau=cau)
        case "post":
            return partial(FAPost, cau=cau)
        case "cau":
            return lambda in_channels, out_channels, _: CAUOnly(in_channels, out_channels, cau=cau)
        case "feu":
            return FEU
