"""The explorer counts what the thresholds do, answers quickly and says it in words."""

from time import perf_counter

import fairlearn.metrics as theirs
import numpy as np
import pytest

from xailab import widgets
from xailab.widgets.fairness import Crowd, explorer, threshold_explorer

# Eight people. Cut at .5, a selects .9 .7 .6 (two of them y = 1), b selects .8 (y = 1).
Y = [1, 1, 0, 0, 1, 1, 0, 0]
PROBS = [0.9, 0.7, 0.6, 0.1, 0.8, 0.4, 0.3, 0.2]
GROUP = list("aaaabbbb")


@pytest.fixture
def crowd():
    return Crowd(Y, PROBS, GROUP)


def test_by_hand(crowd):
    found = crowd.outcome([0.5, 0.5])
    assert found.accuracy == 6 / 8
    assert found.parity == 3 / 4 - 1 / 4
    assert found.opportunity == 2 / 2 - 1 / 2
    assert found.odds == 1 / 2  # false positives: 1 of 2 and 0 of 2
    assert found.table.precision.round(3).to_dict() == {"a": 0.667, "b": 1.0}


def test_a_threshold_of_its_own_for_each_group(crowd):
    """.7 cuts off a's false positive, .4 finds b's second one: nobody is left to be wronged."""
    found = crowd.outcome([0.7, 0.4])
    assert found[:4] == (1.0, 0.0, 0.0, 0.0)
    assert crowd.outcome([0.4, 0.7]).accuracy == 6 / 8


def test_equals_fairlearn_on_many_people():
    rng = np.random.default_rng(0)
    group, y, probs = rng.choice(["x", "y", "z"], 500), rng.integers(0, 2, 500), rng.random(500)
    found = Crowd(y, probs, group).outcome([0.3, 0.5, 0.8])
    cuts = {"x": 0.3, "y": 0.5, "z": 0.8}
    pred = (probs >= [cuts[g] for g in group]).astype(int)
    for ours, name in [
        (found.parity, "demographic_parity_difference"),
        (found.opportunity, "equal_opportunity_difference"),
        (found.odds, "equalized_odds_difference"),
    ]:
        want = getattr(theirs, name)(y, pred, sensitive_features=group)
        assert ours == pytest.approx(want, abs=1e-12)


def test_the_words_hold_all_that_is_asked(crowd):
    alt = crowd.picture([0.5, 0.5]).alt
    assert alt.startswith("Thresholds a 0.50, b 0.50: accuracy 0.750; gaps: parity 0.500, ")
    assert "opportunity 0.500, odds 0.500. a: selected 0.75, " in alt
    assert "b: selected 0.25, " in alt
    for rate in ("of y = 1: selected 1, ", "of y = 0: selected 0, ", "of selected: y = 1 0.667"):
        assert rate in alt


def test_with_nobody_selected_there_is_no_precision(crowd):
    alt = crowd.picture([1.0, 1.0]).alt
    assert "a: selected 0, " in alt
    assert "of selected" not in alt


def test_sliders_redraw_and_come_back(crowd):
    box = explorer(crowd, 0.5)
    a, b, image, words = box.children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    a.value = 0.7
    assert "a 0.70, b 0.50" in words.value
    b.value = 0.4
    assert "accuracy 1.000; gaps: parity 0.000" in words.value
    assert bytes(image.value) != first
    a.value, b.value = 0.5, 0.5
    assert bytes(image.value) == first


def test_a_slider_answers_at_once():
    """Counting for 20,000 people: .02 s on a quiet machine; the drawing comes on top."""
    rng = np.random.default_rng(0)
    crowd = Crowd(rng.integers(0, 2, 20000), rng.random(20000), rng.choice(["x", "y"], 20000))
    began = perf_counter()
    crowd.outcome([0.4, 0.6])
    assert perf_counter() - began < 0.3


def test_sliders_are_labeled(crowd):
    *sliders, _, _ = explorer(crowd, 0.3).children
    assert [(s.description, s.value) for s in sliders] == [("a", 0.3), ("b", 0.3)]
    assert all("arrow keys" in slider.tooltip for slider in sliders)


def test_names_are_escaped():
    *_, words = explorer(Crowd(Y, PROBS, ["<b>"] * 4 + ["c"] * 4), 0.5).children
    assert "&lt;b&gt; 0.50" in words.value


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    threshold_explorer(Y, PROBS, GROUP, start=0.7)
    assert capsys.readouterr().out.startswith("In words: Thresholds a 0.70, b 0.70: accuracy 0.875")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"probs": [1.2, *PROBS[1:]]}, ValueError, r"0\.\.1, got \[1.2\]"),
        ({"probs": PROBS[1:]}, ValueError, "8, got 7"),
        ({"y": [2, *Y[1:]]}, ValueError, r"got \[2\]"),
        ({"y": ["yes"] * 8}, TypeError, "must hold numbers"),
        ({"y": [1, 1, 0, 0, 0, 0, 0, 0]}, ValueError, r"y = 1 in groups \['b'\]"),
        ({"group": ["a"] * 8}, ValueError, "two groups or more"),
        ({"group": [*GROUP[:7], None]}, ValueError, "missing"),
        ({"start": 1.5}, ValueError, "got 1.5"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        threshold_explorer(**{"y": Y, "probs": PROBS, "group": GROUP, **changes})


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.threshold_explorer is threshold_explorer
