"""Item analysis: by hand, against scipy, and on simulated learners whose questions are known."""

import numpy as np
import pytest
from scipy.stats import norm, pointbiserialr

from xailab.course.items import item_analysis


def simulated(difficulty, discrimination, learners=4000, guess=0.25, seed=0):
    """Return who is right: ability is normal, the chance is a logistic curve above guessing.

    This is the three-parameter logistic model (Birnbaum 1968).
    """
    rng = np.random.default_rng(seed)
    ability = rng.normal(size=(learners, 1))
    curve = 1 / (1 + np.exp(-np.asarray(discrimination) * (ability - np.asarray(difficulty))))
    chance = guess + (1 - guess) * curve
    return (rng.random(chance.shape) < chance).astype(int), chance


def test_three_questions_by_hand():
    found = item_analysis([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.difficulty, [3 / 4, 2 / 4, 1 / 4])
    # Question 1: x = 1 1 1 0 and the others' total 2 1 0 0: 0.75 / sqrt(0.75 * 2.75).
    # Question 2: x = 1 1 0 0 and 2 1 1 0: 1 / sqrt(1 * 2).
    first = 0.75 / np.sqrt(0.75 * 2.75)
    np.testing.assert_allclose(found.discrimination, [first, 1 / np.sqrt(2), first])
    # Totals 3 2 1 0 have variance 1.25; the questions' own variances sum to 0.625.
    assert found.kr20 == pytest.approx(3 / 2 * (1 - 0.625 / 1.25))


def test_discrimination_is_the_point_biserial_correlation_with_the_rest():
    correct, _ = simulated(np.linspace(-2, 2, 8), np.ones(8), learners=60)
    found = item_analysis(correct)
    for k in range(8):
        rest = correct.sum(axis=1) - correct[:, k]
        assert found.discrimination[k] == pytest.approx(pointbiserialr(correct[:, k], rest)[0])


def test_reliability_of_equal_halves():
    answers = np.repeat(np.random.default_rng(0).integers(0, 2, (50, 1)), 6, axis=1)
    assert item_analysis(answers).kr20 == pytest.approx(1)  # all questions ask the same
    unrelated = np.random.default_rng(1).integers(0, 2, (20_000, 6))
    assert item_analysis(unrelated).kr20 == pytest.approx(0, abs=0.03)


def test_simulated_learners_give_the_difficulty_that_was_planted():
    correct, chance = simulated(np.linspace(-2, 2, 20), np.ones(20))
    found = item_analysis(correct)
    error = np.sqrt(0.25 / len(correct))
    np.testing.assert_allclose(found.difficulty, chance.mean(axis=0), atol=4 * error)
    assert (np.diff(found.difficulty) < 0.03).all()  # planted from easy to hard


def test_simulated_learners_give_the_order_of_discrimination_that_was_planted():
    slopes = np.array([0.0, 0.5, 1.0, 2.0, 4.0] * 4)
    correct, _ = simulated(np.zeros(20), slopes, guess=0)
    found = item_analysis(correct).discrimination.reshape(4, 5)
    assert (np.diff(found, axis=1) > 0.05).all()
    assert np.abs(found[:, 0]).max() < 4 / np.sqrt(4000)  # no slope: tells nobody apart


def test_a_question_with_the_wrong_key_is_found():
    correct, _ = simulated(np.zeros(20), np.full(20, 2.0))
    correct[:, 7] = 1 - correct[:, 7]
    found = item_analysis(correct).discrimination
    assert found[7] < -0.2
    assert np.delete(found, 7).min() > 0.2


def test_learners_who_only_guess_show_no_discrimination():
    correct = np.random.default_rng(0).random((4000, 20)) < 0.25
    found = item_analysis(correct)
    bound = norm.isf(0.0005 / 20) / np.sqrt(4000)
    assert np.abs(found.discrimination).max() < bound
    np.testing.assert_allclose(found.difficulty, 0.25, atol=0.03)


def test_what_everybody_knows_tells_nobody_apart():
    found = item_analysis([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1]])
    assert np.isnan(found.discrimination[0])
    assert np.isfinite(found.discrimination[1:]).all()
    assert np.isnan(item_analysis([[1, 0], [0, 1]]).kr20)  # equal totals


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ([1, 0, 1], r"shape \(3,\) came"),
        ([[1, 0, 1]], r"shape \(1, 3\) came"),
        ([[1], [0]], r"shape \(2, 1\) came"),
        ([[1, 2], [0, 1]], "other numbers came"),
        ([[1, np.nan], [0, 1]], "other numbers came"),
    ],
)
def test_a_table_that_is_none_is_refused(table, match):
    with pytest.raises(ValueError, match=match):
        item_analysis(table)
