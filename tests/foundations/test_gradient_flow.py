"""Gradient flow against numbers done by hand, torch's own tools, and sums over all paths."""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

from tests.toys import inputs, linear, toy
from xailab.foundations.gradient_flow import (
    ACTIVATIONS,
    Block,
    accuracy_without,
    activation_scales,
    block_ablation,
    bypass,
    clip_by_norm,
    deep_mlp,
    gradient_by_path_length,
    gradient_norms,
)
from xailab.simplify.compress import prune, quantize

TARGETS = torch.tensor([2, 0, 3])


def total(output: Tensor, _: Any) -> Tensor:
    return output.sum()


def rows(n: int = 20, columns: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed))


# ---- gradient_norms ------------------------------------------------------------------------------


def test_gradient_norms_by_hand() -> None:
    # h = relu(W1 x) with x = (1, 2): W1 x = (3, -1), h = (3, 0); f = 4 h1 + 7 h2 = 12.
    # df/dw2 = h = (3, 0): norm 3. df/dW1 = (4, 0) outer (1, 2) = ((4, 8), (0, 0)): norm sqrt 80.
    net = nn.Sequential(linear([[1.0, 1.0], [1.0, -1.0]]), nn.ReLU(), linear([[4.0, 7.0]]))
    norms = gradient_norms(net, torch.tensor([[1.0, 2.0]]), None, total)
    assert list(norms) == ["0", "2"]
    assert norms == pytest.approx({"0": math.sqrt(80), "2": 3.0})


def test_a_chain_of_sigmoids_multiplies_slopes() -> None:
    # At 0 sigmoid has the slope 1/4. Weights 1, biases -1/2: every unit but the first sees 0.
    net = deep_mlp(4, 1, "sigmoid", n_inputs=1, n_outputs=1).double()
    for layer in net:
        one = layer.linear if isinstance(layer, Block) else layer
        one.weight.data.fill_(1.0)
        one.bias.data.fill_(-0.5)
    net[0].linear.bias.data.fill_(0.0)
    norms = gradient_norms(net, torch.zeros(1, 1).double(), None, total)
    # the input of layer1 is 0, of the others 1/2; from the top: 1/2, 1/2/4, 1/2/16, ...
    want = [0.0, 0.5 / 64, 0.5 / 16, 0.5 / 4, 0.5]
    assert list(norms.values()) == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("residual", [False, True])
def test_gradient_norms_equal_backward(norm: str | None, residual: bool) -> None:
    net, x, y = deep_mlp(6, 7, "tanh", residual, norm), rows(), torch.arange(20) % 2
    norms = gradient_norms(net, x, y, F.cross_entropy)
    F.cross_entropy(net(x), y).backward()
    want = {
        name.removesuffix(".weight"): p.grad.norm().item()
        for name, p in net.named_parameters()
        if p.ndim == 2
    }
    assert norms == pytest.approx(want, rel=1e-6)
    assert list(norms) == [*(f"layer{i}.linear" for i in range(1, 7)), "head"]


def test_gradient_norms_measure_in_the_mode_of_the_model() -> None:
    net, x, y = deep_mlp(3, 5, "relu", norm="batch"), 10 * rows(), torch.arange(20) % 2
    training = gradient_norms(net, x, y, F.cross_entropy)
    assert gradient_norms(net.eval(), x, y, F.cross_entropy) != pytest.approx(training, rel=0.01)


def test_the_toy_is_measured_and_left_alone() -> None:
    model, x = toy(), inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(2)
    state = torch.get_rng_state()
    norms = gradient_norms(model, x, TARGETS, F.cross_entropy)
    assert list(norms) == ["conv1", "conv2", "fc"]
    assert all(value > 0 for value in norms.values())
    assert torch.equal(torch.get_rng_state(), state)  # dropout has drawn
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert (model.fc.weight.grad == 7).all()
    assert model.conv1.weight.grad is None
    assert not model.conv1.bias.requires_grad


