"""The compressed-domain networks, slim; test_table2.py has the paper's sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from latentset.datasets.errors import RecipeError
from latentset.train.models.build import build_network
from latentset.train.models.cau import CAU
from latentset.train.models.cresnet import CompressedNet, CResNet
from latentset.train.models.fa import FA
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.models.networks import CResNetNetwork, FACResNetNetwork, LatentNetwork

CHANNELS = 32
CLASSES = 5
FA_8 = partial(FA, cau=partial(CAU, r=8))
Make = Callable[[], CompressedNet]


def slim_cresnet() -> CompressedNet:
    return CResNet(
        CResNetNetwork(channels=CHANNELS, num_classes=CLASSES, depths=(2, 2, 1), width=8)
    )


def slim_fa_cresnet() -> CompressedNet:
    return FACResNet(
        FACResNetNetwork(
            channels=CHANNELS, num_classes=CLASSES, depths=(2, 2, 1), width=8, n=(1, 2, 1)
        ),
        fa=FA_8,
    )


both_networks = pytest.mark.parametrize("make", [slim_cresnet, slim_fa_cresnet])


def latents(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    y_hat = torch.randn(batch, CHANNELS, height, width).mul(3).round()
    return y_hat, 0.11 + torch.rand(batch, CHANNELS, height, width)


@both_networks
@pytest.mark.parametrize("size", [(7, 7), (16, 16), (23, 23), (28, 28), (24, 32), (32, 24), (1, 1)])
def test_latents_of_any_size_one_at_a_time(make: Make, size: tuple[int, int]) -> None:
    model = make().eval()

    logits = model(*latents(1, *size))

    assert logits.shape == (1, CLASSES)
    assert logits.isfinite().all()


@both_networks
def test_feature_maps_have_the_sizes_of_the_paper(make: Make) -> None:
    model = make().eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )

    model(*latents(1, 28, 28))

    assert shapes == {
        "head": (64, 28, 28),  # 8 * width, stride 1
        "layer2": (64, 28, 28),
        "layer3": (128, 14, 14),
        "layer4": (256, 7, 7),
        "avgpool": (256, 1, 1),
        "fc": (CLASSES,),
    }


@both_networks
def test_gradients_reach_every_parameter(make: Make) -> None:
    torch.manual_seed(0)
    model = make()

    loss = F.cross_entropy(model(*latents(8, 8, 8)), torch.arange(8) % CLASSES)
    torch.autograd.backward(loss)

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name.endswith(("pool_w.conv.bias", "pool_b.conv.bias")):
            continue  # softmax ignores a constant: zero but for rounding
        assert parameter.grad.count_nonzero() > 0, name


@both_networks
def test_both_inputs_matter(make: Make) -> None:
    torch.manual_seed(0)
    model = make().eval()
    y_hat, sigma_hat = latents(2, 8, 8)
    other_y_hat, other_sigma_hat = latents(2, 8, 8)

    logits = model(y_hat, sigma_hat)

    assert not torch.allclose(logits, model(other_y_hat, sigma_hat))
    assert not torch.allclose(logits, model(y_hat, other_sigma_hat))


@both_networks
def test_each_input_enters_its_own_branch_as_it_is(make: Make) -> None:
    model = make().eval()
    entered: dict[str, Tensor] = {}
    for name in ("y_hat", "sigma_hat"):
        model.get_submodule(f"head.{name}").register_forward_pre_hook(
            lambda _, inputs, name=name: entered.update({name: inputs[0].clone()})
        )
    y_hat, sigma_hat = latents(2, 4, 4)

    model(y_hat, sigma_hat)

    assert torch.equal(entered["y_hat"], y_hat)
    assert torch.equal(entered["sigma_hat"], sigma_hat)


@both_networks
def test_a_sample_does_not_depend_on_its_batch_when_evaluated(make: Make) -> None:
    torch.manual_seed(0)
    model = make().eval()
    y_hat, sigma_hat = latents(3, 8, 8)

    together = model(y_hat, sigma_hat)

    for i in range(3):
        alone = model(y_hat[i : i + 1], sigma_hat[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


@both_networks
def test_channels_last_gives_the_same(make: Make) -> None:
    torch.manual_seed(0)
    model = make().eval()
    y_hat, sigma_hat = latents(2, 8, 6)
    expected = model(y_hat, sigma_hat)

    model = model.to(memory_format=torch.channels_last)
    inputs = (x.contiguous(memory_format=torch.channels_last) for x in (y_hat, sigma_hat))

    torch.testing.assert_close(model(*inputs), expected, rtol=1e-4, atol=1e-5)


@both_networks
def test_bfloat16_autocast_trains(make: Make) -> None:
    torch.manual_seed(0)
    model = make()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(*latents(4, 8, 8)), torch.arange(4))
    torch.autograd.backward(loss)

    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_where_the_feature_adaptation_stands() -> None:
    model = FACResNet(
        FACResNetNetwork(
            channels=CHANNELS, num_classes=CLASSES, depths=(3, 3, 2), width=8, n=(1, 2, 3)
        ),
        fa=FA_8,
    )

    assert [name for name, _ in model.layer2.named_children()] == ["1", "2"]
    assert [name for name, _ in model.layer3.named_children()] == ["0", "fa", "1", "2"]
    assert [name for name, _ in model.layer4.named_children()] == ["0", "fa", "1"]
    depths = [
        len(list(model.get_submodule(f"{name}.feu.blocks").children())) - 2
        for name in ("head.y_hat", "head.sigma_hat", "layer3.fa", "layer4.fa")
    ]
    assert depths == [1, 1, 2, 3]


def test_new_modules_are_the_head_and_the_feature_adaptation() -> None:
    model = FACResNet(
        FACResNetNetwork(channels=CHANNELS, num_classes=CLASSES, depths=(2, 2, 2), width=8), fa=FA_8
    )

    new = {id(module) for module in model.new_modules()}

    names = [name for name, module in model.named_modules() if id(module) in new]
    assert names == ["head", "layer3.fa", "layer4.fa"]


def test_sigma_features_widen_its_branch() -> None:
    for model in (
        CResNet(
            CResNetNetwork(
                channels=CHANNELS, num_classes=CLASSES, depths=(1, 1, 1), width=8, sigma_features=12
            )
        ),
        FACResNet(
            FACResNetNetwork(
                channels=CHANNELS, num_classes=CLASSES, depths=(1, 1, 1), width=8, sigma_features=12
            )
        ),
    ):
        assert model.get_submodule("head.sigma_hat")(latents(2, 4, 4)[1]).shape == (2, 12, 4, 4)
        assert model(*latents(2, 4, 4)).shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("network", "sizes", "text"),
    [
        (CResNetNetwork, {"sigma_features": 6}, "multiple of 4.*got 6"),
        (CResNetNetwork, {"sigma_features": 0}, "sigma_features(?s:.*)equal to 1"),
        (
            FACResNetNetwork,
            {"sigma_features": 0},
            "sigma_features(?s:.*)equal to 1",
        ),
        (CResNetNetwork, {"width": 0}, "width(?s:.*)equal to 1"),
        (FACResNetNetwork, {"depths": (4, 0, 3)}, r"depths\.1(?s:.*)equal to 1"),
        (FACResNetNetwork, {"n": (2, 0, 4)}, r"n\.1(?s:.*)equal to 1"),
        (FACResNetNetwork, {"depth": 49}, "depth(?s:.*)18, 34, 50, 101 or 152"),
        (FACResNetNetwork, {"r": 0}, "r(?s:.*)equal to 1"),
    ],
)
def test_impossible_sizes_are_refused(
    network: type[LatentNetwork], sizes: dict[str, Any], text: str
) -> None:
    given = {"channels": CHANNELS, "num_classes": CLASSES, "width": 8, **sizes}
    with pytest.raises((RecipeError, ValidationError), match=text):
        build_network(network(**given))
