"""Rules against paper, against conservation, and against captum where it is right."""

from typing import Any

import numpy as np
import pytest
import shap
import torch
from captum.attr import LRP, DeepLift, DeepLiftShap
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn

from tests.toys import linear
from xailab.attribution.relevance import deep_lift, deep_shap, layer_relevance, lrp
from xailab.data import load
from xailab.models import digit_cnn

AND = torch.tensor([[1.0, 1.0]])


def both_needed() -> nn.Sequential:
    """ReLU(x0 + x1 - 1): 0 from (0, 0) until the two add up to more than 1."""
    return nn.Sequential(linear([[1.0, 1.0]], [-1.0]), nn.ReLU())


def small(bias: bool = False, pool: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        pool or nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, bias=bias),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3, bias=bias),
    ).double()


def pictures(n: int = 3) -> Tensor:
    return torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    mnist = load("mnist5k")
    images = torch.as_tensor(np.asarray(mnist.images)[::500] / np.float64(255))[:, None]
    return digit_cnn().double(), images, torch.as_tensor(mnist.y[::500])


# ---- DeepLIFT ----------------------------------------------------------------------------------


def test_rescale_by_hand() -> None:
    """z goes from -1 to 1 and ReLU(z) from 0 to 1: multiplier 1/2, so each input gets 1/2.

    The gradient at (1, 1) is 1 for each: 2 in all, though the score only rose by 1.
    """
    assert deep_lift(both_needed(), AND, 0).tolist() == [[0.5, 0.5]]
    assert deep_lift(both_needed(), AND, 0, multiply_by_inputs=False).tolist() == [[0.5, 0.5]]


def test_a_unit_that_did_not_move_takes_its_slope() -> None:
    net = nn.Sequential(linear([[1.0, -1.0]]), nn.Sigmoid())
    got = deep_lift(net, AND, 0)  # z = 0 both times; sigmoid'(0) = 1/4
    torch.testing.assert_close(got, torch.tensor([[0.25, -0.25]]))


def test_a_maximum_shares_between_its_two_winners() -> None:
    """From (0, 3) to (5, 1) the maximum rises 3 -> 5, all of it above 3: the new winner's.

    The other way it falls 5 -> 3, because the old winner left: all of it is the old winner's.
    """
    net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    x, base = torch.tensor([[[5.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]])
    assert deep_lift(net, x, 0, baseline=base).tolist() == [[[2.0, 0.0]]]
    assert deep_lift(net, base, 0, baseline=x).tolist() == [[[-2.0, 0.0]]]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.MaxPool2d(3, 2, 1)])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_deep_lift_adds_up(pool: nn.Module, baseline: float) -> None:
    net, x = small(bias=True, pool=pool), pictures()
    change = net(x)[:, 1] - net(torch.full_like(x, baseline))[:, 1]
    got = deep_lift(net, x, 1, baseline=baseline)
    torch.testing.assert_close(got.sum((1, 2, 3)), change, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting forward")
@pytest.mark.parametrize("multiply", [True, False])
def test_deep_lift_equals_captums(multiply: bool) -> None:
    net, x = small(bias=True, pool=nn.AvgPool2d(2)), pictures()
    baseline = pictures().flip(0) / 2
    peer = DeepLift(net, multiply_by_inputs=multiply)
    got = deep_lift(net, x, 1, baseline=baseline, multiply_by_inputs=multiply)
    torch.testing.assert_close(got, peer.attribute(x, baseline, target=1), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Setting forward")
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1)])
def test_captum_loses_part_at_a_maximum_and_shap_does_not(pool: nn.Module) -> None:
    net, x, background = small(bias=True, pool=pool), pictures(), pictures(5).flip(0) / 2
    change = net(x)[:, 1] - net(background)[:, 1].mean()
    captums = DeepLiftShap(net).attribute(x, background, target=1)
    assert (captums.sum((1, 2, 3)) - change).abs().max() > 1e-3
    ours = deep_shap(net, x, 1, background=background)
    assert (ours.sum((1, 2, 3)) - change).abs().max() < 1e-12
    if pool.stride == pool.kernel_size:  # shap cannot unpool windows that overlap
        peer = shap.DeepExplainer(net.float(), background.float())
        want = torch.as_tensor(peer.shap_values(x.float())[..., 1])
        torch.testing.assert_close(ours, want.double(), rtol=0, atol=1e-6)