def test_weights_that_want_no_gradient_are_measured_too() -> None:
    net, x, y = deep_mlp(2, 3, "relu"), rows(), torch.arange(20) % 2
    want = gradient_norms(net, x, y, F.cross_entropy)
    with torch.inference_mode():
        assert gradient_norms(net.requires_grad_(False), x, y, F.cross_entropy) == want


def test_a_layer_out_of_reach_has_norm_zero() -> None:
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    net.forward = lambda x: net["used"](x)
    assert gradient_norms(net, rows(), None, total)["idle"] == 0.0


def test_an_exploded_gradient_is_reported_as_it_is() -> None:
    net = deep_mlp(30, 8, "relu", init=100.0)
    norms = gradient_norms(net, rows(), None, total)
    assert not all(math.isfinite(value) for value in norms.values())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": lambda x: x}, TypeError, "nn.Module, got function"),
        ({"model": nn.Sequential(nn.ReLU())}, ValueError, "no weight matrix"),
        ({"x": torch.full((2, 2), math.nan)}, ValueError, "4 values that are NaN"),
        ({"x": torch.zeros(0, 2)}, ValueError, "empty"),
        ({"x": torch.zeros(2, 3)}, ValueError, r"refuses x of shape \(2, 3\)"),
        ({"x": [[1.0, 2.0]]}, TypeError, "list"),
        ({"loss_fn": lambda output, y: output}, ValueError, r"one number.*\(20, 2\)"),
        ({"loss_fn": lambda output, y: 1.0}, TypeError, "float"),
        ({"loss_fn": lambda output, y: output.sum().detach()}, ValueError, "does not depend"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"model": deep_mlp(2, 3, "relu"), "x": rows(), "y": None, "loss_fn": total} | change
    with pytest.raises(error, match=words):
        gradient_norms(**given)


# ---- clip_by_norm --------------------------------------------------------------------------------


def test_clip_by_hand() -> None:
    # sqrt(3^2 + 4^2 + 12^2) = 13, so everything is divided by 13/6.5 = 2 (up to torch's 1e-6)
    clipped = clip_by_norm([torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])], 6.5)
    torch.testing.assert_close(clipped[0], torch.tensor([1.5, 2.0]), rtol=1e-6, atol=0)
    torch.testing.assert_close(clipped[1], torch.tensor([[6.0]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-9, 2e-6])
def test_gradients_of_next_to_nothing_stay_as_they_are(size: float) -> None:
    (clipped,) = clip_by_norm([torch.tensor([size])], 1.0)
    assert clipped.item() == pytest.approx(size)


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 5.0, 1e6, math.inf])
def test_clip_equals_torch(max_norm: float) -> None:
    net, x, y = deep_mlp(8, 16, "relu", init=2.0), rows(), torch.arange(20) % 2
    F.cross_entropy(net(x), y).backward()
    grads = [p.grad.clone() for p in net.parameters()]
    given = [grad.clone() for grad in grads]
    ours = clip_by_norm(grads, max_norm)
    nn.utils.clip_grad_norm_(net.parameters(), max_norm, foreach=False)
    for a, parameter, before, after in zip(ours, net.parameters(), given, grads, strict=True):
        torch.testing.assert_close(a, parameter.grad, rtol=1e-6, atol=0)
        assert torch.equal(before, after)  # what was handed in is not touched
        assert a.data_ptr() != after.data_ptr()


