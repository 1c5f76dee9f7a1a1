"""Which readings of section 4 Table 2 decides, at its rounding, and which it leaves to us.

docs/models.md has both lists.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchinfo
from torch import nn

from latentset.train.models.cau import CAU
from latentset.train.models.cau_variants import SharedPoolingCAU
from latentset.train.models.fa import FA
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.models.feu import FEU, conv_block
from latentset.train.models.networks import FACResNetNetwork
from latentset.train.models.pooling import AttentionPooling

TABLE2 = {
    (192, (2, 3, 4)): (38.9, 4.5, 107.8),
    (192, (3, 4, 5)): (42.0, 4.9, 110.6),
    (320, (3, 4, 5)): (42.1, 4.9, 110.6),
}
"""Parameters in millions, mult-adds in billions, pass in MB, by channels and n (the paper's)."""

Change = Callable[[Any], None]


def replace(outer: type[nn.Module], inner: type[nn.Module], make: Callable[[Any], Any]) -> Change:
    """Replace each module of a kind that is inside of one of another kind."""

    def change(model: nn.Module) -> None:
        for module in [m for m in model.modules() if isinstance(m, outer)]:
            for parent in list(module.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, inner):
                        setattr(parent, name, make(child))

    return change


def convolution(old: Any, *, bias: bool) -> nn.Conv2d:
    size, padding = old.kernel_size, old.padding
    return nn.Conv2d(old.in_channels, old.out_channels, size, padding=padding, bias=bias)


def change_r(r: int) -> Change:
    return replace(FA, CAU, lambda old: CAU(old.pool_w.conv.in_channels, r))


def change_skip(model: Any) -> None:
    for feu in (m for m in model.modules() if isinstance(m, FEU)):
        if isinstance(feu.skip, nn.Sequential):
            feu.skip[1] = nn.Identity()


def change_bottleneck(feu: Any, middle: int) -> None:
    first, *between, last = feu.blocks
    feu.blocks = nn.Sequential(
        conv_block(first[0].in_channels, middle, kernel_size=1),
        *(conv_block(middle, middle, kernel_size=3) for _ in between),
        conv_block(middle, last[0].out_channels, kernel_size=1),
    )


def change_head(model: Any) -> None:
    for fa in (model.head.y_hat, model.head.sigma_hat):
        change_bottleneck(fa.feu, fa.feu.blocks[0][0].in_channels // 4)


def sizes(change: Change, channels: int, n: tuple[int, int, int]) -> tuple[float, float, float]:
    with torch.device("meta"):
        model = FACResNet(FACResNetNetwork(channels=channels, num_classes=23, n=n))
        before = str(model)
        change(model)
        assert change is ours or str(model) != before
        latents = torch.empty(1, channels, 28, 28)
        found: Any = torchinfo.summary(model, input_data=[latents] * 2, device="meta", verbose=0)
    return (
        round(found.total_params / 1e6, 1),
        round(found.total_mult_adds / 1e9, 1),
        round(found.total_output_bytes / 1e6, 1),
    )


def ours(model: Any) -> None:
    """Change nothing."""


OPEN: dict[str, Change] = {
    "ours": ours,
    "attention without bias": replace(
        AttentionPooling, nn.Conv2d, lambda old: convolution(old, bias=False)
    ),
    "one pooling for w and b": replace(
        FA, CAU, lambda old: SharedPoolingCAU(old.pool_w.conv.in_channels, 16)
    ),
    "layer norm without scale and shift": replace(
        CAU, nn.LayerNorm, lambda old: nn.LayerNorm(old.normalized_shape, elementwise_affine=False)
    ),
    "no layer norm": replace(CAU, nn.LayerNorm, lambda old: nn.Identity()),
    "fully connected layers without bias": replace(
        CAU, nn.Linear, lambda old: nn.Linear(old.in_features, old.out_features, bias=False)
    ),
    "convolutions of the FEU with bias": replace(
        FEU, nn.Conv2d, lambda old: convolution(old, bias=True)
    ),
    "r = 8 in the CAU of sigma_hat": lambda model: change_r(8)(model.head.sigma_hat),
}
"""These have Table 2's figures too, so that it says nothing of them."""

DECIDED: dict[str, Change] = {
    "r = 8": change_r(8),
    "r = 32": change_r(32),
    "skip without batch norm": change_skip,
    "mapping without batch norm": lambda model: setattr(model.head.mapping, "1", nn.Identity()),
    "the head's bottleneck a quarter of what enters": change_head,
    "four channels in the FEU of sigma_hat": lambda model: change_bottleneck(
        model.head.sigma_hat.feu, 4
    ),
}
"""These have other figures in at least one row."""


@pytest.mark.parametrize("reading", OPEN)
def test_table2_leaves_it_open(reading: str) -> None:
    assert {key: sizes(OPEN[reading], *key) for key in TABLE2} == TABLE2


@pytest.mark.parametrize("reading", DECIDED)
def test_table2_decides_it(reading: str) -> None:
    assert {key: sizes(DECIDED[reading], *key) for key in TABLE2} != TABLE2
