"""Numbers come out of every container; what is none is named by its column and argument."""

import numpy as np
import pandas as pd
import pytest
import torch

from xailab.core.tables import check_columns, column_names, finite_floats

FRAME = pd.DataFrame({"age": [20, 30], "member": [True, False]})


@pytest.mark.parametrize(
    "values",
    [
        FRAME,
        FRAME.astype("Int64"),
        FRAME.astype(object),
        FRAME.to_numpy(dtype=np.float16),
        [[20, True], [30, False]],
        torch.tensor([[20.0, 1], [30, 0]], requires_grad=True),
        torch.tensor([[20.0, 1], [30, 0]], dtype=torch.bfloat16),
    ],
)
def test_every_container_gives_the_same(values):
    got = finite_floats("x", values, 2)
    assert got.dtype == np.float64
    assert got.tolist() == [[20, 1], [30, 0]]


def test_a_row_out_of_a_mixed_table_is_a_row():
    assert finite_floats("x", FRAME.iloc[0], 1).tolist() == [20, 1]


@pytest.mark.parametrize(
    ("values", "ndim", "error", "words"),
    [
        ({"age": [20.0], "job": ["nurse"]}, 2, TypeError, "X must hold .*'job' holds 'nurse'"),
        ({"age": ["20"]}, 2, TypeError, "column 'age' holds '20'"),
        ({"day": pd.to_datetime(["2026-01-01"])}, 2, TypeError, "column 'day'"),
        ({"kind": pd.Categorical(["a"])}, 2, TypeError, "column 'kind' holds 'a'"),
        ({"age": [20.0, np.nan]}, 2, ValueError, "column 'age' holds NaN"),
        ({"n": pd.array([1, None], dtype="Int64")}, 2, ValueError, "column 'n' holds NaN"),
        ({"age": [np.inf]}, 2, ValueError, "column 'age' holds infinity"),
        ([[1.0, np.nan]], 2, ValueError, r"X must be a table .*column 1 holds NaN"),
        ([1.0, None], 1, ValueError, r"X must be a row .*place 1 holds NaN"),
        ([["a", "b"]], 2, TypeError, "column 0 holds 'a'"),
        ([[1j]], 2, TypeError, "column 0"),
        ([[1.0], [1.0, 2.0]], 2, ValueError, "same length"),
        ([1.0], 2, ValueError, r"X must be a table \(M, F\) .*got shape \(1,\)"),
        ([], 1, ValueError, r"got shape \(0,\)"),
    ],
)
def test_what_is_no_number_is_named(values, ndim, error, words):
    table = pd.DataFrame(values) if isinstance(values, dict) else values
    with pytest.raises(error, match=words):
        finite_floats("X", table, ndim)


def test_names():
    assert column_names(FRAME) == ["age", "member"]
    assert column_names(FRAME.iloc[0]) == ["age", "member"]
    assert column_names(pd.DataFrame([[1]])) is None
    assert column_names([[1]]) is None


@pytest.mark.parametrize(
    ("columns", "others", "words"),
    [
        (["a", "b"], ["b", "a"], "x has the column 'a' where background has 'b'"),
        (["a", "b"], ["a", "c"], "'b' where background has 'c'"),
        (["a"], ["a", "b"], "x has the column None where background has 'b'"),
    ],
)
def test_columns_that_differ_are_named(columns, others, words):
    with pytest.raises(ValueError, match=words):
        check_columns("x", columns, "background", others)


@pytest.mark.parametrize(
    ("columns", "others"), [(["a"], ["a"]), (None, ["a"]), (["a"], None), (None, None)]
)
def test_columns_without_names_fit_any(columns, others):
    check_columns("x", columns, "background", others)
