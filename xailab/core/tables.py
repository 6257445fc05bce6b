"""Numbers out of what people keep their rows in; what is none is named by its column."""

from itertools import zip_longest
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from xailab.core.outputs import as_array

Array = np.ndarray

_NUMBERS = (Real, np.bool_)


def finite_floats(name: str, values: Any, ndim: int) -> Array:
    """Return a table (M, F) or a row (M,) as finite float64.

    Args:
        name: what the caller calls it.
        values: array, tensor, list, DataFrame or Series of real numbers.
        ndim: 2 for a table, 1 for a row.

    Raises:
        TypeError: text, dates, complex numbers.
        ValueError: another number of axes, no number, NaN (also pandas' NA, None) or infinity.

    >>> finite_floats("x", pd.DataFrame({"age": [20], "member": [True]}), 2)
    array([[20.,  1.]])
    """
    kind = "a table (M, F)" if ndim == 2 else "a row (M,)"
    raw = as_array(values) if isinstance(values, Tensor) else _array(name, values)
    if raw.ndim != ndim or not raw.size:
        raise ValueError(f"{name} must be {kind} of finite numbers, got shape {raw.shape}")
    array: Array = np.empty(raw.shape)
    for place in range(raw.shape[-1]):
        array[..., place] = _floats(raw[..., place], name, _called(values, place, ndim))
    broken = ~np.isfinite(array).reshape(-1, array.shape[-1]).all(0)
    if broken.any():
        place = int(broken.argmax())
        what = "NaN" if np.isnan(array[..., place]).any() else "infinity"
        where = _called(values, place, ndim)
        raise ValueError(f"{name} must be {kind} of finite numbers; {where} holds {what}")
    return array


def column_names(values: Any) -> list[str] | None:
    """Return the names of a DataFrame's columns or a Series' entries; None without names.

    >>> column_names(pd.Series({"age": 20})), column_names(np.ones(1)), column_names(pd.Series([1]))
    (['age'], None, None)
    """
    if not isinstance(values, pd.DataFrame | pd.Series):
        return None
    names = list(values.columns if isinstance(values, pd.DataFrame) else values.index)
    return names if all(isinstance(name, str) for name in names) else None


def check_columns(
    name: str, columns: list[str] | None, other: str, others: list[str] | None
) -> None:
    """Refuse tables whose columns have other names, or another order; None: without names.

    Raises:
        ValueError: with the first two that differ.

    >>> check_columns("x", ["age", "dose"], "background", ["age", "dose"])
    """
    if columns is None or others is None or columns == others:
        return
    pairs = zip_longest(columns, others)
    one, two = next(pair for pair in pairs if pair[0] != pair[1])
    raise ValueError(f"{name} has the column {one!r} where {other} has {two!r}")


def _array(name: str, values: Any) -> Array:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths, ...
        raise ValueError(f"{name} must hold rows of the same length: {error}") from error


def _floats(column: Array, name: str, where: str) -> Array:
    """Return one column as floats, what is missing as NaN."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    entries = column.reshape(-1).tolist()
    for entry in entries:
        if not (isinstance(entry, _NUMBERS) or entry is None or entry is pd.NA):
            raise TypeError(f"{name} must hold numbers; {where} holds {entry!r:.40}")
    found = [float(entry) if isinstance(entry, _NUMBERS) else np.nan for entry in entries]
    return np.reshape(found, column.shape)


def _called(values: Any, place: int, ndim: int) -> str:
    """Return what an error message calls a column, or a place in a row."""
    names = column_names(values)
    if names is not None:
        return f"column {names[place]!r}"
    return f"column {place}" if ndim == 2 else f"place {place}"