@pytest.mark.parametrize(
    ("grads", "max_norm", "error", "words"),
    [
        ([], 1.0, ValueError, "empty"),
        (torch.ones(3), 1.0, TypeError, "list of tensors"),
        ([torch.ones(3), None], 1.0, TypeError, "list of tensors"),
        ([torch.ones(3)], 0.0, ValueError, "positive, got 0"),
        ([torch.ones(3)], math.nan, ValueError, "positive, got nan"),
        ([torch.tensor([1.0, math.inf])], 1.0, ValueError, "norm is inf"),
        ([torch.tensor([1.0, math.nan])], 1.0, ValueError, "norm is nan"),
    ],
)
def test_clip_refuses(grads: Any, max_norm: float, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        clip_by_norm(grads, max_norm)


# ---- deep_mlp ------------------------------------------------------------------------------------


def test_deep_mlp_is_the_network_it_says() -> None:
    net = deep_mlp(3, 5, "tanh", residual=True, n_inputs=4, n_outputs=6).double()
    x = rows(columns=4).double()
    h = torch.tanh(x @ net[0].linear.weight.T + net[0].linear.bias)  # the first has no skip
    for i in (1, 2):
        h = h + torch.tanh(h @ net[i].linear.weight.T + net[i].linear.bias)
    torch.testing.assert_close(net(x), h @ net.head.weight.T + net.head.bias)


@pytest.mark.parametrize(
    ("init", "activation", "variance", "head"),
    [
        ("kaiming", "relu", 2 / 400, 1 / 400),
        ("kaiming", "identity", 1 / 400, 1 / 400),
        ("kaiming", "tanh", (5 / 3) ** 2 / 400, 1 / 400),
        ("xavier", "relu", 2 / 800, 2 / 600),
        ("default", "relu", 1 / 1200, 1 / 1200),
        (3.0, "relu", 9 / 400, 9 / 400),
    ],
)
def test_initial_weights_have_the_variance(
    init: str | float, activation: str, variance: float, head: float
) -> None:
    net = deep_mlp(2, 400, activation, init=init, n_outputs=200)
    assert net[1].linear.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert net.head.weight.var().item() == pytest.approx(head, rel=0.02)
    assert (net[1].linear.bias == 0).all() == (init != "default")


def test_kaiming_keeps_the_scale_and_default_loses_it() -> None:
    x = rows(200, 64)
    kept = activation_scales(deep_mlp(30, 64, "relu", n_inputs=64), x)
    lost = activation_scales(deep_mlp(30, 64, "relu", init="default", n_inputs=64), x)
    assert 0.2 < kept["layer30"] / kept["layer1"] < 5
    assert lost["layer30"] / lost["layer1"] < 0.2


def test_the_seed_decides_and_the_global_state_stays() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (deep_mlp(2, 3, "relu", seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_every_choice_runs(activation: str, norm: str | None) -> None:
    net = deep_mlp(3, 4, activation, True, norm, n_outputs=3)
    assert net(rows()).shape == (20, 3)
    assert net.training


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"depth": 0}, ValueError, "depth must be at least 1"),
        ({"width": 2.0}, TypeError, "width must be an integer"),
        ({"n_outputs": 0}, ValueError, "n_outputs"),
        ({"activation": "rleu"}, ValueError, "activation must be one of 'gelu'.*got 'rleu'"),
        ({"norm": "group"}, ValueError, "norm must be one of.*got 'group'"),
        ({"init": "he"}, ValueError, "init must be one of 'default'.*got 'he'"),
        ({"init": -1.0}, ValueError, "positive number, got -1"),
        ({"init": None}, TypeError, "NoneType"),
    ],
)
def test_deep_mlp_refuses(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        deep_mlp(**{"depth": 2, "width": 3, "activation": "relu"} | change)


def test_a_block_refuses_a_skip_between_sizes() -> None:
    with pytest.raises(ValueError, match="equal sizes, got 2 in and 3 out"):
        Block(2, 3, "relu", None, skip=True)


# ---- activation_scales ---------------------------------------------------------------------------


def test_activation_scales_are_root_mean_squares() -> None:
    net, x = deep_mlp(3, 5, "relu"), rows()
    scales = activation_scales(net, x)
    assert list(scales) == ["layer1", "layer2", "layer3", "head"]
    h = net[1](net[0](x))
    assert scales["layer2"] == pytest.approx((h**2).mean().sqrt().item(), rel=1e-6)
    assert activation_scales(net, x, layers=["layer2.linear"]).keys() == {"layer2.linear"}


def test_activation_scales_leave_the_running_averages_alone() -> None:
    model = toy()
    before = model.norm.running_mean.clone(), model.calls.clone()
    model.norm.train()
    activation_scales(model, inputs(), layers=["norm"])
    assert torch.equal(model.norm.running_mean, before[0])
    assert torch.equal(model.calls, before[1])
    assert model.norm.training


def test_activation_scales_name_a_layer_that_did_not_run() -> None:
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    net.forward = lambda x: net["used"](x)
    with pytest.raises(ValueError, match="layer 'idle' did not run"):
        activation_scales(net, rows())


def test_a_layer_that_runs_twice_counts_both_runs() -> None:
    # the outputs are relu(3, -4) = (3, 0) and, of its negative, relu(-3, 4) = (0, 4)
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(x) - self.relu(-x)

    scales = activation_scales(Twice(), torch.tensor([[3.0, -4.0]]))
    assert scales == pytest.approx({"relu": math.sqrt((9 + 16) / 4)})


def test_activation_scales_in_half_do_not_overflow() -> None:
    x = torch.tensor([[3000.0, 4000.0]]).half()
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    assert activation_scales(net, x)["0"] == pytest.approx(math.sqrt(12.5e6))


def test_one_name_is_one_layer_and_a_layer_gives_one_tensor() -> None:
    net = deep_mlp(2, 4, "relu")
    assert activation_scales(net, rows(), layers="head").keys() == {"head"}
    with pytest.raises(TypeError, match="layers must be a name or several, got int"):
        activation_scales(net, rows(), layers=3)  # type: ignore[arg-type]

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(2, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x[:, None])[0][:, 0]

    with pytest.raises(TypeError, match="layer 'gru' returns tuple, not one tensor"):
        activation_scales(Recurrent(), rows())


# ---- weights of every kind -----------------------------------------------------------------------


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))


