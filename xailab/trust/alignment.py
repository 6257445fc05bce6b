"""Columns are read row by row: what to do when their labels say something else."""

from typing import Any

import pandas as pd


def check_alignment(**columns: Any) -> None:
    """Refuse columns with the same row labels in another order: position and label disagree.

    Columns are aligned by position, as arrays are. Where labels differ altogether (one column is
    a part of a table, another was counted anew), position is all there is.

    Args:
        columns: what was given, by the names of the arguments; all but pandas columns and tables
            pass.

    Raises:
        ValueError: two of them have the same labels in different orders.

    >>> check_alignment(y=pd.Series([1, 0]), pred=[0, 1])
    """
    pandas = {
        name: column.index
        for name, column in columns.items()
        if isinstance(column, pd.Series | pd.DataFrame)
    }
    first = next(iter(pandas), "")
    for name, index in pandas.items():
        other = pandas[first]
        if not index.equals(other) and len(index) == len(other) and _same_labels(index, other):
            raise ValueError(
                f"{name} has the row labels of {first} in another order, and rows are read by "
                "position: bring both into one order, or reset_index(drop=True)"
            )


def _same_labels(one: pd.Index, other: pd.Index) -> bool:
    return set(one) == set(other)
