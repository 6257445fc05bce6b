"""The networks that are asked together are what their cards say."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xailab.data import load, plane
from xailab.models import MOON_NOISES, card, digit_bayes, digit_committee, mlp, moon_nets
from xailab.trust.bayes import BayesLinear, bayesian_layers


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return 100 * (net(x).argmax(1) == y).float().mean().item()


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load("mnist5k")
    test = ~data.extra["train"]
    images = np.asarray(data.images)[test] / np.float32(255)
    return torch.as_tensor(images)[:, None], torch.as_tensor(data.y[test])


def stated(name: str) -> list[float]:
    """Percentages under the word Measured."""
    measured = card(name).split("**Measured.**")[1].split("**Use.**")[0]
    return [float(number) for number in re.findall(r"([\d.]+) %", measured)]


def test_the_five_are_as_good_as_their_card_says(digits: tuple[Tensor, Tensor]) -> None:
    found = [accuracy(net, *digits) for net in digit_committee()]
    low, high = stated("digit_committee")
    assert min(found) == pytest.approx(low, abs=0.15)
    assert max(found) == pytest.approx(high, abs=0.15)


def test_the_five_differ(digits: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        said = torch.stack([net(digits[0]).argmax(1) for net in digit_committee()])
    assert 0.01 < (said != said[0]).any(0).float().mean() < 0.3


def test_the_bayesian_network_is_as_good_as_its_card_says(digits: tuple[Tensor, Tensor]) -> None:
    net = digit_bayes()
    assert accuracy(net, *digits) == pytest.approx(stated("digit_bayes")[0], abs=0.15)
    assert len(bayesian_layers(net)) == 3
    assert all(one.prior_std == 0.2 for one in bayesian_layers(net))


def test_moon_nets_are_as_good_as_their_card_says() -> None:
    found = []
    for noise, nets in zip(MOON_NOISES, moon_nets(), strict=True):
        points = plane("moons", 300, noise=noise)
        x, y = torch.as_tensor(points.X), torch.as_tensor(points.y)
        assert torch.equal(nets(x), nets.members[0](x))
        found += [accuracy(nets, x, y), accuracy(nets.bayes, x, y)]
    assert found == pytest.approx(stated("moon_nets"), abs=0.4)  # one point of 300


def test_layers_and_dropout_of_an_mlp() -> None:
    net = mlp([3, 4, 5, 2], dropout=0.2, linear=BayesLinear)
    kinds = [type(layer).__name__ for layer in net]
    assert kinds == ["BayesLinear", "ReLU", "Dropout"] * 2 + ["BayesLinear"]
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.2, 0.2]
    assert net(torch.zeros(7, 3)).shape == (7, 2)
