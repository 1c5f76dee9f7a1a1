"""Where FA modules stand in the networks that ablate their location or input."""

import torch
from torch import Tensor, nn

from latentset.train.models.fa import FA
from latentset.train.models.fa_cresnet import FACResNetPost, FACResNetY
from latentset.train.models.networks import (
    FACResNetPostNetwork,
    FACResNetYNetwork,
    FAResNetNetwork,
    ResNetNetwork,
)
from latentset.train.models.resnet import FAResNet, PixelResNet


def names(model: nn.Module, layer: str) -> list[str]:
    return [name for name, _ in model.get_submodule(layer).named_children()]


def feu_depth(module: nn.Module) -> int:
    assert isinstance(module, FA)
    return len(module.feu.blocks) - 2


def test_y_only_has_one_fa_module_for_a_head() -> None:
    model = FACResNetY(
        FACResNetYNetwork(channels=32, num_classes=5, depths=(3, 2, 2), width=8, n=(1, 2, 3))
    )

    assert isinstance(model.head, FA)
    assert names(model, "layer2") == ["1", "2"]
    assert names(model, "layer3") == names(model, "layer4") == ["0", "fa", "1"]
    locations = ("head", "layer3.fa", "layer4.fa")
    assert [feu_depth(model.get_submodule(p)) for p in locations] == [1, 2, 3]
    assert {id(m) for m in model.new_modules()} == {id(model.get_submodule(p)) for p in locations}
    assert model(torch.randn(2, 32, 7, 9)).shape == (2, 5)


def test_post_ends_each_layer_with_an_fa_module() -> None:
    model = FACResNetPost(
        FACResNetPostNetwork(channels=32, num_classes=5, depths=(3, 2, 1), width=8, n=(1, 2, 3))
    )

    assert names(model, "layer2") == ["1", "2", "fa"]
    assert names(model, "layer3") == ["0", "1", "fa"]
    assert names(model, "layer4") == ["0", "fa"]
    locations = ("layer2.fa", "layer3.fa", "layer4.fa")
    assert [feu_depth(model.get_submodule(p)) for p in locations] == [1, 2, 3]
    assert not any(isinstance(m, FA) for m in model.head.modules())
    new = {id(model.get_submodule(p)) for p in (*locations, "head")}
    assert {id(m) for m in model.new_modules()} == new


def test_fa_resnet_adapts_after_the_first_block_of_each_layer() -> None:
    model = FAResNet(FAResNetNetwork(num_classes=5, depths=(1, 2, 3, 2), width=8, n=(1, 2, 3, 4)))

    assert [names(model, f"layer{i}") for i in (1, 2, 3, 4)] == [
        ["0", "fa"],
        ["0", "fa", "1"],
        ["0", "fa", "1", "2"],
        ["0", "fa", "1"],
    ]
    modules = [model.get_submodule(f"layer{i}.fa") for i in (1, 2, 3, 4)]
    assert list(map(feu_depth, modules)) == [1, 2, 3, 4]
    assert {id(m) for m in model.new_modules()} == set(map(id, modules))


def test_fa_resnet_is_a_resnet_around_them() -> None:
    """With FA modules that give what they get, the same function as the plain ResNet."""

    def nothing(in_channels: int, out_channels: int, n: int) -> nn.Module:
        return nn.Identity()

    torch.manual_seed(0)
    adapted = FAResNet(
        FAResNetNetwork(num_classes=5, depths=(1, 2, 1, 1), width=8), fa=nothing
    ).eval()
    plain = PixelResNet(ResNetNetwork(num_classes=5, depths=(1, 2, 1, 1), width=8)).eval()
    plain.load_state_dict(adapted.state_dict())
    pixels: Tensor = torch.randn(2, 3, 64, 48)

    assert torch.equal(adapted(pixels), plain(pixels))
