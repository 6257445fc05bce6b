"""The networks that are asked together are what their cards say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xailab.data import plane
from xailab.models import MOON_NOISES, digit_bayes, digit_committee, mlp, moon_nets
from xailab.models.bayesian import BayesLinear
from xailab.trust.bayes import bayesian_layers

Digits = tuple[Tensor, Tensor]
Measure = Callable[[nn.Module, Tensor, Tensor], float]
Stated = Callable[[str], list[float]]


def test_the_five_are_as_good_as_their_card_says(
    digits: Digits, percent_right: Measure, stated: Stated
) -> None:
    found = [percent_right(net, *digits) for net in digit_committee()]
    low, high = stated("digit_committee")
    assert min(found) == pytest.approx(low, abs=0.15)
    assert max(found) == pytest.approx(high, abs=0.15)


def test_the_five_differ(digits: Digits) -> None:
    with torch.no_grad():
        said = torch.stack([net(digits[0]).argmax(1) for net in digit_committee()])
    assert 0.01 < (said != said[0]).any(0).float().mean() < 0.3


def test_the_bayesian_network_is_as_good_as_its_card_says(
    digits: Digits, percent_right: Measure, stated: Stated
) -> None:
    net = digit_bayes()
    assert percent_right(net, *digits) == pytest.approx(stated("digit_bayes")[0], abs=0.15)
    assert len(bayesian_layers(net)) == 3
    assert all(one.prior_std == 0.2 for one in bayesian_layers(net))


def test_moon_nets_are_as_good_as_their_card_says(percent_right: Measure, stated: Stated) -> None:
    found = []
    for noise, nets in zip(MOON_NOISES, moon_nets(), strict=True):
        points = plane("moons", 300, noise=noise)
        x, y = torch.as_tensor(points.X), torch.as_tensor(points.y)
        assert torch.equal(nets(x), nets.members[0](x))
        found += [percent_right(nets, x, y), percent_right(nets.bayes, x, y)]
    assert found == pytest.approx(stated("moon_nets"), abs=0.4)  # one point of 300


def test_layers_and_dropout_of_an_mlp() -> None:
    net = mlp([3, 4, 5, 2], dropout=0.2, linear=BayesLinear)
    kinds = [type(layer).__name__ for layer in net]
    assert kinds == ["BayesLinear", "ReLU", "Dropout"] * 2 + ["BayesLinear"]
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.2, 0.2]
    assert net(torch.zeros(7, 3)).shape == (7, 2)
