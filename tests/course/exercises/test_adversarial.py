"""Checks of `adversarial`: right answers pass, also unlike ours; wrong ones are named."""

import pytest
import torch
import torch.nn.functional as F

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of
from xailab.trust import adversarial as package

LESSON = "adversarial"


def slopes(model, x, y, reduction="sum"):
    leaf = x.clone().requires_grad_()
    loss = F.cross_entropy(model(leaf), y, reduction=reduction)
    return torch.autograd.grad(loss, leaf)[0]


def one_by_one(model, x, y, epsilon):
    """Another right way: a row at a time, the loss written out."""
    moved = []
    for row, label in zip(x, y, strict=True):
        leaf = row[None].clone().requires_grad_()
        loss = -model(leaf).log_softmax(1)[0, label]
        (grad,) = torch.autograd.grad(loss, leaf)
        moved.append((row + epsilon * torch.sign(grad[0])).clip(0, 1))
    return torch.stack(moved).detach()


@pytest.mark.parametrize(
    "right",
    [
        solution_of(LESSON, "my_fgsm"),
        one_by_one,
        lambda model, x, y, epsilon: package.fgsm(model, x, y, epsilon=epsilon),
        lambda model, x, y, e: (x + e * slopes(model, x, y, "mean").sign()).clamp(0, 1),
    ],
)
def test_fgsm_takes_right_answers(right):
    assert_accepted("adversarial.fgsm", right)


def by_backward(model, x, y, epsilon):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), y).backward()
    return (x + epsilon * leaf.grad.sign()).clamp(0, 1)


def in_place(model, x, y, epsilon):
    return x.add_(epsilon * slopes(model, x, y).sign()).clamp_(0, 1)


def true_logit(model, x, y, epsilon):
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(leaf).gather(1, y[:, None]).sum(), leaf)
    return (x - epsilon * grad.sign()).clamp(0, 1)


def attached(model, x, y, epsilon):
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    return (leaf + epsilon * grad.sign()).clamp(0, 1)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda m, x, y, e: x + e * slopes(m, x, y).sign(), "clamp is missing"),
        (lambda m, x, y, e: (x - e * slopes(m, x, y).sign()).clamp(0, 1), "downhill"),
        (lambda m, x, y, e: (x + e * slopes(m, x, y)).clamp(0, 1), "along the gradient; FGSM"),
        (lambda m, x, y, e: (x + e * slopes(m, x, y, "mean")).clamp(0, 1), "of the mean loss"),
        (lambda m, x, y, e: (x + slopes(m, x, y).sign()).clamp(0, 1), "epsilon is missing"),
        (lambda m, x, y, e: e * slopes(m, x, y).sign(), "add it to x"),
        (
            lambda m, x, y, e: (x + e * slopes(m, x, y[:1].expand(2)).sign()).clamp(0, 1),
            "each row's own `y`",
        ),
        (by_backward, r"\.backward\(\) left a gradient"),
        (in_place, "changed x"),
        (true_logit, "true class's logit"),
        (attached, "detach"),
        (lambda m, x, y, e: None, "None"),
    ],
)
def test_fgsm_names_the_mistake(wrong, match):
    assert_rejected("adversarial.fgsm", wrong, match)


def lengths(change):
    return change.flatten(1).norm(dim=1).reshape(-1, *[1] * (change.ndim - 1))


def shortened_by(measure):
    """Return an answer that shortens what is too long by this measure."""

    def ball(change, epsilon):
        length = measure(change)
        return torch.where(length > epsilon, change * epsilon / length, change)

    return ball


@pytest.mark.parametrize(
    "right",
    [
        solution_of(LESSON, "into_the_ball"),
        lambda change, epsilon: change.renorm(2, 0, epsilon),
        lambda change, e: change * (e / lengths(change).clamp(min=1e-12)).clamp(max=1),
    ],
)
def test_ball_takes_right_answers(right):
    assert_accepted("adversarial.ball", right)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda change, e: change.clamp(-e, e), "L-inf box"),
        (lambda change, e: change * e / change.norm(), "length of the whole batch"),
        (lambda change, e: change * e / lengths(change).clamp(min=1e-12), "stretched"),
        (lambda change, e: change * e / lengths(change), "stretched"),
        (lambda change, e: change * lengths(change).clamp(max=e) / lengths(change), "nan|NaN"),
        (shortened_by(lambda change: lengths(change) ** 2), "root is missing"),
        (shortened_by(lambda change: lengths(change.abs() ** 0.5) ** 2), "sum of sizes"),
        (shortened_by(lambda change: change.norm(dim=1, keepdim=True)), "axis 1"),
        (shortened_by(lambda change: change.norm(dim=-1, keepdim=True)), "last axis"),
        (lambda change, e: None, "None"),
    ],
)
def test_ball_names_the_mistake(wrong, match):
    assert_rejected("adversarial.ball", wrong, match)


@pytest.mark.parametrize("id", ["adversarial.noise", "adversarial.double"])
def test_guesses_are_shares(id):
    assert_accepted(id, 0.3)
    assert_rejected(id, 30, "0")


def test_every_code_exercise_has_three_hints():
    for entry in exercises_of("adversarial"):
        assert len(entry.hints) == (1 if entry.kind == "predict" else 3), entry.id
