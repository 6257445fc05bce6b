"""Rows of people: labels of 0 and 1, probabilities of a 1, and the group each row belongs to.

What every measure of fairness and every way of mending asks of its input. Columns are read by
position.
"""

from collections.abc import Hashable, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from torch import Tensor

from xailab.core.outputs import as_array
from xailab.trust.alignment import check_alignment

Array = np.ndarray
Labels: TypeAlias = Array | Tensor | pd.Series | Sequence[int]
Numbers: TypeAlias = Array | Tensor | pd.Series | Sequence[float]
Groups: TypeAlias = Array | Tensor | pd.Series | pd.Categorical | Sequence[Hashable]


def binary_labels(name: str, values: Any, n: int | None = None) -> Array:
    """Return labels as int64, refusing all but 0 and 1; True and 1.0 are 1.

    Args:
        name: what the caller calls them.
        values: one a row.
        n: how many rows there are; None: any number.

    Raises:
        TypeError: not numbers.
        ValueError: another shape or length, missing values, other numbers.

    >>> binary_labels("y", [True, 0.0])
    array([1, 0])
    """
    array = _numbers(name, values, n)
    others = np.unique(array[~np.isin(array, (0, 1))])
    if len(others):
        raise ValueError(f"{name} must hold 0 and 1 alone, got {others[:3].tolist()} too")
    return array.astype(np.int64)


def chances_of_one(values: Any, n: int | None = None) -> Array:
    """Return probabilities as float64, refusing NaN and all outside 0..1.

    Raises:
        TypeError, ValueError: as `binary_labels`; (N, 2) columns of both classes.

    >>> chances_of_one([0.5, 1])
    array([0.5, 1. ])
    """
    array = _numbers("probs", values, n).astype(np.float64)
    outside = array[~((array >= 0) & (array <= 1))]
    if len(outside):
        raise ValueError(f"probs must lie in 0..1, got {outside[:3].tolist()}")
    return array


def _numbers(name: str, values: Any, n: int | None) -> Array:
    """Return a column of n numbers as an array."""
    if np.ma.is_masked(values):
        raise ValueError(f"{name} holds masked values: leave these rows out")
    array = as_array(values) if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or not len(array):
        one = f": give one column, like {name}[:, {array.shape[1] - 1}]" if array.ndim == 2 else ""
        raise ValueError(f"{name} must have one number a row, (N,), got shape {array.shape}{one}")
    if n is not None and len(array) != n:
        raise ValueError(f"{name} must have one number a row, {n}, got {len(array)}")
    if array.dtype == object and all(isinstance(one, Real | np.bool_) for one in array):
        array = array.astype(np.float64)  # pandas' nullable numbers, bools among objects
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    return array


def members_of(group: Any, n: int, **columns: Any) -> tuple[Array, list[Hashable]]:
    """Return the number of each row's group, (N,), and the groups' names, sorted.

    Args:
        group: one value a row, text, a number or a tuple (of two columns: `list(zip(a, b))`).
        n: how many rows there are.
        columns: what else was given for these rows, by name.

    Raises:
        ValueError: another shape or length, a missing value, a group without members, tuples of
            several lengths, values that cannot be groups, or row labels that `columns` have in
            another order.

    >>> members_of(["b", "a", "b"], 3)
    (array([1, 0, 1]), ['a', 'b'])
    """
    check_alignment(**columns, group=group)
    column = _group_column(group, n)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, names = np.asarray(column.cat.codes, dtype=np.int64), column.cat.categories.tolist()
    else:
        codes, names = _factorized(column)
    missing = (codes < 0) | np.isin(codes, [i for i, name in enumerate(names) if _lacks(name)])
    if missing.any():
        raise ValueError(f"group is missing (NaN or None) in {missing.sum()} rows")
    empty = [names[i] for i in np.flatnonzero(np.bincount(codes, minlength=len(names)) == 0)]
    if empty:  # a categorical column may list what it lacks
        raise ValueError(f"groups with no members: {sorted(map(str, empty))}")
    if len({len(name) if isinstance(name, tuple) else -1 for name in names}) > 1:
        raise ValueError(f"groups that are tuples must all be, of one length, got {names[:3]}")
    return codes, names


