"""Checks of `uncertainty`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
from scipy.special import entr, rel_entr
from scipy.stats import entropy
from scipy.stats import rankdata as rank

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of, find_exercise

LESSON = "uncertainty"


def binned(confidence, right, n_bins, combine, last=True, says=None):
    """A way to an ECE with one step replaced: combine(gaps, shares of rows).

    says: the confidence of the gaps, if not the one that is binned.
    """
    says = confidence if says is None else says
    bins = (confidence * n_bins).astype(int)
    if last:
        bins = np.minimum(bins, n_bins - 1)
    used = [b for b in range(n_bins) if (bins == b).any()]
    gaps = np.array([right[bins == b].mean() - says[bins == b].mean() for b in used])
    return combine(gaps, np.array([(bins == b).mean() for b in used]))


def mean_gap(gaps, shares):
    return shares @ abs(gaps)


def to_the_middle(confidence, right, n_bins):
    middles = (np.minimum((confidence * n_bins).astype(int), n_bins - 1) + 0.5) / n_bins
    return binned(confidence, right, n_bins, mean_gap, says=middles)


def test_ece_takes_the_model_answer_and_another_way():
    assert_accepted("uncertainty.ece", solution_of(LESSON, "ece"))

    def closed_above(confidence, right, n_bins):
        """Bins that hold their upper edge, as the package has them."""
        bins = np.ceil(confidence * n_bins) - 1
        gap = np.bincount(bins.astype(int), right - confidence, n_bins)
        return np.abs(gap).sum() / len(right)

    assert_accepted("uncertainty.ece", closed_above)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda c, r, n: binned(c, r, n, lambda g, s: s @ g), "bin by bin"),
        (lambda c, r, n: abs(r.mean() - c.mean()), "bin by bin"),
        (lambda c, r, n: binned(c, r, n, lambda g, s: abs(g).mean()), "share of the rows"),
        (lambda c, r, n: len(c) * binned(c, r, n, mean_gap), "number of rows"),
        (lambda c, r, n: binned(c, r, n, lambda g, s: s @ g**2), "squared"),
        (lambda c, r, n: binned(c, r, n, lambda g, s: abs(g).max()), "largest gap"),
        (lambda c, r, n: binned(c, r, n, mean_gap, last=False), "exactly 1"),
        (lambda c, r, n: to_the_middle(c, r, n), "middle of the bin"),
        (lambda c, r, n: binned(rank(c) / len(c) - 1e-9, r, n, mean_gap, says=c), "equal width"),
        (lambda c, r, n: binned((c - min(c)) / np.ptp(c), r, n, mean_gap, says=c), "equal width"),
        (lambda c, r, n: np.nan, "nan|NaN"),
        (lambda c, r, n: None, "None"),
    ],
)
def test_ece_names_the_mistake(wrong, match):
    assert_rejected("uncertainty.ece", wrong, match)


def test_split_takes_the_model_answer_and_another_way():
    assert_accepted("uncertainty.split", solution_of(LESSON, "split"))

    def by_divergence(samples):
        """Epistemic as the mean distance of each network from the mean."""
        mean = samples.mean(axis=0)
        quarrel = rel_entr(samples, mean).sum(-1).mean(0)
        own = entropy(samples, axis=-1).mean(0)
        return own + quarrel, own, quarrel

    assert_accepted("uncertainty.split", by_divergence)


def parts(samples, total=None, aleatoric=None, epistemic=None):
    """The right parts, or what stands in for one."""
    right = entr(samples.mean(0)).sum(-1), entr(samples).sum(-1).mean(0)
    right = *right, right[0] - right[1]
    given = (total, aleatoric, epistemic)
    return tuple(new(samples) if new else old for new, old in zip(given, right, strict=True))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda s: (parts(s)[1], parts(s)[0], parts(s)[2]), "swapped"),
        (lambda s: (parts(s)[0], parts(s)[2], parts(s)[1]), "aleatoric and epistemic are swapped"),
        (lambda s: parts(s, aleatoric=lambda s: entr(s).sum(-1).sum(0)), "added up"),
        (lambda s: parts(s, aleatoric=lambda s: entr(s).sum(-1).mean(1)), "over the points"),
        (lambda s: parts(s, epistemic=lambda s: s.var(0).sum(-1)), "variance"),
        (lambda s: parts(s, epistemic=lambda s: -parts(s)[2]), "sign"),
        (lambda s: tuple(part / np.log(2) for part in parts(s)), "bits"),
        (lambda s: parts(s)[0], "three arrays"),
        (
            lambda s: parts(s, aleatoric=lambda s: -(s * np.log(s)).sum(-1).mean(0)),
            "0 log 0 counts as 0",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_split_names_the_mistake(wrong, match):
    assert_rejected("uncertainty.split", wrong, match)


def test_threshold_takes_the_model_answer_and_another_way():
    assert_accepted("uncertainty.threshold", solution_of(LESSON, "threshold_of"))

    def by_quantile(scores, alpha):
        level = np.ceil((len(scores) + 1) * (1 - alpha)) / len(scores)
        return np.inf if level > 1 else np.quantile(scores, level, method="inverted_cdf")

    assert_accepted("uncertainty.threshold", by_quantile)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda s, a: np.sort(s)[int(np.ceil(len(s) * (1 - a))) - 1], "new row counts"),
        (lambda s, a: np.sort(s)[int((len(s) + 1) * (1 - a)) - 1], "rounded up"),
        (
            lambda s, a: np.quantile(s, np.ceil(11 * (1 - a)) / len(s), method="higher"),
            "inverted_cdf",
        ),
        (lambda s, a: np.quantile(s, 1 - a), "new row counts"),
        (lambda s, a: np.sort(s)[min(int(np.ceil((len(s) + 1) * (1 - a))), len(s) - 1)], "one too"),
        (lambda s, a: np.sort(s)[int(np.ceil((len(s) + 1) * a)) - 1], "other end"),
        (lambda s, a: s[int(np.ceil((len(s) + 1) * (1 - a))) - 1], "sort"),
        (
            lambda s, a: np.sort(s)[min(int(np.ceil((len(s) + 1) * (1 - a))), len(s)) - 1],
            "four scores",
        ),
    ],
)
def test_threshold_names_the_mistake(wrong, match):
    assert_rejected("uncertainty.threshold", wrong, match)


@pytest.mark.parametrize("id", ["uncertainty.noise", "uncertainty.turned"])
def test_guesses_are_shares(id):
    assert_accepted(id, 0.5)
    assert_rejected(id, 50, "0|1")
    assert_rejected(id, "half", "number")


def test_hints_lead_on():
    ids = [entry.id for entry in exercises_of("uncertainty")]
    assert ids == [
        "uncertainty.noise",
        "uncertainty.ece",
        "uncertainty.split",
        "uncertainty.threshold",
        "uncertainty.turned",
        "uncertainty.report",
    ]
    for id in ids:
        assert find_exercise(id).hints
