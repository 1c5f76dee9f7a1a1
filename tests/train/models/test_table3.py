"""Every setting of Table 3: shapes, gradients, and parameters against a formula by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import nn

from latentset.paper.table3_settings import SETTINGS
from latentset.train.models.build import build_network
from latentset.train.models.networks import AnyNetwork, Network
from latentset.train.models.pretrained import PretrainableModel

CLASSES = 5
NAMES = [setting.name for setting in SETTINGS]
settings = pytest.mark.parametrize("name", NAMES)


def build(name: str, *, channels: int, width: int, depth: int, depths: Any) -> PretrainableModel:
    """A network of a setting, n = 2/3/4 where it does not say another."""
    (model,) = (setting.model for setting in SETTINGS if setting.name == name)
    tables: dict[str, Any] = {"kind": "fa-cresnet", "num_classes": CLASSES, "width": width, **model}
    tables |= {"depth": depth}
    if tables["kind"] == "fa-resnet":
        tables |= {"depths": depths}
    else:
        tables |= {"depths": depths and depths[1:], "channels": channels}
    adapter: TypeAdapter[Network] = TypeAdapter(AnyNetwork)
    return build_network(adapter.validate_python(tables))


def slim(name: str) -> PretrainableModel:
    """So wide that 128 channels are the fewest that meet a CAU of r = 64, but sigma_hat's."""
    return build(name, channels=128, width=8, depth=50, depths=(1, 2, 2, 1))


def inputs(model: PretrainableModel, batch: int) -> list[torch.Tensor]:
    """Samples that differ in the means of their channels: batch norm takes out what all share."""
    y_hat = torch.randn(batch, 128, 8, 8) + torch.randn(batch, 128, 1, 1)
    made = {
        "y_hat": y_hat.mul(3).round(),
        "sigma_hat": 0.11 + torch.rand(batch, 128, 8, 8) * torch.rand(batch, 128, 1, 1).mul(4),
        "pixels": torch.randn(batch, 3, 64, 64) + torch.randn(batch, 3, 1, 1),
    }
    return [made[name] for name in model.inputs]