def by_definition(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Differentiate the loss of plain layers that hold the weights which `net` computes."""
    plain = small()
    for ours, theirs in ((plain[0], net[0]), (plain[2], net[2])):  # type: ignore[index]
        ours.weight.data, ours.bias.data = theirs.weight.detach().clone(), theirs.bias.detach()
    F.cross_entropy(plain(x), y).backward()
    return {name: plain[int(name)].weight.grad.norm().item() for name in ("0", "2")}


def masked(net: nn.Sequential) -> nn.Module:
    nn.utils.prune.l1_unstructured(net[0], "weight", 0.5)
    return net


def old_weight_norm(net: nn.Sequential) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(net[0])
    return net


def new_weight_norm(net: nn.Sequential) -> nn.Module:
    nn.utils.parametrizations.weight_norm(net[0])
    return net


@pytest.mark.parametrize(
    "compute", [masked, old_weight_norm, new_weight_norm, quantize, lambda net: prune(net, 0.5)]
)
def test_a_computed_weight_is_measured_as_such(compute: Callable[..., nn.Module]) -> None:
    net, x, y = compute(small()), rows(), torch.arange(20) % 3
    norms = gradient_norms(net, x, y, F.cross_entropy)
    assert norms == pytest.approx(by_definition(net, x, y), rel=1e-5)
    assert activation_scales(net, x)["2"] == pytest.approx(
        net(x).square().mean().sqrt().item(), rel=1e-6
    )


class Doubled(nn.Module):
    """Its weight is made anew whenever it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = nn.Parameter(torch.ones(3, 2))

    @property
    def weight(self) -> Tensor:
        return 2 * self.stored

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def test_a_weight_made_at_each_access_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no gradient reaches '0\.weight'"):
        gradient_norms(nn.Sequential(Doubled()), rows(), torch.arange(20) % 3, F.cross_entropy)


def test_integers_beside_the_weights_do_no_harm() -> None:
    net = small()
    net.register_parameter("codes", nn.Parameter(torch.ones(2, 2).int(), requires_grad=False))
    assert list(gradient_norms(net, rows(), torch.arange(20) % 3, F.cross_entropy)) == ["0", "2"]
    assert activation_scales(net, rows())["1"] < 1


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_under_cross_entropy_is_the_binary_one(flat: bool) -> None:
    net, x, y = nn.Sequential(nn.Linear(2, 1)), rows(), torch.arange(20) % 2
    model = nn.Sequential(*net, nn.Flatten(0)) if flat else net
    F.binary_cross_entropy_with_logits(net(x)[:, 0], y.float()).backward()
    for loss_fn in (F.cross_entropy, nn.CrossEntropyLoss()):
        for labels in (y, y.tolist(), y.int(), y.numpy().astype(bool)):
            assert gradient_norms(model, x, labels, loss_fn) == pytest.approx(
                {"0": net[0].weight.grad.norm().item()}
            )
    with pytest.raises(ValueError, match="it holds the class 2"):
        gradient_norms(model, x, y + 1, F.cross_entropy)


def test_shares_of_classes_are_no_labels() -> None:
    net, x = small(), rows()
    shares = torch.full((20, 3), 1 / 3)
    F.cross_entropy(net(x), shares).backward()
    norms = gradient_norms(net, x, shares, F.cross_entropy)
    assert norms["2"] == pytest.approx(net[2].weight.grad.norm().item())


@pytest.mark.parametrize(
    ("dtype", "rel"), [(torch.float64, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 5e-2)]
)
def test_gradient_flow_in_every_precision(dtype: torch.dtype, rel: float) -> None:
    net, x, y = deep_mlp(3, 4, "tanh", residual=True), rows(), torch.arange(20) % 2
    other, z = deep_mlp(3, 4, "tanh", residual=True).to(dtype), x.to(dtype)
    assert gradient_norms(other, z, y, F.cross_entropy) == pytest.approx(
        gradient_norms(net, x, y, F.cross_entropy), rel=rel
    )
    assert activation_scales(other, z) == pytest.approx(activation_scales(net, x), rel=rel)
    assert block_ablation(other, z, y).keys() == {"layer2", "layer3"}
    parts = gradient_by_path_length(other, z, y, F.cross_entropy)
    assert parts.dtype == dtype
    want = gradient_by_path_length(net, x, y, F.cross_entropy)
    torch.testing.assert_close(parts.float(), want, rtol=rel, atol=rel * want.abs().max().item())


def test_clipping_in_half_does_not_overflow() -> None:
    (clipped,) = clip_by_norm([torch.full((2,), 6e4).half()], 1.0)
    torch.testing.assert_close(clipped, torch.full((2,), 0.5**0.5).half())
    with pytest.raises(ValueError, match="max_norm must be positive"):
        clip_by_norm([torch.ones(1)], "1")  # type: ignore[arg-type]


# ---- what a residual block carries ---------------------------------------------------------------


def test_bypass_leaves_the_skip() -> None:
    net, x = deep_mlp(3, 4, "tanh", residual=True), rows()
    with bypass(net, "layer2"):
        got = net(x)
    torch.testing.assert_close(got, net.head(net[2](net[0](x))))
    assert not any(module._forward_hooks for module in net.modules())


def test_bypass_refuses_what_changes_the_shape_and_cleans_up() -> None:
    net = deep_mlp(2, 4, "relu")
    with (
        pytest.raises(ValueError, match=r"'layer1' turns \(20, 2\) into \(20, 4\)"),
        bypass(net, "layer1"),
    ):
        net(rows())
    with pytest.raises(ValueError, match="no layer 'layer9'"), bypass(net, ["layer2", "layer9"]):
        pass
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ELU, nn.Hardtanh])
def test_a_layer_that_works_in_place_is_bypassed(kind: Callable[..., nn.Module]) -> None:
    net, x = nn.Sequential(nn.Identity(), kind(inplace=True)), torch.tensor([[-3.0, 5.0]])
    with bypass(net, "1"):
        assert net(x.clone()).tolist() == [[-3.0, 5.0]]


