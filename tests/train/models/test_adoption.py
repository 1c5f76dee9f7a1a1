from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError
from latentset.train.models import (
    CAU,
    FA,
    FEU,
    AdoptingModel,
    AveragePooling,
    BiasCAU,
    CAUOnly,
    CResNet,
    FACResNet,
    FACResNetPost,
    FACResNetY,
    FAInner,
    FAPost,
    FAResNet,
    FASkip,
    MakeCAU,
    MakeFA,
    MaxAverageCAU,
    MaxPooling,
    OneLayerCAU,
    PixelResNet,
    ScaleCAU,
    SharedPoolingCAU,
    adopt_weights,
)

DEPTHS = (1, 3, 2, 2)
CHANNELS = 32
CLASSES = 5
Make = Callable[[], AdoptingModel]


def trained_resnet(
    depths: tuple[int, int, int, int] = DEPTHS, *, classes: int = CLASSES, width: int = 8
) -> PixelResNet:
    """A slim ResNet with no tensor left at its initial value."""
    model = PixelResNet(classes, depths=depths, width=width)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.fill_(7)
    return model


CAU_8 = partial(CAU, r=8)
FA_8 = partial(FA, cau=CAU_8)


def cresnet() -> AdoptingModel:
    return CResNet(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8)


def fa_cresnet(fa: MakeFA = FA_8) -> AdoptingModel:
    return FACResNet(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2), fa=fa)


def y_only() -> AdoptingModel:
    return FACResNetY(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2), fa=FA_8)


def post() -> AdoptingModel:
    return FACResNetPost(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2), fa=FA_8)


def fa_resnet() -> AdoptingModel:
    return FAResNet(CLASSES, depths=DEPTHS, width=8, n=(1, 1, 1, 2), fa=FA_8)


def with_cau(cau: MakeCAU) -> Make:
    return partial(fa_cresnet, partial(FA, cau=cau))


def cau_only(in_channels: int, out_channels: int, n: int) -> nn.Module:
    return CAUOnly(in_channels, out_channels, cau=CAU_8)


NETWORKS: dict[str, Make] = {
    "cresnet": cresnet,
    "fa-cresnet": fa_cresnet,
    "y-only": y_only,
    "post": post,
    "fa-resnet": fa_resnet,
    "fa-skip": partial(fa_cresnet, partial(FASkip, cau=CAU_8)),
    "fa-inner": partial(fa_cresnet, partial(FAInner, cau=CAU_8)),
    "fa-post": partial(fa_cresnet, partial(FAPost, cau=CAU_8)),
    "fa-cau": partial(fa_cresnet, cau_only),
    "fa-feu": partial(fa_cresnet, FEU),
    "cau-scale": with_cau(partial(ScaleCAU, r=8)),
    "cau-bias": with_cau(partial(BiasCAU, r=8)),
    "cau-max": with_cau(partial(CAU_8, pooling=MaxPooling)),
    "cau-avg": with_cau(partial(CAU_8, pooling=AveragePooling)),
    "cau-max-avg": with_cau(partial(MaxAverageCAU, r=8)),
    "cau-shared": with_cau(partial(SharedPoolingCAU, r=8)),
    "cau-one-fc": with_cau(OneLayerCAU),
}
both_networks = pytest.mark.parametrize("make", [cresnet, fa_cresnet])
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_new(name: str) -> bool:
    return name.startswith("head.") or ".fa." in name


def train_one_step(model: AdoptingModel, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    y_hat = torch.randn(8, CHANNELS, 8, 8).mul(3).round()
    given = {
        "y_hat": y_hat,
        "sigma_hat": 0.11 + torch.rand(8, CHANNELS, 8, 8),
        "pixels": torch.randn(8, 3, 64, 64),
    }
    logits = model(*(given[name] for name in model.inputs))
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(8) % CLASSES))
    optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)


@every_network
def test_every_tensor_that_is_not_new_comes_from_the_resnet(make: Make) -> None:
    model, resnet = make(), trained_resnet()
    before, given = copy_of(model), copy_of(resnet)

    report = adopt_weights(model, given)

    after = model.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, (before if is_new(name) else given)[name]), name
    assert report.adopted == tuple(name for name in after if not is_new(name))
    assert report.newly_made == tuple(name for name in after if is_new(name))
    left_out = () if make is fa_resnet else ("conv1.", "bn1.", "layer1.", "layer2.0.")
    assert report.left_out == tuple(name for name in given if name.startswith(left_out))


def test_report_reads_as_three_lines() -> None:
    report = adopt_weights(fa_cresnet(), trained_resnet().state_dict())

    lines = str(report).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "layer2, layer3, layer4, fc",
        "conv1, bn1, layer1, layer2",
        "head, layer3.fa, layer4.fa",
    ]
    assert lines[0].startswith(f"adopted     {len(report.adopted)} tensors")


def test_the_published_networks_adopt_from_torchvisions_resnet_50() -> None:
    with torch.device("meta"):
        checkpoint = torchvision.models.resnet50(num_classes=23).state_dict()
        for model in (CResNet(192, 23), FACResNet(192, 23), FACResNetPost(192, 23), FAResNet(23)):
            report = adopt_weights(model, checkpoint)
            assert len(report.adopted) + len(report.left_out) == len(checkpoint)


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
        for model in (CResNet(8, 6, depth=depth), FACResNet(8, 6, depth=depth)):
            report = adopt_weights(model, checkpoint)
            assert set(report.left_out) == {
                name
                for name in checkpoint
                if name.startswith(("conv1.", "bn1.", "layer1.", "layer2.0."))
            }
            assert set(report.adopted) == set(checkpoint) - set(report.left_out)


