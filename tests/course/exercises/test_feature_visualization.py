"""Checks of `feature_visualization`: right answers pass, also unlike ours; wrong ones are named."""

import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.exercises import feature_visualization as exercises
from xailab.course.registry import exercises_of
from xailab.foundations.feature_visualization import total_variation

LESSON = "feature_visualization"


@pytest.mark.parametrize(
    ("id", "good", "bad", "match"),
    [
        ("feature_visualization.above", 100, 5001, "5000"),
        ("feature_visualization.above", 0, -1, "0"),
        ("feature_visualization.shift", 0.2, 20, r"write 20% as 0\.2"),
        ("feature_visualization.shift", 1, "half", "number"),
    ],
)
def test_guesses_have_the_right_form(id, good, bad, match):
    assert_accepted(id, good)
    assert_rejected(id, bad, match)


def test_ascend_takes_the_model_answer_and_another_way():
    assert_accepted("feature_visualization.ascend", solution_of(LESSON, "ascend"))

    def one_by_one(model, x, target, rate):
        moved = []
        for row in x:
            leaf = row[None].clone().requires_grad_()
            slope = torch.autograd.grad(model(leaf)[0, target], leaf)[0]
            step = rate * slope / (slope**2).sum().sqrt()
            moved.append(torch.minimum(torch.maximum(row[None] + step, row * 0), row * 0 + 1))
        return torch.cat(moved)

    assert_accepted("feature_visualization.ascend", one_by_one)


def slope_of(model, x, score):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(score(model(leaf)).sum(), leaf)[0]


def by_steps(
    score=lambda logits, t: logits[:, t],
    scale=lambda slope: slope / slope.flatten(1).norm(dim=1)[:, None, None, None],
    finish=lambda moved: moved.clamp(0, 1),
    sign=1.0,
):
    """The step with one part replaced."""

    def answer(model, x, target, rate):
        slope = slope_of(model, x, lambda logits: score(logits, target))
        return finish(x + sign * rate * torch.nan_to_num(scale(slope)))

    return answer


def leaves_gradients(model, x, target, rate):
    model(x.clone())[:, target].sum().backward()
    return solution_of(LESSON, "ascend")(model, x, target, rate)


def changes_x(model, x, target, rate):
    x.copy_(solution_of(LESSON, "ascend")(model, x, target, rate))
    return x


def attached(model, x, target, rate):
    leaf = x.clone().requires_grad_()
    slope = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]
    return (leaf + rate * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_steps(sign=-1.0), "downhill"),
        (by_steps(finish=lambda moved: moved), "clamp"),
        (by_steps(scale=lambda slope: slope), "not divided by its length"),
        (by_steps(scale=lambda slope: slope / slope.norm()), "its own slope"),
        (by_steps(scale=torch.sign), "sign of the slope"),
        (by_steps(score=lambda logits, t: logits.softmax(1)[:, t]), "probability"),
        (by_steps(score=lambda logits, t: logits[0, t]), "only the first row"),
        (by_steps(sign=2.0), "multiply by `rate`"),
        (leaves_gradients, "left a gradient"),
        (changes_x, "changed x"),
        (attached, "carries its graph"),
        (lambda *_: None, "None"),
    ],
)
def test_ascend_names_the_mistake(wrong, match):
    assert_rejected("feature_visualization.ascend", wrong, match)


def test_no_two_mistakes_of_ascend_look_alike():
    """A slip that computes the right step, or another slip's step, would be named wrongly."""
    net, x = exercises._curved_network(), exercises._two_pictures()
    slope = slope_of(net, x, lambda z: z[:, 1])
    of_chance = slope_of(net, x, lambda z: z.softmax(1)[:, 1])
    found = [exercises._step(x, slope, 0.5), *exercises._slips(x, slope, of_chance).values()]
    for i, a in enumerate(found):
        assert not any(torch.allclose(a, b) for b in found[:i])


def test_roughness_takes_the_model_answer_and_other_ways():
    assert_accepted("feature_visualization.roughness", solution_of(LESSON, "roughness"))
    assert_accepted("feature_visualization.roughness", total_variation)


def pairs(x):
    return x.diff(dim=2), x.diff(dim=3)


INSIDE = (1, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda x: sum((d**2).mean(INSIDE) for d in pairs(x)), "squared"),
        (lambda x: sum(d.mean(INSIDE) for d in pairs(x)), "cancel"),
        (lambda x: sum(d.abs().sum(INSIDE) for d in pairs(x)), "sum over the pixels"),
        (lambda x: pairs(x)[0].abs().mean(INSIDE), "only vertical"),
        (lambda x: pairs(x)[1].abs().mean(INSIDE), "only horizontal"),
        (lambda x: sum(d.abs().mean(INSIDE) for d in pairs(x)) / 2, "averaged; add"),
        (lambda x: sum(d.abs().mean() for d in pairs(x)), "price of its own"),
        (lambda x: sum(d.abs().mean((2, 3)) for d in pairs(x))[:, 0], "three channels"),
        (lambda x: None, "None"),
    ],
)
def test_roughness_names_the_mistake(wrong, match):
    assert_rejected("feature_visualization.roughness", wrong, match)


def test_every_exercise_has_hints():
    hints = {e.id: len(e.hints) for e in exercises_of("feature_visualization")}
    assert len(hints) == 5
    assert all(number >= 1 for number in hints.values())
