"""Exercises of lesson `fairness`: measuring unequal treatment, and what such numbers cannot say."""

from typing import Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_share,
    question,
)

Array = np.ndarray

# Sixteen people in three groups. True positive rates: a 2/5, b 3/5, c 0; false: a 1, b 1, c 2/3.
# No two of the wrong answers below give the same number, also when 0 and 1 change places.
_Y = np.array([1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0])
_PRED = np.array([0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1])
_GROUP = np.array(list("aaaaaabbbbbbcccc"))


def _rates(given: Array, value: int, of: Array, group: Array) -> Array:
    """Return, for each group, the share of `of` among the rows where `given` is `value`."""
    return np.array([of[(given == value) & (g == group)].mean() for g in np.unique(group)])


def _wrong_gaps(y: Array, pred: Array, group: Array) -> dict[str, float]:
    """Return what the usual mistakes give on these rows."""
    tpr, fpr = _rates(y, 1, pred, group), _rates(y, 0, pred, group)
    both = np.stack([fpr, tpr])
    of_all = np.stack([_rates(group == group, 1, pred * (y == v), group) for v in (0, 1)])
    signed = both[:, -1] - both[:, 0]
    return {
        "the two gaps are added: the larger one is asked for.": np.ptp(tpr) + np.ptp(fpr),
        "this is the mean of the two gaps: the larger one is asked for.": (
            np.ptp(both, axis=1).mean()
        ),
        "this is demographic parity: among all rows, not among those with y = 1 and with "
        "y = 0.": np.ptp(_rates(group == group, 1, pred, group)),
        "you asked for y among the flagged (precision); ask for the flagged among y.": np.ptp(
            _rates(pred, 1, y, group)
        ),
        "you divided by all rows of a group: divide by those with the same y.": (
            np.ptp(of_all, axis=1).max()
        ),
        "true and false positive rates are thrown together: take the gap within each, then the "
        "larger one.": np.ptp(both),
        "only the first two groups are compared.": np.abs(both[:, 0] - both[:, 1]).max(),
        "the last group minus the first: largest minus smallest.": signed.max(),
        "the first group minus the last: largest minus smallest.": -signed.min(),
        "the sign depends on the order of the groups: largest minus smallest.": max(
            signed, key=abs
        ),
    }


@exercise(
    "fairness.odds_gap",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "Two gaps: one among the rows with y = 1, one among the rows with y = 0.",
        "A rate of one group: pred[(y == 1) & (group == g)].mean(). Collect it for every g in "
        "np.unique(group).",
        "gaps = []; for value in (0, 1): rates = [...]; gaps.append(max(rates) - min(rates)); "
        "return max(gaps)",
    ),
)
def odds_gap(answer: Any) -> None:
    """The worse of two gaps, for three groups, whichever way the groups are ordered."""
    rows = _Y, _PRED, _GROUP
    want = np.ptp(_rates(_Y, 1, _PRED, _GROUP))  # of false positives it is smaller
    smaller = np.ptp(_rates(_Y, 0, _PRED, _GROUP))
    half = "this is the smaller of the two gaps, or the one of false positives alone."
    given = _Y.copy(), _PRED.copy(), _GROUP.copy()
    expect_close(
        answer(*given), want, "the gap of three groups", known={half: smaller} | _wrong_gaps(*rows)
    )
    if any((a != b).any() for a, b in zip(given, rows, strict=True)):
        raise Mistake("the gap is right, but your function changed its arguments.")
    backwards = np.array([{"a": "m", "b": "z", "c": "d"}[g] for g in _GROUP])
    expect_close(
        answer(_Y.copy(), _PRED.copy(), backwards),
        want,
        "the gap with the groups in another order",
        known=_wrong_gaps(_Y, _PRED, backwards),
    )
    turned = 1 - _Y, 1 - _PRED, _GROUP.copy()
    expect_close(
        answer(*turned),
        want,
        "the gap when 0 and 1 change places, so that false positives are the worse ones",
        known={"only true positives are compared: that is equal opportunity.": smaller},
    )


# Ten people: P(a) = 3/5, P(y = 1) = 1/2; in a 4 of 6 have y = 1, in b 1 of 4.
_WEIGHED_Y = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
_WEIGHED_GROUP = np.array(list("aaaaaabbbb"))


