"""The two phases: what is frozen stands still to the bit, and finetuning reaches all."""

import torch
from torch import nn

from latentset.train.models.pretrained import load_pretrained
from tests.makers.slim import (
    Make,
    both_networks,
    copy_of,
    every_network,
    is_new,
    sgd,
    train_one_step,
    trained_resnet,
)


@every_network
def test_frozen_tensors_do_not_change_by_a_bit_and_new_ones_do(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    load_pretrained(model, trained_resnet().state_dict())
    model.freeze_pretrained()
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
    model.freeze_pretrained()
    before = copy_of(model)

    optimizer.step()

    for name, tensor in model.state_dict().items():
        assert is_new(name) or torch.equal(tensor, before[name]), f"{name} changed"


@every_network
def test_unfrozen_all_tensors_change(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    model.freeze_pretrained()
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

    model.freeze_pretrained()
    assert not any(norm.training for norm in norms.values())
    model.train()
    assert {name for name, norm in norms.items() if norm.training} == new
    model.unfreeze()
    assert all(norm.training for norm in norms.values())

    model.freeze_pretrained()  # while it trains: at once, without another call of train()
    assert {name for name, norm in norms.items() if norm.training} == new
    model.eval()
    model.unfreeze()
    assert not any(norm.training for norm in norms.values())


@every_network
def test_parameters_are_either_adopted_or_new(make: Make) -> None:
    model = make()
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    adopted = [names[id(parameter)] for parameter in model.pretrained_parameters()]
    new = [names[id(parameter)] for parameter in model.new_parameters()]

    assert sorted(adopted + new) == sorted(names.values())
    assert all(map(is_new, new))
    assert not any(map(is_new, adopted))
