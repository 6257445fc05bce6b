"""Exercises of lesson 25: measuring unequal treatment, and what such numbers cannot say."""

from typing import Any

import numpy as np

from xailab.course import (
    Mistake,
    exercise,
    expect_close,
    expect_mentions,
    expect_share,
    expect_words,
    question,
)

LESSON = "25_fairness"
Array = np.ndarray

# Fourteen people in three groups. True positive rates: a 1/2, b 2/3, c 1; false: a 1, b 1, c 2/3.
# No two of the wrong answers below give the same number.
_Y = np.array([1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0])
_PRED = np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1])
_GROUP = np.array(list("aaaabbbbbccccc"))


def _rates(given: Array, value: int, of: Array) -> Array:
    """Return, for each group, the share of `of` among the rows where `given` is `value`."""
    return np.array([of[(given == value) & (g == _GROUP)].mean() for g in "abc"])


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
    tpr, fpr = _rates(_Y, 1, _PRED), _rates(_Y, 0, _PRED)
    ppv = _rates(_PRED, 1, _Y)
    selected = np.array([_PRED[g == _GROUP].mean() for g in "abc"])
    want = np.ptp(tpr)
    known = {
        "the two gaps are added: the larger one is asked for.": np.ptp(tpr) + np.ptp(fpr),
        "this is the mean of the two gaps: the larger one is asked for.": (
            np.ptp(tpr) + np.ptp(fpr)
        )
        / 2,
        "this is the smaller of the two gaps, or the one of false positives alone.": np.ptp(fpr),
        "this is demographic parity: among all rows, not among those with y = 1 and with "
        "y = 0.": np.ptp(selected),
        "you asked for y among the flagged (precision); ask for the flagged among y.": np.ptp(ppv),
    }
    given = _Y.copy(), _PRED.copy(), _GROUP.copy()
    expect_close(answer(*given), want, "the gap of three groups", known=known)
    if any((a != b).any() for a, b in zip(given, (_Y, _PRED, _GROUP), strict=True)):
        raise Mistake("the gap is right, but your function changed its arguments.")
    _check_other_way_round(answer, tpr, fpr)


def _check_other_way_round(answer: Any, tpr: Array, fpr: Array) -> None:
    """Reverse the order of the groups, then exchange 0 and 1."""
    want = np.ptp(tpr)
    order = "the sign depends on the order of the groups: largest minus smallest."
    backwards = np.array([{"a": "z", "b": "m", "c": "a"}[g] for g in _GROUP])
    expect_close(
        answer(_Y.copy(), _PRED.copy(), backwards),
        want,
        "the gap with the groups in another order",
        known={order: -want, "signed gaps: largest minus smallest.": fpr[0] - fpr[-1]},
    )
    expect_close(
        answer(1 - _Y, 1 - _PRED, _GROUP.copy()),
        want,
        "the gap when 0 and 1 change places, so that false positives are the worse ones",
        known={"only true positives are compared: that is equal opportunity.": np.ptp(fpr)},
    )


# Eight people: P(a) = 1/2, P(y = 1) = 1/2; in a 3 of 4 have y = 1, in b 1 of 4.
_WEIGHED_Y = np.array([1, 1, 1, 0, 1, 0, 0, 0])
_WEIGHED_GROUP = np.array(list("aaaabbbb"))


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
    """The weights by hand for eight people; on others, base rates become equal."""
    from xailab.trust.fairness import reweigh

    y, group = _WEIGHED_Y, _WEIGHED_GROUP
    often, rare = 2 / 3, 2.0  # 1/2 * 1/2 / (3/8) and / (1/8)
    want = np.where((y == 1) == (group == "a"), often, rare)
    together = np.where((y == 1) == (group == "a"), 3 / 8, 1 / 8)
    known = {
        "upside down: what occurs more often than it should has to weigh less.": 1 / want,
        "P(g) P(y) alone: divide by how often the pair occurs.": np.full(8, 1 / 4),
        "one over how often the pair occurs: multiply by P(g) P(y).": 1 / together,
        "you divided by a count: divide by a share of all rows.": want / 8,
        "these weights are equal within a label: group and label both count.": np.ones(8),
        "these are the shares of the pairs: they belong under the line.": together,
    }
    expect_close(answer(y, group), want, "the weights of eight people", known=known)
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
    hints=("COMPAS was not given race either.",),
)
def blind_gap(guess: Any) -> None:
    """A difference of two shares."""
    expect_share(guess)


@exercise(
    "fairness.press",
    kind="criticize",
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
)
def press(answer: Any) -> None:
    """Speaks of proxies, of what cannot hold together, of small groups and of the label."""
    expect_words(answer, 45)
    expect_mentions(
        answer,
        r"prox(y|ies)|stand(s|ing)? in|carr(y|ies)|correlat|left out|leav(e|ing) (race|it) out"
        r"|other columns|prior|age\b",
        "The score does not use race. What did section 5 find about that?",
    )
    expect_mentions(
        answer,
        r"false (positive|alarm)|impossib|cannot all|can ?not (both|all)|at once|same time"
        r"|exclude|trade.?off|base rates? (differ|force)|forces?\b",
        "Equal precision, and all metrics satisfied: what does section 4 say about that?",
    )
    expect_mentions(
        answer,
        r"18|interval|small|few (people|rows)|sample size|too little|no (evidence|answer)|wide"
        r"|power",
        "No significant difference for Native Americans: how many people are there?",
    )
    expect_mentions(
        answer,
        r"charge|arrest|polic|label|record|measur",
        "'Some groups reoffend more often': what does the column y really count?",
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
        "There are too few rows to say anything.": "It says that the difference is hardly larger "
        "than the ends of the interval, which is a lot.",
    },
    right="These rows do not decide whether, and which way, it differs.",
)
