"""Slim networks that adopt, and a ResNet to adopt from."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentset.train.models.blocks import MakeFA
from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.cresnet import CResNet
from latentset.train.models.fa import FA, CAUOnly, FAInner, FAPost, FASkip, MakeCAU
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost, FACResNetY
from latentset.train.models.feu import FEU
from latentset.train.models.networks import (
    CResNetNetwork,
    FACResNetNetwork,
    FACResNetPostNetwork,
    FACResNetYNetwork,
    FAResNetNetwork,
    ResNetNetwork,
)
from latentset.train.models.pooling import AveragePooling, MaxPooling
from latentset.train.models.pretrained import PretrainableModel
from latentset.train.models.resnet import FAResNet, PixelResNet

DEPTHS = (1, 3, 2, 2)
CHANNELS = 32
CLASSES = 5
Make = Callable[[], PretrainableModel]


def trained_resnet(
    depths: tuple[int, int, int, int] = DEPTHS, *, classes: int = CLASSES, width: int = 8
) -> PixelResNet:
    """A slim ResNet with no tensor left at its initial value."""
    model = PixelResNet(ResNetNetwork(num_classes=classes, depths=depths, width=width))
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.fill_(7)
    return model


CAU_8 = partial(CAU, r=8)
FA_8 = partial(FA, cau=CAU_8)


def cresnet() -> PretrainableModel:
    return CResNet(
        CResNetNetwork(channels=CHANNELS, num_classes=CLASSES, depths=DEPTHS[1:], width=8)
    )


def fa_cresnet(fa: MakeFA = FA_8) -> PretrainableModel:
    return FACResNet(
        FACResNetNetwork(
            channels=CHANNELS, num_classes=CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2)
        ),
        fa=fa,
    )


def y_only() -> PretrainableModel:
    return FACResNetY(
        FACResNetYNetwork(
            channels=CHANNELS, num_classes=CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2)
        ),
        fa=FA_8,
    )


def post() -> PretrainableModel:
    return FACResNetPost(
        FACResNetPostNetwork(
            channels=CHANNELS, num_classes=CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2)
        ),
        fa=FA_8,
    )


def fa_resnet() -> PretrainableModel:
    return FAResNet(
        FAResNetNetwork(num_classes=CLASSES, depths=DEPTHS, width=8, n=(1, 1, 1, 2)), fa=FA_8
    )


def with_cau(cau: MakeCAU) -> Make:
    return partial(fa_cresnet, partial(FA, cau=cau))


def cau_only(in_channels: int, out_channels: int, n: int) -> nn.Module:
    return CAUOnly(in_channels, out_channels, cau=CAU_8)


NETWORKS: dict[str, Make] = {
    "cresnet": cresnet,
    "fa-cresnet": fa_cresnet,
    "y-only": y_only,
    "post": post,
    "fa-resnet": fa_resnet,
    "fa-skip": partial(fa_cresnet, partial(FASkip, cau=CAU_8)),
    "fa-inner": partial(fa_cresnet, partial(FAInner, cau=CAU_8)),
    "fa-post": partial(fa_cresnet, partial(FAPost, cau=CAU_8)),
    "fa-cau": partial(fa_cresnet, cau_only),
    "fa-feu": partial(fa_cresnet, FEU),
    "cau-scale": with_cau(partial(ScaleCAU, r=8)),
    "cau-bias": with_cau(partial(BiasCAU, r=8)),
    "cau-max": with_cau(partial(CAU_8, pooling=MaxPooling)),
    "cau-avg": with_cau(partial(CAU_8, pooling=AveragePooling)),
    "cau-max-avg": with_cau(partial(MaxAverageCAU, r=8)),
    "cau-shared": with_cau(partial(SharedPoolingCAU, r=8)),
    "cau-one-fc": with_cau(OneLayerCAU),
}
both_networks = pytest.mark.parametrize("make", [cresnet, fa_cresnet])
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_new(name: str) -> bool:
    return name.startswith("head.") or ".fa." in name


def train_one_step(model: PretrainableModel, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    y_hat = torch.randn(8, CHANNELS, 8, 8).mul(3).round()
    given = {
        "y_hat": y_hat,
        "sigma_hat": 0.11 + torch.rand(8, CHANNELS, 8, 8),
        "pixels": torch.randn(8, 3, 64, 64),
    }
    logits = model(*(given[name] for name in model.inputs))
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(8) % CLASSES))
    optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