def leave_first_point(model: PretrainableModel) -> None:
    """Shift all norms. Unshifted, ReLU passes on a scale, and the next batch norm takes it out:
    where sigma_hat's FEU has a single channel, the scale of its norms has no gradient."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.bias, -0.3, 0.3)


def test_each_takes_what_table_3_says() -> None:
    takes = {name: slim(name).inputs for name in NAMES}

    assert takes.pop("input-y") == ("y_hat",)
    assert takes.pop("fa-effect-resnet") == ("pixels",)
    assert set(takes.values()) == {("y_hat", "sigma_hat")}


@settings
def test_logits_of_a_batch_and_a_gradient_in_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = slim(name)
    leave_first_point(model)

    logits = model(*inputs(model, 16))
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(16) % CLASSES))

    assert logits.shape == (16, CLASSES)
    assert model.fc.out_features == CLASSES
    assert model.state_dict().keys() == {n for n, _ in model.named_parameters()} | {
        n for n, _ in model.named_buffers()
    }
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad, parameter_name
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter_name.endswith((".pool.conv.bias", ".pool_w.conv.bias", ".pool_b.conv.bias")):
            continue  # softmax ignores a constant: zero but for rounding
        assert parameter.grad.count_nonzero() > 0, parameter_name


# The formulas: a layer's weights, its biases, batch norm's and layer norm's scale and shift.


def conv_bn(in_channels: int, out_channels: int, side: int) -> int:
    return side * side * in_channels * out_channels + 2 * out_channels


def block(in_channels: int, planes: int) -> int:
    """A bottleneck block, with a projection where the channels change."""
    total = conv_bn(in_channels, planes, 1) + conv_bn(planes, planes, 3)
    total += conv_bn(planes, 4 * planes, 1)
    return total + (conv_bn(in_channels, 4 * planes, 1) if in_channels != 4 * planes else 0)


def attention(c: int) -> int:
    return c + 1


def fc(c: int, r: int) -> int:
    reduced = c // r if c // r > 2 else 2
    return (c * reduced + reduced) + 2 * reduced + (reduced * c + c)


def cau(c: int, r: int = 16) -> int:
    return 2 * attention(c) + 2 * fc(c, r)


def feu(c: int, out: int, n: int) -> int:
    m = out // 4
    cascade = conv_bn(c, m, 1) + n * conv_bn(m, m, 3) + conv_bn(m, out, 1)
    return cascade + (conv_bn(c, out, 1) if c != out else 0)


def fa(c: int, out: int, n: int) -> int:
    return cau(c) + feu(c, out, n)


Module = Callable[[int, int, int], int]
"""Parameters of an FA module by channels that enter, channels that leave, and n."""


def trunk(width: int, depths: tuple[int, int, int]) -> int:
    """layer2 without its first block, layer3, layer4, fc."""
    w = width
    total = (depths[0] - 1) * block(8 * w, 2 * w)
    total += block(8 * w, 4 * w) + (depths[1] - 1) * block(16 * w, 4 * w)
    total += block(16 * w, 8 * w) + (depths[2] - 1) * block(32 * w, 8 * w)
    return total + 32 * w * CLASSES + CLASSES


class Formula:
    """Parameters of the networks, of C channels and a width."""

    def __init__(self, channels: int, width: int, depths: tuple[int, int, int, int]) -> None:
        self.c, self.w, self.depths = channels, width, depths

    def fa_cresnet(self, module: Module = fa, n: tuple[int, int, int] = (2, 3, 4)) -> int:
        c, w = self.c, self.w
        head = module(c, 8 * w, n[0]) + module(c, 4, n[0]) + conv_bn(8 * w + 4, 8 * w, 1)
        later = module(16 * w, 16 * w, n[1]) + module(32 * w, 32 * w, n[2])
        return head + later + trunk(w, self.depths[1:])

    def y_only(self) -> int:
        w = self.w
        later = fa(16 * w, 16 * w, 3) + fa(32 * w, 32 * w, 4)
        return fa(self.c, 8 * w, 2) + later + trunk(w, self.depths[1:])

    def post(self) -> int:
        c, w = self.c, self.w
        head = block(c, 2 * w) + block(c, 1) + conv_bn(8 * w + 4, 8 * w, 1)
        adapted = fa(8 * w, 8 * w, 2) + fa(16 * w, 16 * w, 3) + fa(32 * w, 32 * w, 4)
        return head + adapted + trunk(w, self.depths[1:])

    def fa_resnet(self) -> int:
        w, depth1 = self.w, self.depths[0]
        total = conv_bn(3, w, 7) + block(w, w) + (depth1 - 1) * block(4 * w, w)
        total += block(4 * w, 2 * w) + trunk(w, self.depths[1:])
        total += fa(4 * w, 4 * w, 2) + fa(8 * w, 8 * w, 3)
        return total + fa(16 * w, 16 * w, 4) + fa(32 * w, 32 * w, 5)


def of_cau(parameters: Callable[[int], int]) -> Callable[[Formula], int]:
    """FA-cResNet with another CAU of the channels that enter."""
    return lambda f: f.fa_cresnet(lambda c, out, n: parameters(c) + feu(c, out, n))


def of_n(*n: int) -> Callable[[Formula], int]:
    return lambda f: f.fa_cresnet(n=(n[0], n[1], n[2]))


default: Callable[[Formula], int] = Formula.fa_cresnet
BY_HAND: dict[str, Callable[[Formula], int]] = {
    "input-y": Formula.y_only,
    "input-y-sigma": default,
    "fa-effect-resnet": Formula.fa_resnet,
    "fa-effect-cresnet": default,
    "fa-module-cau": lambda f: f.fa_cresnet(
        lambda c, out, n: cau(c) + (conv_bn(c, out, 1) if c != out else 0)
    ),
    "fa-module-feu": lambda f: f.fa_cresnet(feu),
    "fa-module-fa": default,
    "fa-position-pre": default,
    "fa-position-post": Formula.post,
    "cau-pooling-max": of_cau(lambda c: 2 * fc(c, 16)),
    "cau-pooling-avg": of_cau(lambda c: 2 * fc(c, 16)),
    "cau-pooling-max-avg": of_cau(lambda c: 2 * fc(c, 16)),
    "cau-pooling-1att": of_cau(lambda c: attention(c) + 2 * fc(c, 16)),
    "cau-pooling-2att": default,
    "cau-position-pre": default,
    "cau-position-skip": default,
    "cau-position-inner": lambda f: f.fa_cresnet(lambda c, out, n: feu(c, out, n) + cau(out)),
    "cau-position-post": lambda f: f.fa_cresnet(lambda c, out, n: feu(c, out, n) + cau(out)),
    "cau-module-scale": of_cau(lambda c: attention(c) + fc(c, 16)),
    "cau-module-bias": of_cau(lambda c: attention(c) + fc(c, 16)),
    "cau-module-affine": default,
    "cau-bottleneck-1fc": of_cau(lambda c: 2 * attention(c) + 2 * (c * c + c)),
    "cau-bottleneck-r1": of_cau(lambda c: cau(c, 1)),
    "cau-bottleneck-r2": of_cau(lambda c: cau(c, 2)),
    "cau-bottleneck-r4": of_cau(lambda c: cau(c, 4)),
    "cau-bottleneck-r8": of_cau(lambda c: cau(c, 8)),
    "cau-bottleneck-r16": default,
    "cau-bottleneck-r32": of_cau(lambda c: cau(c, 32)),
    "cau-bottleneck-r64": of_cau(lambda c: cau(c, 64)),
    "feu-depth-2-2-2": of_n(2, 2, 2),
    "feu-depth-1-2-3": of_n(1, 2, 3),
    "feu-depth-3-3-3": of_n(3, 3, 3),
    "feu-depth-2-3-4": default,
    "feu-depth-4-4-4": of_n(4, 4, 4),
    "feu-depth-3-4-5": of_n(3, 4, 5),
    "feu-depth-5-5-5": of_n(5, 5, 5),
    "feu-depth-4-5-6": of_n(4, 5, 6),
}


def test_there_is_a_formula_for_every_setting() -> None:
    assert list(BY_HAND) == NAMES


@settings
def test_parameters_against_a_hand_formula(name: str) -> None:
    """At the paper's size (quality 4) and at the slim one; on the meta device: no memory."""
    with torch.device("meta"):
        full = build(name, channels=192, width=64, depth=50, depths=None)
        small = slim(name)

    by_hand = BY_HAND[name]
    assert sum(p.numel() for p in full.parameters()) == by_hand(Formula(192, 64, (3, 4, 6, 3)))
    assert sum(p.numel() for p in small.parameters()) == by_hand(Formula(128, 8, (1, 2, 2, 1)))


