"""Checks of `fairness`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import equalized_odds_difference

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of
from xailab.trust import fairness

LESSON = "fairness"


def rates(y, pred, group, value=1):
    names = np.unique(group)
    return [pred[(y == value) & (group == g)].mean() for g in names]


def gap(y, pred, group, value=1):
    return np.ptp(rates(y, pred, group, value))


def test_odds_gap_takes_the_model_answer_and_other_ways():
    assert_accepted("fairness.odds_gap", solution_of(LESSON, "odds_gap"))
    assert_accepted("fairness.odds_gap", fairness.equalized_odds_difference)
    assert_accepted(
        "fairness.odds_gap",
        lambda y, pred, group: equalized_odds_difference(y, pred, sensitive_features=group),
    )

    def by_pandas(y, pred, group):
        table = pd.DataFrame({"y": y, "p": pred, "g": group}).groupby(["y", "g"]).p.mean()
        return np.ptp(table.unstack().to_numpy(), axis=1).max()

    assert_accepted("fairness.odds_gap", by_pandas)


def last_minus_first(y, pred, group):
    return [rates(y, pred, group, v)[-1] - rates(y, pred, group, v)[0] for v in (0, 1)]


def first_minus_last(y, pred, group):
    return max(last_minus_first(y, pred, group), key=abs)


def overwrites(y, pred, group):
    found = fairness.equalized_odds_difference(y, pred, group)
    pred[:] = 0
    return found


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda y, p, g: gap(y, p, g, 1) + gap(y, p, g, 0), "are added"),
        (lambda y, p, g: (gap(y, p, g, 1) + gap(y, p, g, 0)) / 2, "mean of the two"),
        (lambda y, p, g: gap(y, p, g, 0), "smaller of the two"),
        (lambda y, p, g: gap(y, p, g, 1), "equal opportunity"),
        (fairness.demographic_parity_difference, "demographic parity"),
        (lambda y, p, g: gap(p, y, g, 1), "precision"),
        (first_minus_last, "order of the groups"),
        (lambda y, p, g: max(last_minus_first(y, p, g)), "last group minus the first"),
        (lambda y, p, g: -min(last_minus_first(y, p, g)), "first group minus the last"),
        (lambda y, p, g: np.ptp(rates(y, p, g, 0) + rates(y, p, g, 1)), "thrown together"),
        (lambda y, p, g: max(abs(np.diff(rates(y, p, g, v)[:2])[0]) for v in (0, 1)), "two groups"),
        (
            lambda y, p, g: max(
                np.ptp([(p * (y == v))[g == name].mean() for name in np.unique(g)]) for v in (0, 1)
            ),
            "those with the same y",
        ),
        (lambda y, p, g: None, "None"),
    ],
)
def test_odds_gap_names_the_mistake(wrong, match):
    assert_rejected("fairness.odds_gap", wrong, match)


def test_odds_gap_notices_changed_arguments():
    module = __import__("xailab.course.exercises.fairness", fromlist=["_PRED"])
    kept = module._PRED.copy()
    assert_rejected("fairness.odds_gap", overwrites, "changed its arguments")
    np.testing.assert_array_equal(module._PRED, kept)


def test_no_two_mistakes_about_the_gap_look_alike():
    module = __import__("xailab.course.exercises.fairness", fromlist=["_Y"])
    y, pred, group = module._Y, module._PRED, module._GROUP
    halves = [gap(y, pred, group, 1), gap(y, pred, group, 0)]
    found = halves + list(module._wrong_gaps(y, pred, group).values())
    assert min(abs(a - b) for i, a in enumerate(found) for b in found[:i]) > 0.01


def pairs(y, group):
    """Share of each row's pair of group and label, and of its group and of its label."""
    together = np.array([((group == g) & (y == v)).mean() for g, v in zip(group, y, strict=True)])
    own = np.array([(group == g).mean() for g in group])
    label = np.array([(y == v).mean() for v in y])
    return together, own, label


def by_pairs(formula):
    return lambda y, group: formula(*pairs(y, group))


def test_weights_take_the_model_answer_and_other_ways():
    assert_accepted("fairness.weights", solution_of(LESSON, "weights"))
    assert_accepted("fairness.weights", fairness.reweigh)
    assert_accepted("fairness.weights", by_pairs(lambda both, g, v: g * v / both))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_pairs(lambda both, g, v: both / (g * v)), "upside down"),
        (by_pairs(lambda both, g, v: g * v), "divide by how often the pair"),
        (by_pairs(lambda both, g, v: 1 / both), "multiply by P"),
        (by_pairs(lambda both, g, v: g * v / (both * len(both))), "by a count"),
        (by_pairs(lambda both, g, v: both), "under the line"),
        (by_pairs(lambda both, g, v: v / both), r"P\(g\) is missing"),
        (by_pairs(lambda both, g, v: g / both), r"P\(y\) is missing"),
        (by_pairs(lambda both, g, v: g * v / both * len(both)), "these are counts"),
        (by_pairs(lambda both, g, v: g * v * g / both), "not within its group"),
        (by_pairs(lambda both, g, v: 1 / g), "equally heavy"),
        (lambda y, group: np.ones(len(y)), "group and label both count"),
        (lambda y, group: fairness.reweigh(y, group)[: len(y)] ** (group < "c"), "three uneven"),
        (lambda y, group: np.unique(fairness.reweigh(y, group)), r"shape \(10,\)"),
        (lambda y, group: None, "None"),
    ],
)
def test_weights_name_the_mistake(wrong, match):
    assert_rejected("fairness.weights", wrong, match)


@pytest.mark.parametrize("id", ["fairness.paper_fpr", "fairness.blind_gap"])
def test_guesses_are_shares(id):
    assert_accepted(id, 0.2)
    assert_rejected(id, 20, "write 20% as 0.2")
    assert_rejected(id, "0.2", "without quotes")
    assert_rejected(id, -0.1, "from 0 to 1")


def test_every_exercise_with_a_number_of_steps_has_hints():
    steps = {e.id: len(e.hints) for e in exercises_of("fairness") if e.kind != "predict"}
    ids = ["fairness.odds_gap", "fairness.weights", "fairness.press"]
    assert steps == dict.fromkeys(ids, 3)
