import math

import pytest
import torch
from torch import nn

from latentset.train.models.pooling import AttentionPooling, AveragePooling, MaxPooling


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


def test_max_and_average_pool_each_channel_over_its_positions() -> None:
    f = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -4.0], [-2.0, -5.0]]]])

    assert MaxPooling(2)(f).tolist() == [[6.0, -1.0]]
    assert AveragePooling(2)(f).tolist() == [[3.0, -3.0]]
    assert not list(MaxPooling(2).parameters()) + list(AveragePooling(2).parameters())