def test_a_later_layer_in_place_does_not_reach_what_passed() -> None:
    # relu_(bypassed(h)) + h with h = (-3, 5) is (0, 5) + (-3, 5)
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True))

        def forward(self, x: Tensor) -> Tensor:
            h = x * 1
            return self.branch(h) + h

    net = Skip()
    with bypass(net, "branch.0"):
        assert net(torch.tensor([[-3.0, 5.0]])).tolist() == [[-3.0, 10.0]]


def test_bypass_proves_that_it_did_something() -> None:
    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.read = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.read.weight)

    for name in ("idle", "read"):
        unused = f"'{name}' did not run although the model did"
        with pytest.raises(ValueError, match=unused), bypass(net := Passes(), name):
            net(rows())
        with pytest.raises(ValueError, match=f"'{name}' did not run"):
            block_ablation(Passes(), rows(), torch.zeros(20), layers=[name])
    with bypass(net, "idle") as passed:  # nobody asked the model
        assert passed == set()


def test_bypass_knows_which_input_passes() -> None:
    class Calls(nn.Module):
        def __init__(self, call: Callable[..., Any], layer: nn.Module) -> None:
            super().__init__()
            self.call, self.layer = call, layer

        def forward(self, x: Tensor) -> Any:
            return self.call(self.layer, x)

    x = rows()
    named = Calls(lambda layer, x: layer(input=x), nn.Linear(2, 2))
    with bypass(named, "layer") as passed:
        assert torch.equal(named(x), x)
    assert passed == {"layer"}
    two = Calls(lambda layer, x: layer(x, x), nn.Bilinear(2, 2, 2))
    with pytest.raises(ValueError, match="'layer' takes several inputs"), bypass(two, "layer"):
        two(x)
    state = Calls(lambda layer, x: layer(x, (x[:1], x[:1]))[0], nn.LSTM(2, 2))
    with pytest.raises(ValueError, match="'layer' takes several inputs"), bypass(state, "layer"):
        state(x)
    pair = Calls(lambda layer, x: layer(x)[0], nn.GRU(2, 2))
    with pytest.raises(ValueError, match="into tuple: it cannot"), bypass(pair, "layer"):
        pair(x)


