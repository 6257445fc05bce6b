"""What the methods that ask a black box promise, tested on every one of them.

A black box is a function `predict`: rows, pictures or texts in, numbers out. A new method joins by
its row in PROBES.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.snapshots import Boom
from xailab.attribution import games, lime, shapley

DICE = np.random.default_rng(0)
ROW, BACKGROUND = DICE.normal(size=4), DICE.normal(size=(6, 4))
PICTURE, QUARTERS = DICE.random((6, 6)), np.repeat(np.repeat([[0, 1], [2, 3]], 3, 0), 3, 1)
TEXT = "a good film with a bad end"


class Probe(NamedTuple):
    """One method: `call(predict, target, **options)` on inputs of its own."""

    function: Callable[..., Any]
    call: Callable[..., Any]
    picks_target: bool = True


def lime_tabular(predict: Any, target: Any, **options: Any) -> Any:
    options = {"n_samples": 30, **options}
    return lime.lime_tabular(predict, ROW, target, background=BACKGROUND, **options)


def lime_image(predict: Any, target: Any, **options: Any) -> Any:
    options = {"n_samples": 30, **options}
    return lime.lime_image(predict, PICTURE, target, segments=QUARTERS, **options)


def lime_text(predict: Any, target: Any, **options: Any) -> Any:
    return lime.lime_text(predict, TEXT, target, **{"n_samples": 30, **options}).weights


def permutation_shap(predict: Any, target: Any, **options: Any) -> Any:
    return shapley.permutation_shap(predict, ROW, BACKGROUND, **{"n_permutations": 2, **options})


def kernel_shap(predict: Any, target: Any, **options: Any) -> Any:
    return shapley.kernel_shap(predict, ROW, BACKGROUND, **{"n_samples": 10, **options})


def owen_text(predict: Any, target: Any, **options: Any) -> Any:
    options = {key: one for key, one in options.items() if key != "seed"}  # nothing is drawn
    return games.owen_text(predict, TEXT, target, **options).weights


PROBES = {
    "lime_tabular": Probe(lime.lime_tabular, lime_tabular),
    "lime_image": Probe(lime.lime_image, lime_image),
    "lime_text": Probe(lime.lime_text, lime_text),
    "owen_text": Probe(games.owen_text, owen_text),
    "permutation_shap": Probe(shapley.permutation_shap, permutation_shap, picks_target=False),
    "kernel_shap": Probe(shapley.kernel_shap, kernel_shap, picks_target=False),
}
ALL = [pytest.param(probe, id=name) for name, probe in PROBES.items()]
THAT_PICK = [pytest.param(probe, id=name) for name, probe in PROBES.items() if probe.picks_target]


def one_score(rows: Any) -> np.ndarray:
    """A curved function of what is left of each input, one number a row."""
    if isinstance(rows, list):
        return np.array([("good" in text) - ("bad" in text) * ("film" in text) for text in rows])
    flat = np.asarray(rows).reshape(len(rows), -1)
    return flat[:, 0] * flat[:, -1] + np.sin(flat).sum(1)


def two_scores(rows: Any) -> np.ndarray:
    return np.stack([one_score(rows), -2 * one_score(rows)], axis=1)


@contextmanager
def nothing_changes() -> Iterator[None]:
    """Inputs and all random states are the same at the end, also when an error leaves the block."""

    def state() -> list[Any]:
        arrays = [array.tobytes() for array in (ROW, BACKGROUND, PICTURE, QUARTERS)]
        drawn = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state is tested
        return [arrays, drawn, random.getstate(), torch.get_rng_state().tolist()]

    before = state()
    try:
        yield
    finally:
        assert state() == before


@pytest.mark.parametrize("probe", ALL)
def test_nothing_changes_even_if_the_box_writes_into_its_rows(probe: Probe) -> None:
    def careless(rows: Any) -> np.ndarray:
        answers = one_score(rows)
        if isinstance(rows, np.ndarray):
            rows[:] = -1
        return answers

    with nothing_changes():
        found = probe.call(careless, None)
    np.testing.assert_array_equal(found, probe.call(one_score, None))


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("probe", ALL)
def test_errors_of_the_box_come_through(probe: Probe, error: type[BaseException]) -> None:
    def fails(rows: Any) -> np.ndarray:
        raise error("inside the box")

    with nothing_changes(), pytest.raises(error, match="inside the box"):
        probe.call(fails, None)


@pytest.mark.parametrize("probe", ALL)
def test_seed_decides_and_nothing_else(probe: Probe) -> None:
    first = probe.call(one_score, None, seed=1)
    np.random.seed(5)  # noqa: NPY002 - what a user may do in between
    again = probe.call(one_score, None, seed=1)  # in chunks that a clock decides: last digits
    np.testing.assert_allclose(again, first, rtol=1e-12, atol=1e-14)
    assert np.isfinite(first).all()
    assert np.abs(first).max() > 0.1


@pytest.mark.parametrize("probe", ALL)
def test_batch_size_does_not_change_the_answer(probe: Probe) -> None:
    whole = probe.call(one_score, None, batch_size=1000)
    np.testing.assert_allclose(probe.call(one_score, None, batch_size=3), whole, atol=1e-12)
    with pytest.raises(ValueError, match="batch_size"):
        probe.call(one_score, None, batch_size=0)


@pytest.mark.parametrize("probe", THAT_PICK)
def test_the_target_picks_an_output(probe: Probe) -> None:
    alone = probe.call(one_score, None)
    np.testing.assert_allclose(probe.call(two_scores, 0), alone, atol=1e-12)
    np.testing.assert_allclose(probe.call(two_scores, 1), -2 * alone, atol=1e-12)
    np.testing.assert_allclose(
        probe.call(lambda rows: one_score(rows)[:, None], None), alone, atol=1e-12
    )


@pytest.mark.parametrize("target", [2, -1, None])
@pytest.mark.parametrize("probe", THAT_PICK)
def test_a_target_that_is_not_there(probe: Probe, target: Any) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got"):
        probe.call(two_scores, target)


@pytest.mark.parametrize("probe", [p for p in ALL if p not in THAT_PICK])
def test_several_outputs_come_side_by_side(probe: Probe) -> None:
    alone = probe.call(one_score, None)
    np.testing.assert_allclose(
        probe.call(two_scores, None), np.stack([alone, -2 * alone], axis=-1), atol=1e-12
    )


@pytest.mark.parametrize(
    ("predict", "error", "words"),
    [
        ("a network", TypeError, "predict must be a function, got str"),
        (lambda rows: one_score(rows)[:-1], ValueError, "predict must give"),
        (lambda rows: np.ones((len(rows), 2, 2)), ValueError, "predict must give"),
        (lambda rows: np.full(len(rows), np.nan), ValueError, "NaN or infinite"),
        (lambda rows: np.full(len(rows), np.inf), ValueError, "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("probe", ALL)
def test_a_box_that_answers_badly(
    probe: Probe, predict: Any, error: type[Exception], words: str
) -> None:
    with nothing_changes(), pytest.raises(error, match=words):
        probe.call(predict, None)


@pytest.mark.parametrize("probe", ALL)
def test_docstring_holds_what_a_reader_needs(probe: Probe) -> None:
    words = probe.function.__doc__ or ""
    for part in ("Args:", "Returns:", "Raises:", "Reference", "Elsewhere", ">>>", "$$"):
        assert part in words, f"{probe.function.__name__}: no {part}"
