"""Exercises of lesson `uncertainty`: what a probability is worth, and where doubt comes from."""

from typing import TYPE_CHECKING, Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

_FELL_OUT = "a confidence of exactly 1 belongs to the last bin: it fell out of all bins."


def _as_it_came(got: Any, slips: dict[str, list[Any]]) -> dict[str, Any]:
    """Return of each mistake's outcomes the one that came: several slips share a sentence."""
    came = np.asarray(got)
    return {
        sentence: one
        for sentence, outcomes in slips.items()
        for one in outcomes
        if came.dtype.kind in "fiu"
        and came.shape == np.shape(one)
        and np.allclose(came, one, rtol=1e-5)
    }


@exercise(
    "uncertainty.noise",
    kind="predict",
    points=1,
    minutes=1,
    hints=("It was trained on digits only: what is there in it that could say *no digit*?",),
)
def noise(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "uncertainty.ece",
    kind="code",
    points=3,
    minutes=10,
    difficulty=2,
    hints=(
        "Which bin is a confidence in? (confidence * n_bins), rounded down; 1.0 belongs to the "
        "last one.",
        "For each bin that holds rows: |mean of right - mean of confidence|, times its share of "
        "all rows.",
        "bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1); then add up "
        "here.mean() * abs(right[here].mean() - confidence[here].mean()) with here = bins == b.",
    ),
)
def ece(answer: Any) -> None:
    """Ten rows in three bins of five, one of them over- and one underconfident."""
    confidence = np.array([0.95, 0.9, 0.85, 1.0, 0.55, 0.45, 0.5, 0.7, 0.75, 0.65])
    right = np.array([1, 0, 1, 0, 1, 1, 1, 1, 0, 1], dtype=bool)
    bins = np.minimum((confidence * 5).astype(int), 4)
    got, known = answer(confidence.copy(), right.copy(), 5), _ece_slips(confidence, right, bins)
    expect_close(
        got,
        _ece(confidence, right, bins),
        "the ECE of ten rows",
        known=_as_it_came(got, known),
    )
    edge = np.array([1.0, 1.0, 0.3, 0.3, 0.3, 0.3])
    expect_close(
        answer(edge, np.array([1, 0, 1, 0, 0, 0], dtype=bool), 10),
        2 / 6 * 0.5 + 4 / 6 * 0.05,
        "the ECE of six rows, two of them at 1.0",
        known={_FELL_OUT: 4 / 6 * 0.05},
    )


def _gaps(confidence: "Floats", right: "Floats", bins: "Floats") -> tuple["Floats", "Floats"]:
    """Return accuracy - confidence and the share of rows, for each bin that holds rows."""
    used = np.unique(bins)
    gap = np.array([right[bins == b].mean() - confidence[bins == b].mean() for b in used])
    return gap, np.array([(bins == b).mean() for b in used])


def _ece(confidence: "Floats", right: "Floats", bins: "Floats") -> float:
    gap, share = _gaps(confidence, right, bins)
    return float(share @ np.abs(gap))


def _between_extremes(confidence: "Floats") -> "Floats":
    """Return five bins of equal width from the smallest confidence to the largest."""
    low, high = confidence.min(), confidence.max()
    return np.minimum(((confidence - low) / (high - low) * 5).astype(int), 4)


