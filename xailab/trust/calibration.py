"""Can the probabilities be taken at their word: measuring it, mending it, and doing without.

Lesson `uncertainty` teaches this file. Of all answers given with 80 %, 80 % should be right.
Reliability tables measure how far a model is from that, a temperature repairs most of it, and
conformal sets promise a share of right answers without believing the probabilities at all.
"""

import warnings
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import ndtr, softmax

from xailab.core.checks import check_positive
from xailab.core.outputs import class_logits, labels_of
from xailab.trust.probabilities import (
    Array,
    Labels,
    Numbers,
    check_column,
    check_numbers,
    check_probs,
)


def reliability_table(probs: Numbers, y: Labels, *, n_bins: int = 15) -> pd.DataFrame:
    r"""Sort answers by their confidence into bins, and compare with how many are right.

    $$\text{conf}(b) = \frac{1}{n_b} \sum_{i \in b} \max_c p_{ic}, \qquad
      \text{acc}(b) = \frac{1}{n_b} \sum_{i \in b} \mathbb 1[\arg\max_c p_{ic} = y_i]$$

    Args:
        probs: (N, K) probabilities.
        y: (N,) true classes.
        n_bins: bins of equal width. A bin holds its upper edge, not its lower one.

    Returns:
        One row a bin, empty ones too: `low`, `high`, `n`, `confidence`, `accuracy`, and
        `gap` = accuracy - confidence (negative: overconfident); NaN where n is 0.

    Raises:
        TypeError: labels that are no class numbers; `n_bins` not an integer.
        ValueError: rows that are not probabilities, labels that do not fit, `n_bins` below 1.

    Reference: DeGroot, Fienberg (1983), The Comparison and Evaluation of Forecasters;
        Niculescu-Mizil, Caruana (2005), Predicting Good Probabilities With Supervised Learning.
    Elsewhere: scikit-learn `calibration_curve` (one class at a time).

    >>> table = reliability_table([[0.9, 0.1], [0.2, 0.8]], [0, 0], n_bins=2)
    >>> table[["low", "high", "n", "accuracy"]]
       low  high  n  accuracy
    0  0.0   0.5  0       NaN
    1  0.5   1.0  2       0.5
    """
    p = check_probs(probs)
    right = p.argmax(1) == labels_of(y, *p.shape).numpy()
    confidence, count = p.max(1), check_positive("n_bins", n_bins)
    edges = np.linspace(0, 1, count + 1)
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, count - 1)  # 1.0000001 stays in
    n = np.bincount(bins, minlength=count)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, as promised
        conf = np.bincount(bins, confidence, count) / n
        acc = np.bincount(bins, right, count) / n
    columns = {"n": n, "confidence": conf, "accuracy": acc, "gap": acc - conf}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **columns})


def expected_calibration_error(probs: Numbers, y: Labels, *, n_bins: int = 15) -> float:
    r"""Mean distance between confidence and accuracy, bin by bin (ECE).

    $$\text{ECE} = \sum_b \frac{n_b}{N}\, \big|\text{acc}(b) - \text{conf}(b)\big|$$

    It says nothing about accuracy: answering the commonest class with its share has ECE 0. It
    also depends on the bins, and with few rows even perfect probabilities do not reach 0.

    Args:
        probs: (N, K) probabilities.
        y: (N,) true classes.
        n_bins: bins of equal width, closed above: (low, high].

    Returns:
        A share, 0..1.

    Raises:
        TypeError, ValueError: as `reliability_table`.

    Reference: Naeini, Cooper, Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using
        Bayesian Binning; Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural
        Networks.
    Elsewhere: torchmetrics `MulticlassCalibrationError(norm="l1")`, whose bins are closed below:
        only confidences on an edge fall elsewhere. MAPIE `top_label_ece` bins each class by
        itself and averages: another number.

    >>> round(expected_calibration_error([[0.9, 0.1], [0.2, 0.8]], [0, 0], n_bins=2), 3)
    0.35
    """
    table = reliability_table(probs, y, n_bins=n_bins)
    return float((table["n"] * table["gap"].abs()).sum() / table["n"].sum())


