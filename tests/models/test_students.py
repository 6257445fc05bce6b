"""The students are what their card and lesson `distillation` say, with a margin."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import Tensor, nn

from xailab.core import capture
from xailab.models import STUDENT_WIDTHS, SmallDigitCNN, digit_cnn, digit_students, recipes

Digits = tuple[Tensor, Tensor]
Measure = Callable[[nn.Module, Tensor, Tensor], float]


@pytest.fixture(scope="module")
def found(digits: Digits, percent_right: Measure) -> dict[str, list[float]]:
    parts = digit_students().named_children()
    return {name: [percent_right(net, *digits) for net in nets] for name, nets in parts}  # type: ignore[union-attr]


def test_a_tenth_of_the_teacher_is_within_a_point_and_a_half_of_it(
    digits: Digits, found: dict[str, list[float]], percent_right: Measure
) -> None:
    sizes = [sum(p.numel() for p in net.parameters()) for net in (SmallDigitCNN(), digit_cnn())]
    assert sizes[0] <= 0.10 * sizes[1]
    assert np.mean(found["taught"]) >= percent_right(digit_cnn(), *digits) - 1.2


def test_an_unlabeled_crowd_and_a_teacher_beat_200_labels(found: dict[str, list[float]]) -> None:
    gain = ttest_rel(found["taught"], found["few_labels"]).confidence_interval(0.95)
    assert np.subtract(found["taught"], found["few_labels"]).mean() > 3
    assert gain.low > 1


def test_a_teacher_does_not_beat_the_labels_it_learned_from(
    found: dict[str, list[float]],
) -> None:
    assert np.subtract(found["taught"], found["all_labels"]).mean() < 0
    assert np.mean(found["all_labels"]) > 96.5  # it could be learned


def test_the_card_states_each_mean(
    found: dict[str, list[float]], stated: Callable[[str], list[float]]
) -> None:
    means = [np.mean(found[name]) for name in ("few_labels", "all_labels", "taught")]
    np.testing.assert_allclose(
        stated("digit_students"), [*means, *found["sizes"]], atol=0.15
    )  # of 1,000 digits


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
