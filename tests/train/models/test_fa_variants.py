"""Where the CAU stands in each variant of the FA module: with a CAU that doubles and adds one."""

import pytest
import torch
from torch import Tensor, nn

from latentset.train.models.fa import CAUOnly, FAInner, FAPost, FASkip
from latentset.train.models.feu import FEU


class DoubleAndOne(nn.Module):
    """Stands where a CAU does: 2 f + 1, and notes the channels that it was made for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, f: Tensor) -> Tensor:
        assert f.shape[1] == self.channels
        return 2 * f + 1


@pytest.fixture
def f() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 6, 3, 4)


def cascade_gives(feu: nn.Module, value: float) -> None:
    """Make the FEU's blocks give a constant, so that only what is added to it is seen."""
    assert isinstance(feu, FEU)
    norm = feu.blocks[-1].get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, value)


def test_skip_transforms_the_skip_and_not_the_cascade(f: Tensor) -> None:
    same = FASkip(6, 6, 1, cau=DoubleAndOne).eval()
    seen: list[Tensor] = []
    same.feu.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cascade_gives(same.feu, 0.5)

    torch.testing.assert_close(same(f), (0.5 + 2 * f + 1).clamp(min=0))
    assert torch.equal(seen[0], f)


def test_skip_stands_before_the_projection(f: Tensor) -> None:
    other = FASkip(6, 8, 1, cau=DoubleAndOne).eval()
    cascade_gives(other.feu, 0.5)

    expected = (0.5 + other.feu.skip(2 * f + 1)).clamp(min=0)

    torch.testing.assert_close(other(f), expected)


def test_inner_transforms_the_cascade_and_not_the_skip(f: Tensor) -> None:
    same = FAInner(6, 6, 1, cau=DoubleAndOne).eval()
    cascade_gives(same.feu, 0.5)

    torch.testing.assert_close(same(f), (2 * 0.5 + 1 + f).clamp(min=0))


def test_post_transforms_what_the_feu_gives(f: Tensor) -> None:
    same = FAPost(6, 6, 1, cau=DoubleAndOne).eval()
    cascade_gives(same.feu, 0.5)

    torch.testing.assert_close(same(f), 2 * (0.5 + f).clamp(min=0) + 1)


@pytest.mark.parametrize(("make", "channels"), [(FASkip, 6), (FAInner, 8), (FAPost, 8)])
def test_shapes_change_in_channels_only(make: type[FASkip], channels: int, f: Tensor) -> None:
    fa = make(6, 8, 3, cau=DoubleAndOne)

    assert fa(f).shape == (2, 8, 3, 4)
    assert len(fa.feu.blocks) == 3 + 2
    assert isinstance(fa.cau, DoubleAndOne)
    assert fa.cau.channels == channels


def test_cau_alone_is_a_cau_where_channels_stay(f: Tensor) -> None:
    fa = CAUOnly(6, 6, cau=DoubleAndOne)

    torch.testing.assert_close(fa(f), 2 * f + 1)


def test_cau_alone_adjusts_channels_by_one_convolutional_block(f: Tensor) -> None:
    torch.manual_seed(0)
    fa = CAUOnly(6, 8, cau=DoubleAndOne).eval()

    convolution = fa.get_parameter("adjust.0.weight")
    expected = torch.einsum("oc,bchw->bohw", convolution[:, :, 0, 0], 2 * f + 1).clamp(min=0)

    torch.testing.assert_close(fa(f), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in fa.parameters()) == 6 * 8 + 2 * 8


def test_its_convolution_begins_as_torchvisions() -> None:
    torch.manual_seed(0)
    weight = CAUOnly(256, 512).get_parameter("adjust.0.weight").detach()

    assert float(weight.std()) == pytest.approx((2 / 512) ** 0.5, rel=0.03)
