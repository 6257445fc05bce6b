"""Classical item analysis: how hard each question of a test is, and whom it tells apart."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Items(NamedTuple):
    """What a test's questions are like in one class of learners.

    Attributes:
        difficulty: (K,), the share of learners who were right; high is easy.
        discrimination: (K,), -1 to 1, the corrected point-biserial correlation; nan where all
            learners, or none, were right. Below .2 a question hardly tells who knows the rest;
            below 0 its key may be wrong.
        kr20: reliability of the whole test (Kuder and Richardson's formula 20); nan where all
            totals are equal.
    """

    difficulty: "NDArray[Any]"
    discrimination: "NDArray[Any]"
    kr20: float


def item_analysis(correct: "ArrayLike") -> Items:
    r"""Return difficulty and discrimination of each question, and the reliability of the test.

    With $x_{nk}$ = 1 where learner n is right on question k, and $t_n = \sum_k x_{nk}$:

    $$p_k = \frac{1}{N}\sum_n x_{nk} \qquad r_k = \mathrm{corr}_n(x_{nk},\ t_n - x_{nk}) \qquad
      \mathrm{KR20} = \frac{K}{K - 1}\Big(1 - \frac{\sum_k p_k (1 - p_k)}{\mathrm{var}(t)}\Big)$$

    The total without the question itself is used in $r_k$ ("corrected"): with it, every question
    correlates with itself. var divides by N.

    Args:
        correct: (N, K), 1 or True where learner n is right on question k, else 0.

    Raises:
        ValueError: not a table of 0 and 1 with two learners and two questions at least.

    Reference: Crocker and Algina (1986), Introduction to Classical and Modern Test Theory; Kuder
    and Richardson (1937), The theory of the estimation of test reliability.

    Elsewhere: `scipy.stats.pointbiserialr(x, rest)`; `psych::alpha` in R (r.drop, alpha).

    >>> found = item_analysis([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    >>> found.difficulty.tolist(), round(found.kr20, 3)
    ([0.75, 0.5, 0.25], 0.75)
    >>> found.discrimination.round(3).tolist()
    [0.522, 0.707, 0.522]
    """
    table = _table(correct)
    questions = table.shape[1]
    totals = table.sum(axis=1)
    difficulty = table.mean(axis=0)
    rest = totals[:, None] - table  # (N, K)
    x, y = table - difficulty, rest - rest.mean(axis=0)
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    with np.errstate(invalid="ignore"):  # 0/0 is nan, as promised
        discrimination = np.where(scale > 0, (x * y).sum(axis=0) / scale, np.nan)
    spread, alone = totals.var(), (difficulty * (1 - difficulty)).sum()
    kr20 = questions / (questions - 1) * (1 - alone / spread) if spread > 0 else np.nan
    return Items(difficulty, discrimination, float(kr20))


def _table(correct: "ArrayLike") -> "NDArray[Any]":
    table = np.asarray(correct, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(
            f"expected learners x questions, two of each at least, but shape {table.shape} came"
        )
    if not np.isin(table, (0, 1)).all():
        raise ValueError("expected 1 where a learner is right and 0 elsewhere; other numbers came")
    return table
