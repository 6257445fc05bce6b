"""Where on a straight path to look, and how much each look counts."""

import numpy as np
from torch import Tensor

from xailab.core.callable_module import make_callable
from xailab.core.checks import check_positive

RULES = ("gauss-legendre", "trapezoid", "midpoint", "left", "right")


def quadrature(rule: str, n_steps: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return points $\alpha_k$ in [0, 1] and weights $w_k$ that sum to 1.

    $$\int_0^1 g(\alpha)\,d\alpha \approx \sum_{k=1}^{n} w_k\, g(\alpha_k)$$

    Gauss-Legendre with n points is exact for polynomials of degree 2n - 1, trapezoid and midpoint
    for straight lines, left and right for constants.

    Args:
        rule: one of "gauss-legendre", "trapezoid", "midpoint", "left", "right".
        n_steps: number of points; "trapezoid" needs two.
        like: gives dtype and device.

    Returns:
        Points and weights, (n_steps,) each.

    Raises:
        TypeError: `n_steps` is not an integer.
        ValueError: an unknown rule, or too few points.

    >>> from torch import zeros
    >>> quadrature("trapezoid", 3, like=zeros(1))
    (tensor([0.0000, 0.5000, 1.0000]), tensor([0.2500, 0.5000, 0.2500]))
    """
    n = check_positive("n_steps", n_steps)
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    if rule == "trapezoid" and n < 2:
        raise ValueError("the trapezoid rule needs n_steps of at least 2, got 1")
    points, weights = np.arange(n) / n, np.full(n, 1 / n)
    if rule == "gauss-legendre":
        nodes, masses = np.polynomial.legendre.leggauss(n)
        points, weights = (nodes + 1) / 2, masses / 2  # from [-1, 1] to [0, 1]
    elif rule == "trapezoid":
        points, weights = np.linspace(0, 1, n), np.full(n, 1 / (n - 1))
        weights[[0, -1]] /= 2
    elif rule != "left":
        points = points + {"midpoint": 0.5, "right": 1.0}[rule] / n
    return like.new_tensor(points), like.new_tensor(weights)


make_callable(__name__)