def test_a_deeper_resnet_of_the_same_layers_is_refused() -> None:
    """ResNet-34 and ResNet-50 have as many blocks, of another kind."""
    with torch.device("meta"):
        checkpoint = torchvision.models.resnet34(num_classes=6).state_dict()
        with pytest.raises(TrainingError, match=r"layer2\.1\.conv1\.weight: expected \(128, 512"):
            adopt_weights(FACResNet(8, 6), checkpoint)


def test_weights_of_other_classes_are_adopted_without_fc_which_then_trains() -> None:
    torch.manual_seed(0)
    model, given = fa_cresnet(), trained_resnet(classes=1000).state_dict()

    report = adopt_weights(model, given, leave_out=("fc.",))

    assert {"fc.weight", "fc.bias"} <= set(report.newly_made) & set(report.left_out)
    assert not any(name.startswith("fc.") for name in report.adopted)
    model.freeze_adopted()
    before = copy_of(model)
    train_one_step(model, sgd(model))
    for name, tensor in model.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same != (is_new(name) or name.startswith("fc.")), name


def test_what_was_left_out_can_be_left_out_again_without_adopting() -> None:
    model = fa_cresnet()
    model.leave_out(["fc"])
    model.leave_out(["fc.", "layer4"])

    new = list(model.new_parameters())

    assert len({id(parameter) for parameter in new}) == len(new)  # layer4.fa's too
    assert {id(p) for p in model.fc.parameters()} <= {id(p) for p in new}
    assert {id(p) for p in model.get_submodule("layer4").parameters()} <= {id(p) for p in new}


@pytest.mark.parametrize("name", ["fcc", "", "fc.weight"])
def test_leaving_out_what_is_not_there_is_refused_and_nothing_changes(name: str) -> None:
    model = fa_cresnet()
    before = copy_of(model)

    with pytest.raises(TrainingError, match=f"no module '{name}' .*layer4, avgpool, fc"):
        adopt_weights(model, trained_resnet().state_dict(), leave_out=(name,))

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "fc" not in {n for n, m in model.named_modules() if m in model.new_modules()}


def test_another_number_of_classes_says_that_fc_can_be_left_out() -> None:
    with pytest.raises(TrainingError, match="leave fc out"):
        adopt_weights(fa_cresnet(), trained_resnet(classes=6).state_dict())


def test_a_resnet_adopts_all_of_another() -> None:
    model, resnet = PixelResNet(CLASSES, depths=DEPTHS, width=8), trained_resnet()

    report = adopt_weights(model, resnet.state_dict())

    assert report.left_out == report.newly_made == ()
    given = resnet.state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())


def test_checkpoints_without_batch_counters_are_adopted() -> None:
    given = trained_resnet().state_dict()
    old = {name: t for name, t in given.items() if not name.endswith("num_batches_tracked")}

    report = adopt_weights(fa_cresnet(), old)

    assert set(report.adopted) | set(report.left_out) == set(old)


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
        adopt_weights(model, make_given().state_dict())

    assert f"{name}: expected {expected}, got {got}\n" in str(caught.value)
    assert "same depths, width and number of classes" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_whole_checkpoint_in_place_of_its_weights_is_refused() -> None:
    checkpoint = {"epoch": 3, "state_dict": trained_resnet().state_dict()}

    with pytest.raises(TrainingError, match=r"got nothing\n(.|\n)*and \d+ more"):
        adopt_weights(fa_cresnet(), checkpoint)  # type: ignore[arg-type]


@every_network
def test_frozen_tensors_do_not_change_by_a_bit_and_new_ones_do(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    adopt_weights(model, trained_resnet().state_dict())
    model.freeze_adopted()
    before = copy_of(model)

    optimizer = sgd(model)
    for _ in range(2):
        train_one_step(model, optimizer)

    for name, tensor in model.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same != is_new(name), name


@both_networks
def test_freezing_after_a_step_leaves_no_gradient_behind(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = sgd(model)
    train_one_step(model, optimizer)
    model.freeze_adopted()
    before = copy_of(model)

    optimizer.step()

    for name, tensor in model.state_dict().items():
        assert is_new(name) or torch.equal(tensor, before[name]), f"{name} changed"


@every_network
def test_unfrozen_all_tensors_change(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    model.freeze_adopted()
    model.unfreeze()
    before = copy_of(model)

    train_one_step(model, sgd(model))

    # The attention's biases too, whose gradient is zero: by weight decay.
    for name, tensor in model.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


@every_network
def test_frozen_blocks_stay_in_evaluation_mode(make: Make) -> None:
    model = make().eval()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    new = {name for name in norms if is_new(name)}

    model.freeze_adopted()
    assert not any(norm.training for norm in norms.values())
    model.train()
    assert {name for name, norm in norms.items() if norm.training} == new
    model.unfreeze()
    assert all(norm.training for norm in norms.values())

    model.freeze_adopted()  # while it trains: at once, without another call of train()
    assert {name for name, norm in norms.items() if norm.training} == new
    model.eval()
    model.unfreeze()
    assert not any(norm.training for norm in norms.values())


@every_network
def test_parameters_are_either_adopted_or_new(make: Make) -> None:
    model = make()
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    adopted = [names[id(parameter)] for parameter in model.adopted_parameters()]
    new = [names[id(parameter)] for parameter in model.new_parameters()]

    assert sorted(adopted + new) == sorted(names.values())
    assert all(map(is_new, new))
    assert not any(map(is_new, adopted))


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
    model = FACResNet(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=f"{name}: .*{said}"):
        adopt_weights(model, given)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
