"""On which rows is a model wrong: groups of rows that a condition describes.

Lesson `faults` teaches this file.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, ttest_ind_from_stats
from torch import Tensor

from xailab.core.checks import check_positive
from xailab.core.outputs import as_array
from xailab.trust.alignment import check_alignment
from xailab.trust.slice_conditions import Condition, conditions, selected

Array = np.ndarray


def slices(
    errors: Array | Sequence[float],
    features: pd.DataFrame | Mapping[str, Any],
    *,
    k: int = 5,
    n_bins: int = 4,
    min_size: int = 20,
    alpha: float = 0.05,
) -> pd.DataFrame:
    r"""Find the groups of rows on which a model is worst: by one condition, or by two.

    $$t_S = \frac{\bar e_S - \bar e_{\bar S}}
      {\sqrt{s_S^2 / |S| + s_{\bar S}^2 / |\bar S|}}$$

    All groups that one value (or quarter of the range) of a feature makes, and all pairs of these,
    are compared with the remaining rows by Welch's t-test. Looking at many groups finds bad ones by
    chance, so p-values are adjusted (Benjamini-Hochberg): of the groups returned, a share of at
    most `alpha` is expected to be chance.

    Args:
        errors: (N,) 1 where the model is wrong, else 0; or losses. On held-out rows: on training
            rows a model knows its weak spots by heart.
        features: (N, F) what is known of each row: a table, or name -> column. Numbers and times
            with more than `n_bins` values are cut at their quantiles, at the shortest number
            between two neighbors; all else counts as categories. A value that fewer than
            `min_size` rows have makes no group: identifiers are passed over.
        k: how many groups at most.
        n_bins: parts that numbers are cut into.
        min_size: rows a group needs, at least 2.
        alpha: false discovery rate, in (0, 1).

    Returns:
        Up to k groups, the largest $t_S$ first, named by a condition for `features.query(...)`,
        which selects exactly its rows:
        `n`, `error` (its mean), `rest` (the others' mean), `t` and `p` (adjusted, one-sided).

    Raises:
        TypeError: errors that are not numbers.
        ValueError: lengths that differ, NaN in errors or features, errors and features with the
            same row labels in another order, `alpha` outside (0, 1), counts below 1, `min_size`
            below 2; columns of one name, or a column (the message says which) whose name or
            values cannot be written in a query.

    Reference: Chung, Kraska, Polyzotis, Tae, Whang (2020), Automated Data Slicing for Model
        Validation: A Big Data - AI Integration Approach (Slice Finder); Benjamini, Hochberg
        (1995), Controlling the False Discovery Rate.
    Elsewhere: SliceLine, Error Analysis (responsible-ai-toolbox), by a tree.

    >>> table = {"color": ["red", "blue"] * 50, "size": ["s", "s", "m", "m"] * 25}
    >>> wrong = [1, 0, 0, 0] * 25  # what is red and small
    >>> slices(wrong, table, k=1)[["n", "error", "rest"]].reset_index()
                                    slice   n  error  rest
    0  `color` == 'red' and `size` == 's'  25    1.0   0.0
    """
    wrong = _errors(errors)
    table = _features(features, len(wrong))
    check_alignment(features=features, errors=errors)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if check_positive("min_size", min_size) < 2:
        raise ValueError(f"min_size must be at least 2, got {min_size}")
    most = check_positive("k", k)
    parts = conditions(table, check_positive("n_bins", n_bins), min_size)
    found = _compare(wrong, parts, min_size)
    worst = found[found.p <= alpha].sort_values("t", ascending=False, kind="stable").head(most)
    _check_texts(table, parts, worst)
    return worst.drop(columns=["first", "second"])


# ---- parts ---------------------------------------------------------------------------------------


def _errors(errors: Any) -> Array:
    wrong = as_array(errors) if isinstance(errors, Tensor) else np.asarray(errors)
    if wrong.dtype == object and all(isinstance(one, Real | np.bool_) for one in wrong.flat):
        wrong = wrong.astype(np.float64)  # pandas' nullable numbers
    if wrong.dtype.kind not in "biuf":
        raise TypeError(f"errors must be numbers, got {wrong.dtype}")
    if wrong.ndim != 1 or len(wrong) == 0 or not np.isfinite(wrong).all():
        raise ValueError(f"errors must be (N,) finite numbers, got shape {wrong.shape}")
    return wrong.astype(np.float64)


def _features(features: Any, n: int) -> pd.DataFrame:
    table = _table(features)
    if len(table) != n or table.shape[1] == 0:
        raise ValueError(f"features must have a column and {n} rows, as errors, got {table.shape}")
    for name in table.columns:
        if not isinstance(name, str):
            raise ValueError(
                f"column {name!r} has a name that is no text, so that no query can ask for it: "
                "rename the columns (of several levels: join them)"
            )
    twice = table.columns[table.columns.duplicated()].tolist()
    if twice:
        raise ValueError(f"features have two columns of the name {twice[0]!r}: rename one")
    holes = [name for name in table if table[name].isna().any()]
    if holes:
        raise ValueError(f"features hold missing values in {', '.join(holes)}: fill or name them")
    return table


def _table(features: Any) -> pd.DataFrame:
    """Return features as a table; columns of a mapping keep their rows' positions."""
    if isinstance(features, Mapping):
        check_alignment(**{f"column {name!r}": column for name, column in features.items()})
        features = {name: _positional(column) for name, column in features.items()}
    try:
        return pd.DataFrame(features)
    except (ValueError, TypeError) as error:
        raise ValueError(f"features must be a table, or name -> column: {error}") from error


def _positional(column: Any) -> Any:
    if isinstance(column, Tensor):
        return as_array(column)
    return column.reset_index(drop=True) if isinstance(column, pd.Series) else column


def _check_texts(table: pd.DataFrame, parts: list[Condition], worst: pd.DataFrame) -> None:
    """Ask for every reported group by its text, and refuse one that is not the group's."""
    for text, a, b in zip(worst.index, worst["first"], worst["second"], strict=True):
        rows = selected(table, text)
        if rows is None or not (rows == (parts[a].inside & parts[b].inside)).all():
            names = " or ".join(sorted({repr(parts[a].column), repr(parts[b].column)}))
            raise ValueError(
                f"the text {text!r} does not select its rows in a query: rename column {names}, "
                "or turn its values into text or numbers"
            )


def _compare(wrong: Array, parts: list[Condition], min_size: int) -> pd.DataFrame:
    """Compare every condition, and every pair, with the remaining rows.

    A pair's counts and sums are the entries of matrix products. Spreads are those of errors in
    units of their range, counted from the least: no digits are lost where losses are large.
    """
    inside = np.array([one.inside for one in parts], dtype=np.float64).reshape(-1, len(wrong))
    unit = (wrong - wrong.min()) / (np.ptp(wrong) or 1)
    columns = [np.ones(len(wrong)), wrong, unit, unit**2]
    every = [(inside * column) @ inside.T for column in columns]
    first, second = np.triu_indices(len(parts))
    alone, n = np.diag(every[0]), every[0][first, second]
    fits = (n >= min_size) & (len(wrong) - n >= min_size)
    # A pair that is no smaller than one of its halves says nothing new.
    fits &= (first == second) | (n < np.minimum(alone[first], alone[second]))
    first, second = first[fits], second[fits]
    ours = [each[first, second] for each in every]
    others = [column.sum() - our for column, our in zip(columns, ours, strict=True)]
    t, p = _welch(*ours[::2], ours[3], *others[::2], others[3])
    both = zip(first, second, strict=True)
    texts = [parts[a].text if a == b else f"{parts[a].text} and {parts[b].text}" for a, b in both]
    means = {"error": ours[1] / ours[0], "rest": others[1] / others[0]}
    adjusted = false_discovery_control(p) if len(p) else p
    return pd.DataFrame(
        {
            "n": ours[0].astype(int),
            **means,
            "t": t,
            "p": adjusted,
            "first": first,
            "second": second,
        },
        index=pd.Index(texts, name="slice"),
    )


def _welch(*sums: Array) -> tuple[Array, Array]:
    """Return Welch's t and its one-sided p, from counts, sums and sums of squares of two groups."""
    ours, others = _moments(*sums[:3]), _moments(*sums[3:])
    with np.errstate(divide="ignore", invalid="ignore"):
        t, p = ttest_ind_from_stats(*ours, *others, equal_var=False, alternative="greater")
    # Two groups without any spread: they are equal, or as far apart as can be.
    even, worse = np.isnan(p), ours[0] > others[0]
    p = np.where(even, np.where(worse, 0.0, 1.0), p)
    return np.where(even, np.where(worse, np.inf, 0.0), t), p


def _moments(n: Array, total: Array, squares: Array) -> tuple[Array, Array, Array]:
    """Return mean, standard deviation and count."""
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0) * n / (n - 1)
    return mean, np.sqrt(variance), n
