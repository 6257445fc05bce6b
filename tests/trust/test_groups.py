"""Labels, probabilities and groups of every kind, or a refusal by name."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from xailab.trust.groups import (
    binary_labels,
    chances_of_one,
    check_both_labels,
    check_costs,
    counted_rows,
    group_index,
    members_of,
)


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        [1.0, 0.0],
        np.array([True, 0], dtype=object),
        pd.array([1, 0], dtype="Int64"),
        pd.array([True, False], dtype="boolean"),
        pd.Categorical([1, 0]),
        pd.Series([1, 0], index=[7, 3]),
        torch.tensor([1, 0]).bfloat16(),
        torch.tensor([1.0, 0.0], requires_grad=True),
    ],
)
def test_labels_of_every_kind(values: Any) -> None:
    got = binary_labels("y", values)
    assert got.tolist() == [1, 0]
    assert got.dtype == np.int64
    assert chances_of_one(values).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (["1", "0"], TypeError, "y must hold numbers"),
        (pd.array([1, None], dtype="Int64"), ValueError, "y holds masked values"),
        (np.ma.masked_array([1, 0], [0, 1]), ValueError, "y holds masked values"),
        ([1, None], TypeError, "y must hold numbers"),
        ([1, np.nan], ValueError, "nan"),
        ([1, -1], ValueError, r"0 and 1 alone, got \[-1\]"),
        ([[0, 1], [1, 0]], ValueError, r"give one column, like y\[:, 1\]"),
        ([[1], [0]], ValueError, r"give one column, like y\[:, 0\]"),
    ],
)
def test_bad_labels(values: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        binary_labels("y", values)


@pytest.mark.parametrize(
    ("group", "codes", "names"),
    [
        (["b", "a"], [1, 0], ["a", "b"]),
        ((2, 1), [1, 0], [1, 2]),
        ([("b", 1), ("a", 2)], [1, 0], [("a", 2), ("b", 1)]),
        (pd.Series([("b", 1), ("a", 2)]), [1, 0], [("a", 2), ("b", 1)]),
        (pd.MultiIndex.from_tuples([("b", 1), ("a", 2)]), [1, 0], [("a", 2), ("b", 1)]),
        (pd.Categorical(["b", "a"], categories=["b", "a"]), [0, 1], ["b", "a"]),
        (["1", 1], [0, 1], ["1", 1]),
        (torch.tensor([2.0, 1.0]).bfloat16(), [1, 0], [1.0, 2.0]),
        (pd.array(["b", "a"], dtype="string"), [1, 0], ["a", "b"]),
        ([True, False], [1, 0], [False, True]),
    ],
)
def test_groups_of_every_kind(group: Any, codes: list[int], names: list[Any]) -> None:
    got, found = members_of(group, 2)
    assert got.tolist() == codes
    assert found == names


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (["a", None], "missing .* in 1 rows"),
        (pd.array(["a", None], dtype="string"), "missing .* in 1 rows"),
        ([("a", np.nan), ("a", 1)], "missing .* in 1 rows"),
        (pd.Categorical(["a", None]), "missing .* in 1 rows"),
        (np.ma.masked_array([1, 2], [0, 1]), "masked"),
        (pd.Categorical(["a", "a"], ["a", "b"]), r"no members: \['b'\]"),
        ([("a",), ("a", 1)], "of one length"),
        (["a", ("a", 1)], "of one length"),
        ([["a"], ["b"]], "cannot be groups"),
        ([["a", "b"], ["b", "a"], ["a", "a"]], r"\(2,\), got shape \(3,\)"),
        (np.array([["a", "b"]] * 2), r"list\(zip\(a, b\)\)"),
        ("ab", r"got shape \(\)"),
    ],
)
def test_bad_groups(group: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        members_of(group, 2)


def test_shuffled_labels_are_refused() -> None:
    group = pd.Series(["a", "b"], index=[1, 0])
    with pytest.raises(ValueError, match="group has the row labels of y in another order"):
        members_of(group, 2, y=pd.Series([1, 0]))
    assert members_of(group, 2, y=pd.Series([1, 0], index=[5, 6]))[1] == ["a", "b"]


def test_rows_of_a_table_are_found_by_a_tuple() -> None:
    table = pd.DataFrame({"n": [1, 2]}, index=group_index([("a", 1), ("b", 2)]))
    assert table.loc[("b", 2)].n == 2
    assert group_index(["a", "b"]).nlevels == 1


def test_numbers_of_a_list_are_plain_numbers() -> None:
    _, names = members_of(list(np.array([2, 1])), 2)
    assert [type(name) for name in names] == [int, int]


@pytest.mark.parametrize(
    ("rate", "counts"),
    [("selection_rate", [True, True]), ("tpr", [True, False]), ("fpr", [False, True])],
)
def test_the_rows_a_rate_counts(rate: str, counts: list[bool]) -> None:
    """Everybody is selected from; y = 1 can be a true positive, y = 0 a false one."""
    assert counted_rows(rate, np.array([1, 0])).tolist() == counts


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 1, 0], r"tpr does not exist: no row with y = 1 in groups \['b'\]"),
        ([1, 0, 1], r"fpr does not exist: no row with y = 0 in groups \['b'\]"),
    ],
)
def test_a_group_without_a_label_is_refused(y: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_both_labels(np.array(y), np.array([0, 0, 1]), ["a", "b"])
    check_both_labels(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), ["a", "b"])


@pytest.mark.parametrize("costs", [(-1.0, 1.0), (1.0, -1.0), (np.inf, 1.0), (1.0, np.nan)])
def test_bad_costs(costs: tuple[float, float]) -> None:
    check_costs(0.0, 0.0)
    with pytest.raises(ValueError, match="costs must be 0 or more"):
        check_costs(*costs)
