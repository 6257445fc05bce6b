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


# --- hooks that must be seen


def test_an_edit_of_a_layer_that_does_not_run_is_an_error():
    """Attention reads its `out_proj.weight` and never calls the layer."""
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    x = torch.rand(1, 3, 4)
    words = "'out_proj' did not run although the model did"
    with pytest.raises(ValueError, match=words), edited(attention, "out_proj", torch.zeros_like):
        attention(x, x, x)
    with edited(attention, "out_proj", torch.zeros_like):
        pass  # nothing ran, so nothing was missed
    with pytest.raises(KeyError), edited(attention, "out_proj", torch.zeros_like):
        raise KeyError  # an error of the block comes through as it is


def test_a_compiled_network_is_edited_as_it_was_written():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    compiled, x = torch.compile(net, backend="eager"), torch.rand(5, 4)
    compiled(x)  # it has run before, without hooks
    with edited(compiled, "_orig_mod.1", torch.zeros_like):
        torch.testing.assert_close(compiled(x), net[2].bias.expand(5, 3))
    with capture(compiled, "_orig_mod.1") as kept:
        compiled(x)
    torch.testing.assert_close(kept["_orig_mod.1"], net[0](x).relu())
    torch.testing.assert_close(compiled(x), net(x))


def test_a_scripted_network_is_refused():
    scripted = torch.jit.script(nn.Sequential(nn.ReLU()))
    with pytest.raises(TypeError, match=r"torch\.jit"), edited(scripted, "0", torch.neg):
        pass


# --- which axis holds what


class Tokens(nn.Module):
    """Patches as tokens with a class token, one attention, a head: (N, 3, 8, 8) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, 2)
        self.norm, self.mix, self.soft = nn.LayerNorm(6), nn.Linear(6, 6), nn.Softmax(-1)
        self.heads, self.act, self.head = nn.Identity(), nn.GELU(), nn.Linear(6, 2)

    def forward(self, x):
        t = self.patch(x).flatten(2).mT
        t = self.norm(torch.cat([t.mean(1, keepdim=True), t], 1))
        weights = self.heads(self.soft((t @ t.mT)[:, None]))  # (N, 1, 17, 17)
        return self.head(self.act(self.mix(weights[:, 0] @ t))[:, 0])


def test_the_axis_of_units_follows_from_the_layers():
    net, x = Tokens().eval(), torch.rand(2, 3, 8, 8)
    assert units_axis(net, "patch", x) == 1
    assert units_axis(net, "norm", x) == 2
    assert units_axis(net, "act", x) == 2  # keeps the shape of a linear layer's output
    assert units_axis(net, "head", x) == 1
    for layer in ("soft", "heads"):  # attention weights, also behind a module that keeps them
        with pytest.raises(ValueError, match="attention weights have none"):
            units_axis(net, layer, x)
    with pytest.raises(ValueError, match="no layer 'patches'"):
        units_axis(net, "patches", x)


def test_channels_last_is_known_by_its_layers_and_by_proportions():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.turn, self.norm = nn.Conv2d(3, 5, 3), nn.Identity(), nn.LayerNorm(5)
            self.body, self.head = nn.Identity(), nn.Linear(5, 2)

        def forward(self, x):
            x = self.body(self.norm(self.turn(self.conv(x).permute(0, 2, 3, 1))))
            return self.head(x.mean((1, 2)))

    net, x = Last().eval(), torch.rand(1, 3, 9, 9)
    axes = {name: units_axis(net, name, x) for name in ("conv", "norm", "body")}
    assert axes == {"conv": 1, "norm": 3, "body": 3}
    assert units_axis(net, "turn", x) == 3  # (N, 7, 7, 5): 7 x 5 has other proportions
    with pytest.raises(ValueError, match="nothing tells which axis"):
        units_axis(net, "turn", torch.rand(1, 3, 8, 7))  # (N, 6, 5, 5): 5 x 5 fits, 6 x 5 too
    wide = torch.rand(1, 3, 9, 19)
    assert units_axis(net, "turn", wide) == 3  # (N, 7, 17, 5): only 7 x 17 has the proportions
    assert last_maps(net, x) is None  # the network goes on in another form


def test_networks_without_last_maps():
    assert last_maps(Tokens().eval(), torch.rand(1, 3, 8, 8)) is None
    assert last_maps(nn.Sequential(nn.Linear(4, 3)), torch.rand(1, 4)) is None
    gru = nn.GRU(4, 3, batch_first=True)
    assert last_maps(gru, torch.rand(1, 5, 4)) is None
