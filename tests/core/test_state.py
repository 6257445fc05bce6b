"""A model is the same after it was held still, however the block ends."""

import random
import sys
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.toys import inputs, toy
from xailab.core import frozen
from xailab.core.state import networks_in

here = sys.modules[__name__]  # a module whose networks functions name
ENDS = [None, ValueError, KeyboardInterrupt]


def ending(end):
    return nullcontext() if end is None else pytest.raises(end)


def leave(end):
    if end is not None:
        raise end


@pytest.mark.parametrize("end", ENDS)
def test_flags_come_back_module_by_module(end):
    model = toy()  # in training, but for one layer
    before = [module.training for module in model.modules()]
    with ending(end), frozen(model):
        assert not any(module.training for module in model.modules())
        leave(end)
    assert [module.training for module in model.modules()] == before
    assert True in before
    assert False in before


@pytest.mark.parametrize("end", ENDS)
def test_requires_grad_comes_back_parameter_by_parameter(end):
    model = toy()
    before = [parameter.requires_grad for parameter in model.parameters()]
    with ending(end), frozen(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        leave(end)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert before.count(False) == 1


class Restless(nn.Module):
    """Upsets its buffers in every way that there is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor([1.0, 2.0]))
        self.register_buffer("swapped", torch.tensor(3.0))
        self.register_buffer("empty", None)
        self.register_buffer("hidden", torch.tensor(4.0), persistent=False)

    def forward(self, x):
        self.count += 1
        self.swapped = self.swapped + 1
        self.empty = torch.tensor(9.0)
        self.hidden *= 2
        self.register_buffer("new", torch.tensor(5.0))
        return x


@pytest.mark.parametrize("end", ENDS)
def test_buffers_come_back_values_and_objects(end):
    model = Restless()
    held = dict(model.named_buffers())
    with ending(end), frozen(model):
        model(torch.ones(1))
        assert len(dict(model.named_buffers())) == 5
        leave(end)
    now = dict(model.named_buffers())
    assert {name: id(value) for name, value in now.items()} == {
        name: id(value) for name, value in held.items()
    }
    assert model.count.tolist() == [1, 2]
    assert model.swapped.item() == 3
    assert model.hidden.item() == 4
    assert model.empty is None
    assert not hasattr(model, "new")


def test_buffers_that_hold_nan_come_back():
    model = nn.Identity()
    model.register_buffer("mean", torch.full((1,), float("nan")))
    with frozen(model):
        model.mean.fill_(0)
    assert model.mean.isnan().all()


@pytest.mark.parametrize("end", ENDS)
def test_random_states_come_back(end):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global states are what is guarded
    random.seed(7)
    expected = [torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    with ending(end), frozen(lambda x: x):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        leave(end)
    assert [torch.rand(1).item(), np.random.rand(), random.random()] == expected  # noqa: NPY002


def test_nested_blocks_open_only_at_the_outermost():
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    with frozen(model):
        with frozen(model):
            pass
        assert not model[1].training
        assert not model[0].weight.requires_grad
    assert model[1].training
    assert model[0].weight.requires_grad


def test_plain_functions_and_objects_pass():
    with frozen(len):
        assert len("abc") == 3


def test_shared_modules_and_parameters_come_back():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer).train()
    layer.bias.requires_grad_(False)
    with frozen(model):
        assert not layer.training
    assert layer.training
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_a_graph_recorded_before_can_still_be_walked():
    model = toy()
    model.fc.weight.grad = None
    loss = model(inputs()).sum()
    with frozen(model):
        model(inputs())
    loss.backward()
    assert model.fc.weight.grad is not None


def test_dropout_is_off_and_batch_norm_uses_what_it_stored():
    model = nn.Sequential(nn.BatchNorm1d(1, affine=False, eps=0.0), nn.Dropout(0.5)).train()
    model[0].running_mean.fill_(1.0)
    model[0].running_var.fill_(4.0)
    with frozen(model):
        assert model(torch.tensor([[5.0], [1.0]])).flatten().tolist() == [2.0, 0.0]
    assert model[0].running_mean.item() == 1.0
    assert model[0].num_batches_tracked.item() == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_scripted_models_are_guarded_too():
    model = torch.jit.script(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))).train()
    before = [value.clone() for value in model.state_dict().values()]
    with frozen(model):
        model(torch.rand(4, 2))
        assert not model.training
    assert model.training
    pairs = zip(before, model.state_dict().values(), strict=True)
    assert all(torch.equal(old, now) for old, now in pairs)


NET = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()


class Asked:
    """An object with a network, called itself or by a method."""

    def __init__(self, *networks):
        self.networks = list(networks)

    def __call__(self, x):
        return self.networks[0](x)

    def answer(self, x):
        return self(x)


def by_global(x):
    return NET(x)


def by_default(x, net=NET):
    return net(x)


def through(net):
    return lambda x: net(x)


@pytest.mark.parametrize(
    "function",
    [
        NET,
        by_global,
        by_default,
        through(NET),
        through(through(NET)),
        lambda x: by_global(x).sum(),
        lambda x: [NET(one) for one in x],
        partial(by_default, net=NET),
        partial(torch.nn.functional.linear, NET),
        Asked(NET),
        Asked(NET).answer,
        through(Asked(NET)),
        lambda x, parts={"net": NET}: parts["net"](x),
        NET.forward,
        lambda x: here.NET(x),
    ],
)
def test_a_function_has_its_networks_held_still(function):
    assert networks_in(function) == [NET]
    with frozen(function):
        assert not NET[1].training
        assert not NET[0].weight.requires_grad
    assert NET[1].training
    assert NET[0].weight.requires_grad


def test_what_uses_no_network_has_none():
    for function in (torch.neg, nn.functional.softmax, print, len, Asked().answer, lambda x: x):
        assert networks_in(function) == []


def test_two_networks_of_a_function_are_both_held():
    other = nn.Dropout()
    with frozen(lambda x: other(NET(x))):
        assert not other.training
        assert not NET.training
    assert other.training
    assert NET.training


class Tokens(nn.Module):
    """A norm whose positions are then laid out as tokens, (N, 3, 4, 4) -> (N, 48)."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x).flatten(2).transpose(1, 2).flatten(1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3)])
def test_a_row_alone_has_the_gradient_that_it_has_beside_another(norm):
    """Torch alone moves the numbers of a single row to other places."""
    torch.manual_seed(0)
    model, x, weigh = Tokens(norm), torch.randn(2, 3, 4, 4), torch.randn(48)
    with frozen(model):
        slopes = []
        for rows in (x, x[:1]):
            leaf = rows.clone().requires_grad_()
            slopes += torch.autograd.grad((model(leaf) * weigh).sum(), leaf)
    torch.testing.assert_close(slopes[1][0], slopes[0][0])
    assert not norm._forward_hooks
