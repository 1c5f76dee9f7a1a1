import pytest
import torch
from torch import nn

from latentset.train.models.cresnet import Head


def test_branches_are_concatenated_y_hat_first_and_mapped() -> None:
    head = Head(nn.Conv2d(3, 8, 1), nn.Conv2d(3, 2, 1), features=8, sigma_features=2).eval()
    seen: list[torch.Tensor] = []
    head.mapping.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    y_hat, sigma_hat = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)

    mapped = head(y_hat, sigma_hat)

    assert mapped.shape == (2, 8, 4, 5)
    torch.testing.assert_close(seen[0][:, :8], head.y_hat(y_hat))
    torch.testing.assert_close(seen[0][:, 8:], head.sigma_hat(sigma_hat))


def test_mapping_is_one_1x1_convolutional_block() -> None:
    mapping = Head(nn.Identity(), nn.Identity(), features=512, sigma_features=4).mapping

    assert [type(layer) for layer in mapping] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert sum(p.numel() for p in mapping.parameters()) == 516 * 512 + 2 * 512


def test_mapping_begins_as_torchvisions_convolutions() -> None:
    """Kaiming normal, fan out: variance 2 / 512; PyTorch's default would have 1 / (3 * 516)."""
    torch.manual_seed(0)
    mapping = Head(nn.Identity(), nn.Identity(), features=512, sigma_features=4).mapping

    assert mapping.get_parameter("0.weight").var().item() == pytest.approx(2 / 512, rel=0.02)
