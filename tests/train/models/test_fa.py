from functools import partial

import torch
from torch import nn

from latentset.train.models import CAU, FA


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
