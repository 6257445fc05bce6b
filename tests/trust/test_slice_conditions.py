"""Conditions select what they were made for; borders are as short as can be."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xailab.trust.slice_conditions import _border, conditions, selected


def test_quarters_by_hand() -> None:
    table = pd.DataFrame({"v": [1, 2, 3, 4, 5, 6, 7, 8]})
    found = conditions(table, n_bins=4, min_size=1)
    assert [one.text for one in found] == ["`v` <= 2", "2 < `v` <= 4", "4 < `v` <= 6", "`v` > 6"]
    assert [one.inside.sum() for one in found] == [2, 2, 2, 2]


def test_few_numbers_are_values_and_rare_values_are_left_out() -> None:
    table = pd.DataFrame({"v": [1.5, 1.5, 2.0, 3.0]})
    assert [one.text for one in conditions(table, 4, 2)] == ["`v` == 1.5"]


def test_where_most_rows_have_one_value() -> None:
    """Quantiles fall on it; what is above, or below if it is the largest, is a group."""
    for rest, words in ((range(1, 21), "`v` > 0"), (range(-20, 0), "`v` <= -1")):
        table = pd.DataFrame({"v": [0] * 80 + list(rest)})
        texts = {one.text: one.inside.sum() for one in conditions(table, 4, 5)}
        assert texts[words] == 20
        assert sum(texts.values()) == 100


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (64, 65, "64"),
        (1_700_000_037, 1_700_000_101, "1700000100"),
        (2009, 2010, "2009"),
        (0.123, 0.456, "0.4"),
        (999, 1001, "1000"),
        (-0.2, 0.3, "0"),
        (1 + 1e-6, 1 + 2e-6, "1.000001"),
        (2**62, 2**62 + 1, str(2**62)),
        (1e300, 2e300, "1e+300"),
        (-2.5, -2.4, "-2.5"),
        (0.0, 5e-324, "0"),
        (float("-inf"), 1.0, "0"),
        (Decimal("0.1"), Decimal("0.2"), "0.1"),
        (Fraction(1, 3), Fraction(2, 3), "0.6"),
    ],
)
def test_borders_by_hand(low: Any, high: Any, text: str) -> None:
    """At least the lower value, below the higher one, and no longer than the text by hand."""
    got = _border(low, high, np.dtype(float if isinstance(low, float) else object))
    assert low <= eval(got) < high
    assert len(got) <= len(text)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_neighboring_floats_are_told_apart(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for low in rng.normal(size=200).astype(dtype):
        high = np.nextafter(low, dtype(np.inf))
        got = dtype(eval(_border(low.item(), high.item(), np.dtype(dtype))))
        assert low <= got < high


def test_what_cannot_be_asked_is_none() -> None:
    table = pd.DataFrame({"v": [1, 2]}, index=[7, 7])
    assert selected(table, "`v` > 1").tolist() == [False, True]
    assert selected(table, "`w` > 1") is None
    assert selected(table, "`v` >") is None


def test_values_are_written_as_a_query_reads_them() -> None:
    """Whole numbers without a point; infinity, for which a query has no word, by one too large."""
    assert [one.text for one in conditions(pd.DataFrame({"v": [1, 1, 2, 2]}), 4, 2)] == [
        "`v` == 1", "`v` == 2",
    ]  # fmt: skip
    table = pd.DataFrame({"v": [1.5, 1.5, float("inf"), float("inf")]})
    found = conditions(table, 4, 2)
    assert [one.text for one in found] == ["`v` == 1.5", "`v` == 1e999"]
    assert selected(table, found[1].text).tolist() == [False, False, True, True]


def test_dates_are_compared_as_texts() -> None:
    """Many are cut at their quantiles; of few each is a value."""
    days = [date(2020, 1, day) for day in range(1, 9)]
    text = "`d`.astype('str')"
    for table, first, second in (
        (days, f"{text} <= '2020-01-04'", f"{text} > '2020-01-04'"),
        (days[:2] * 2, f"{text} == '2020-01-01'", f"{text} == '2020-01-02'"),
    ):
        found = conditions(pd.DataFrame({"d": table}), 2, 2)
        assert [one.text for one in found] == [first, second]


def test_a_column_that_no_query_can_name_is_refused() -> None:
    """No group of it would be found, though it may hold the worst one."""
    table = pd.DataFrame({"a\nb": np.random.default_rng(0).normal(size=40)})
    with pytest.raises(ValueError, match=r"'a\\nb' cannot be written in a query .*rename it"):
        conditions(table, 4, 5)
