from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError
from latentset.train.models import AdoptingModel, CResNet, FACResNet, PixelResNet, adopt_weights

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


def cresnet() -> AdoptingModel:
    return CResNet(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8)


def fa_cresnet() -> AdoptingModel:
    return FACResNet(CHANNELS, CLASSES, depths=DEPTHS[1:], width=8, n=(1, 1, 2), r=8)


both_networks = pytest.mark.parametrize("make", [cresnet, fa_cresnet])


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_new(name: str) -> bool:
    return name.startswith(("head.", "layer3.fa.", "layer4.fa."))


def train_one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    y_hat = torch.randn(8, CHANNELS, 8, 8).mul(3).round()
    logits = model(y_hat, 0.11 + torch.rand(8, CHANNELS, 8, 8))
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(8) % CLASSES))
    optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)


@both_networks
def test_every_tensor_that_is_not_new_comes_from_the_resnet(make: Make) -> None:
    model, resnet = make(), trained_resnet()
    before, given = copy_of(model), copy_of(resnet)

    report = adopt_weights(model, given)

    after = model.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, (before if is_new(name) else given)[name]), name
    assert report.adopted == tuple(name for name in after if not is_new(name))
    assert report.newly_made == tuple(name for name in after if is_new(name))
    left_out = ("conv1.", "bn1.", "layer1.", "layer2.0.")
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
        for model in (CResNet(192, 23), FACResNet(192, 23)):
            report = adopt_weights(model, checkpoint)
            assert len(report.adopted) + len(report.left_out) == len(checkpoint)


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


@both_networks
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
        # the attention's bias has no gradient and little decay: left out of the second half
        assert same or is_new(name), f"{name} changed"
        assert not same or not is_new(name) or name.endswith("conv.bias"), f"{name} did not change"


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


@both_networks
def test_unfrozen_all_tensors_change(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    model.freeze_adopted()
    model.unfreeze()
    before = copy_of(model)

    train_one_step(model, sgd(model))

    for name, tensor in model.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed or name.endswith(("pool_w.conv.bias", "pool_b.conv.bias")), name


@both_networks
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


@both_networks
def test_parameters_are_either_adopted_or_new(make: Make) -> None:
    model = make()
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    adopted = [names[id(parameter)] for parameter in model.adopted_parameters()]
    new = [names[id(parameter)] for parameter in model.new_parameters()]

    assert sorted(adopted + new) == sorted(names.values())
    assert all(map(is_new, new))
    assert not any(map(is_new, adopted))
