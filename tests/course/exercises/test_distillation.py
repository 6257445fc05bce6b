"""Checks of `distillation`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import sem, ttest_rel
from scipy.stats import t as student_t

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of
from xailab.simplify.distill import distillation_loss

LESSON = "distillation"


def test_soft_loss_takes_the_model_answer_and_other_ways():
    assert_accepted("distillation.soft_loss", solution_of(LESSON, "soft_loss"))

    def by_torch(student, teacher, temperature):
        soft = F.softmax(teacher / temperature, 1)
        pair = F.log_softmax(student / temperature, 1), soft
        return temperature**2 * F.kl_div(*pair, reduction="batchmean")

    def by_the_package(student, teacher, temperature):
        nobody = torch.zeros(len(student), dtype=torch.long)
        return distillation_loss(student, teacher, nobody, temperature=temperature, alpha=1)

    assert_accepted("distillation.soft_loss", by_torch)
    assert_accepted("distillation.soft_loss", by_the_package)


def planted(*, factor=2, softened=(True, True), dim=1, swapped=False, finish=None, cross=False):
    """The soft loss with one step replaced."""

    def answer(student, teacher, temperature):
        hot, cold = (temperature if soft else 1 for soft in softened)
        log_p, log_q = (teacher / hot).log_softmax(dim), (student / cold).log_softmax(dim)
        if swapped:
            log_p, log_q = log_q, log_p
        each = -log_p.exp() * log_q if cross else log_p.exp() * (log_p - log_q)
        return temperature**factor * (finish(each) if finish else each.sum(1).mean())

    return answer


def overflowing(student, teacher, temperature):
    p, q = ((z / temperature).exp() for z in (teacher, student))
    p, q = (one / one.sum(1, keepdim=True) for one in (p, q))
    return temperature**2 * (p * (p / q).log()).sum(1).mean()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (planted(factor=0), "T squared is missing"),
        (planted(factor=1), "multiplies by T, not"),
        (planted(swapped=True), "changed places"),
        (planted(finish=torch.mean), "over the classes as well"),
        (planted(finish=torch.sum), "sum over the rows"),
        (planted(cross=True), "cross-entropy"),
        (planted(softened=(False, False)), "not divided by the temperature"),
        (planted(softened=(False, True)), "only the student is softened"),
        (planted(softened=(True, False)), "only the teacher is softened"),
        (planted(dim=0), r"over the rows \(dim 0\)"),
        (planted(finish=lambda each: each.sum(1)), "shape"),
        (overflowing, "nan"),
        (lambda s, t, temperature: None, "None"),
    ],
)
def test_soft_loss_names_the_mistake(wrong, match):
    assert_rejected("distillation.soft_loss", wrong, match)


def test_interval_takes_the_model_answer_and_scipys():
    assert_accepted("distillation.interval", solution_of(LESSON, "interval"))
    assert_accepted("distillation.interval", lambda a, b: ttest_rel(a, b).confidence_interval(0.95))
    assert_accepted(
        "distillation.interval",
        lambda a, b: student_t.interval(0.95, len(a) - 1, (a - b).mean(), sem(a - b)),
    )


def spread(half):
    """An interval whose half length is computed in another way."""
    return lambda a, b: ((a - b).mean() - half(a, b), (a - b).mean() + half(a, b))


def t(a, *, p=0.975, lost=1):
    return student_t.ppf(p, len(a) - lost)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (spread(lambda a, b: 1.96 * sem(a - b)), "very many pairs"),
        (spread(lambda a, b: t(a) * (a - b).std() / len(a) ** 0.5), "ddof=1"),
        (spread(lambda a, b: t(a) * (a - b).std(ddof=1)), "root of n"),
        (spread(lambda a, b: t(a) * (a - b).std(ddof=1) / len(a)), "divides by n; the mean"),
        (spread(lambda a, b: t(a, lost=0) * sem(a - b)), "n - 1, not n"),
        (spread(lambda a, b: t(a, p=0.95) * sem(a - b)), r"\.95 quantile"),
        (spread(lambda a, b: t(a) * np.hypot(sem(a), sem(b))), "come in pairs"),
        (lambda a, b: ttest_rel(b, a).confidence_interval(), "b - a"),
        (lambda a, b: ttest_rel(a, b).confidence_interval()[::-1], "changed places"),
        (spread(lambda a, b: 1.96 * (a - b).std() / len(a) ** 0.5), "many pairs, and"),
        (spread(lambda a, b: 4.30 * sem(a - b)), "eight pairs: 4.30 holds"),
        (lambda a, b: (a - b).mean(), "two numbers"),
    ],
)
def test_interval_names_the_mistake(wrong, match):
    assert_rejected("distillation.interval", wrong, match)


@pytest.mark.parametrize(
    ("entry", "good", "bad", "match"),
    [
        ("distillation.points", -0.4, 30, "10"),
        ("distillation.moved", 0.6, 60, "0.6"),
    ],
)
def test_guesses(entry, good, bad, match):
    assert_accepted(entry, good)
    assert_rejected(entry, bad, match)


def test_every_exercise_with_a_number_of_steps_has_hints():
    assert {e.id: len(e.hints) for e in exercises_of("distillation") if e.kind != "predict"} == {
        "distillation.soft_loss": 3,
        "distillation.interval": 3,
        "distillation.credit": 3,
    }
