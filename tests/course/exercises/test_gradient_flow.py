"""Checks of `gradient_flow`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of, questions_of
from xailab.foundations.gradient_flow import clip_by_norm

LESSON = "gradient_flow"

# ---------------------------------------------------------------- the chain


def by_autograd(weights, x):
    h = start = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    for w in weights:
        h = torch.tanh(w * h)
    return torch.autograd.grad(h, start)[0]


def test_chain_accepts_the_model_answer_and_another_way():
    assert_accepted("gradient_flow.chain", solution_of(LESSON, "chain_slope"))
    assert_accepted("gradient_flow.chain", by_autograd)


def chain(
    *, factor=lambda w, before, z, h: w * (1 - h**2), join=np.prod, order=1, pick=slice(None)
):
    """The answer with one thing wrong."""

    def slope(weights, x):
        factors, h = [], x
        for w in weights[::order]:
            before, z = h, w * h
            h = np.tanh(z)
            factors.append(factor(w, before, z, h))
        return join(factors[pick]) if factors else 1.0

    return slope


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (chain(factor=lambda w, b, z, h: 1 - h**2), "the weights are missing"),
        (chain(factor=lambda w, b, z, h: w), "only the weights are multiplied"),
        (chain(join=np.sum), "these were added"),
        (chain(factor=lambda w, b, z, h: w * (1 - b**2)), "the h that comes in"),
        (chain(factor=lambda w, b, z, h: w * (1 - z**2)), "put tanh"),
        (chain(factor=lambda w, b, z, h: w * h * (1 - h)), "slope of a sigmoid"),
        (chain(pick=slice(-1, None)), "the last layer alone"),
        (chain(order=-1), "from the last to the first"),
        (chain(factor=lambda w, b, z, h: h, join=lambda f: f[-1]), "the value at the end"),
        (chain(pick=slice(0, 1)), "the first layer alone"),
        (chain(factor=lambda w, b, z, h: w * (1 - h)), "1 - h was taken"),
        (chain(factor=lambda w, b, z, h: w * (1 - np.tanh(b) ** 2)), "the weight belongs inside"),
        (lambda weights, x: np.prod([w * (1 - np.tanh(w * x) ** 2) for w in weights]), "given x"),
        (lambda weights, x: -by_autograd(weights, x), "wrong sign"),
        (lambda weights, x: None, "None"),
    ],
)
def test_chain_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.chain", wrong, match)


# ---------------------------------------------------------------- clipping


def test_clip_accepts_the_model_answer_and_two_other_ways():
    assert_accepted("gradient_flow.clip", solution_of(LESSON, "clip"))
    assert_accepted("gradient_flow.clip", clip_by_norm)

    def by_torch(grads, max_norm):
        parameters = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return tuple(parameter.grad for parameter in parameters)

    assert_accepted("gradient_flow.clip", by_torch)


def clipped_by(norm, limited=True):
    """The answer with another norm."""

    def clip(grads, max_norm):
        factor = max_norm / (norm(torch.cat([grad.flatten() for grad in grads])) + 1e-9)
        return [grad * (min(1.0, float(factor)) if limited else factor) for grad in grads]

    return clip


def in_place(grads, max_norm):
    for grad, new in zip(grads, clip_by_norm(grads, max_norm), strict=True):
        grad.copy_(new)
    return grads


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda grads, c: [clip_by_norm([g], c)[0] for g in grads], "clipped by itself"),
        (lambda grads, c: [g.clamp(-c, c) for g in grads], "cut off one by one"),
        (lambda grads, c: [g * c / sum(h.norm() for h in grads) for g in grads], "norms .* added"),
        (clipped_by(lambda flat: flat.square().sum()), "the root is missing"),
        (clipped_by(lambda flat: flat.abs().sum()), "absolute values were added"),
        (clipped_by(lambda flat: flat.abs().max()), "largest entry"),
        (clipped_by(lambda flat: flat.square().mean().sqrt(), limited=False), "mean of the squ"),
        (clipped_by(torch.norm, limited=False), "made longer"),
        (lambda grads, c: [g / 13 for g in grads], "the limit is missing"),
        (lambda grads, c: [g.clone() for g in grads], "nothing was shortened"),
        (in_place, "changes the tensors"),
        (lambda grads, c: None, "nothing came back"),
        (lambda grads, c: clip_by_norm(grads, c)[:2], "list of 3 tensors.* got 2"),
        (lambda grads, c: clip_by_norm(grads, c)[0], "got Tensor"),
    ],
)
def test_clip_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.clip", wrong, match)


def test_a_gradient_of_zeros_is_asked_for():
    def divides_by_zero(grads, max_norm):
        norm = torch.cat([grad.flatten() for grad in grads]).norm()
        return [grad * torch.clamp(max_norm / norm, max=1.0) / norm * norm for grad in grads]

    assert_rejected("gradient_flow.clip", divides_by_zero, "zeros.* nan")


# ---------------------------------------------------------------- guesses, report, quiz


def test_guesses_have_the_right_form():
    assert_accepted("gradient_flow.powers", solution_of(LESSON, "powers_of_ten"))
    assert_accepted("gradient_flow.drop_one", solution_of(LESSON, "shares_right"))
    assert_accepted("gradient_flow.drop_one", (0.5, 0.5))


@pytest.mark.parametrize(
    ("id", "wrong", "match"),
    [
        ("gradient_flow.powers", 1e-18, "give the exponent"),
        ("gradient_flow.powers", "many", "should be"),
        ("gradient_flow.powers", -18, "should be"),
        ("gradient_flow.drop_one", 0.9, "give two shares"),
        ("gradient_flow.drop_one", [90, 10], "write 90% as 0.9"),
        ("gradient_flow.drop_one", [0.9, "low"], "should be"),
    ],
)
def test_guesses_of_another_form_are_refused(id, wrong, match):
    assert_rejected(id, wrong, match)


def test_the_lesson_has_every_kind_of_exercise():
    assert {entry.kind for entry in exercises_of("gradient_flow")} == {
        "code",
        "predict",
        "criticize",
    }
    assert [q.id for q in questions_of("gradient_flow")] == [
        "gradient_flow.q_relu",
        "gradient_flow.q_norm",
    ]
