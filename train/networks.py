"""What a recipe says of its network: one table a kind, its keys those that the network takes.

``build`` makes the networks; nothing here imports torch.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Table(BaseModel):
    """One table of a recipe: fixed keys, checked when parsed, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Network(Table):
    """What every network of latents is given."""

    channels: PositiveInt | None = None
    """Channels C of the codec; the store's where absent."""
    num_classes: PositiveInt | None = None
    """Classes; the store's where absent."""
    depths: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 6, 3)
    """Blocks of layer2 to layer4."""
    width: PositiveInt = 64
    """Width of the ResNet; 64 in the paper, less for a slim network."""
    sigma_features: PositiveInt = 4
    """Channels that sigma_hat's branch of the head gives."""


class FACResNetNetwork(Network):
    """FA-cResNet (models.FACResNet)."""

    kind: Literal["fa-cresnet"]
    """Which network this is."""
    n: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 3, 4)
    """Depth of the FEU in layer2 to layer4; in the paper 2/3/4 for quality 1, else 3/4/5."""
    r: PositiveInt = 16
    """Reduction ratio of the CAU."""


class CResNetNetwork(Network):
    """cResNet (models.CResNet)."""

    kind: Literal["cresnet"]
    """Which network this is."""


AnyNetwork = Annotated[FACResNetNetwork | CResNetNetwork, Field(discriminator="kind")]
"""The table ``[model]`` of a recipe; its ``kind`` says which."""
