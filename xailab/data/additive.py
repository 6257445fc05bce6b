r"""A table whose effects, interactions and Shapley values are known in closed form.

$$y = 2 \sin x_1 + x_2^2 + x_3 x_4 + \text{noise}$$

| column | distribution | part in y |
|---|---|---|
| x1, x2 | standard normal, correlation .8 | additive |
| x3, x4 | uniform on [-1, 2], independent | only as a product |
| x5 | standard normal, correlation .8 with x1 | none, though it correlates with y |
| x6 | standard normal, independent | none |
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

NAMES = ["x1", "x2", "x3", "x4", "x5", "x6"]
CORRELATION = 0.8  # of x1 with x2 and with x5
NOISE = 0.1  # standard deviation
_LOW, _HIGH = -1.0, 2.0  # x3 and x4; their mean is not 0, so that each has a main effect too
_MEAN = (_LOW + _HIGH) / 2


def predict(X: np.ndarray) -> np.ndarray:
    """Return the true function without noise.

    Args:
        X: (N, 6) rows of x1 to x6.

    Returns:
        (N,) values.

    Raises:
        ValueError: X has not the shape (N, 6).

    >>> predict(np.array([[0.0, 3.0, 2.0, 0.5, 9.0, 9.0]])).tolist()
    [10.0]
    """
    X = _rows(X)
    return 2 * np.sin(X[:, 0]) + X[:, 1] ** 2 + X[:, 2] * X[:, 3]


def _rows(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != len(NAMES):
        raise ValueError(f"expected rows of shape (N, {len(NAMES)}), got {X.shape}")
    return X


def _zero(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(np.asarray(x, dtype=np.float64))


@dataclass(frozen=True)
class AdditiveTruth:
    """What an explanation of `predict` must say.

    Attributes:
        relevant: the columns that y depends on.
        interactions: pairs of columns that interact.
        effects: main effect of each column, centered to mean 0 over its distribution: the target
            of a centered partial dependence. For x1, x2, x5 and x6 it is ALE's target too; for x3
            and x4 as well, since they are independent of the rest.
    """

    relevant: tuple[str, ...] = ("x1", "x2", "x3", "x4")
    interactions: tuple[tuple[str, str], ...] = (("x3", "x4"),)
    effects: dict[str, Callable[[np.ndarray], np.ndarray]] = field(
        default_factory=lambda: {
            "x1": lambda x: 2 * np.sin(x),  # E[sin x] = 0
            "x2": lambda x: np.square(x) - 1,  # E[x^2] = 1
            "x3": lambda x: _MEAN * (np.asarray(x) - _MEAN),  # E[x3 x4 | x3] - E[x3 x4]
            "x4": lambda x: _MEAN * (np.asarray(x) - _MEAN),
            "x5": _zero,
            "x6": _zero,
        }
    )

    def shapley(self, x: np.ndarray, background: np.ndarray) -> np.ndarray:
        r"""Return exact interventional Shapley values.

        The game is v(S) = mean over background rows b of f(x on S, b elsewhere). The value is
        linear in f, so each part of f can be solved alone. An additive part f_j gives its own
        column f_j(x_j) - mean f_j(b_j). The product is a game of two players with
        v() = m34 = mean(b3 b4), v(3) = x3 m4, v(4) = m3 x4, v(34) = x3 x4, hence

        $$\phi_3 = \tfrac12 (x_3 m_4 - m_{34}) + \tfrac12 (x_3 x_4 - m_3 x_4)$$

        and the same with 3 and 4 exchanged. m34 is not m3 m4 for a finite background.

        Args:
            x: (N, 6) rows to explain.
            background: (B, 6) rows that stand in for absent columns, B >= 1.

        Returns:
            (N, 6); each row sums to predict(x) - mean(predict(background)).

        Raises:
            ValueError: a shape is wrong or the background is empty.
        """
        x, b = _rows(x), _background(background)
        means, m34 = b.mean(axis=0), (b[:, 2] * b[:, 3]).mean()
        values = np.zeros_like(x)
        values[:, 0] = 2 * np.sin(x[:, 0]) - 2 * np.sin(b[:, 0]).mean()
        values[:, 1] = x[:, 1] ** 2 - (b[:, 1] ** 2).mean()
        product, alone3, alone4 = x[:, 2] * x[:, 3], x[:, 2] * means[3], means[2] * x[:, 3]
        values[:, 2] = (alone3 - m34 + product - alone4) / 2
        values[:, 3] = (alone4 - m34 + product - alone3) / 2
        return values

    def interaction(self, x: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Return the Shapley interaction index of the pair (x3, x4); of every other pair it is 0.

        I = v(34) - v(3) - v(4) + v() = x3 x4 - x3 m4 - m3 x4 + m34 (the other columns cancel).

        Args and errors: as `shapley`.

        Returns:
            (N,) values.
        """
        x, b = _rows(x), _background(background)
        m3, m4, m34 = b[:, 2].mean(), b[:, 3].mean(), (b[:, 2] * b[:, 3]).mean()
        return x[:, 2] * x[:, 3] - x[:, 2] * m4 - m3 * x[:, 3] + m34


def _background(rows: np.ndarray) -> np.ndarray:
    rows = _rows(rows)
    if not len(rows):
        raise ValueError("the background is empty: give at least one row")
    return rows


@dataclass(frozen=True, eq=False)
class AdditiveTable:
    """Rows of the table, the noisy answers, and the truth about the function.

    Attributes:
        X: (N, 6) float64.
        y: (N,) float64, `predict(X)` plus normal noise of standard deviation .1.
        names: the six column names.
        truth: effects, interactions and Shapley values in closed form.
        predict: the true function without noise, (N, 6) -> (N,).
    """

    X: np.ndarray
    y: np.ndarray
    names: list[str]
    truth: AdditiveTruth
    predict: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"AdditiveTable({len(self)} rows; y = 2 sin(x1) + x2^2 + x3 x4 + noise)"


def additive_table(seed: int = 0, *, n: int = 1000) -> AdditiveTable:
    """Draw the table; the same seed gives the same numbers.

    Args:
        seed: of the columns and of the noise.
        n: number of rows.

    Raises:
        ValueError: n is below 1.

    >>> table = additive_table(n=5)
    >>> table.X.shape, table.truth.interactions
    ((5, 6), (('x3', 'x4'),))
    """
    if n < 1:
        raise ValueError(f"n is a number of rows, at least 1, got {n!r}")
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((n, 4))  # x1, and the own parts of x2, x5 and x6
    rest = np.sqrt(1 - CORRELATION**2)
    x1, x6 = own[:, 0], own[:, 3]
    x2, x5 = (CORRELATION * x1 + rest * own[:, k] for k in (1, 2))
    x3, x4 = generator.uniform(_LOW, _HIGH, (2, n))
    X = np.column_stack([x1, x2, x3, x4, x5, x6])
    y = predict(X) + NOISE * generator.standard_normal(n)
    return AdditiveTable(X=X, y=y, names=list(NAMES), truth=AdditiveTruth(), predict=predict)
