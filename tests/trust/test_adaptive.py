"""The attacker who knows the detector: by hand, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.snapshots import unchanged
from tests.toys import inputs, linear, toy
from xailab.trust.adaptive import adaptive_attack
from xailab.trust.adversarial import pgd
from xailab.trust.detectors import Disagreement, FeatureSqueezing

STEPS = {"step_size": 0.1, "n_steps": 3}


def test_an_attacker_who_knows_the_detector_walks_around_it() -> None:
    """Both numbers fool the model; the alarm watches one."""
    model = linear([[1.0, 1.0], [0.0, 0.0]])
    x = torch.full((1, 2), 0.5)
    alarm = lambda x: 10 * (x[:, 0] - 0.5).abs()  # noqa: E731
    steps = {"epsilon": 1.0, "step_size": 0.125, "n_steps": 40, "clip": None}
    blunt = pgd(model, x, 0, **steps)
    sly = adaptive_attack(model, x, 0, suspicion=alarm, margin=0.0, **steps)
    assert model(blunt).argmax() == model(sly).argmax() == 1
    assert alarm(blunt).item() == pytest.approx(10)
    assert alarm(sly).item() == pytest.approx(1.25)  # one step before the border


def test_adaptive_restores_the_model() -> None:
    model, x = toy(), inputs()
    detector = FeatureSqueezing(model, [lambda x: 0.9 * x])
    with unchanged(model, x):
        adaptive_attack(model, x, 2, suspicion=detector.suspicion, epsilon=0.1, **STEPS)


@pytest.mark.parametrize("name", ["margin", "step_size"])
def test_adaptive_refuses_negative_numbers(name: str) -> None:
    options = {"epsilon": 0.1, **STEPS, name: -1.0}
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        adaptive_attack(toy(), inputs(), 0, suspicion=lambda x: x.sum(), **options)


def test_of_all_steps_the_least_suspicious_that_fools_is_kept() -> None:
    """Steps 1, 2, 3 away: fooled from 2 on, the alarm rings less at 2 than at 3."""
    model = linear([[1.0], [0.0]])
    alarm = lambda x: 1 - 0 * x[:, 0] + (x[:, 0] + 0.25).abs()  # noqa: E731
    options = {"epsilon": 2.0, "step_size": 0.5, "n_steps": 3, "clip": None, "margin": 9.0}
    moved = adaptive_attack(model, torch.tensor([[0.25], [9.0]]), 0, suspicion=alarm, **options)
    assert moved.tolist() == [[-0.25], [7.5]]  # the second never fools it: its last step


def test_another_network_is_a_slope_to_walk_down() -> None:
    """The disagreement of two networks has a gradient: half its steps go against it."""
    nets = [linear([[1.0, 0.0], [0.0, 0.0]]), linear([[0.0, 1.0], [0.0, 0.0]])]
    x = torch.full((1, 2), 0.5)
    options = {"epsilon": 2.0, "step_size": 0.25, "n_steps": 20, "clip": None}
    detector = Disagreement(nets)
    sly = adaptive_attack(nets[0], x, 0, suspicion=detector.suspicion, margin=1.0, **options)
    blunt = pgd(nets[0], x, 0, **options)
    assert nets[0](sly).argmax() == nets[0](blunt).argmax() == 1
    assert detector.score(sly) < 0.1 * detector.score(blunt)


@pytest.mark.parametrize(
    ("suspicion", "words"),
    [
        (lambda x: x.sum(), r"one number a row, \(3,\), got shape \(\)"),
        (lambda x: x.sum((1, 2, 3))[:, None], r"one number a row, \(3,\), got shape \(3, 1\)"),
        (lambda x: 1.0, "one number a row"),
        (lambda x: x.sum((1, 2, 3)) * torch.nan, "suspicion returned NaN"),
        (lambda x: x.detach().sum((1, 2, 3)), "no gradient reaches the input from the suspicion"),
    ],
)
def test_bad_suspicions(suspicion: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adaptive_attack(toy(), inputs(), 0, suspicion=suspicion, epsilon=0.1, **STEPS)


def test_a_target_is_needed() -> None:
    one = lambda x: x.sum((1, 2, 3))  # noqa: E731
    with pytest.raises(ValueError, match="target=None: there is no other class"):
        adaptive_attack(one, inputs(), None, suspicion=one, epsilon=0.1, **STEPS)


def test_a_flat_network_is_said_to_be_flat() -> None:
    def flat(x: Tensor) -> Tensor:
        return torch.stack([x.sum((1, 2, 3)).relu() * 0 + 1, 0 * x.sum((1, 2, 3))], dim=1)

    with pytest.warns(UserWarning, match="the gradient is 0 in 3 of 3 rows"):
        adaptive_attack(flat, inputs(), 0, suspicion=lambda x: x[:, 0, 0, 0], epsilon=0.1, **STEPS)