def _ece_slips(confidence: "Floats", right: "Floats", bins: "Floats") -> dict[str, list[Any]]:
    gap, share = _gaps(confidence, right, bins)
    inner = confidence < 1
    return {
        "take the absolute value bin by bin: too sure in one bin and too modest in another do not "
        "make up for each other.": [share @ gap, abs(share @ gap), -(share @ gap)],
        "each bin counts by its share of the rows, not as one of the bins.": [
            np.abs(gap).mean(),
            np.abs(gap).sum() / 5,
        ],
        "divide by the number of rows: it is a mean distance.": [len(right) * share @ np.abs(gap)],
        "these are squared distances; the ECE adds up absolute ones.": [
            share @ gap**2,
            (share @ gap**2) ** 0.5,
        ],
        "that is the largest gap (the maximum calibration error); the ECE is the mean one.": [
            np.abs(gap).max()
        ],
        "the gap is to the mean confidence of the bin's rows, not to the middle of the bin.": [
            sum(abs((right - (b + 0.5) / 5)[bins == b].sum()) for b in range(5)) / len(right)
        ],
        "bins have equal width, 1 / n_bins each from 0 to 1: they hold unequal numbers of rows.": [
            _ece(confidence, right, np.argsort(np.argsort(confidence)) // 2),
            _ece(confidence, right, _between_extremes(confidence)),
        ],
        _FELL_OUT: [
            _ece(confidence[inner], right[inner], bins[inner]),
            inner.mean() * _ece(confidence[inner], right[inner], bins[inner]),
        ],
    }


@exercise(
    "uncertainty.split",
    kind="code",
    points=3,
    minutes=8,
    difficulty=2,
    hints=(
        "Two averages over the networks (axis 0): once of the probabilities, once of the "
        "entropies.",
        "total: entropy of the mean. aleatoric: mean of the entropies. epistemic: the rest.",
        "total = entropy(samples.mean(axis=0), axis=-1); aleatoric = entropy(samples, "
        "axis=-1).mean(axis=0); return total, aleatoric, ...",
    ),
)
def split(answer: Any) -> None:
    """Three networks, two points, three classes; then networks that are certain."""
    samples = np.array(
        [
            [[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]],
            [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]],
            [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]],
        ]
    )
    got = answer(samples.copy())
    if not isinstance(got, tuple | list | np.ndarray) or len(got) != 3:
        raise Mistake("three arrays are asked for: total, aleatoric, epistemic.")
    each = _entropy(samples)
    total, aleatoric = _entropy(samples.mean(0)), each.mean(0)
    swapped = "total and aleatoric are swapped: the total averages first, then takes the entropy."
    over = {
        "the entropies are added up, not averaged over the networks.": each.sum(0),
        swapped: total,
        "aleatoric and epistemic are swapped: the aleatoric part is the mean of the entropies.": (
            total - aleatoric
        ),
        "in bits; use the natural logarithm.": aleatoric / np.log(2),
        "the average goes over the points (axis 1), not over the networks (axis 0).": each.mean(1),
    }
    known = {swapped: aleatoric, "in bits; use the natural logarithm.": total / np.log(2)}
    expect_close(got[0], total, "the total uncertainty", known=known)
    expect_close(got[1], aleatoric, "the aleatoric part", known=over)
    less = {
        "that is a variance of the probabilities; the epistemic part is total - aleatoric.": [
            samples.var(0).sum(-1),
            samples.var(0).mean(-1),
        ],
        "the sign: total - aleatoric.": [aleatoric - total],
    }
    expect_close(got[2], total - aleatoric, "the epistemic part", known=_as_it_came(got[2], less))
    _check_certain(answer)


def _check_certain(answer: Any) -> None:
    """Two networks that contradict each other without a doubt."""
    certain = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    for part, want, name in zip(
        answer(certain),
        (np.log(2), 0.0, np.log(2)),
        ("total", "aleatoric", "epistemic"),
        strict=True,
    ):
        expect_close(part, [want], f"the {name} part of two certain networks: 0 log 0 counts as 0")


def _entropy(p: "Floats") -> "Floats":
    return -(p * np.log(p)).sum(-1)


