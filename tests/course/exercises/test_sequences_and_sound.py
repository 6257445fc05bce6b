"""Checks of `sequences_and_sound`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of

LESSON = "sequences_and_sound"
STEP = "sequences_and_sound.gru_step"
FRAMES = "sequences_and_sound.frames"
CLAIM = "sequences_and_sound.nightingale"


def by_torch(x, h, W, U, b, c):
    cell = torch.nn.GRUCell(len(x), len(h))
    for name, value in {"weight_ih": W, "weight_hh": U, "bias_ih": b, "bias_hh": c}.items():
        getattr(cell, name).data = value
    return cell(x[None], h[None])[0].detach()


def step(mix=lambda z, n, h: (1 - z) * n + z * h, candidate=None, order=(0, 1)):
    """One step with one part replaced."""

    def answer(x, h, W, U, b, c):
        word, state = (W @ x + b).chunk(3), (U @ h + c).chunk(3)
        r, z = (torch.sigmoid(word[i] + state[i]) for i in order)
        n = torch.tanh(word[2] + r * state[2])
        if candidate is not None:
            n = candidate(word[2], state[2], r, h, U.chunk(3)[2], c.chunk(3)[2])
        return mix(z, n, h)

    return answer


def test_gru_step_takes_the_model_answer_and_torchs_own():
    assert_accepted(STEP, solution_of(LESSON, "gru_step"))
    assert_accepted(STEP, by_torch)
    assert_accepted(STEP, step())


def changes_the_state(x, h, W, U, b, c):
    new = step()(x, h, W, U, b, c)
    h.copy_(new)
    return new


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (step(mix=lambda z, n, h: z * n + (1 - z) * h), "z keeps the old state"),
        (step(order=(1, 0)), "order is r, z, n"),
        (step(candidate=lambda w, s, r, h, U, c: torch.tanh(w + s)), "reset gate r is missing"),
        (
            step(candidate=lambda w, s, r, h, U, c: torch.tanh(w + r * (s - c) + c)),
            "multiply the bias",
        ),
        (
            step(candidate=lambda w, s, r, h, U, c: torch.tanh(w + U @ (r * h) + c)),
            "r multiplies h before U",
        ),
        (step(candidate=lambda w, s, r, h, U, c: w + r * s), "no tanh"),
        (step(candidate=lambda w, s, r, h, U, c: torch.sigmoid(w + r * s)), "needs tanh"),
        (step(candidate=lambda w, s, r, h, U, c: torch.tanh(r * (w + s))), "the word's part, too"),
        (lambda x, h, W, U, b, c: by_torch(x, h, W, U, 0 * b, 0 * c), "b and c are missing"),
        (lambda x, h, W, U, b, c: by_torch(x, h, W, U, 0 * b, c), "bias b of the word"),
        (lambda x, h, W, U, b, c: by_torch(x, h, W, U, b, 0 * c), "bias c of the state"),
        (step(mix=lambda z, n, h: n), "mix it with the old state"),
        (changes_the_state, "changed what it was given"),
        (lambda *_: None, "None"),
        (lambda x, h, W, U, b, c: by_torch(x, h, W, U, b, c)[None], "axis of length 1"),
    ],
)
def test_gru_step_names_the_mistake(wrong, match):
    assert_rejected(STEP, wrong, match)


def test_frames_take_the_model_answer_and_another_way():
    assert_accepted(FRAMES, solution_of(LESSON, "frames_of"))
    assert_accepted(
        FRAMES,
        lambda wave, size, hop: np.lib.stride_tricks.sliding_window_view(wave, size)[::hop],
    )


def cut(wave, size, hop, count):
    return np.stack([wave[t * hop : t * hop + size] for t in range(count)])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda w, s, h: cut(w, s, h, (len(w) - s) // h), "last whole frame is missing"),
        (lambda w, s, h: cut(w, s, h, 3).T, "one frame a row"),
        (lambda w, s, h: cut(w, s, s, len(w) // s), "begin every `hop`"),
        (
            lambda w, s, h: cut(np.pad(w, (0, s)), s, h, -(-len(w) // h)),
            "not whole",
        ),
        (lambda w, s, h: [list(w[i : i + s]) for i in range(0, len(w), h)], "not whole"),
        (lambda w, s, h: cut(w, s, 1, len(w) - s + 1), "at every sample"),
        (lambda w, s, h: cut(w, s, h, 3) + 1, "not what is expected|expected"),
        (lambda w, s, h: None, "None"),
    ],
)
def test_frames_name_the_mistake(wrong, match):
    assert_rejected(FRAMES, wrong, match)


def test_guesses_are_numbers_of_their_kind():
    assert_accepted("sequences_and_sound.fading", 30)
    assert_rejected("sequences_and_sound.fading", 0.5, "from 1")
    assert_rejected("sequences_and_sound.fading", "many", "should be numbers|a number")
    assert_accepted("sequences_and_sound.grad_cam", 0.8)
    assert_rejected("sequences_and_sound.grad_cam", 80, "write 80% as 0.8")


def test_every_exercise_with_a_number_of_steps_has_hints():
    found = {e.id: len(e.hints) for e in exercises_of("sequences_and_sound") if e.kind != "predict"}
    assert found == dict.fromkeys([STEP, FRAMES, CLAIM], 3)
