import pytest
import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.cau import CAU
from latentset.train.models.pooling import AveragePooling, MaxPooling


def by_the_equations(vector: Tensor, fc: nn.Module) -> Tensor:
    """FC2(ReLU(LN(FC1(v)))) in plain arithmetic, for one vector."""
    first, norm, _, second = fc.children()
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


@pytest.mark.parametrize(("channels", "r"), [(4, 16), (192, 128), (4, 2)])
def test_the_bottleneck_keeps_two_values_for_layer_norm(channels: int, r: int) -> None:
    fc = channels * 2 + 2 + 2 * 2 + 2 * channels + channels

    assert sum(p.numel() for p in CAU(channels, r).parameters()) == 2 * (channels + 1 + fc)


@pytest.mark.parametrize(("channels", "r"), [(8, 0), (8, -1), (1, 16)])
def test_an_impossible_reduction_is_refused(channels: int, r: int) -> None:
    with pytest.raises(RecipeError, match=f"{channels} channels cannot have r = {r}"):
        CAU(channels, r)


def test_another_pooling_is_used_for_both() -> None:
    torch.manual_seed(0)
    f = torch.randn(2, 8, 3, 5)
    for pooling, vector in ((MaxPooling, f.amax((2, 3))), (AveragePooling, f.mean((2, 3)))):
        cau = CAU(8, r=2, pooling=pooling)

        w, bias = cau.fc_w(vector).sigmoid(), cau.fc_b(vector)

        expected = w.view(2, 8, 1, 1) * f + bias.view(2, 8, 1, 1)
        torch.testing.assert_close(cau(f), expected)
        fc = (8 * 4 + 4) + 2 * 4 + (4 * 8 + 8)
        assert sum(p.numel() for p in cau.parameters()) == 2 * fc
