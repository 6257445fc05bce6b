"""Rules against paper, against conservation, and against captum and zennit where they are right."""

from typing import Any

import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn

from tests.toys import linear, pictures, small_cnn
from xailab.attribution.relevance import layer_relevance, lrp


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


def test_gamma_favors_the_sign_of_the_sum() -> None:
    """Products 3 and -4, score -1: with gamma = 1, 3 and -8 of -5."""
    got = lrp(linear([[3.0, -2.0]]), torch.tensor([[1.0, 2.0]]), 0, rule="gamma", gamma=1.0)
    torch.testing.assert_close(got, torch.tensor([[0.6, -1.6]]))
    got = lrp(linear([[-3.0, 2.0]]), -torch.tensor([[1.0, 2.0]]), 0, rule="gamma", gamma=1.0)
    torch.testing.assert_close(got, torch.tensor([[0.6, -1.6]]))


def test_positive_products_of_negative_inputs_count() -> None:
    """x = (-2, 1), w = (-3, -2): products 6 and -2, so z-plus gives all to the first."""
    got = lrp(linear([[-3.0, -2.0]]), torch.tensor([[-2.0, 1.0]]), 0, rule="z_plus")
    torch.testing.assert_close(got, torch.tensor([[4.0, 0.0]]))


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus", "alpha_beta"])
def test_conserves_layer_by_layer(rule: str) -> None:
    net, x = (
        small_cnn(),
        pictures()[1:],
    )  # both have positive parts at the top: else nothing to share
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


def test_epsilon_zero_is_input_x_gradient_in_a_relu_net() -> None:
    net = small_cnn()
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
    """On inputs and scores above 0; captum's rules are set on the layers one by one.

    captum gives max pooling the epsilon rule with its own 1e-9, hence the tolerance. Its gamma rule
    favors positive products where the sum is below 0 too, and may divide by 0 there.
    """
    net, x = small_cnn(), pictures()[:2]
    want = LRP(Flattening(net, peer)).attribute(x, target=2)
    torch.testing.assert_close(lrp(net, x, 2, **options), want, rtol=1e-4, atol=1e-6)


def test_rules_per_layer() -> None:
    net, x = small_cnn(), pictures()
    mixed = lrp(net, x, 0, rule="z_plus", per_layer={"7": "epsilon"})
    assert not torch.allclose(mixed, lrp(net, x, 0, rule="z_plus"))
    same = {"0": "z_plus", "3": "z_plus", "7": "z_plus"}
    torch.testing.assert_close(lrp(net, x, 0, per_layer=same), lrp(net, x, 0, rule="z_plus"))


# ---- refusals ----------------------------------------------------------------------------------


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
        lrp(small_cnn(), pictures(), 0, **options)
