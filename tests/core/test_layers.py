"""Layers are found by name, kept while a block lasts, and left without hooks."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tests.toys import inputs, toy
from xailab.core import capture, frozen
from xailab.core.layers import edited, find_layer, last_maps, units_axis
from xailab.models import digit_cnn


def hooks(model):
    return [
        (name, sorted(value))
        for module in model.modules()
        for name, value in vars(module).items()
        if "_hooks" in name and value
    ]


def test_find_layer_by_dotted_name():
    net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Linear(1, 2)))
    assert find_layer(net, "0.1") is net[0][1]


def test_a_shared_layer_is_found_by_both_its_names():
    net = nn.Module()
    net.first = nn.ReLU()
    net.second = net.first
    assert find_layer(net, "second") is find_layer(net, "first") is net.first


def test_a_missing_layer_names_near_ones_first():
    with pytest.raises(ValueError, match=r"no layer 'con1'; near names: conv1"):
        find_layer(toy(), "con1")
    with pytest.raises(ValueError, match=r"near names: .*drop, fc"):
        find_layer(toy(), "zzzzzz")  # nothing is near: the last ones
    with pytest.raises(ValueError, match="near names: none"):
        find_layer(nn.ReLU(), "x")


@pytest.mark.parametrize("name", [3, None, ["conv1"]])
def test_a_name_must_be_text(name):
    with pytest.raises(TypeError, match=type(name).__name__):
        find_layer(toy(), name)


def test_a_function_has_no_layers():
    with pytest.raises(TypeError, match=r"only in an nn\.Module, not in builtin"):
        find_layer(len, "conv1")


def test_capture_by_hand():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    for layer, weight in ((net[0], 2.0), (net[2], -3.0)):
        layer.weight.data.fill_(weight)
        layer.bias.data.fill_(1.0)
    with capture(net, ["0", "1", "2"]) as kept:
        net(torch.tensor([[4.0], [-4.0]]))
    assert {name: value.flatten().tolist() for name, value in kept.items()} == {
        "0": [9.0, -7.0],
        "1": [9.0, 0.0],
        "2": [-26.0, 1.0],
    }


def test_gradients_reach_what_was_kept():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    net[2].weight.data.fill_(-3.0)
    net[0].weight.data.fill_(2.0)
    net[0].bias.data.fill_(1.0)
    with capture(net, "1") as kept:
        score = net(torch.tensor([[4.0]])).sum()
    assert torch.autograd.grad(score, kept["1"])[0].item() == -3.0


def test_leaf_begins_the_graph_at_the_layer():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net[1].weight.data.fill_(-3.0)
    x = torch.tensor([[4.0]], requires_grad=True)
    with capture(net, "0", leaf=True) as kept:
        score = net(x).sum()
    assert kept["0"].is_leaf
    assert torch.autograd.grad(score, kept["0"], retain_graph=True)[0].item() == -3.0
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(score, x)


def test_a_successor_that_works_in_place_does_not_overwrite():
    net = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with capture(net, "0") as kept:
        net(torch.tensor([[-1.0, 2.0]]))
    assert kept["0"].tolist() == [[-1.0, 2.0]]


def test_the_latest_pass_counts():
    net = nn.Sequential(nn.Identity())
    with capture(net, "0") as kept:
        net(torch.ones(1, 1))
        net(torch.zeros(2, 1))
    assert kept["0"].tolist() == [[0.0], [0.0]]


def test_a_failed_pass_leaves_nothing_for_the_next():
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 1))
    with capture(net, ["0", "1"]) as kept:
        with pytest.raises(RuntimeError):
            net(torch.ones(1, 3))
        net(torch.ones(1, 2))
    assert kept["0"].shape == (1, 2)


def test_a_layer_used_twice_is_refused():
    relu = nn.ReLU()
    net = nn.Sequential(relu, nn.Linear(1, 1), relu)
    with capture(net, "0"), pytest.raises(ValueError, match="'0' ran more than once"):
        net(torch.ones(1, 1))
    assert not hooks(net)


def test_an_output_of_several_tensors_is_refused():
    net = nn.Sequential(nn.LSTM(2, 3))
    with capture(net, "0"), pytest.raises(TypeError, match="'0' returns tuple"):
        net(torch.ones(1, 4, 2))
    assert not hooks(net)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_hooks_are_gone_and_those_of_others_stay(error):
    model = toy()
    before = hooks(model)
    assert before
    ending = pytest.raises(error) if error else nullcontext()
    with ending, capture(model, ["conv1", "relu2"]):
        assert hooks(model) != before
        if error:
            raise error
    assert hooks(model) == before


@pytest.mark.parametrize(("layers", "error"), [(["conv1", "none"], ValueError), (3, TypeError)])
def test_nothing_is_hooked_when_a_name_is_wrong(layers, error):
    model = toy()
    before = hooks(model)
    with pytest.raises(error), capture(model, layers):
        pass
    assert hooks(model) == before


def test_capture_changes_no_output():
    model, x = toy().eval(), inputs()
    expected = model(x)
    with capture(model, ["conv1", "norm", "relu1", "conv2", "relu2"]):
        assert torch.equal(model(x), expected)


CONV = (nn.Conv2d(1, 2, 3), nn.ReLU())


@pytest.mark.parametrize(
    ("net", "shape", "name"),
    [
        (nn.Sequential(*CONV, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 1, 8, 8), "1"),
        (nn.Sequential(nn.Sequential(*CONV), nn.Flatten()), (2, 1, 8, 8), "0"),  # the whole block
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten()), (2, 1, 8), "0"),
        (nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten()), (2, 1, 4, 4, 4), "0"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (2, 3), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (2, 1, 8, 8), None),
        (nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten()), (2, 1, 8, 8), None),  # one position
    ],
)
def test_last_maps(net, shape, name):
    assert last_maps(net, torch.zeros(shape)) == name
    assert not hooks(net)


def test_last_maps_of_the_networks_of_the_course():
    assert last_maps(digit_cnn(), torch.zeros(1, 1, 28, 28)) == "relu3"


def test_last_maps_passes_over_a_layer_that_runs_twice():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu, nn.Flatten())
    assert last_maps(net, torch.zeros(1, 1, 8, 8)) == "2"
    with frozen(net), capture(net, "2") as kept:
        net(torch.zeros(1, 1, 8, 8))
    assert kept["2"].shape == (1, 2, 4, 4)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_last_maps_leaves_the_model_as_it_was(error):
    model, x = toy(), inputs()
    before, flags = hooks(model), [module.training for module in model.modules()]
    assert last_maps(model, x) == "relu2"  # what follows has no positions

    def trip():
        raise error

    model.trip = trip
    with pytest.raises(error):
        last_maps(model, x)
    assert hooks(model) == before
    assert [module.training for module in model.modules()] == flags
    assert model.calls.item() == 0
    assert torch.equal(x, inputs())


def test_edited_replaces_the_output_and_leaves_no_hook():
    model, x = toy().eval(), inputs()
    bare, before = model(x).detach(), hooks(model)
    with edited(model, "drop", torch.zeros_like):
        torch.testing.assert_close(model(x), model.fc.bias.expand(3, 4))
    assert hooks(model) == before
    torch.testing.assert_close(model(x), bare)


def test_edited_leaves_no_hook_when_the_edit_fails():
    model, x = toy(), inputs()
    before = hooks(model)
    with pytest.raises(ZeroDivisionError), edited(model, "drop", lambda _: 1 / 0):
        model(x)
    assert hooks(model) == before
    with pytest.raises(ValueError, match="no layer 'dorp'"), edited(model, "dorp", torch.relu):
        pass


def test_units_axis_computes_nothing_behind_the_layer():
    class Stop(nn.Module):
        def forward(self, x):
            raise AssertionError("behind the layer")

    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), Stop())
    assert units_axis(net, "1", torch.zeros(1, 5, 2)) == 2
