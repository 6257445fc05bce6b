"""What is refused, and in which words."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xailab.core.checks import (
    check_baseline,
    check_input,
    check_positive,
    check_target,
    split_target,
)

NET = nn.Linear(2, 3)


def test_good_input_comes_back_itself():
    x = torch.ones(1, 2)
    assert check_input(NET, x) is x
    assert check_input(len, x.double()).dtype == torch.float64  # a function has no dtype


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ([[1.0, 2.0]], TypeError, "torch.Tensor, got list"),
        (torch.ones(1, 2, dtype=torch.int32), TypeError, "floating-point numbers, got torch.int32"),
        (torch.ones(1, 2, dtype=torch.complex64), TypeError, "complex64"),
        (torch.ones(2), ValueError, r"batch first, like \(N, ...\), got shape \(2,\)"),
        (torch.tensor(1.0), ValueError, r"shape \(\)"),
        (torch.ones(0, 2), ValueError, r"empty: shape \(0, 2\)"),
        (torch.ones(2, 0), ValueError, r"empty: shape \(2, 0\)"),
        (torch.tensor([[float("nan"), float("-inf")]]), ValueError, "2 values that are NaN or inf"),
        (torch.ones(1, 2).double(), TypeError, "x is torch.float64.*weights are torch.float32"),
        (torch.ones(1, 2, dtype=torch.float16), TypeError, "float16"),
    ],
)
def test_bad_input(x, error, words):
    with pytest.raises(error, match=words):
        check_input(NET, x)


def test_another_device():
    with pytest.raises(ValueError, match="x is on cpu, but the model is on meta"):
        check_input(nn.Linear(2, 3, device="meta"), torch.ones(1, 2))


def test_weights_that_are_no_floats_decide_nothing():
    net = nn.Linear(2, 3).double()
    net.first = nn.Parameter(torch.ones(1, dtype=torch.int8), requires_grad=False)
    assert check_input(net, torch.ones(1, 2).double()) is not None


OUTPUTS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        (2, [2, 2]),
        (np.int64(1), [1, 1]),
        (torch.tensor(1), [1, 1]),
        (torch.tensor([0, 2], dtype=torch.int32), [0, 2]),
        (np.array([2, 0], dtype=np.uint8), [2, 0]),
        ([1, 0], [1, 0]),
        ((1, 0), [1, 0]),
    ],
)
def test_good_targets(target, rows):
    index = check_target(target, OUTPUTS)
    assert index.tolist() == rows == split_target(target, 2)
    assert index.dtype == torch.int64


def test_a_single_output():
    assert check_target(None, torch.zeros(2, 1)) is None
    assert check_target(None, torch.zeros(2)) is None
    assert check_target(0, torch.zeros(2, 1)).tolist() == [0, 0]
    assert split_target(None, 3) == [None, None, None]
    with pytest.raises(ValueError, match=r"single output.*target=None"):
        check_target(0, torch.zeros(2))


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (None, ValueError, r"3 outputs: say which one \(0\.\.2\)"),
        (3, ValueError, r"0\.\.2, got 3"),
        (-1, ValueError, r"0\.\.2, got -1"),
        ([0, 3], ValueError, r"0\.\.2, got 3 in row 1"),
        ([0, -1], ValueError, r"0\.\.2"),
        ([0], ValueError, r"shape \(2,\), got \(1,\)"),
        ([0, 1, 2], ValueError, r"got \(3,\)"),
        ([[0, 1]], ValueError, r"got \(1, 2\)"),
        (1.0, TypeError, "float"),
        ([1.0, 2.0], TypeError, "integers, got float64"),
        (True, TypeError, "bool"),
        (np.True_, TypeError, "bool"),
        (torch.tensor([True, False]), TypeError, "bool"),
        ("1", TypeError, "str"),
        (1j, TypeError, "complex"),
    ],
)
def test_bad_targets(target, error, words):
    with pytest.raises(error, match=words):
        check_target(target, OUTPUTS)


@pytest.mark.parametrize("value", [1, np.int32(7)])
def test_good_counts(value):
    assert check_positive("n", value) == value
    assert type(check_positive("n", value)) is int


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, "n_steps must be at least 1, got 0"),
        (-3, ValueError, "got -3"),
        (1.0, TypeError, "n_steps must be an integer, got float"),
        (True, TypeError, "bool"),
        (None, TypeError, "NoneType"),
        ("5", TypeError, "str"),
    ],
)
def test_bad_counts(value, error, words):
    with pytest.raises(error, match=words):
        check_positive("n_steps", value)


@pytest.mark.parametrize("baseline", [0.5, torch.tensor(0.5), torch.full((1, 3), 0.5)])
def test_a_baseline_takes_the_shape_of_x(baseline: Any) -> None:
    assert torch.equal(check_baseline(baseline, torch.zeros(2, 3)), torch.full((2, 3), 0.5))


@pytest.mark.parametrize(
    ("baseline", "error", "words"),
    [
        ("black", TypeError, "str"),
        (True, TypeError, "bool"),
        (float("nan"), ValueError, "NaN"),
        (torch.zeros(2, 3, dtype=torch.float64), TypeError, "float64.*float32"),
        (torch.zeros(2, 4), ValueError, r"\(2, 4\).*\(2, 3\)"),
        (torch.zeros(5, 2, 3), ValueError, r"\(5, 2, 3\).*\(2, 3\)"),
    ],
)
def test_a_baseline_that_does_not_fit(baseline: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_baseline(baseline, torch.zeros(2, 3))
