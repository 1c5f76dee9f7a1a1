"""From the words of a recipe to classes."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from latentset.train.models.build import build_network
from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.cresnet import CResNet
from latentset.train.models.fa import FA, CAUOnly, FAInner, FAPost, FASkip
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost, FACResNetY
from latentset.train.models.feu import FEU
from latentset.train.models.networks import AnyNetwork, Network
from latentset.train.models.pooling import AttentionPooling, AveragePooling, MaxPooling
from latentset.train.models.pretrained import PretrainableModel
from latentset.train.models.resnet import FAResNet, PixelResNet

ADAPTER: TypeAdapter[Network] = TypeAdapter(AnyNetwork)


def build(**model: Any) -> PretrainableModel:
    """A slim network of a recipe's table ``model``."""
    given: dict[str, Any] = {"kind": "fa-cresnet", "num_classes": 5, "width": 2, **model}
    if given["kind"] in ("resnet", "fa-resnet"):
        given = {"depths": (1, 1, 1, 1), **given}
    else:
        given = {"depths": (1, 1, 1), "channels": 8, **given}
    return build_network(ADAPTER.validate_python(given))


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("fa-cresnet", FACResNet),
        ("fa-cresnet-y", FACResNetY),
        ("fa-cresnet-post", FACResNetPost),
        ("cresnet", CResNet),
        ("resnet", PixelResNet),
        ("fa-resnet", FAResNet),
    ],
)
def test_kinds(kind: str, network: type[PretrainableModel]) -> None:
    assert type(build(kind=kind)) is network


@pytest.mark.parametrize(
    ("fa", "module"),
    [
        ("pre", FA),
        ("skip", FASkip),
        ("inner", FAInner),
        ("post", FAPost),
        ("cau", CAUOnly),
        ("feu", FEU),
    ],
)
@pytest.mark.parametrize("kind", ["fa-cresnet", "fa-cresnet-y", "fa-cresnet-post", "fa-resnet"])
def test_fa_modules(kind: str, fa: str, module: type[nn.Module]) -> None:
    model = build(kind=kind, fa=fa)

    for name in ("layer3.fa", "layer4.fa"):
        assert type(model.get_submodule(name)) is module


@pytest.mark.parametrize(
    ("cau", "unit", "pooling"),
    [
        ("affine", CAU, AttentionPooling),
        ("max", CAU, MaxPooling),
        ("avg", CAU, AveragePooling),
        ("scale", ScaleCAU, AttentionPooling),
        ("bias", BiasCAU, AttentionPooling),
        ("shared", SharedPoolingCAU, AttentionPooling),
        ("max-avg", MaxAverageCAU, None),
        ("one-fc", OneLayerCAU, AttentionPooling),
    ],
)
@pytest.mark.parametrize("fa", ["pre", "skip", "inner", "post", "cau"])
def test_caus(fa: str, cau: str, unit: type[nn.Module], pooling: type[nn.Module] | None) -> None:
    made = build(fa=fa, cau=cau, r=4).get_submodule("layer3.fa.cau")  # 32 channels

    assert type(made) is unit
    children = dict(made.named_children())
    for name in children.keys() & {"pool", "pool_w", "pool_b"}:
        assert type(children[name]) is pooling
    for name in children.keys() & {"fc_w", "fc_b"} if cau != "one-fc" else set():
        assert made.get_parameter(f"{name}.0.weight").shape == (8, 32)


def test_an_feu_alone_has_no_cau_to_choose() -> None:
    with pytest.raises(ValidationError, match="which has no CAU, got 'scale'"):
        ADAPTER.validate_python({"kind": "fa-cresnet", "fa": "feu", "cau": "scale"})


def test_near_the_identity() -> None:
    given = {"kind": "fa-cresnet", "depths": [1, 1, 1], "width": 2, "channels": 8, "num_classes": 3}
    torch.manual_seed(0)
    usual = build_network(ADAPTER.validate_python(given)).state_dict()
    torch.manual_seed(0)
    near = build_network(ADAPTER.validate_python(given | {"near_identity": True})).state_dict()
    other = {name for name, value in near.items() if not torch.equal(value, usual[name])}
    last = [f"fc_{k}.3.{name}" for k in "wb" for name in ("weight", "bias")]
    modules = ("head.y_hat", "head.sigma_hat", "layer3.fa", "layer4.fa")
    scales = {"layer3.fa.feu.blocks.4.1.weight", "layer4.fa.feu.blocks.5.1.weight"}
    assert other == {f"{module}.cau.{name}" for module in modules for name in last} | scales
    with pytest.raises(ValidationError, match=r"near_identity: expected false .* fa = 'skip'"):
        ADAPTER.validate_python(given | {"near_identity": True, "fa": "skip"})


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "resnet", "channels": 192},
        {"kind": "resnet", "n": (2, 3, 4, 5)},
        {"kind": "cresnet", "fa": "pre"},
        {"kind": "fa-cresnet-y", "sigma_features": 4},
        {"kind": "fa-cresnet", "depths": (3, 4, 6, 3)},
        {"kind": "fa-resnet", "depths": (4, 6, 3)},
        {"kind": "fa-resnet", "n": (2, 3, 4)},
        {"kind": "cresnet", "depth": 20},
        {"kind": "fa-cresnet", "fa": "last"},
        {"kind": "fa-cresnet", "cau": "median"},
        {"kind": "fa-cresnet", "r": 0},
    ],
    ids=str,
)
def test_keys_that_a_network_does_not_take_are_refused(model: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(model)


def test_sizes_reach_the_network() -> None:
    model = build(depths=(2, 3, 1), n=(1, 2, 3), sigma_features=8, width=4, depth=18)

    assert model.get_parameter("head.mapping.0.weight").shape == (8, 8 + 8, 1, 1)
    layers = [len(model.get_submodule(f"layer{i}")) for i in (2, 3, 4)]  # type: ignore[arg-type]
    assert layers == [1, 4, 2]
    assert model.fc.in_features == 32
    assert len(build(kind="resnet", depth=34, depths=None).get_submodule("layer3")) == 6  # type: ignore[arg-type]