def test_adds_up_on_real_digits(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Black corners tie in every window, and still nothing is lost."""
    model, x, y = digits
    change = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    got = deep_lift(model, x, y).sum((1, 2, 3))
    torch.testing.assert_close(got, change.detach(), rtol=0, atol=1e-10)


def test_skips_are_fine() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.relu = nn.Linear(2, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * (x + self.relu(self.inside(x)))

    torch.manual_seed(0)
    net, x = Skip(), torch.randn(4, 2)
    change = (net(x) - net(torch.zeros_like(x)))[:, 0]
    torch.testing.assert_close(deep_lift(net, x, 0).sum(1), change)


def test_constant_padding_is_fine() -> None:
    """As in networks that were built for another framework; an edge of 2 is no difference."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small(bias=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(nn.functional.pad(x, (0, 2, 0, 2), value=2.0))

    torch.manual_seed(0)
    net, x = Padded(), pictures()
    change = (net(x) - net(torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(deep_lift(net, x, 1).sum((1, 2, 3)), change, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting forward")
def test_deep_shap_equals_captums() -> None:
    net, x = small(bias=True, pool=nn.AvgPool2d(2)), pictures()
    background = pictures(7).flip(0)
    want = DeepLiftShap(net).attribute(x, background, target=2)
    for batch_size in (None, 1, 3):
        got = deep_shap(net, x, 2, background=background, batch_size=batch_size)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_deep_shap_is_the_mean_over_baselines() -> None:
    """Baselines (0, 0) and (1, 0): the first gives 1/2 each, the second only x1 its 1."""
    background = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    got = deep_shap(both_needed(), AND, 0, background=background)
    assert got.tolist() == [[0.25, 0.75]]


# ---- LRP ---------------------------------------------------------------------------------------


def test_epsilon_by_hand() -> None:
    """z = 2*3 + 1*(-2) = 4: shares 6/4 and -2/4 of the score 4."""
    net = linear([[3.0, -2.0]])
    got = lrp(net, torch.tensor([[2.0, 1.0]]), 0, epsilon=0.0)
    assert got.tolist() == [[6.0, -2.0]]
    got = lrp(net, torch.tensor([[2.0, 1.0]]), 0, epsilon=1.0)  # 4 / 5 of it
    torch.testing.assert_close(got, torch.tensor([[4.8, -1.6]]))


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"rule": "z_plus"}, [4.0, 0.0]),
        ({"rule": "alpha_beta"}, [8.0, -4.0]),  # 2 * 4 to the positive, -1 * 4 to the negative
        ({"rule": "gamma", "gamma": 1.0}, [4 * 12 / 10, 4 * -2 / 10]),  # z = 2*6 - 2
    ],
)
def test_other_rules_by_hand(options: dict[str, Any], want: list[float]) -> None:
    got = lrp(linear([[3.0, -2.0]]), torch.tensor([[2.0, 1.0]]), 0, **options)
    torch.testing.assert_close(got, torch.tensor([want]))


def test_positive_products_of_negative_inputs_count() -> None:
    """x = (-2, 1), w = (-3, -2): products 6 and -2, so z-plus gives all to the first."""
    got = lrp(linear([[-3.0, -2.0]]), torch.tensor([[-2.0, 1.0]]), 0, rule="z_plus")
    torch.testing.assert_close(got, torch.tensor([[4.0, 0.0]]))


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus", "alpha_beta"])
def test_conserves_layer_by_layer(rule: str) -> None:
    net, x = small(), pictures()[1:]  # both have positive parts at the top: else nothing to share
    score = net(x)[:, 0].detach()
    layers = [str(i) for i in range(7)]
    found = layer_relevance(net, x, 0, layers=layers, rule=rule, epsilon=1e-12)
    for name, relevance in found.items():
        total = relevance.flatten(1).sum(1)
        torch.testing.assert_close(total, score, rtol=1e-6, atol=1e-9, msg=f"{rule}: {name}")
    total = lrp(net, x, 0, rule=rule, epsilon=1e-12).flatten(1).sum(1)
    torch.testing.assert_close(total, score, rtol=1e-6, atol=1e-9)


def test_a_bias_keeps_its_share() -> None:
    """z = 2*3 + 2 = 8: of the score 8 the input gets 6, the bias keeps 2."""
    got = lrp(linear([[3.0]], [2.0]), torch.tensor([[2.0]]), 0, epsilon=0.0)
    assert got.item() == 6


def test_epsilon_zero_is_input_x_gradient_in_a_relu_net() -> None:
    net = small()
    x = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    got = lrp(net, x.detach(), 1, epsilon=0.0)
    torch.testing.assert_close(got, (x * gradient).detach(), rtol=0, atol=1e-10)


class Flattening(nn.Module):
    """The same layers for captum: it knows no Flatten, and wants rules on the layers."""

    def __init__(self, net: nn.Sequential, rule: Any) -> None:
        super().__init__()
        self.maps, self.last = net[:6], net[7]
        for layer in (net[0], net[3], net[7]):
            layer.rule = rule()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.maps(x).flatten(1))


@pytest.mark.parametrize(
    ("options", "peer"),
    [
        ({"rule": "epsilon", "epsilon": 0.01}, lambda: EpsilonRule(epsilon=0.01)),
        ({"rule": "gamma", "gamma": 0.5}, lambda: GammaRule(gamma=0.5)),
        ({"rule": "z_plus"}, Alpha1_Beta0_Rule),
    ],
)
def test_equals_captums(options: dict[str, Any], peer: Any) -> None:
    """On inputs that are not negative; captum's rules are set on the layers one by one.

    captum gives max pooling the epsilon rule with its own 1e-9, hence the tolerance.
    """
    net, x = small(), pictures()
    want = LRP(Flattening(net, peer)).attribute(x, target=2)
    torch.testing.assert_close(lrp(net, x, 2, **options), want, rtol=1e-4, atol=1e-6)


