"""From the network that a recipe names to the network itself, with random weights."""

from latentset.train.models.cresnet import CResNet
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost, FACResNetY
from latentset.train.models.networks import (
    CResNetNetwork,
    FACResNetNetwork,
    FACResNetPostNetwork,
    FACResNetYNetwork,
    FAResNetNetwork,
    Network,
    ResNetNetwork,
)
from latentset.train.models.pretrained import PretrainableModel
from latentset.train.models.resnet import FAResNet, PixelResNet


def build_network(network: Network) -> PretrainableModel:
    """Make the network of a resolved recipe's ``model``; RecipeError where its sizes do not fit."""
    match network:
        case FACResNetNetwork():
            return FACResNet(network)
        case FACResNetYNetwork():
            return FACResNetY(network)
        case FACResNetPostNetwork():
            return FACResNetPost(network)
        case CResNetNetwork():
            return CResNet(network)
        case ResNetNetwork():
            return PixelResNet(network)
        case FAResNetNetwork():
            return FAResNet(network)
        case _:
            raise TypeError(f"no network for {type(network).__name__}")