def coverage_table(
    mean: Numbers, std: Numbers, y: Numbers, *, levels: Numbers | None = None
) -> pd.DataFrame:
    r"""Reliability of a regression: how many values lie in the central intervals it promises.

    $$\text{observed}(q) = \frac1N \sum_i \mathbb 1\Big[\frac{|y_i - \mu_i|}{\sigma_i}
      \le \Phi^{-1}\big(\tfrac{1 + q}{2}\big)\Big]$$

    Args:
        mean: (N,) predicted means.
        std: (N,) predicted standard deviations, above 0: for a `Prediction` the root of `total`.
        y: (N,) what came.
        levels: (L,) promised shares q, 0..1; None: 0, 0.01, ..., 1.

    Returns:
        One row a level: `expected` (q) and `observed`. The mean of their distances is the
        calibration error of a regression.

    Raises:
        TypeError: data that are not numbers.
        ValueError: NaN, lengths that differ, a standard deviation not above 0, or a level
            outside 0..1.

    Reference: Kuleshov, Fenner, Ermon (2018), Accurate Uncertainties for Deep Learning Using
        Calibrated Regression.
    Elsewhere: uncertainty-toolbox `get_proportion_lists`, `mean_absolute_calibration_error`.

    >>> coverage_table([0.0, 0.0], [1.0, 1.0], [0.5, 3.0], levels=[0.5, 0.95])
       expected  observed
    0      0.50       0.5
    1      0.95       0.5
    """
    mu, sigma, true = (
        check_column(values, name) for values, name in ((mean, "mean"), (std, "std"), (y, "y"))
    )
    if not len(mu) == len(sigma) == len(true):
        raise ValueError(f"mean, std and y have {len(mu)}, {len(sigma)} and {len(true)} rows")
    if sigma.min() <= 0:
        raise ValueError(f"std must be above 0, got {sigma.min():.3g}")
    q = np.linspace(0, 1, 101) if levels is None else check_column(levels, "levels")
    if q.min() < 0 or q.max() > 1:
        raise ValueError(f"levels must lie in 0..1, got {q.min():.3g}..{q.max():.3g}")
    needed = 2 * ndtr(np.abs(true - mu) / sigma) - 1  # the narrowest interval that holds y
    observed = np.searchsorted(np.sort(needed), q, side="right") / len(mu)
    return pd.DataFrame({"expected": q, "observed": observed})


def fit_temperature(logits: Numbers, y: Labels) -> float:
    r"""Find the one number to divide logits by so that held-out classes are likeliest.

    $$T = \arg\min_T\; -\sum_i \log \operatorname{softmax}(z_i / T)_{y_i}
      \quad\Longleftrightarrow\quad
      \sum_i \Big(\sum_c p_{ic}\, z_{ic} - z_{i y_i}\Big) = 0, \quad
      p_i = \operatorname{softmax}(z_i / T)$$

    T above 1 softens an overconfident network. No answer changes: dividing keeps the order. The
    sum falls as T grows, so there is one root at most, and it is bracketed and then found.

    Args:
        logits: (N, K), of rows that the network was not trained on. One logit, (N,) or (N, 1), is
            a binary network's: `sigmoid(logits / T)` are the mended probabilities of class 1.
        y: (N,) their classes.

    Returns:
        T, above 0; `softmax(logits / T)` are the mended probabilities.

    Raises:
        TypeError: data that are not numbers, labels that are no class numbers.
        ValueError: no (N, K) logits, NaN, labels that do not fit; every row right (the likelihood
            grows for ever as T goes to 0) or logits no better than guessing (T goes to infinity).

    Reference: Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks.
    Elsewhere: scikit-learn `CalibratedClassifierCV(method="temperature")`.

    >>> z = np.array([[2.0, 0.0]] * 4)  # says 88 %, right in three of four: T = 2 / log 3
    >>> print(round(fit_temperature(z, [0, 0, 0, 1]) * np.log(3), 9))
    2.0
    """
    given = check_numbers(logits, "logits")
    if given.ndim not in (1, 2) or not given.size:
        raise ValueError(f"logits must have shape (N, K) or (N,), got {given.shape}")
    z = class_logits(torch.from_numpy(given)).numpy()
    own = np.take_along_axis(z, labels_of(y, *z.shape).numpy()[:, None], axis=1)[:, 0]

    def slope(log_t: float) -> float:
        return float(((softmax(z / np.exp(log_t), axis=1) * z).sum(1) - own).mean())

    if (z.mean(1) - own).mean() >= 0:
        raise ValueError("the logits are no better than guessing: T would go to infinity")
    if (own >= z.max(1)).all():
        raise ValueError("every row is right: no temperature is best, T would go to 0")
    low = high = 0.0
    while slope(low) < 0:
        low -= 1
    while slope(high) > 0:
        high += 1
    return float(np.exp(brentq(slope, low, high, xtol=1e-13)))


