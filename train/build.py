"""From the network that a recipe names to the network itself."""

from latentset.train.models import CompressedNet, CResNet, FACResNet
from latentset.train.networks import CResNetNetwork, FACResNetNetwork, Network


def build_network(network: Network) -> CompressedNet:
    """Make the network of a resolved recipe, with random weights.

    Args:
        network: The recipe's ``model``, with channels and classes.

    Returns:
        The network.
    """
    channels, classes = network.channels or 0, network.num_classes or 0
    match network:
        case FACResNetNetwork():
            return FACResNet(
                channels,
                classes,
                depths=network.depths,
                width=network.width,
                n=network.n,
                sigma_features=network.sigma_features,
                r=network.r,
            )
        case CResNetNetwork():
            return CResNet(
                channels,
                classes,
                depths=network.depths,
                width=network.width,
                sigma_features=network.sigma_features,
            )
        case _:
            raise TypeError(f"no network for {type(network).__name__}")
