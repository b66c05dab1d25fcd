"""Adam's steps on all parameters at once are those of PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_rmdp.common.flat_adam import FlatAdam
from sb3_rmdp.common.plain_case import is_plain_adam


def net_and_adam(**kwargs: Any) -> tuple[nn.Module, th.optim.Adam]:
    th.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return net, th.optim.Adam(net.parameters(), **{"lr": 1e-2, "eps": 1e-5, "fused": True, **kwargs})


def loss(net: nn.Module, number: int) -> th.Tensor:
    return (net(th.full((2, 3), 0.1 * number)) - 1.0).square().sum()


def stock_steps(net: nn.Module, adam: th.optim.Adam, n_steps: int) -> None:
    for number in range(n_steps):
        adam.zero_grad()
        loss(net, number).backward()
        adam.step()


def flat_steps(net: nn.Module, adam: th.optim.Adam, n_steps: int) -> None:
    flat = FlatAdam(adam, list(net.parameters())[::-1])
    for number in range(n_steps):
        flat.gradient.zero_()
        loss(net, number).backward()  # adds to the views
        flat.step()
    flat.finish()


def test_steps_of_stock_adam_from_the_start_and_going_on() -> None:
    ours, our_adam = net_and_adam()
    theirs, their_adam = net_and_adam()
    for steps in (flat_steps, stock_steps, flat_steps):
        steps(ours, our_adam, 3)
        stock_steps(theirs, their_adam, 3)
        our_adam.param_groups[0]["lr"] = their_adam.param_groups[0]["lr"] = 3e-3
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            th.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    one, other = our_adam.state_dict(), their_adam.state_dict()
    assert one["param_groups"] == other["param_groups"]
    for number, state in other["state"].items():
        assert state.keys() == one["state"][number].keys()
        th.testing.assert_close(one["state"][number], state, rtol=1e-5, atol=1e-8)


def test_nothing_is_left_behind() -> None:
    net, adam = net_and_adam()
    flat_steps(net, adam, 1)
    storages = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    assert len(storages) == len(list(net.parameters()))
    assert all(parameter.grad is None for parameter in net.parameters())
    # An update that took no step leaves the optimizer as it was
    net, adam = net_and_adam()
    before = copy.deepcopy(net.state_dict())
    FlatAdam(adam, list(net.parameters())).finish()
    assert not adam.state_dict()["state"]
    assert all(th.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"weight_decay": 0.1},
        {"amsgrad": True},
        {"maximize": True},
        {"fused": False},
        {"fused": False, "differentiable": True},
        {"lr": th.tensor(1e-2)},
    ],
    ids=str,
)
def test_other_optimizers_are_left_alone(kwargs: dict[str, Any]) -> None:
    def fits(net: nn.Module, optimizer: th.optim.Optimizer) -> bool:
        return is_plain_adam(optimizer, list(net.parameters()))

    assert not fits(*net_and_adam(**kwargs))
    net, adam = net_and_adam()
    assert fits(net, adam)
    assert not fits(net, th.optim.SGD(net.parameters(), lr=0.1))
    groups = [{"params": [parameter]} for parameter in net.parameters()]
    assert not fits(net, th.optim.Adam(groups, fused=True))
