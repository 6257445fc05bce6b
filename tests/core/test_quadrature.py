"""Weights that sum to one, points where they belong, and the degree each rule is exact for."""

import pytest
import torch

from xailab.core.quadrature import RULES, quadrature

LIKE = torch.zeros(1, dtype=torch.float64)
EXACT = {"gauss-legendre": 7, "trapezoid": 1, "midpoint": 1, "left": 0, "right": 0}


def integral(rule: str, degree: int, n: int = 4) -> float:
    points, weights = quadrature(rule, n, like=LIKE)
    return (weights @ points**degree).item()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [2, 3, 50])
def test_weights_sum_to_one_and_points_lie_on_the_path(rule: str, n: int) -> None:
    points, weights = quadrature(rule, n, like=LIKE)
    assert points.shape == weights.shape == (n,)
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert points.min() >= 0
    assert points.max() <= 1
    assert (points.diff() > 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_exact_up_to_its_degree_and_no_further(rule: str) -> None:
    for degree in range(EXACT[rule] + 1):
        assert integral(rule, degree) == pytest.approx(1 / (degree + 1), abs=1e-14)
    assert abs(integral(rule, EXACT[rule] + 1) - 1 / (EXACT[rule] + 2)) > 1e-6


def test_points_of_three_steps_by_hand() -> None:
    assert quadrature("left", 4, like=LIKE)[0].tolist() == [0, 0.25, 0.5, 0.75]
    assert quadrature("right", 4, like=LIKE)[0].tolist() == [0.25, 0.5, 0.75, 1]
    assert quadrature("midpoint", 2, like=LIKE)[0].tolist() == [0.25, 0.75]
    root = (1 / 3) ** 0.5  # the two Gauss points of [-1, 1]
    points, weights = quadrature("gauss-legendre", 2, like=LIKE)
    torch.testing.assert_close(points, torch.tensor([1 - root, 1 + root]).double() / 2)
    assert weights.tolist() == [0.5, 0.5]


def test_takes_dtype_from_like() -> None:
    assert quadrature("left", 2, like=torch.zeros(1))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("rule", "n", "error", "words"),
    [
        ("simpson", 4, ValueError, "gauss-legendre.*'simpson'"),
        ("trapezoid", 1, ValueError, "at least 2, got 1"),
        ("left", 0, ValueError, "n_steps"),
        ("left", 2.5, TypeError, "n_steps"),
    ],
)
def test_refuses(rule: str, n: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        quadrature(rule, n, like=LIKE)
