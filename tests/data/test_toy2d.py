"""Points in the plane: the shapes they promise, and scikit-learn's where it has them."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from xailab import data
from xailab.data.toy2d import PLANES, plane

ALL = pytest.mark.parametrize("name", PLANES)


@ALL
def test_points_are_scaled_and_balanced(name: str) -> None:
    X, y = plane(name, 400)
    assert X.shape == (400, 2)
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    np.testing.assert_allclose(X.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(X.std(0), 1, atol=1e-5)
    assert set(y) == {0, 1}
    assert 0.4 < y.mean() < 0.6
    assert 0.4 < y[:200].mean() < 0.6  # in no order: a slice is a fair sample


@ALL
def test_no_line_solves_it_but_neighbors_do(name: str) -> None:
    X, y = plane(name, 600, noise=0.05)
    line = LogisticRegression().fit(X[:400], y[:400]).score(X[400:], y[400:])
    near = KNeighborsClassifier(3).fit(X[:400], y[:400]).score(X[400:], y[400:])
    assert line < 0.92
    assert near > 0.95


@pytest.mark.parametrize(
    ("name", "make"),
    [("circles", lambda **o: make_circles(factor=0.5, **o)), ("moons", make_moons)],
)
def test_circles_and_moons_are_scikit_learns(name: str, make: Any) -> None:
    X, y = plane(name, 50, noise=0.2, seed=3)
    want, label = make(n_samples=50, noise=0.2, random_state=3)
    want = (want - want.mean(0)) / want.std(0)
    order, other = np.lexsort(X.T), np.lexsort(want.astype(np.float32).T)
    np.testing.assert_allclose(X[order], want[other], atol=1e-6)
    assert (y[order] == label[other]).all()


def test_xor_is_the_sign_of_the_product() -> None:
    X, y = plane("xor", 200, noise=0.0)
    # scaling moves the middle a little; away from it the quarters decide
    away = np.abs(X).min(1) > 0.3
    assert away.sum() > 100
    assert (y[away] == (X[away, 0] * X[away, 1] < 0)).all()


def test_the_arms_of_the_spiral_are_each_other_turned_by_half() -> None:
    X, y = plane("spirals", 4000, noise=0.0)
    near = KNeighborsClassifier(1).fit(X[y == 0], np.zeros((y == 0).sum()))
    distance, _ = near.kneighbors(-X[y == 1])
    assert distance.max() < 0.1


@ALL
def test_the_seed_decides(name: str) -> None:
    assert (plane(name, seed=1).X == plane(name, seed=1).X).all()
    assert not (plane(name, seed=1).X == plane(name, seed=2).X).all()
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    plane(name)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"name": "gauss"}, ValueError, "circles, moons, xor, spirals; got 'gauss'"),
        ({"n": 3}, ValueError, "at least 4; got 3"),
        ({"n": 10.0}, TypeError, "n must be an integer, got float"),
        ({"n": True}, TypeError, "n must be an integer, got bool"),
        ({"name": ["moons"]}, ValueError, "got .'moons'"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"noise": "0.1"}, TypeError, "noise must be a number, got str"),
        ({"noise": -0.1}, ValueError, "noise must be .* got -0.1"),
        ({"noise": float("nan")}, ValueError, "noise"),
    ],
)
def test_bad_arguments_are_named(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plane(**{"name": "moons"} | given)


def test_integers_of_any_kind() -> None:
    want = plane("moons", 8, seed=2).X
    for n, seed in ((np.int64(8), np.uint8(2)), (np.array(8), torch.tensor(2))):
        assert (want == plane("moons", n, seed=seed).X).all()  # type: ignore[arg-type]


def test_the_function_is_not_hidden_by_its_module() -> None:
    assert data.plane is plane
