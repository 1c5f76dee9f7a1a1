from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError
from latentset.train.models.cresnet import CResNet
from latentset.train.models.fa_cresnet import FACResNet, FACResNetPost
from latentset.train.models.networks import (
    CResNetNetwork,
    FACResNetNetwork,
    FACResNetPostNetwork,
    FAResNetNetwork,
    ResNetNetwork,
)
from latentset.train.models.pretrained import load_pretrained
from latentset.train.models.resnet import FAResNet, PixelResNet
from tests.makers.slim import (
    CHANNELS,
    CLASSES,
    DEPTHS,
    Make,
    copy_of,
    every_network,
    fa_cresnet,
    fa_resnet,
    is_new,
    sgd,
    train_one_step,
    trained_resnet,
)


@every_network
def test_every_tensor_that_is_not_new_comes_from_the_resnet(make: Make) -> None:
    model, resnet = make(), trained_resnet()
    before, given = copy_of(model), copy_of(resnet)

    report = load_pretrained(model, given)

    after = model.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, (before if is_new(name) else given)[name]), name
    assert report.loaded == tuple(name for name in after if not is_new(name))
    assert report.new == tuple(name for name in after if is_new(name))
    excluded = () if make is fa_resnet else ("conv1.", "bn1.", "layer1.", "layer2.0.")
    assert report.excluded == tuple(name for name in given if name.startswith(excluded))


def test_report_reads_as_three_lines() -> None:
    report = load_pretrained(fa_cresnet(), trained_resnet().state_dict())

    lines = str(report).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "layer2, layer3, layer4, fc",
        "conv1, bn1, layer1, layer2",
        "head, layer3.fa, layer4.fa",
    ]
    assert lines[0].startswith(f"pretrained  {len(report.loaded)} tensors")


def test_the_published_networks_adopt_from_torchvisions_resnet_50() -> None:
    with torch.device("meta"):
        checkpoint = torchvision.models.resnet50(num_classes=23).state_dict()
        for model in (
            CResNet(CResNetNetwork(channels=192, num_classes=23)),
            FACResNet(FACResNetNetwork(channels=192, num_classes=23)),
            FACResNetPost(FACResNetPostNetwork(channels=192, num_classes=23)),
            FAResNet(FAResNetNetwork(num_classes=23)),
        ):
            report = load_pretrained(model, checkpoint)
            assert len(report.loaded) + len(report.excluded) == len(checkpoint)


@pytest.mark.parametrize(
    ("make", "depth"),
    [
        (torchvision.models.resnet18, 18),
        (torchvision.models.resnet34, 34),
        (torchvision.models.resnet101, 101),
        (torchvision.models.resnet152, 152),
    ],
)
def test_networks_of_any_depth_adopt_from_torchvisions(
    make: Callable[..., nn.Module], depth: int
) -> None:
    with torch.device("meta"):
        checkpoint = make(num_classes=6).state_dict()
        for model in (
            CResNet(CResNetNetwork(channels=8, num_classes=6, depth=depth)),
            FACResNet(FACResNetNetwork(channels=8, num_classes=6, depth=depth)),
        ):
            report = load_pretrained(model, checkpoint)
            assert set(report.excluded) == {
                name
                for name in checkpoint
                if name.startswith(("conv1.", "bn1.", "layer1.", "layer2.0."))
            }
            assert set(report.loaded) == set(checkpoint) - set(report.excluded)


def test_a_deeper_resnet_of_the_same_layers_is_refused() -> None:
    """ResNet-34 and ResNet-50 have as many blocks, of another kind."""
    with torch.device("meta"):
        checkpoint = torchvision.models.resnet34(num_classes=6).state_dict()
        with pytest.raises(TrainingError, match=r"layer2\.1\.conv1\.weight: expected \(128, 512"):
            load_pretrained(FACResNet(FACResNetNetwork(channels=8, num_classes=6)), checkpoint)


def test_weights_of_other_classes_are_adopted_without_fc_which_then_trains() -> None:
    torch.manual_seed(0)
    model, given = fa_cresnet(), trained_resnet(classes=1000).state_dict()

    report = load_pretrained(model, given, exclude=("fc.",))

    assert {"fc.weight", "fc.bias"} <= set(report.new) & set(report.excluded)
    assert not any(name.startswith("fc.") for name in report.loaded)
    model.freeze_pretrained()
    before = copy_of(model)
    train_one_step(model, sgd(model))
    for name, tensor in model.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same != (is_new(name) or name.startswith("fc.")), name