def test_rules_per_layer() -> None:
    net, x = small(), pictures()
    mixed = lrp(net, x, 0, rule="z_plus", per_layer={"7": "epsilon"})
    assert not torch.allclose(mixed, lrp(net, x, 0, rule="z_plus"))
    same = {"0": "z_plus", "3": "z_plus", "7": "z_plus"}
    torch.testing.assert_close(lrp(net, x, 0, per_layer=same), lrp(net, x, 0, rule="z_plus"))


# ---- refusals ----------------------------------------------------------------------------------


class Functional(nn.Module):
    """A network that does one thing as a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(2, 2), nn.Linear(2, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def logsumexp(z: Tensor) -> Tensor:
    return torch.logsumexp(z, 1, keepdim=True) + z


@pytest.mark.parametrize(
    "function",
    [
        lambda z: torch.cumprod(z, 1),
        lambda z: z.sort(1)[0],
        logsumexp,
        lambda z: torch.fft.fft(z).real,
    ],
)
@pytest.mark.parametrize("rule", [deep_lift, lrp])
def test_unknown_operations_are_refused_by_name(rule: Any, function: Any) -> None:
    with pytest.raises(ValueError, match=r"no rule is known for the operation .*Backward.*modules"):
        rule(Functional(function), AND, 0)


@pytest.mark.parametrize("function", [torch.exp, torch.sin, lambda z: (z + 9).log()])
def test_lrp_passes_no_relevance_through_curves_that_are_no_activations(function: Any) -> None:
    with pytest.raises(ValueError, match=r"Backward0 \((exp|sin|log), in 'the model'\)"):
        lrp(Functional(function), AND, 0)


def test_probabilities_are_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))
    with pytest.raises(ValueError, match=r"Softmax.*up to the logits"):
        deep_lift(net, AND, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "square"}, "epsilon, gamma, alpha_beta, z_plus, .*epsilon_plus.*; got 'square'"),
        ({"per_layer": {"0": "square"}}, "got 'square'"),
        ({"per_layer": {"9": "gamma"}}, "no layer '9'"),
        ({"per_layer": {"1": "gamma"}}, "'1' is no linear or convolution layer"),
        ({"alpha": 2.0, "beta": 2.0}, "alpha=2.0 and beta=2.0"),
        ({"epsilon": -1.0}, "epsilon.*-1.0"),
        ({"gamma": float("nan")}, "gamma.*nan"),
    ],
)
def test_bad_rules(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lrp(small(), pictures(), 0, **options)


@pytest.mark.parametrize("rule", [deep_lift, lrp])
def test_a_plain_function_is_refused(rule: Any) -> None:
    with pytest.raises(TypeError, match=r"nn\.Module, got function"):
        rule(lambda x: x, AND, 0)


@pytest.mark.parametrize(
    ("options", "bias", "want"),
    [  # products 6 and -2
        ({"rule": "gamma", "gamma": 1.0}, 1.0, [5 * 12 / 12, 5 * -2 / 12]),  # z = 12 - 2 + 2
        ({"rule": "gamma", "gamma": 1.0}, -1.0, [3 * 12 / 9, 3 * -2 / 9]),  # z = 12 - 2 - 1
        ({"rule": "z_plus"}, 1.0, [5 * 6 / 7, 0.0]),
        ({"rule": "z_plus"}, -1.0, [3.0, 0.0]),
        ({"rule": "alpha_beta"}, 1.0, [2 * 5 * 6 / 7, -5.0]),
        ({"rule": "alpha_beta"}, -1.0, [6.0, -3 * 2 / 3]),
    ],
)
def test_biases_by_hand(options: dict[str, Any], bias: float, want: list[float]) -> None:
    """The bias is one more summand of its sign: it is favored as they are, and keeps its share."""
    got = lrp(linear([[3.0, -2.0]], [bias]), torch.tensor([[2.0, 1.0]]), 0, **options)
    torch.testing.assert_close(got, torch.tensor([want]))


def test_a_winner_that_did_not_move_takes_its_slope() -> None:
    """5 wins both times: the maximum follows it one to one, and the loser not at all."""
    net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    x, base = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[0.0, 5.0]]])
    got = deep_lift(net, x, 0, baseline=base, multiply_by_inputs=False)
    assert got.tolist() == [[[0.0, 1.0]]]


class CutOff(nn.Module):
    """x (1 + x / 10), where no gradient goes through the factor."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * x.detach())


def test_a_sum_that_misses_a_tenth_of_the_change_is_refused() -> None:
    """From -1 (-0.9) to 1 (1.1) the score rises by 2; two steps of slope 1.1 make 2.2."""
    with pytest.raises(ValueError, match=r"misses f\(x\) - f\(baseline\) by up to 0.2 of 2:"):
        deep_lift(CutOff(), torch.ones(1, 1), 0, baseline=-1.0)
