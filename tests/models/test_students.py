"""The students are what their card and lesson 20 say, with a margin."""

import re

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import Tensor, nn

from xailab.core import capture
from xailab.data import load
from xailab.models import STUDENT_WIDTHS, SmallDigitCNN, card, digit_cnn, digit_students, recipes


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return 100 * (net(x).argmax(1) == y).double().mean().item()


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load("mnist5k")
    test = ~data.extra["train"]
    images = np.asarray(data.images)[test] / np.float32(255)
    return torch.as_tensor(images)[:, None], torch.as_tensor(data.y[test])


@pytest.fixture(scope="module")
def found(digits: tuple[Tensor, Tensor]) -> dict[str, list[float]]:
    parts = digit_students().named_children()
    return {name: [accuracy(net, *digits) for net in nets] for name, nets in parts}  # type: ignore[union-attr]


def test_a_tenth_of_the_teacher_is_within_a_point_and_a_half_of_it(
    digits: tuple[Tensor, Tensor], found: dict[str, list[float]]
) -> None:
    sizes = [sum(p.numel() for p in net.parameters()) for net in (SmallDigitCNN(), digit_cnn())]
    assert sizes[0] <= 0.10 * sizes[1]
    assert np.mean(found["taught"]) >= accuracy(digit_cnn(), *digits) - 1.2


def test_an_unlabeled_crowd_and_a_teacher_beat_200_labels(found: dict[str, list[float]]) -> None:
    gain = ttest_rel(found["taught"], found["few_labels"]).confidence_interval(0.95)
    assert np.subtract(found["taught"], found["few_labels"]).mean() > 3
    assert gain.low > 1


def test_a_teacher_does_not_beat_the_labels_it_learned_from(
    found: dict[str, list[float]],
) -> None:
    assert np.subtract(found["taught"], found["all_labels"]).mean() < 0
    assert np.mean(found["all_labels"]) > 96.5  # it could be learned


def test_the_card_states_each_mean(found: dict[str, list[float]]) -> None:
    told = card("digit_students").split("**Measured.**")[1].split("**Use.**")[0]
    stated = [float(number) for number in re.findall(r"([\d.]+) %", told)]
    means = [np.mean(found[name]) for name in ("few_labels", "all_labels", "taught")]
    np.testing.assert_allclose(stated, [*means, *found["sizes"]], atol=0.15)  # of 1,000 digits


def test_a_larger_student_follows_better(found: dict[str, list[float]]) -> None:
    small, middle, large = found["sizes"]
    assert small + 2 < middle < np.mean(found["taught"]) < large + 0.5


def test_the_last_maps_have_the_promised_shape() -> None:
    for width in (*STUDENT_WIDTHS, (8, 12)):
        net = SmallDigitCNN(width)
        with capture(net, "relu2") as kept:
            assert net(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
        assert kept["relu2"].shape == (3, width[1], 12, 12)


def test_copies_are_the_rows_and_moved_ones_in_the_same_order() -> None:
    torch.manual_seed(0)
    x, y = torch.zeros(40, 1, 28, 28), torch.arange(40)
    x[:, 0, 14, 14] = torch.arange(1.0, 41)
    copies, labels = recipes._moved_copies(x, y, 3)
    assert torch.equal(copies[:40], x)
    assert not torch.equal(copies[40:80], x)
    assert torch.equal(copies.amax((1, 2, 3)) - 1, labels.float())
    assert torch.equal(labels, y.repeat(3))