def test_a_shared_layer_under_two_names() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(relu, nn.Tanh(), relu)
    with bypass(net, ["0", "2"]) as passed:
        torch.testing.assert_close(net(torch.tensor([[-1.0]])), torch.tensor([[-1.0]]).tanh())
    assert passed == {"0", "2"}
    assert "forward" not in vars(relu)


def test_a_compiled_network_is_bypassed_although_it_ran_before() -> None:
    net, x, y = by_hand_net(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 1]
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    with bypass(net, "layer2"):
        assert torch.equal(compiled(x), net(x))
        assert not torch.equal(compiled(x), by_hand_net()(x))
    assert accuracy_without(compiled, x, y, "_orig_mod.layer2") == 0.0
    assert accuracy_without(compiled, x, y) == 1.0


def test_accuracy_of_one_logit_and_of_labels_in_a_list() -> None:
    net = nn.Sequential(nn.Identity(), linear([[1.0]]))
    assert accuracy_without(net, torch.tensor([[-1.0], [2.0], [3.0]]), [0, 1, 0]) == 2 / 3
    with pytest.raises(ValueError, match=r"y must lie in 0\.\.1, it holds the class 2"):
        accuracy_without(net, torch.ones(2, 1), [0, 2])


def test_paths_through_anything_else_are_refused() -> None:
    blocks = deep_mlp(3, 4, "tanh", residual=True)
    named = list(blocks.named_children())
    net = nn.Sequential(OrderedDict([*named[:2], ("relu", nn.ReLU()), *named[2:]]))
    with pytest.raises(ValueError, match="the parts miss the gradient"):
        gradient_by_path_length(net, rows(), torch.arange(20) % 2, F.cross_entropy)


def by_hand_net() -> nn.Sequential:
    """x -> (x, -x) by layer1 and layer2 doing nothing or swapping; class 1 where x < 0."""
    net = deep_mlp(3, 2, "identity", n_inputs=2)
    swap = [[0.0, 1.0], [1.0, 0.0]]
    for layer, weight in zip(net, (torch.eye(2), torch.tensor(swap), torch.eye(2)), strict=False):
        layer.linear.weight.data = weight.clone()
    net.head.weight.data = torch.tensor(swap)
    return net


