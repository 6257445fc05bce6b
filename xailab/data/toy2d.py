"""Points in the plane that two classes share out: problems small enough to see a network solve."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Generator = np.random.Generator


class Plane(NamedTuple):
    """Points and their classes.

    Attributes:
        X: (N, 2) float32, each column with mean 0 and standard deviation 1.
        y: (N,) int64, 0 or 1.
    """

    X: np.ndarray
    y: np.ndarray


def plane(name: str, n: int = 300, *, noise: float = 0.1, seed: int = 0) -> Plane:
    """Draw one of four problems that no straight line solves.

    Args:
        name: "circles" (one inside the other), "moons" (two half rings), "xor" (opposite quarters
            belong together) or "spirals" (two arms of one and a half turns).
        n: number of points, at least 4; half of them in each class (xor: about half).
        noise: standard deviation of what is added to every coordinate, before scaling.
        seed: of the points and of their order.

    Raises:
        TypeError: n or seed is not an integer, noise is not a number.
        ValueError: an unknown name, fewer than 4 points, noise that is negative or not finite, a
            negative seed.

    Elsewhere: scikit-learn's `make_circles` and `make_moons`, which the first two call.

    >>> points = plane("xor", 4, noise=0.0)
    >>> points.X.shape, points.y.shape
    ((4, 2), (4,))
    """
    from xailab.core.checks import as_integer  # imported here: it brings torch

    if name not in list(PLANES):
        raise ValueError(f"name must be one of {', '.join(PLANES)}; got {name!r}")
    n, seed = as_integer("n", n), as_integer("seed", seed)
    if n < 4:
        raise ValueError(f"n is a number of points, at least 4; got {n}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not isinstance(noise, int | float | np.number):
        raise TypeError(f"noise must be a number, got {type(noise).__name__}")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise must be a finite number of at least 0, got {noise}")
    X, y = PLANES[name](n, float(noise), seed)
    order = np.random.default_rng(seed).permutation(len(X))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return Plane(X[order].astype(np.float32), y[order].astype(np.int64))


def _circles(n: int, noise: float, seed: int) -> Any:
    from sklearn.datasets import make_circles

    return make_circles(n, noise=noise, factor=0.5, random_state=seed)


def _moons(n: int, noise: float, seed: int) -> Any:
    from sklearn.datasets import make_moons

    return make_moons(n, noise=noise, random_state=seed)


def _xor(n: int, noise: float, seed: int) -> Any:
    """Draw the square without a cross in the middle; the label is that before the noise."""
    generator = np.random.default_rng(seed)
    X = generator.uniform(0.1, 1.0, (n, 2)) * generator.choice([-1.0, 1.0], (n, 2))
    y = (X[:, 0] * X[:, 1] < 0).astype(np.int64)
    return X + noise * generator.standard_normal((n, 2)), y


def _spirals(n: int, noise: float, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = 3 * np.pi * np.sqrt(generator.uniform(0.02, 1.0, n))  # the root spreads them evenly
    radius = angle / (3 * np.pi) * np.where(y == 1, -1.0, 1.0)  # the second arm: turned by half
    X = 2 * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return X + noise * generator.standard_normal((n, 2)), y


PLANES: dict[str, Callable[[int, float, int], Any]] = {
    "circles": _circles,
    "moons": _moons,
    "xor": _xor,
    "spirals": _spirals,
}