@exercise(
    "uncertainty.threshold",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "Sort the scores. Which of them, counted from the smallest, leaves a share alpha above?",
        "The new row is one more than the n you have: the rank is (n + 1)(1 - alpha), rounded up.",
        "rank = int(np.ceil((len(scores) + 1) * (1 - alpha))); if rank > len(scores): return "
        "np.inf; else np.sort(scores)[rank - 1].",
    ),
)
def threshold(answer: Any) -> None:
    """Ten scores in mixed order; then too few of them."""
    scores = np.array([0.3, 0.1, 0.15, 0.05, 0.5, 0.2, 0.7, 0.6, 0.4, 0.9])
    ranked = np.sort(scores)
    known = {
        "the rank is (n + 1)(1 - alpha), since the new row counts too, and it is rounded up.": [
            ranked[7],
            np.quantile(scores, 0.8),
        ],
        "one too far: the first of the sorted scores has index 0 (and with np.quantile it takes "
        "method='inverted_cdf').": [ranked[9]],
        "the other end: large scores are the strange ones, and a share alpha of them may be "
        "left out.": [ranked[1], ranked[2], np.quantile(scores, 0.2)],
        "sort the scores first.": [scores[8]],
    }
    got = answer(scores.copy(), 0.2)
    expect_close(got, 0.7, "the threshold of ten scores", known=_as_it_came(got, known))
    expect_close(answer(np.arange(19) / 19, 0.1), 17 / 19, "the threshold of 19 scores at alpha .1")
    few = answer(scores[:4].copy(), 0.1)
    if few is None or np.isfinite(few):
        raise Mistake(
            f"four scores cannot promise 90 %: the rank would be 5 of 4, so the threshold is "
            f"infinite (every class is in); {few} came."
        )


@exercise(
    "uncertainty.turned",
    kind="predict",
    points=1,
    minutes=2,
    hints=("What did the proof need the new rows to have in common with the calibration rows?",),
)
def turned(guess: Any) -> None:
    """A share."""
    expect_share(guess)


criticize(
    "uncertainty.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "There are three claims: calibrated, safe above .9, 95 % for every patient. Which "
        "evidence is given for each?",
        "Equal averages can hide bins and groups that are off. A promise on average is not one "
        "for each patient. The third country's camera was not in the calibration rows.",
        "Reliability diagram by bin and by group; inputs of another kind get high softmax too; "
        "coverage is marginal and needs calibration rows from the same source.",
    ),
    model="""
    That mean confidence equals accuracy does not make it calibrated: overconfident and
    underconfident bins cancel in the mean, and one group of patients may pay for another. I
    would ask for a reliability diagram and the ECE, by bin and by group, on held-out rows. A
    softmax above .9 says how the known classes compare, not that the photo is of a known kind:
    random noise gets more. So the rule needs a check for inputs of another kind, with its
    AUROC, and a risk-coverage curve that shows the errors among photos decided without a
    doctor. The conformal promise is one on average over patients, not for every patient; rare
    classes may get much less. It also holds only if calibration and new photos come from the
    same source: with another camera it is void until they calibrate again there.
    """,
    rubric={
        "bins": "Equal means are not calibration: over- and underconfident bins cancel. Ask for a "
        "reliability diagram or the ECE.",
        "groups": "One group of patients may pay for another: ask for it by group, on held-out "
        "rows.",
        "other kinds": "A softmax above .9 compares the known classes; it does not say that the "
        "photo is of a known kind.",
        "without a doctor": "Ask for the errors among photos decided without a doctor (a "
        "risk-coverage curve), and a check for inputs of another kind.",
        "on average": "The conformal promise is one on average over patients, not for every "
        "patient or class.",
        "new camera": "It holds only if calibration and new photos come from the same source: "
        "calibrate again with the new camera.",
    },
)


question(
    "uncertainty.q_temperature",
    "You divide all logits by T = 2.2. What happens to the accuracy?",
    choices={
        "It falls: the network is less sure.": "Being less sure is no other answer: which logit "
        "is the largest?",
        "It stays exactly as it was.": "Dividing by a positive number keeps the order of the "
        "logits, so every answer is the same. Only the probabilities change.",
        "It rises: that is what T was fitted for.": "T was fitted to make held-out classes "
        "likelier; it cannot change any answer.",
    },
    right="It stays exactly as it was.",
)

question(
    "uncertainty.q_more",
    "At the border between the two moons the classes overlap. You collect ten times as many "
    "points there. Which uncertainty goes down?",
    choices={
        "The aleatoric one.": "The overlap is in the world: the next point there is still of "
        "either class.",
        "The epistemic one, and it was small there already.": "More rows settle what there is to "
        "settle. Around the border there were plenty, so the five networks agreed: that it is a "
        "coin toss.",
        "Both.": "The entropy of a coin does not fall by tossing it more often.",
    },
    right="The epistemic one, and it was small there already.",
)
