"""torchvision's weights by name, from files put where torch.hub keeps them: no downloads."""

from pathlib import Path

import pytest
import torch
import torchvision

from latentset.datasets.errors import TrainingError
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.models.networks import FACResNetNetwork, ResNetNetwork
from latentset.train.models.pretrained import load_pretrained
from latentset.train.models.resnet import PixelResNet
from latentset.train.run.weights import digest, find_weights, load_torchvision

RESNET_18 = "resnet18-f37072fd.pth"
"""The file of ResNet18_Weights.IMAGENET1K_V1 on torchvision's server."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch.hub's files, empty; no server can be reached."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port that discards: refused at once
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_by_name_are_those_of_the_file(hub: Path) -> None:
    torch.manual_seed(0)
    given = torchvision.models.resnet18().state_dict()
    torch.save(given, hub / RESNET_18)

    loaded = load_torchvision("ResNet18_Weights.IMAGENET1K_V1")

    assert loaded.keys() == given.keys()
    assert all(torch.equal(tensor, given[name]) for name, tensor in loaded.items())
    anchor = PixelResNet(ResNetNetwork(num_classes=1000, depth=18))
    assert load_pretrained(anchor, loaded).new == ()
    report = load_pretrained(
        FACResNet(FACResNetNetwork(channels=8, num_classes=6, depth=18)), loaded, exclude=("fc.",)
    )
    assert "layer2.1.conv1.weight" in report.loaded


def test_a_recipe_adopts_them_by_name(hub: Path) -> None:
    torch.manual_seed(0)
    given = torchvision.models.resnet18().state_dict()
    torch.save(given, hub / RESNET_18)
    adopt = "torchvision:ResNet18_Weights.IMAGENET1K_V1"
    found = find_weights(adopt)
    assert all(torch.equal(found[name], given[name]) for name in given)
    wnids = tuple(f"n{k:08}" for k in range(1000))
    find_weights(adopt, wnids)
    (hub / RESNET_18).unlink()  # classes are looked at before anything is downloaded
    # Other classes, fewer, named otherwise, and the same in another order.
    for classes in (wnids[:6], ("tench", *wnids[1:]), wnids[::-1]):
        with pytest.raises(TrainingError, match=r"1000 classes in the order of .*WNIDs.*exclude"):
            find_weights(adopt, classes)


def test_weights_of_half_precision_and_parameters_have_a_digest(tmp_path: Path) -> None:
    weights = {"fc.weight": torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))}
    torch.save(weights, tmp_path / "w.pth")
    digests = [digest(find_weights(str(tmp_path / "w.pth")))]
    weights["fc.weight"].data[1, 2] = 2
    torch.save(weights, tmp_path / "w.pth")
    digests.append(digest(find_weights(str(tmp_path / "w.pth"))))
    assert digests[0] != digests[1]
    assert {len(found) for found in digests} == {64}


def test_each_published_resnet_has_weights() -> None:
    with pytest.raises(TrainingError) as caught:
        load_torchvision("ResNet50_Weights.DEFAULT")

    for name in (
        "ResNet18_Weights.IMAGENET1K_V1",
        "ResNet34_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "ResNet101_Weights.IMAGENET1K_V2",
        "ResNet152_Weights.IMAGENET1K_V2",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "ResNet50_Weights",
        "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
        "../ResNet50_Weights",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=r"expected one of ResNet18_Weights\.IMAGENET1K_V1, "):
        load_torchvision(name)


def test_a_slip_of_the_pen_is_answered() -> None:
    with pytest.raises(TrainingError, match=r"did you mean ResNet50_Weights\.IMAGENET1K_V2\?"):
        load_torchvision("Resnet50_Weights.IMAGENET1K_V2")


def test_without_a_network_the_error_says_where_to_put_the_file(hub: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        load_torchvision("ResNet18_Weights.IMAGENET1K_V1")

    assert f"Fetch https://download.pytorch.org/models/{RESNET_18}" in str(caught.value)
    assert f"put it at {hub / RESNET_18}" in str(caught.value)


class Program:
    """What a pickle may hold beside tensors; reading it would run code of the file."""


def test_a_pickle_of_anything_else_is_not_read(hub: Path) -> None:
    torch.save({"fc.weight": Program()}, hub / RESNET_18)

    with pytest.raises(TrainingError, match="cannot be loaded: Weights only load failed"):
        load_torchvision("ResNet18_Weights.IMAGENET1K_V1")
