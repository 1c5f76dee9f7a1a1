import math

import pytest
import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models import CAU, AttentionPooling


def fill(module: nn.Module, value: float) -> None:
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)


def test_pooling_is_the_weighted_sum_of_equation_5_written_out() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(3)
    f = torch.randn(2, 3, 2, 4)
    weight, bias = (tensor.detach().flatten() for tensor in pooling.conv.parameters())

    pooled = pooling(f).detach()

    for b in range(2):
        scores = {
            (i, j): math.exp(sum(float(weight[c] * f[b, c, i, j]) for c in range(3)) + float(bias))
            for i in range(2)
            for j in range(4)
        }
        total = sum(scores.values())
        for c in range(3):
            expected = sum(k / total * float(f[b, c, i, j]) for (i, j), k in scores.items())
            assert float(pooled[b, c]) == pytest.approx(expected, abs=1e-6)


def test_pooling_with_no_preference_is_the_mean() -> None:
    pooling = AttentionPooling(2)
    fill(pooling, 0.0)
    f = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, 0.0], [0.0, 5.0]]]])

    torch.testing.assert_close(pooling(f), torch.tensor([[3.0, 1.0]]))


def by_the_equations(vector: Tensor, fc: nn.Sequential) -> Tensor:
    """FC2(ReLU(LN(FC1(v)))) in plain arithmetic, for one vector."""
    first, norm, _, second = fc
    assert isinstance(first, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(second, nn.Linear)
    hidden = first.weight @ vector + first.bias
    deviation = hidden - hidden.mean()
    normed = deviation / torch.sqrt((deviation**2).mean() + 1e-5) * norm.weight + norm.bias
    return second.weight @ normed.clamp(min=0) + second.bias


def test_cau_is_equations_2_to_4() -> None:
    torch.manual_seed(1)
    cau = CAU(8, r=2)
    f = torch.randn(3, 8, 4, 5)

    adapted = cau(f)

    assert adapted.shape == f.shape
    for b in range(3):
        gate = by_the_equations(cau.pool_w(f)[b], cau.fc_w)
        w, bias = 1 / (1 + torch.exp(-gate)), by_the_equations(cau.pool_b(f)[b], cau.fc_b)
        expected = w.view(8, 1, 1) * f[b] + bias.view(8, 1, 1)
        torch.testing.assert_close(adapted[b], expected)


def test_the_two_poolings_are_independent() -> None:
    cau = CAU(8, r=2)

    assert not {id(p) for p in cau.pool_w.parameters()} & {id(p) for p in cau.pool_b.parameters()}
    assert not {id(p) for p in cau.fc_w.parameters()} & {id(p) for p in cau.fc_b.parameters()}


@pytest.mark.parametrize("r", [1, 2, 4, 16, 64])
def test_parameters_against_a_hand_formula(r: int) -> None:
    channels = 192
    reduced = channels // r
    pooling = channels + 1
    fc = (channels * reduced + reduced) + 2 * reduced + (reduced * channels + channels)

    assert sum(p.numel() for p in CAU(channels, r).parameters()) == 2 * (pooling + fc)


@pytest.mark.parametrize(("channels", "r"), [(16, 16), (192, 97), (8, 0), (8, -1)])
def test_a_reduction_that_leaves_nothing_to_normalise_is_refused(channels: int, r: int) -> None:
    with pytest.raises(RecipeError, match=f"{channels} channels cannot have r = {r}"):
        CAU(channels, r)
