"""Checks of `attention`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution.attention import attention_rollout
from xailab.course.registry import exercises_of

LESSON = "attention"
HIDE = -torch.inf


def test_scaled_takes_the_model_answer_and_others():
    assert_accepted("attention.scaled", solution_of(LESSON, "scaled_attention"))

    def by_torch(q, k, v, mask):
        hidden = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, HIDE)[:, None]
        mix = F.scaled_dot_product_attention(q, k, v, hidden)
        eye = torch.eye(q.shape[1], dtype=q.dtype).expand(len(q), -1, -1)
        return mix, F.scaled_dot_product_attention(q, k, eye, hidden)

    def one_by_one(q, k, v, mask):
        weights = torch.zeros(len(q), q.shape[1], q.shape[1], dtype=q.dtype)
        for n in range(len(q)):
            for i in range(q.shape[1]):
                e = torch.stack([(q[n, i] @ key / 2).exp() for key in k[n]]) * mask[n]
                weights[n, i] = e / e.sum()
        return weights @ v, weights

    assert_accepted("attention.scaled", by_torch)
    assert_accepted("attention.scaled", one_by_one)


def scaled(root=2.0, dim=2, hide=HIDE, mix=lambda weights, q, k, v: weights @ v, swap=False, nan=0):
    """The answer with one step replaced."""

    def answer(q, k, v, mask):
        a, b = (k, q) if swap else (q, k)
        scores = a @ b.mT / root
        weights = scores.masked_fill(~mask[:, None, :], hide).softmax(dim).nan_to_num(nan)
        return mix(weights, q, k, v), weights

    return answer


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (scaled(root=1.0), "nothing is divided"),
        (scaled(root=4.0), "divide by its root"),
        (scaled(root=2**0.5), "divided by the root of 2"),
        (scaled(dim=1), "softmax runs over dim 1"),
        (scaled(dim=1, nan=torch.nan), "softmax runs over dim 1"),
        (scaled(dim=1, hide=-1e9), "softmax runs over dim 1"),
        (scaled(hide=0.0), "score 0, which is a score"),
        (scaled(swap=True), "changed places"),
        (scaled(mix=lambda weights, q, k, v: weights @ k), "keys mixed"),
        (scaled(mix=lambda weights, q, k, v: weights.mT @ v), "transposed in the mix"),
        (scaled(mix=lambda weights, q, k, v: weights @ v + v), "residual step comes later"),
        (lambda q, k, v, mask: scaled()(q, k, v, torch.ones_like(mask)), "padding gets attention"),
        (lambda q, k, v, mask: scaled()(q, k, v, ~mask), "hides the wrong side"),
        (lambda q, k, v, mask: scaled()(q, k, v, mask)[0], "return two things"),
        (lambda q, k, v, mask: scaled()(q, k, v, mask)[::-1], "other order"),
        (lambda q, k, v, mask: scaled()(q.mul_(1), k, v.mul_(2), mask), "the mix"),
        (lambda q, k, v, mask: None, "return two things"),
    ],
)
def test_scaled_names_the_mistake(wrong, match):
    assert_rejected("attention.scaled", wrong, match)


def test_weights_set_to_zero_after_the_softmax_are_named():
    def late(q, k, v, mask):
        weights = (q @ k.mT / 2).softmax(2) * mask[:, None, :]
        return weights @ v, weights

    assert_rejected("attention.scaled", late, "no longer sum to 1")


@pytest.mark.parametrize("hide", [HIDE, -1e9])
def test_a_mask_on_the_wrong_side_is_named_however_it_hides(hide):
    def masked_by(hidden):
        def answer(q, k, v, mask):
            weights = (q @ k.mT / 2).masked_fill(hidden(mask), hide).softmax(2)
            return weights @ v, weights

        return answer

    assert_rejected("attention.scaled", masked_by(lambda m: ~m[:, :, None]), "hides rows")
    assert_rejected("attention.scaled", masked_by(lambda m: m[:, None, :]), "hides the wrong side")


def test_nan_that_no_mistake_explains_is_named():
    right = solution_of(LESSON, "scaled_attention")

    def broken(*given):
        mix, weights = right(*given)
        return mix, weights.clone().index_fill_(1, torch.tensor(0), torch.nan)

    assert_rejected("attention.scaled", broken, "holds nan or inf")


def test_changing_what_was_given_is_named():
    right = solution_of(LESSON, "scaled_attention")

    def greedy(q, k, v, mask):
        mix, weights = right(q, k, v, mask)
        v.zero_()
        return mix, weights

    assert_rejected("attention.scaled", greedy, "changed what it was given")


def test_rollout_takes_the_model_answer_and_the_packages():
    assert_accepted("attention.rollout", solution_of(LESSON, "my_rollout"))
    assert_accepted(
        "attention.rollout", lambda maps: attention_rollout([each[None] for each in maps])[0]
    )


def rolled(step, right=False):
    def answer(maps):
        out = torch.eye(3)
        for weights in maps:
            out = out @ step(weights) if right else step(weights) @ out
        return out

    return answer


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (rolled(lambda a: a), "identity is missing"),
        (rolled(lambda a: a / 2 + torch.eye(3) / 2, right=True), "wrong order"),
        (rolled(lambda a: a + torch.eye(3)), "do not sum to 1"),
        (lambda maps: maps[-1] / 2 + torch.eye(3) / 2, "last layer alone"),
        (lambda maps: sum(maps) / len(maps), "mean of the layers"),
        (lambda maps: attention_rollout([each[None] for each in maps[:-1]])[0], "last layer is m"),
        (lambda maps: sum(maps) / len(maps) / 2 + torch.eye(3) / 2, "mean of the layers"),
        (lambda maps: None, "None"),
    ],
)
def test_rollout_names_the_mistake(wrong, match):
    assert_rejected("attention.rollout", wrong, match)


@pytest.mark.parametrize(
    "right", [[0, 0, 0, 1, 0], [0, 0, 0.5, 0, 0.5], np.array([0, 0, 1, 2, 1]) / 4]
)
def test_twin_takes_every_other_pattern(right):
    assert_accepted("attention.twin", right)


def test_twin_takes_the_model_answer():
    assert_accepted("attention.twin", solution_of(LESSON, "twin"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([0.5, 0.5, 0, 0, 0], "first two words must get nothing"),
        ([0, 0, 1, 0, 0], "hand over 2; the pattern above hands over 3"),
        ([0, 0, 1.5, 0, 0], "sum to 1; these sum to 1.5"),
        ([0, 0, -1, 3, -1], "0 or positive"),
        ([0, 0, 1], "five weights"),
    ],
)
def test_twin_names_the_mistake(wrong, match):
    assert_rejected("attention.twin", wrong, match)


def test_what_twin_promises_is_true():
    values = torch.tensor([1.0, 5, 2, 3, 4])
    assert torch.tensor([0.5, 0.5, 0, 0, 0]) @ values == values[3]


@pytest.mark.parametrize("name", ["attention.cls", "attention.moved"])
def test_guesses_are_shares(name):
    assert_accepted(name, 0.4)
    assert_rejected(name, 40, "0")
    assert_rejected(name, "half", "number")


def test_exercises_that_need_work_have_three_hints():
    hints = {each.id: len(each.hints) for each in exercises_of("attention") if each.minutes > 2}
    names = ["attention.scaled", "attention.rollout", "attention.twin", "attention.report"]
    assert hints == dict.fromkeys(names, 3)