def _group_column(group: Any, n: int) -> pd.Series:
    """Return groups as a column; a tuple stays one value."""
    if np.ma.is_masked(group):
        raise ValueError("group holds masked values: leave these rows out")
    plain = as_array(group) if isinstance(group, Tensor) else group
    if isinstance(plain, list | tuple | pd.MultiIndex):
        values = list(plain)
        plain = np.empty(len(values), dtype=object)
        for place, value in enumerate(values):
            plain[place] = value
    if np.shape(plain) != (n,):
        raise ValueError(
            f"group must have one value a row, ({n},), got shape {np.shape(plain)}"
            + (": of two columns give list(zip(a, b))" if np.ndim(plain) == 2 else "")
        )
    return pd.Series(plain).reset_index(drop=True)


def _factorized(column: pd.Series) -> tuple[Array, list[Hashable]]:
    """Return the number of each row's group and the groups, sorted if they can be."""
    inferred = column.infer_objects() if column.dtype == object else column
    try:
        codes, found = pd.factorize(inferred)
    except TypeError as error:
        raise ValueError(f"group holds values that cannot be groups: {error}") from error
    names = found.tolist()
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:  # text and numbers: as they come
        order = list(range(len(names)))
    rank = np.argsort(order)
    return np.where(codes < 0, -1, rank[codes]).astype(np.int64), [names[i] for i in order]


def _lacks(name: Hashable) -> bool:
    """Tell whether part of a tuple is missing."""
    return isinstance(name, tuple) and any(pd.isna(part) is True for part in name)


def group_index(names: Sequence[Hashable]) -> pd.Index:
    """Return groups as row labels of a table: parts of tuples are levels, so that `loc` finds them.

    >>> group_index([("f", 1), ("m", 0)]).nlevels
    2
    """
    if isinstance(names[0], tuple):
        return pd.MultiIndex.from_tuples(names)
    return pd.Index(names)


def check_two_groups(names: Sequence[Hashable]) -> None:
    """Refuse to compare a group with nobody.

    Raises:
        ValueError: fewer than two groups.

    >>> check_two_groups(["a", "b"])
    """
    if len(names) < 2:
        raise ValueError(f"a difference needs two groups or more, got only {list(names)}")


def counted_rows(rate: str, y: Array) -> Array:
    """Return True where a row counts for a rate of decisions.

    >>> counted_rows("tpr", np.array([1, 0]))
    array([ True, False])
    """
    return {"selection_rate": y >= 0, "tpr": y == 1, "fpr": y == 0}[rate]


def check_rate_exists(rate: str, n: Array, names: list[Hashable]) -> None:
    """Refuse a rate that is a share of nobody.

    Raises:
        ValueError: a group without a row that counts for the rate.

    >>> check_rate_exists("tpr", np.array([2, 1]), ["a", "b"])
    """
    lacking = [name for name, size in zip(names, n, strict=True) if not size]
    if lacking:
        value = {"tpr": 1, "fpr": 0}[rate]
        raise ValueError(f"{rate} does not exist: no row with y = {value} in groups {lacking}")


def check_both_labels(y: Array, codes: Array, names: list[Hashable]) -> None:
    """Refuse groups without any y = 1 or any y = 0.

    Raises:
        ValueError: as `check_rate_exists`.

    >>> check_both_labels(np.array([0, 1]), np.array([0, 0]), ["a"])
    """
    for rate in ("tpr", "fpr"):
        counted = np.bincount(codes[counted_rows(rate, y)], minlength=len(names))
        check_rate_exists(rate, counted, names)


def check_costs(cost_fp: float, cost_fn: float) -> None:
    """Refuse what is no price of an error.

    Raises:
        ValueError: negative, infinite or NaN.

    >>> check_costs(1.0, 5.0)
    """
    if not (0 <= cost_fp < np.inf and 0 <= cost_fn < np.inf):
        raise ValueError(f"costs must be 0 or more, got cost_fp={cost_fp}, cost_fn={cost_fn}")