class ConformalSets(NamedTuple):
    """For each row the classes that cannot be ruled out.

    Attributes:
        sets: (N, K) bool, the classes in each row's set; a row may have none.
        threshold: a class is in if $1 - p_c$ is at most this; infinite: all are.
    """

    sets: Array
    threshold: float


def conformal_sets(
    probs_cal: Numbers, y_cal: Labels, probs: Numbers, *, alpha: float
) -> ConformalSets:
    r"""Sets of classes that hold the true one with probability 1 - alpha at least.

    $$\hat q = \text{the } \lceil (n + 1)(1 - \alpha) \rceil\text{-th smallest of } 1 - p_{i y_i},
      \qquad C(x) = \{c : 1 - p_c(x) \le \hat q\}$$

    The promise holds however bad the probabilities are, over draws of calibration set **and** new
    row, if the two come from one distribution. It is a promise on average: some classes or
    groups may get less, and a row without a likely class gets an empty set.

    Args:
        probs_cal: (n, K) probabilities for rows that were used neither for training nor for
            fitting a temperature.
        y_cal: (n,) their classes.
        probs: (N, K) probabilities of new rows.
        alpha: share of sets that may miss, in (0, 1).

    Returns:
        A `ConformalSets`.

    Raises:
        TypeError: data that are not numbers, labels that are no class numbers.
        ValueError: rows that are not probabilities, class counts that differ, labels that do not
            fit, or alpha outside (0, 1).

    Warns:
        UserWarning: n is too small for this alpha: every set holds all classes.

    Reference: Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World; Sadinle,
        Lei, Wasserman (2019), Least Ambiguous Set-Valued Classifiers with Bounded Error Levels.
    Elsewhere: MAPIE `SplitConformalClassifier(conformity_score="lac")`.

    >>> cal = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> conformal_sets(cal, [0, 0, 0], [[0.9, 0.1], [0.5, 0.5]], alpha=0.5).sets.tolist()
    [[True, False], [False, False]]
    """
    known, new = check_probs(probs_cal, "probs_cal"), check_probs(probs)
    if known.shape[1] != new.shape[1]:
        raise ValueError(f"probs_cal has {known.shape[1]} classes, probs {new.shape[1]}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    y = labels_of(y_cal, *known.shape, name="y_cal").numpy()
    scores = np.sort(1 - known[np.arange(len(y)), y])
    # The decimal number that was typed: in floats (n + 1)(1 - 0.7) may be 3.0000000000000004.
    rank = ceil((len(y) + 1) * (1 - Fraction(str(float(alpha)))))
    if rank > len(y):
        warnings.warn(
            f"{len(y)} calibration rows are too few for alpha={alpha}: at least "
            f"{ceil(1 / Fraction(str(float(alpha)))) - 1} are needed; every set holds all classes",
            stacklevel=2,
        )
    threshold = scores[rank - 1] if rank <= len(y) else np.inf
    return ConformalSets(1 - new <= threshold, float(threshold))
