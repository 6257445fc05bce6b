"""Groups of rows that one column makes, each with the text that selects it in `DataFrame.query`.

A text has to be true of exactly the rows it was made for: a border is the shortest number between
the two values it separates, and what cannot be written in a query is refused by its column's name.
"""

from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from fractions import Fraction
from functools import partial
from math import ceil, isinf
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Array = np.ndarray


class Condition(NamedTuple):
    """A text for `query`, the column it is about, and whom it holds for, (N,) of bool."""

    text: str
    column: str
    inside: Array


def conditions(table: pd.DataFrame, n_bins: int, min_size: int) -> list[Condition]:
    """Return the groups that single columns make, without those that are too small.

    Numbers and times with more than `n_bins` values are cut at their quantiles; of all else each
    value is a group. So an identifier, of which every value is rare, makes none.

    Args:
        table: (N, F), without missing values.
        n_bins: parts that numbers are cut into.
        min_size: rows that a group needs.

    Raises:
        ValueError: a column whose name or values cannot be written in a query.

    >>> table = pd.DataFrame({"age": [20, 30, 40, 50], "id": list("abcd")})
    >>> [one.text for one in conditions(table, n_bins=2, min_size=2)]
    ['`age` <= 30', '`age` > 30']
    """
    found = []
    for name in table:
        made = _of_column(table, name, n_bins, min_size)
        found += [Condition(text, name, inside) for text, inside in made]
    return found


def selected(table: pd.DataFrame, text: str) -> Array | None:
    """Return the rows for which a text holds, (N,) of bool; None if it cannot be asked.

    >>> selected(pd.DataFrame({"a": [1, 2]}), "`a` > 1").tolist()
    [False, True]
    """
    plain = table.reset_index(drop=True)
    try:
        chosen = plain.query(text).index
    except Exception:  # pandas has no common class for what a query may raise
        return None
    return np.isin(np.arange(len(table)), chosen)


# ---- columns -------------------------------------------------------------------------------------


class _Way(NamedTuple):
    """A column as a query may see it: how it is written, its values, and whether they are cut."""

    written: str
    column: pd.Series
    ranged: bool


def _of_column(
    table: pd.DataFrame, name: str, n_bins: int, min_size: int
) -> list[tuple[str, Array]]:
    """Return a column's groups in the first way of writing them that selects what it should."""
    refused = False
    for way in _ways(name, table[name], n_bins):
        codes, values = _factorized(name, way.column)
        made = _ranges(way, codes, values, n_bins) if way.ranged else _values(way, codes, values)
        large = [(text, codes_in(codes)) for text, codes_in, n in made if n >= min_size]
        fits = all(_holds(table, *part) for part in large[:1] + large[-1:])
        if fits and (large or not refused):  # values one by one are no answer where ranges failed
            return large
        refused = True
    raise ValueError(
        f"column {name!r} cannot be written in a query ({table[name].dtype}, like "
        f"{str(table[name].iloc[0])[:40]!r}): rename it, or turn its values into text or numbers"
    )


def _ways(name: str, column: pd.Series, n_bins: int) -> Iterator[_Way]:
    """Yield ways of writing a column, the plainest first.

    Ranges serve times and decimal numbers also where these are few: none is equal to a literal.
    """
    quoted = "`" + name.replace("`", "``") + "`"
    plain, written = column, quoted
    if isinstance(column.dtype, pd.CategoricalDtype):
        plain = column.astype(column.cat.categories.dtype)
        written = f"{quoted}.astype('{plain.dtype}')"
    _, values = _factorized(name, plain)
    literal = all(isinstance(value, bool | str | int | float | complex) for value in values)
    numbers = all(isinstance(value, Real | Decimal) for value in values)
    numbers = numbers and not any(isinstance(value, bool) for value in values)
    times = all(isinstance(value, pd.Timestamp | pd.Timedelta | pd.Period) for value in values)
    if (numbers or times) and (len(values) > n_bins or not literal):
        yield _Way(written, plain, ranged=True)
    if literal:
        yield _Way(quoted, column, ranged=False)
    text = column.astype("str")
    dates = all(isinstance(value, date | time) for value in values)
    if dates and len(values) > n_bins and _same_order(plain, text):
        yield _Way(f"{quoted}.astype('str')", text, ranged=True)
    yield _Way(f"{quoted}.astype('str')", text, ranged=False)


