"""What a recipe says of its network: one table a kind (docs/models.md). Imports no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of classes, channels, blocks …: a file of weights from elsewhere names them too."""
Width = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[int, Field(ge=1, le=1000)]

Depth = Literal[18, 34, 50, 101, 152]
"""The published ResNets."""

Adaptation = Literal["pre", "skip", "inner", "post", "cau", "feu"]
"""What an FA module is: the CAU's position beside the FEU, or one of the two units alone."""

Attention = Literal["affine", "scale", "bias", "max", "avg", "max-avg", "shared", "one-fc"]
"""What a CAU is: the paper's "affine", one half of it, other poolings, or no bottleneck."""


class Table(BaseModel):
    """One table of a recipe: fixed keys, checked when parsed, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_truth_values(cls, given: Any) -> Any:
        """Refuse true and false for numbers: pydantic would take them for 1 and 0."""
        for name, value in given.items() if isinstance(given, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and field.annotation is not bool:
                raise ValueError(f"{name}: expected no truth value, got {str(value).lower()}")
        return given


class Network(Table):
    """Sizes of every network; what is absent is the store's in a resolved recipe."""

    num_classes: Count | None = None
    depth: Depth = 50
    """The ResNet whose kind and number of blocks it has."""
    width: Width = 64


class LatentNetwork(Network):
    """Sizes of every network of latents."""

    channels: Count | None = None
    """C of the codec."""
    depths: tuple[Blocks, Blocks, Blocks] | None = None
    """Blocks of layer2 to layer4, for a slim network; those of ``depth`` where absent."""


class PixelNetwork(Network):
    """Sizes of every network of pixels."""

    depths: tuple[Blocks, Blocks, Blocks, Blocks] | None = None
    """Blocks of layer1 to layer4, for a slim network; those of ``depth`` where absent."""


class SigmaFeatures(Table):
    """Sizes of a network that takes sigma_hat."""

    sigma_features: Width = 4
    """Channels of sigma_hat's branch of the head."""


class FeatureAdaptation(Table):
    """FA modules of a network."""

    r: Count = 16
    """Reduction ratio of the CAU; unused by cau = "one-fc" and fa = "feu"."""
    fa: Adaptation = "pre"
    cau: Attention = "affine"
    near_identity: bool = False
    """Start with FA modules that change little; else with PyTorch's default initialisation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.near_identity and (self.fa, self.cau) != ("pre", "affine"):
            raise ValueError(
                'model.near_identity: expected false beside any but fa = "pre" and cau = "affine", '
                f"the paper's FA module, got fa = {self.fa!r} and cau = {self.cau!r}"
            )
        if self.fa == "feu" and self.cau != "affine":
            raise ValueError(
                f'model.cau: expected none beside fa = "feu", which has no CAU, got {self.cau!r}'
            )
        return self


class LatentAdaptation(FeatureAdaptation):
    """FA modules of a network of latents."""

    n: tuple[Blocks, Blocks, Blocks] = (2, 3, 4)
    """Depth of the FEU in layer2 to layer4; in the paper 2/3/4 for quality 1, else 3/4/5."""


class FACResNetNetwork(LatentNetwork, LatentAdaptation, SigmaFeatures):
    """FA-cResNet (models.FACResNet)."""

    kind: Literal["fa-cresnet"] = "fa-cresnet"


class FACResNetYNetwork(LatentNetwork, LatentAdaptation):
    """FA-cResNet of y_hat alone (models.FACResNetY)."""

    kind: Literal["fa-cresnet-y"] = "fa-cresnet-y"


class FACResNetPostNetwork(LatentNetwork, LatentAdaptation, SigmaFeatures):
    """cResNet with FA modules after the last blocks of its layers (models.FACResNetPost)."""

    kind: Literal["fa-cresnet-post"] = "fa-cresnet-post"


class CResNetNetwork(LatentNetwork, SigmaFeatures):
    """cResNet (models.CResNet)."""

    kind: Literal["cresnet"] = "cresnet"


class ResNetNetwork(PixelNetwork):
    """ResNet on pixels: Anchors 1 and 2 (models.PixelResNet)."""

    kind: Literal["resnet"] = "resnet"


class FAResNetNetwork(PixelNetwork, FeatureAdaptation):
    """ResNet on pixels with FA modules (models.FAResNet)."""

    kind: Literal["fa-resnet"] = "fa-resnet"
    n: tuple[Blocks, Blocks, Blocks, Blocks] = (2, 3, 4, 5)
    """Depth of the FEU in layer1 to layer4."""


AnyNetwork = Annotated[
    FACResNetNetwork
    | CResNetNetwork
    | FACResNetYNetwork
    | FACResNetPostNetwork
    | ResNetNetwork
    | FAResNetNetwork,
    Field(discriminator="kind"),
]
"""The table ``[model]`` of a recipe; its ``kind`` says which."""
