from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from latentset.datasets.errors import RecipeError
from latentset.train.models import PixelResNet


@pytest.mark.parametrize(
    ("make", "depths"),
    [
        (torchvision.models.resnet50, (3, 4, 6, 3)),
        (torchvision.models.resnet101, (3, 4, 23, 3)),
        (torchvision.models.resnet152, (3, 8, 36, 3)),
    ],
)
def test_tensors_have_torchvisions_names_and_shapes(
    make: Callable[..., nn.Module], depths: tuple[int, int, int, int]
) -> None:
    with torch.device("meta"):
        theirs, ours = make(num_classes=5), PixelResNet(5, depths=depths)

    assert list(shapes(ours).items()) == list(shapes(theirs).items())


def test_it_computes_what_torchvisions_does() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=5).eval()
    ours = PixelResNet(5).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)

    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_slim_has_fewer_channels_in_every_layer() -> None:
    slim, full = PixelResNet(5, width=16).state_dict(), PixelResNet(5).state_dict()

    assert list(slim) == list(full)
    for name, tensor in slim.items():
        if tensor.ndim and name != "fc.bias":
            assert tensor.numel() * 4 <= full[name].numel(), name
    assert slim["layer4.2.conv3.weight"].shape == (512, 128, 1, 1)


def test_slim_classifies_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = PixelResNet(5, depths=(1, 2, 1, 1), width=8)

    logits = model(torch.randn(4, 3, 64, 48))
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.arange(4)))

    assert logits.shape == (4, 5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() > 0, name


def test_a_layer_without_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least 1 block, got depth 0"):
        PixelResNet(5, depths=(3, 4, 0, 3))