def test_block_ablation_by_hand() -> None:
    # layer2 swaps, the head swaps back: the net copies its input. Without layer2 all is swapped,
    # without layer3 (which copies) nothing changes.
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [2.0, 3.0]])
    y = torch.tensor([0, 1, 0, 0])  # the last is mislabeled
    net = by_hand_net()
    assert accuracy_without(net, x, y) == 0.75
    assert block_ablation(net, x, y) == {"layer1": 0.75, "layer2": 0.25, "layer3": 0.75}
    assert accuracy_without(net, x, y, ["layer2", "layer3"]) == 0.25
    assert accuracy_without(net, x, y, "layer2") == 0.25


def test_block_ablation_refuses() -> None:
    net = deep_mlp(1, 4, "relu")
    with pytest.raises(ValueError, match="no Block"):
        block_ablation(net, rows(), torch.zeros(20))
    with pytest.raises(ValueError, match=r"y must be \(20,\) class numbers"):
        accuracy_without(net, rows(), [0, 1, 0])


def path_sum(weights: list[Tensor], signal: Tensor, k: int) -> Tensor:
    """Add up every product of k of the Jacobians, in order: slow, and straight from the text."""
    parts = torch.zeros_like(signal)
    for chosen in combinations(range(len(weights)), k):
        part = signal
        for i in reversed(chosen):
            part = part @ weights[i]
        parts = parts + part
    return parts


def test_path_lengths_of_a_linear_net_equal_the_sum_over_all_paths() -> None:
    net = deep_mlp(5, 3, "identity", residual=True).double()
    x, y = rows().double(), torch.arange(20) % 2
    got = gradient_by_path_length(net, x, y, F.cross_entropy)
    logits = net(x)
    (delta,) = torch.autograd.grad(F.cross_entropy(logits, y), logits)
    signal = (delta @ net.head.weight).detach()
    weights = [net[i].linear.weight.detach() for i in range(1, 5)]
    assert got.shape == (5, 20, 3)
    for k in range(5):
        torch.testing.assert_close(got[k], path_sum(weights, signal, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("activation", "norm"), [("relu", "batch"), ("tanh", None)])
def test_path_lengths_add_up_to_the_gradient(activation: str, norm: str | None) -> None:
    net = deep_mlp(6, 5, activation, True, norm).double().eval()
    x, y = rows().double(), torch.arange(20) % 2
    h = net[0](x).detach().requires_grad_()
    (want,) = torch.autograd.grad(F.cross_entropy(net[1:](h), y), h)
    got = gradient_by_path_length(net.train(), x, y, F.cross_entropy)
    torch.testing.assert_close(got.sum(0), want, rtol=0, atol=1e-12)
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_one_weight_by_hand() -> None:
    # (1 + 2)(1 + 3) = 1 + (2 + 3) + 2 * 3: one path of length 0, two of length 1, one of length 2
    net = deep_mlp(3, 1, "identity", True, n_inputs=1, n_outputs=1)
    for layer, weight in zip(
        (net[0].linear, net[1].linear, net[2].linear), (1.0, 2.0, 3.0), strict=True
    ):
        layer.weight.data.fill_(weight)
    net.head.weight.data.fill_(1.0)
    parts = gradient_by_path_length(net, torch.ones(1, 1), None, total)
    assert parts.flatten().tolist() == [1.0, 5.0, 6.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda net: gradient_by_path_length(net, rows(), None, total),
        lambda net: gradient_by_path_length(nn.Linear(2, 2), rows(), None, total),
    ],
)
def test_path_lengths_need_residual_blocks(call: Callable[[nn.Module], Tensor]) -> None:
    with pytest.raises(ValueError, match="residual=True"):
        call(deep_mlp(4, 3, "relu"))
