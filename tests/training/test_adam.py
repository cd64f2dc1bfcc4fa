"""Our way to PyTorch's fused Adam, against PyTorch's."""

import copy

import pytest
import torch

from fusewire.training.adam import Adam


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))


def rivals(decoupled):
    ours, theirs = network(), network()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return (
        (ours, Adam(ours.parameters(), 0.01, (0.8, 0.9), decoupled_weight_decay=decoupled)),
        (theirs, kind(theirs.parameters(), 0.01, (0.8, 0.9), fused=True)),
    )


def move(net, optimizer, step, frozen=(), act=lambda optimizer: optimizer.step()):
    source = torch.Generator().manual_seed(step)
    optimizer.zero_grad()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    net(torch.randn(4, 5, generator=source)).square().sum().backward()
    act(optimizer)


def assert_same(first, second):
    for ours, theirs in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = first[1].state_dict(), second[1].state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in theirs["state"].items():
        for name, value in state.items():
            assert torch.equal(ours["state"][index][name], value)


@pytest.mark.parametrize("decoupled", [False, True])
def test_steps_are_pytorchs_to_the_bit(decoupled):
    both = rivals(decoupled)
    for step in range(5):
        for pair in both:
            pair[1].param_groups[0]["lr"] = 0.01 / (1 + step)
            move(*pair, step)
    assert_same(*both)


def test_moves_are_steps_that_nobody_is_told_of():
    both = rivals(False)
    for pair in both:
        move(*pair, 0)
    both[0][1].register_step_post_hook(lambda *_: pytest.fail("a hook was called"))
    for step in range(1, 5):
        move(*both[0], step, act=Adam.move)
        move(*both[1], step)
        assert_same(*both)


def test_hooks_are_told_once_of_each_step():
    net, optimizer = rivals(False)[0]  # beside one of PyTorch's, whose step is wrapped too
    told = []
    optimizer.register_step_pre_hook(lambda *_: told.append("before"))
    optimizer.register_step_post_hook(lambda *_: told.append("after"))
    for step in range(2):
        move(net, optimizer, step)
    assert told == ["before", "after"] * 2


def test_parameters_may_be_frozen_and_thawed_between_steps():
    both = rivals(False)
    for step, frozen in enumerate([["0.bias"], ["0.bias"], [], [], ["2.weight"], []]):
        for pair in both:
            move(*pair, step, frozen)
    assert_same(*both)


@pytest.mark.parametrize("decoupled", [False, True])
def test_state_of_pytorchs_is_taken_over_in_the_middle(decoupled):
    both = rivals(decoupled)
    for step in range(3):
        move(*both[1], step)
        move(*both[0], step + 10)
    (ours, optimizer), (theirs, other) = both
    ours.load_state_dict(theirs.state_dict())
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    for step in range(3, 6):
        for pair in both:
            move(*pair, step)
    assert_same(*both)


def test_groups_that_are_added_learn_too_and_copies_are_apart():
    net, optimizer = rivals(False)[0]
    move(net, optimizer, 0)
    move(net, optimizer, 1)
    further = torch.nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [further], "lr": 0.5})
    further.sum().backward()
    optimizer.step()
    torch.testing.assert_close(further.detach(), torch.full((2,), 0.5))
    copied_net, copied = copy.deepcopy((net, optimizer))
    before = [parameter.clone() for parameter in net.parameters()]
    move(copied_net, copied, 2)
    assert all(map(torch.equal, before, net.parameters()))
    assert not any(map(torch.equal, before, copied_net.parameters()))


def test_numbers_of_two_types_and_a_closure_go_pytorchs_way():
    single = torch.nn.Parameter(torch.ones(2))
    double = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = Adam([single, double], lr=0.5)

    def loss():
        optimizer.zero_grad()
        total = single.sum() + double.sum()
        total.backward()
        return total

    assert optimizer.step(loss).item() == pytest.approx(4)
    assert optimizer.step(loss).item() == pytest.approx(2)
    torch.testing.assert_close(single.detach(), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(double.detach(), torch.zeros(2).double(), rtol=0, atol=1e-6)
