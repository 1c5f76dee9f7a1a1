from collections.abc import Callable

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn

from latentset.train.models.networks import ResNetNetwork
from latentset.train.models.resnet import PixelResNet


@pytest.mark.parametrize(
    ("make", "depth"),
    [
        (torchvision.models.resnet18, 18),
        (torchvision.models.resnet34, 34),
        (torchvision.models.resnet50, 50),
        (torchvision.models.resnet101, 101),
        (torchvision.models.resnet152, 152),
    ],
)
def test_tensors_have_torchvisions_names_and_shapes(
    make: Callable[..., nn.Module], depth: int
) -> None:
    with torch.device("meta"):
        theirs, ours = make(num_classes=5), PixelResNet(ResNetNetwork(num_classes=5, depth=depth))

    assert list(shapes(ours).items()) == list(shapes(theirs).items())


@pytest.mark.parametrize(
    ("make", "depth"), [(torchvision.models.resnet18, 18), (torchvision.models.resnet50, 50)]
)
def test_it_computes_what_torchvisions_does(make: Callable[..., nn.Module], depth: int) -> None:
    torch.manual_seed(0)
    theirs = make(num_classes=5).eval()
    ours = PixelResNet(ResNetNetwork(num_classes=5, depth=depth)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)

    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_slim_has_fewer_channels_in_every_layer() -> None:
    slim, full = (
        PixelResNet(ResNetNetwork(num_classes=5, width=16)).state_dict(),
        PixelResNet(ResNetNetwork(num_classes=5)).state_dict(),
    )

    assert list(slim) == list(full)
    for name, tensor in slim.items():
        if tensor.ndim and name != "fc.bias":
            assert tensor.numel() * 4 <= full[name].numel(), name
    assert slim["layer4.2.conv3.weight"].shape == (512, 128, 1, 1)


def test_slim_classifies_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = PixelResNet(ResNetNetwork(num_classes=5, depths=(1, 2, 1, 1), width=8))

    logits = model(torch.randn(4, 3, 64, 48))
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.arange(4)))

    assert logits.shape == (4, 5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("depth", [18, 50])
def test_convolutions_begin_as_torchvisions(depth: int) -> None:
    torch.manual_seed(0)
    weights = [
        m.weight
        for m in PixelResNet(ResNetNetwork(num_classes=5, depth=depth)).modules()
        if isinstance(m, nn.Conv2d)
    ]

    assert len(weights) == {18: 20, 50: 53}[depth]
    for weight in weights:
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_a_layer_without_blocks_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"depths\.2(?s:.*)greater than or equal to 1"):
        PixelResNet(ResNetNetwork(num_classes=5, depths=(3, 4, 0, 3)))