def test_what_was_excluded_can_be_excluded_again_without_loading() -> None:
    model = fa_cresnet()
    model.exclude(["fc"])
    model.exclude(["fc.", "layer4"])

    new = list(model.new_parameters())

    assert len({id(parameter) for parameter in new}) == len(new)  # layer4.fa's too
    assert {id(p) for p in model.fc.parameters()} <= {id(p) for p in new}
    assert {id(p) for p in model.get_submodule("layer4").parameters()} <= {id(p) for p in new}


@pytest.mark.parametrize("name", ["fcc", "", "fc.weight"])
def test_leaving_out_what_is_not_there_is_refused_and_nothing_changes(name: str) -> None:
    model = fa_cresnet()
    before = copy_of(model)

    with pytest.raises(TrainingError, match=f"no module '{name}' .*layer4, avgpool, fc"):
        load_pretrained(model, trained_resnet().state_dict(), exclude=(name,))

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "fc" not in {n for n, m in model.named_modules() if m in model.new_modules()}


def test_another_number_of_classes_says_that_fc_can_be_excluded() -> None:
    with pytest.raises(TrainingError, match="exclude fc"):
        load_pretrained(fa_cresnet(), trained_resnet(classes=6).state_dict())


def test_a_resnet_adopts_all_of_another() -> None:
    model, resnet = (
        PixelResNet(ResNetNetwork(num_classes=CLASSES, depths=DEPTHS, width=8)),
        trained_resnet(),
    )

    report = load_pretrained(model, resnet.state_dict())

    assert report.excluded == report.new == ()
    given = resnet.state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())


def test_checkpoints_without_batch_counters_are_loaded() -> None:
    given = trained_resnet().state_dict()
    old = {name: t for name, t in given.items() if not name.endswith("num_batches_tracked")}

    report = load_pretrained(fa_cresnet(), old)

    assert set(report.loaded) | set(report.excluded) == set(old)


@pytest.mark.parametrize(
    ("make_given", "name", "expected", "got"),
    [
        (lambda: trained_resnet(classes=6), "fc.weight", "(5, 256)", "(6, 256)"),
        (
            lambda: trained_resnet(width=4),
            "layer2.1.conv1.weight",
            "(16, 64, 1, 1)",
            "(8, 32, 1, 1)",
        ),
        (
            lambda: trained_resnet((1, 3, 1, 2)),
            "layer3.1.conv1.weight",
            "(32, 128, 1, 1)",
            "nothing",
        ),
        (
            lambda: trained_resnet((1, 3, 2, 3)),
            "layer4.2.conv1.weight",
            "no such tensor",
            "(64, 256, 1, 1)",
        ),
    ],
    ids=["classes", "width", "shallower", "deeper"],
)
def test_weights_of_another_network_are_refused_and_nothing_changes(
    make_given: Callable[[], PixelResNet], name: str, expected: str, got: str
) -> None:
    model = fa_cresnet()
    before = copy_of(model)

    with pytest.raises(TrainingError, match="do not fit FACResNet") as caught:
        load_pretrained(model, make_given().state_dict())

    assert f"{name}: expected {expected}, got {got}\n" in str(caught.value)
    assert "same depths, width and number of classes" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_whole_checkpoint_in_place_of_its_weights_is_refused() -> None:
    checkpoint = {"epoch": 3, "state_dict": trained_resnet().state_dict()}

    with pytest.raises(TrainingError, match=r"got nothing\n(.|\n)*and \d+ more"):
        load_pretrained(fa_cresnet(), checkpoint)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.to(torch.int8), "expected finite floating-point numbers, got whole ones"),
        (lambda t: t + 1j, "expected finite floating-point numbers, got complex ones"),
        (lambda t: t.log().neg().log(), "got floating-point ones that are not all finite"),
        (lambda t: t.to_sparse(), "got a tensor of torch.sparse_coo"),
    ],
)
def test_values_that_are_no_weights_are_refused(
    change: Callable[[Tensor], Tensor], said: str
) -> None:
    given = trained_resnet().state_dict()
    name = "layer3.0.conv1.weight"
    given[name] = change(given[name])
    model = FACResNet(
        FACResNetNetwork(channels=CHANNELS, num_classes=CLASSES, depths=DEPTHS[1:], width=8)
    )
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=f"{name}: .*{said}"):
        load_pretrained(model, given)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