def basic_block(in_channels: int, planes: int) -> int:
    total = conv_bn(in_channels, planes, 3) + conv_bn(planes, planes, 3)
    return total + (conv_bn(in_channels, planes, 1) if in_channels != planes else 0)


@pytest.mark.parametrize(("depth", "depths"), [(18, (2, 2, 2)), (34, (4, 6, 3))])
@pytest.mark.parametrize("kind", ["cresnet", "fa-cresnet", "fa-cresnet-y", "fa-cresnet-post"])
def test_networks_of_basic_blocks(kind: str, depth: int, depths: tuple[int, int, int]) -> None:
    """Layers 2 to 4 of ResNet-18 and ResNet-34: 128, 256 and 512 channels."""
    adapter: TypeAdapter[Network] = TypeAdapter(AnyNetwork)
    tables = {"kind": kind, "depth": depth, "channels": 192, "num_classes": CLASSES}
    network = adapter.validate_python(tables)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_network(network).parameters())

    blocks = (depths[0] - 1) * basic_block(128, 128)
    blocks += basic_block(128, 256) + (depths[1] - 1) * basic_block(256, 256)
    blocks += basic_block(256, 512) + (depths[2] - 1) * basic_block(512, 512)
    residual = basic_block(192, 128) + basic_block(192, 4) + conv_bn(132, 128, 1)
    later = fa(256, 256, 3) + fa(512, 512, 4)
    beside = {
        "cresnet": residual,
        "fa-cresnet": fa(192, 128, 2) + fa(192, 4, 2) + conv_bn(132, 128, 1) + later,
        "fa-cresnet-y": fa(192, 128, 2) + later,
        "fa-cresnet-post": residual + fa(128, 128, 2) + later,
    }
    assert parameters == blocks + beside[kind] + 512 * CLASSES + CLASSES


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize(
    "kind", ["cresnet", "fa-cresnet", "fa-cresnet-y", "fa-cresnet-post", "resnet", "fa-resnet"]
)
def test_every_kind_of_every_block_learns(kind: str, depth: int) -> None:
    torch.manual_seed(0)
    pixels = kind in ("resnet", "fa-resnet")
    tables: dict[str, Any] = {"kind": kind, "depth": depth, "num_classes": CLASSES, "width": 16}
    tables |= {"depths": (1, 1, 2, 1)} if pixels else {"depths": (2, 2, 1), "channels": 128}
    if kind.startswith("fa-"):
        tables |= {"r": 4}
    adapter: TypeAdapter[Network] = TypeAdapter(AnyNetwork)
    model = build_network(adapter.validate_python(tables))
    leave_first_point(model)

    logits = model(*inputs(model, 16))
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(16) % CLASSES))

    assert logits.shape == (16, CLASSES)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith((".pool_w.conv.bias", ".pool_b.conv.bias")):
            assert parameter.grad.count_nonzero() > 0, name
