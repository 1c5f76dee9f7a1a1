"""Each variant of the CAU against its formula, written out with the variant's own layers."""

import pytest
import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.cau_variants import (
    BiasCAU,
    MaxAverageCAU,
    OneLayerCAU,
    ScaleCAU,
    SharedPoolingCAU,
)
from latentset.train.models.fa import MakeCAU

CHANNELS = 8


@pytest.fixture
def f() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, CHANNELS, 4, 5)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def test_scale_only_multiplies(f: Tensor) -> None:
    cau = ScaleCAU(CHANNELS, r=2)

    w = sigmoid(cau.fc_w(cau.pool_w(f)))

    torch.testing.assert_close(cau(f), w.view(3, CHANNELS, 1, 1) * f)


def test_bias_only_adds(f: Tensor) -> None:
    cau = BiasCAU(CHANNELS, r=2)

    b = cau.fc_b(cau.pool_b(f))

    torch.testing.assert_close(cau(f), f + b.view(3, CHANNELS, 1, 1))


def test_a_shared_pooling_feeds_both(f: Tensor) -> None:
    cau = SharedPoolingCAU(CHANNELS, r=2)
    k = cau.pool.conv(f).flatten(1).softmax(1)
    f_C = (f.flatten(2) * k[:, None]).sum(2)

    w, b = sigmoid(cau.fc_w(f_C)), cau.fc_b(f_C)

    expected = w.view(3, CHANNELS, 1, 1) * f + b.view(3, CHANNELS, 1, 1)
    torch.testing.assert_close(cau(f), expected)


def test_max_and_average_go_through_the_same_layers_and_are_added(f: Tensor) -> None:
    cau = MaxAverageCAU(CHANNELS, r=2)
    greatest, mean = f.flatten(2).sort(2).values[..., -1], f.flatten(2).sum(2) / 20

    w = sigmoid(cau.fc_w(greatest) + cau.fc_w(mean))
    b = cau.fc_b(greatest) + cau.fc_b(mean)

    expected = w.view(3, CHANNELS, 1, 1) * f + b.view(3, CHANNELS, 1, 1)
    torch.testing.assert_close(cau(f), expected)


def test_one_layer_has_no_bottleneck(f: Tensor) -> None:
    cau = OneLayerCAU(CHANNELS)

    w = sigmoid(cau.pool_w(f) @ cau.fc_w.weight.T + cau.fc_w.bias)
    b = cau.pool_b(f) @ cau.fc_b.weight.T + cau.fc_b.bias

    expected = w.view(3, CHANNELS, 1, 1) * f + b.view(3, CHANNELS, 1, 1)
    torch.testing.assert_close(cau(f), expected)


@pytest.mark.parametrize("make", [ScaleCAU, BiasCAU, SharedPoolingCAU, MaxAverageCAU])
def test_bottlenecks_have_layer_norm_and_r(make: MakeCAU) -> None:
    bottlenecks = [m for m in make(64).children() if isinstance(m, nn.Sequential)]

    assert bottlenecks
    for fc in bottlenecks:
        kinds = [type(layer) for layer in fc]
        assert kinds == [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear]
        assert [tuple(p.shape) for p in fc.parameters() if p.ndim == 2] == [(4, 64), (64, 4)]


@pytest.mark.parametrize("make", [ScaleCAU, BiasCAU, SharedPoolingCAU, MaxAverageCAU])
def test_a_single_channel_is_refused(make: MakeCAU) -> None:
    with pytest.raises(RecipeError, match="1 channels cannot have r = 16"):
        make(1)