@exercise(
    "fairness.weights",
    kind="code",
    points=2,
    minutes=8,
    difficulty=2,
    hints=(
        "There is one weight for each pair of a group and a label: four weights for two groups.",
        "Shares are means: P(g) = (group == g).mean(), and P(g, y = v) = "
        "((group == g) & (y == v)).mean().",
        "for each g and v: together = (group == g) & (y == v); found[together] = "
        "(group == g).mean() * (y == v).mean() / together.mean()",
    ),
)
def weights(answer: Any) -> None:
    """The weights by hand for ten people; on others, base rates become equal."""
    from xailab.trust.fairness import reweigh

    y, group = _WEIGHED_Y, _WEIGHED_GROUP
    together = np.select(
        [(group == "a") & (y == 1), group == "a", y == 1], [4 / 10, 2 / 10, 1 / 10], 3 / 10
    )
    own, label = np.where(group == "a", 6 / 10, 4 / 10), np.full(10, 1 / 2)
    want = own * label / together  # 3/4, 3/2, 2 and 2/3
    known = {
        "upside down: what occurs more often than it should has to weigh less.": 1 / want,
        "P(g) P(y) alone: divide by how often the pair occurs.": own * label,
        "one over how often the pair occurs: multiply by P(g) P(y).": 1 / together,
        "P(g) is missing: both shares belong above the line.": label / together,
        "P(y) is missing: both shares belong above the line.": own / together,
        "you divided by a count: divide by a share of all rows.": want / len(y),
        "these are counts: every factor is a share of all rows.": want * len(y),
        "under the line belongs the share of the pair among all rows, not within its group.": (
            own * label * own / together
        ),
        "these weights only make the groups equally heavy: group and label both count.": 1 / own,
        "these weights are equal within a label: group and label both count.": np.ones(len(y)),
        "these are the shares of the pairs: they belong under the line.": together,
    }
    expect_close(answer(y.copy(), group.copy()), want, "the weights of ten people", known=known)
    uneven = np.array([1, 0, 0, 1, 1, 0, 0, 1, 0, 0]), np.array(list("aaabbbbccc"))
    expect_close(answer(*uneven), reweigh(*uneven), "the weights of three uneven groups")


@exercise(
    "fairness.paper_fpr",
    kind="predict",
    points=1,
    minutes=2,
    hints=(
        "Of the 40 people with .7, how many have y = 0? And how many of all 100?",
        "12 of the 40, and 42 of the 60.",
    ),
)
def paper_fpr(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "fairness.blind_gap",
    kind="predict",
    points=1,
    minutes=2,
    hints=("COMPAS does not ask for race either.",),
)
def blind_gap(guess: Any) -> None:
    """A difference of two shares."""
    expect_share(guess)


criticize(
    "fairness.press",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Go sentence by sentence: which section of the lesson measured the opposite?",
        "Race left out (5); equal precision and what it forces (4); a test on 18 people (1); what "
        "the label counts (8).",
        "Proxies; unequal false positive rates and who bears them; a wide interval is no answer; "
        "charged again is not the same as reoffending; all metrics at once are impossible.",
    ),
    model="""
    Leaving race out did not close the gap: age and prior charges carry it, a proxy needs no
    column called race. Equal precision with unequal base rates rules out equal error rates:
    here more Black people who were not charged again are flagged; not all metrics can be
    satisfied at once, and the company has to say which one it chose and who bears the errors.
    No significant difference among 18 people is a wide interval, not evidence of equality.
    "Reoffend" is not in the data: the label counts new charges, and charges depend on where the
    police look, so a base rate is no fact about a group of people. I would ask for the table
    with intervals, the cost of both kinds of errors, and how the labels were made, before the
    word fair is used.
    """,
    rubric={
        "proxies": "Leaving race out does not remove it: other columns, such as age and prior "
        "charges, carry it.",
        "equal precision": "With unequal base rates, equal precision goes with unequal error "
        "rates: here more Black people who were not charged again are flagged.",
        "not all at once": "Not all fairness metrics can hold at once here: the company has to "
        "say which it chose, and who bears the errors.",
        "small group": "No significant difference among 18 people is a wide interval, no evidence "
        "of equality.",
        "label": "The label counts new charges, not offenses, and charges depend on where the "
        "police look.",
        "no fact about a group": "So a difference in the scores or base rates says nothing about "
        "what kind of people they are.",
    },
)


question(
    "fairness.q_label",
    "A row says y = 1. What do you know about this person?",
    choices={
        "That they committed another crime within two years.": "A charge is an accusation. Some "
        "are charged for what they did not do, and many acts are never charged.",
        "That they were charged again within two years.": "That is what was looked up. It depends "
        "on what people do, and on where the police look.",
        "That they are dangerous.": "The charge may be for driving without a license. The column "
        "does not say.",
    },
    right="That they were charged again within two years.",
)

question(
    "fairness.q_interval",
    "The interval of the difference in precision touches 0. What follows?",
    choices={
        "The precision is equal in both groups.": "0 is one of the values that go well with these "
        "rows; .05 is another one.",
        "These rows do not decide whether, and which way, it differs.": "And the interval says how "
        "large the difference may still be.",
        "There are too few rows to say anything.": "They say that it is hardly larger than .08, "
        "which is a lot to know.",
    },
    right="These rows do not decide whether, and which way, it differs.",
)