def _same_order(column: pd.Series, text: pd.Series) -> bool:
    """Tell whether texts are ordered as their values are, as those of dates are."""
    return bool((_factorized("", column)[0] == _factorized("", text)[0]).all())


def _factorized(name: str, column: pd.Series) -> tuple[Array, list[Any]]:
    """Return the number of each row's value, and the values, in order if they have one."""
    try:
        codes, values = pd.factorize(column, sort=True)
    except TypeError:
        try:
            codes, values = pd.factorize(column)
        except TypeError as error:
            raise ValueError(
                f"column {name!r} holds values that make no groups: {error}"
            ) from error
    return codes, [value.item() if isinstance(value, np.generic) else value for value in values]


def _holds(table: pd.DataFrame, text: str, inside: Array) -> bool:
    rows = selected(table, text)
    return rows is not None and bool((rows == inside).all())


# ---- texts ---------------------------------------------------------------------------------------

Part = tuple[str, Callable[[Array], Array], int]  # text, codes -> members, how many


def _values(way: _Way, codes: Array, values: list[Any]) -> Iterator[Part]:
    """Yield every value by itself."""
    for code, n in enumerate(np.bincount(codes)):
        yield f"{way.written} == {_literal(values[code])}", partial(np.equal, code), int(n)


def _ranges(way: _Way, codes: Array, values: list[Any], n_bins: int) -> Iterator[Part]:
    """Yield the parts between quantiles, or every value if they are few."""
    last, ranked = len(values) - 1, np.sort(codes)
    places = np.arange(1, n_bins) * (len(codes) - 1) // n_bins
    cuts = range(last) if last < n_bins else sorted({min(ranked[i], last - 1) for i in places})
    low, before = -1, ""
    for cut in [*cuts, last]:
        edge = "" if cut == last else _border(values[cut], values[cut + 1], way.column.dtype)
        n = int(((codes > low) & (codes <= cut)).sum())
        if before and edge:
            text = f"{before} < {way.written} <= {edge}"
        else:
            text = f"{way.written} <= {edge}" if edge else f"{way.written} > {before}"
        if before or edge:
            yield text, partial(_within, low, cut), n
        low, before = cut, edge


def _within(low: int, high: int, codes: Array) -> Array:
    return (codes > low) & (codes <= high)


def _literal(value: Any) -> str:
    """Return how a query writes a value."""
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, Real) and not isinstance(value, Integral):
        return repr(float(value)).replace("inf", "1e999")  # queries know no inf; this is one
    return repr(value)


def _border(low: Any, high: Any, dtype: Any) -> str:
    """Return the shortest text of what is at least `low` and below `high`."""
    if not isinstance(low, Real | Decimal):
        return repr(str(low))
    least, limit = _exact(low), _exact(high)
    whole = isinstance(low, Integral) and isinstance(high, Integral)
    size = max(abs(least), abs(limit))
    top = len(str(size.numerator)) - len(str(size.denominator)) + 1
    for power in range(top, top - 22, -1):
        step = Fraction(10) ** power
        number = _plain((ceil(limit / step) - 1) * step, whole)  # the largest multiple below
        if number is not None and least <= _exact(_stored(number, dtype)) < limit:
            return repr(number)
    return _literal(low) if isinstance(low, int | float) else repr(float(low))


def _exact(number: Any) -> Fraction:
    """Return a number as a fraction; infinity as what no float reaches."""
    if not isinstance(number, Integral) and isinf(number):
        return Fraction(2) ** 1024 * (1 if number > 0 else -1)
    return Fraction(number)


def _plain(number: Fraction, whole: bool) -> int | float | None:
    """Return a number as it is written; None beyond all floats."""
    if number.denominator == 1 and (whole or abs(number) < 10**16):
        return int(number)
    try:
        return float(number)
    except OverflowError:
        return None


def _stored(number: int | float, dtype: Any) -> int | float:
    """Return what a number becomes when it is compared with a column of floats."""
    kind = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(kind, np.dtype) and kind.kind == "f":
        with np.errstate(over="ignore"):
            return float(kind.type(number))
    return number
