"""From the network that a recipe names to the network itself, with random weights."""

from typing import Any

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

MODELS: dict[type[Network], Any] = {
    FACResNetNetwork: FACResNet,
    FACResNetYNetwork: FACResNetY,
    FACResNetPostNetwork: FACResNetPost,
    CResNetNetwork: CResNet,
    ResNetNetwork: PixelResNet,
    FAResNetNetwork: FAResNet,
}


def build_network(network: Network) -> PretrainableModel:
    """Make the network of a resolved recipe's ``model``; RecipeError where its sizes do not fit."""
    made: PretrainableModel = MODELS[type(network)](network)
    return made
