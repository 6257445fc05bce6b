"""Black boxes: the networks that they use are held still and laid out, their answers looked at."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Boom, Snapshot, tripped
from tests.toys import inputs, toy
from xailab.core.black_boxes import ask_in_chunks, chosen_of, numbers_of

ROWS = inputs(20)


def box(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.as_tensor(rows)).numpy()

    return predict


def test_a_network_in_training_mode_answers_as_in_evaluation_and_is_left_alone() -> None:
    """With dropout on, and batch norm taking the chunk's own mean, no chunk would agree."""
    model, rows = toy().train(), ROWS.numpy()
    before, ask = Snapshot(model, ROWS), box(model)
    for chunk in (7, 20, None):
        got = ask_in_chunks(ask, ask, rows, batch_size=chunk)
        before.check()
        with torch.no_grad():
            want = toy().eval()(ROWS).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_and_after_an_error(error: type[BaseException]) -> None:
    model = tripped(toy().train(), error, 0)
    before, ask = Snapshot(model, ROWS), box(model)
    with pytest.raises(error):
        ask_in_chunks(ask, ask, ROWS.numpy(), batch_size=5)
    before.check()


def test_convolutions_of_a_plain_function_run_channels_last() -> None:
    """The fast layout for many rows; a few do not pay for the copies."""
    layouts: list[bool] = []

    class Looks(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            layouts.append(maps.is_contiguous(memory_format=torch.channels_last))
            return maps.mean((2, 3))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Looks())
    ask = box(model)
    for n, want in ((20, True), (4, False)):
        layouts.clear()
        ask_in_chunks(ask, ask, ROWS[:n].numpy(), batch_size=n)
        assert layouts
        assert set(layouts) == {want}


def test_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="predict must be a function, got int"):
        ask_in_chunks(3, lambda rows: rows, np.ones((2, 1)), batch_size=1)  # type: ignore[arg-type]


ANSWERS = [
    [[1, 0], [0, 1]],
    np.eye(2, dtype=np.float16),
    np.eye(2) > 0,
    torch.eye(2, dtype=torch.bfloat16),
    torch.eye(2).requires_grad_(),
    pd.DataFrame(np.eye(2)),
]


@pytest.mark.parametrize("answers", ANSWERS)
def test_numbers_of_any_kind(answers: Any) -> None:
    got = numbers_of(answers, 2)
    assert (got.dtype, got.tolist()) == (np.float64, [[1, 0], [0, 1]])
    assert chosen_of(answers, 2, 1).tolist() == [0, 1]


def test_a_single_output_has_no_target() -> None:
    for answers in ([3, 4], [[3], [4]]):
        assert chosen_of(answers, 2, None).tolist() == [3, 4]
    assert chosen_of([[3], [4]], 2, 0).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ([1.0], ValueError, r"\(2,\) or \(2, K\), got \(1,\)"),
        (3.0, ValueError, r"got \(\)"),
        (None, ValueError, r"got \(\)"),
        (np.zeros((2, 0)), ValueError, r"got \(2, 0\)"),
        (np.zeros((2, 1, 1)), ValueError, r"got \(2, 1, 1\)"),
        ([[1.0], [1.0, 2.0]], ValueError, "rows that differ"),
        (["yes", "no"], TypeError, "numbers, got <U3: .*yes"),
        ([1j, 2j], TypeError, "complex128"),
        ([np.nan, 1], ValueError, "NaN or infinite"),
        ([np.inf, 1], ValueError, "NaN or infinite"),
    ],
)
def test_what_are_no_numbers(answers: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        numbers_of(answers, 2)
    with pytest.raises(error, match=words):
        chosen_of(answers, 2, None)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (None, ValueError, r"target must lie in 0\.\.1, got None"),
        (2, ValueError, r"0\.\.1, got 2"),
        (-1, ValueError, r"0\.\.1, got -1"),
        (1.0, TypeError, "target must be an integer"),
    ],
)
def test_what_is_no_target(target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        chosen_of(np.eye(2), 2, target)
    with pytest.raises(ValueError, match="single output"):
        chosen_of([1.0, 2.0], 2, 0)
