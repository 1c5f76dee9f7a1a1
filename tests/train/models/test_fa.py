from functools import partial

import torch
from torch import nn

from latentset.train.models.cau import CAU
from latentset.train.models.fa import FA, fa_near_identity


def test_attention_comes_before_the_skip_of_the_enhancement() -> None:
    """Position "pre" of Table 3: with a CAU that gives a constant, the FEU sees nothing of f."""
    torch.manual_seed(0)
    fa = FA(8, 8, n=1, cau=partial(CAU, r=2)).eval()
    for fc, constant in (("cau.fc_w", -1e4), ("cau.fc_b", 3.0)):  # w = 0, b = 3
        last = fa.get_submodule(f"{fc}.3")
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, constant)

    adapted = fa(torch.randn(2, 8, 5, 5))

    torch.testing.assert_close(adapted, fa.feu(torch.full((2, 8, 5, 5), 3.0)))


def test_shape_changes_in_channels_only() -> None:
    fa = FA(192, 512, n=2)

    assert fa(torch.randn(2, 192, 7, 9)).shape == (2, 512, 7, 9)


def test_arguments_reach_both_units() -> None:
    fa = FA(64, 32, n=3, cau=partial(CAU, r=8))

    assert fa.get_parameter("cau.fc_w.0.weight").shape == (8, 64)
    assert len(fa.feu.blocks) == 3 + 2


def changed(fa: FA, f: torch.Tensor) -> float:
    """By how much of itself a feature map is changed."""
    difference = fa(f) - f
    return float((difference.norm() / f.norm()).detach())


def test_near_the_identity() -> None:
    torch.manual_seed(2)
    f = torch.rand(4, 64, 6, 6)
    usual, near = FA(64, 64, 3), fa_near_identity(64, 64, 3)
    assert changed(usual, f) > 0.4
    assert changed(near, f) < 0.15
    assert isinstance(near.cau, CAU)
    w, b = near.cau.fc_w(f[:, :, 0, 0]).sigmoid(), near.cau.fc_b(f[:, :, 0, 0])
    torch.testing.assert_close(w, torch.full_like(w, 0.98), atol=0.005, rtol=0)
    torch.testing.assert_close(b, torch.zeros_like(b), atol=0.2, rtol=0)
    near(f).sum().backward()
    learning = {name for name, p in near.named_parameters() if p.grad is not None and p.grad.any()}
    # Softmax takes the bias of the pooling out again (docs/models.md).
    still = {"cau.pool_w.conv.bias", "cau.pool_b.conv.bias"}
    assert {name for name, _ in near.named_parameters()} - learning <= still


def test_where_channels_change_the_enhancement_begins_as_usual() -> None:
    head = fa_near_identity(8, 16, 1, r=4)
    assert head.get_parameter("cau.fc_w.0.weight").shape == (2, 8)
    assert torch.equal(head.get_parameter("feu.blocks.2.1.weight"), torch.ones(16))
