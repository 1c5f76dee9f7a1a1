import pytest
import torch
from torch import nn

from latentset.datasets.errors import RecipeError
from latentset.train.models.feu import FEU


def kernels(feu: FEU) -> list[tuple[int, int, int]]:
    """(in, out, side) of each convolution of the cascade, in order."""
    convolutions = [m for m in feu.blocks.modules() if isinstance(m, nn.Conv2d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions]


def make_cascade_constant(feu: FEU, value: float) -> None:
    batch_norms = [m for m in feu.blocks.modules() if isinstance(m, nn.BatchNorm2d)]
    nn.init.zeros_(batch_norms[-1].weight)
    nn.init.constant_(batch_norms[-1].bias, value)


def test_cascade_is_1x1_then_n_3x3_then_1x1_at_a_quarter_of_the_channels() -> None:
    assert kernels(FEU(192, 512, n=2)) == [
        (192, 128, 1),
        (128, 128, 3),
        (128, 128, 3),
        (128, 512, 1),
    ]


def test_four_channels_have_a_cascade_of_one() -> None:
    assert kernels(FEU(192, 4, n=2)) == [(192, 1, 1), (1, 1, 3), (1, 1, 3), (1, 4, 1)]
    assert kernels(FEU(8, 2, n=1)) == [(8, 1, 1), (1, 1, 3), (1, 2, 1)]


def test_every_block_is_convolution_without_bias_then_batch_norm_then_relu() -> None:
    for block in FEU(8, 16, n=3).blocks:
        assert isinstance(block, nn.Sequential)
        assert [type(layer) for layer in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
        assert isinstance(block[0], nn.Conv2d)
        assert block[0].bias is None


def test_same_channels_have_an_identity_skip_and_others_a_projection() -> None:
    torch.manual_seed(0)
    same, other = FEU(8, 8, n=1).eval(), FEU(8, 16, n=1).eval()
    for feu in (same, other):
        make_cascade_constant(feu, 0.0)  # so that only the skip is seen
    f = torch.randn(2, 8, 3, 3)

    torch.testing.assert_close(same(f), f.clamp(min=0))
    projection = other.get_parameter("skip.0.weight")[:, :, 0, 0]
    expected = torch.einsum("oc,bchw->bohw", projection, f).clamp(min=0)
    torch.testing.assert_close(other(f), expected, rtol=1e-4, atol=1e-5)


def test_cascade_and_skip_are_added() -> None:
    feu = FEU(4, 4, n=1).eval()
    make_cascade_constant(feu, 2.0)
    f = torch.tensor([-5.0, -1.0, 0.0, 3.0]).view(1, 4, 1, 1)

    assert feu(f).flatten().tolist() == [0.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "n"), [(192, 512, 2), (320, 4, 3), (64, 64, 4)]
)
def test_parameters_against_a_hand_formula(in_channels: int, out_channels: int, n: int) -> None:
    m = out_channels // 4
    cascade = (
        in_channels * m + 2 * m + n * (9 * m * m + 2 * m) + m * out_channels + 2 * out_channels
    )
    skip = in_channels * out_channels + 2 * out_channels if in_channels != out_channels else 0

    feu = FEU(in_channels, out_channels, n)

    assert sum(p.numel() for p in feu.parameters()) == cascade + skip


def test_convolutions_begin_as_torchvisions() -> None:
    torch.manual_seed(0)
    feu = FEU(256, 512, n=1)
    weights = [m.weight for m in feu.modules() if isinstance(m, nn.Conv2d)]

    assert len(weights) == 4
    for weight in weights:
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)


def test_no_3x3_block_is_refused() -> None:
    with pytest.raises(RecipeError, match="got n = 0"):
        FEU(8, 8, n=0)
