"""Checks of `activations`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.core import capture
from xailab.course.registry import exercises_of
from xailab.foundations.activations import neuron_importance

LESSON = "activations"


def by_steps(combine, score=lambda logits, target: logits[:, target].sum(), detach=True):
    """Activation x gradient with one step replaced."""

    def answer(model, x, target, layer):
        with capture(model, layer) as kept:
            logits = model(x.clone().requires_grad_())
        maps = kept[layer]
        (slopes,) = torch.autograd.grad(score(logits, target), maps)
        found = combine(maps, slopes)
        return found.detach() if detach else found

    return answer


def right(maps, slopes):
    return (maps * slopes).sum((2, 3))


def test_importance_takes_the_model_answer_and_other_ways():
    assert_accepted("activations.importance", solution_of(LESSON, "unit_importance"))
    assert_accepted("activations.importance", by_steps(right))
    assert_accepted(
        "activations.importance",
        lambda model, x, t, layer: neuron_importance(
            model, x, t, layer=layer, method="activation_x_gradient"
        ).sum((2, 3)),
    )


def leaves_gradients(model, x, target, layer):
    with capture(model, layer) as kept:
        logits = model(x.clone().requires_grad_())
    kept[layer].retain_grad()
    logits[:, target].sum().backward()
    return right(kept[layer], kept[layer].grad).detach()


def changes_x(model, x, target, layer):
    found = by_steps(right)(model, x, target, layer)
    x.zero_()
    return found


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_steps(lambda a, g: g.sum((2, 3))), "the gradient alone"),
        (by_steps(lambda a, g: a.sum((2, 3))), "the activation alone"),
        (by_steps(lambda a, g: a.sum((2, 3)) * g.mean((2, 3))), "the means are multiplied"),
        (by_steps(lambda a, g: right(a, g) / 4), "sum over the places"),
        (by_steps(lambda a, g: (a * g).abs().sum((2, 3))), "signs are lost"),
        (by_steps(lambda a, g: right(a, g).relu()), "no ReLU here"),
        (by_steps(lambda a, g: right(a, g).abs()), "sign"),
        (by_steps(right, lambda logits, t: logits.softmax(1)[:, t].sum()), "take the logit"),
        (by_steps(right, lambda logits, t: logits.sum()), "sum of all logits"),
        (by_steps(right, lambda logits, t: logits.amax(1).sum()), "the largest logit"),
        (by_steps(right, lambda logits, t: logits[0, t]), "only the first row"),
        (by_steps(right, lambda logits, t: logits[:, t].mean()), "averaged over the rows"),
        (by_steps(lambda a, g: a * g), r"shape \(2, 2\)"),
        (by_steps(right, detach=False), "graph"),
        (leaves_gradients, "left a gradient"),
        (changes_x, "changed x"),
        (lambda *_: None, "None"),
    ],
)
def test_importance_names_the_mistake(wrong, match):
    assert_rejected("activations.importance", wrong, match)


def test_no_two_mistakes_look_alike():
    """A slip that computes the right numbers, or another slip's, would be named wrongly."""
    module = __import__("xailab.course.exercises.activations", fromlist=["_slips"])
    net, x = module.uneven_network(), module._two_pictures()
    slopes = net[3].weight[1].detach().reshape(1, 2, 2, 2) * (x > 0)
    found = [right(x, slopes), *module._slips(net, x, slopes).values()]
    for i, a in enumerate(found):
        assert not any(torch.allclose(a, b) for b in found[:i])


def test_mine_takes_the_model_answer_and_other_ways():
    assert_accepted("activations.mine", solution_of(LESSON, "strongest"))
    assert_accepted(
        "activations.mine", lambda m, u, k: m[:, u].flatten(1).max(1).values.topk(k).indices
    )
    assert_accepted(
        "activations.mine", lambda m, u, k: np.argsort(-m.numpy()[:, u].max((1, 2)))[:k].tolist()
    )


def peaks(maps, unit):
    return maps[:, unit].amax((1, 2))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda m, u, k: m[:, u].mean((1, 2)).topk(k).indices, "largest mean"),
        (lambda m, u, k: m[:, u].abs().amax((1, 2)).topk(k).indices, "absolute"),
        (lambda m, u, k: peaks(m, u).argsort()[:k], "weakest inputs came"),
        (lambda m, u, k: peaks(m, u).argsort()[-k:], "weakest of them first"),
        (lambda m, u, k: peaks(m, u).topk(k).values, "these are the activations"),
        (lambda m, u, k: m[:, u].flatten().topk(k).indices // 4, "came twice"),
        (lambda m, u, k: m.amax((1, 2, 3)).topk(k).indices, "every unit"),
        (lambda m, u, k: peaks(m, 0).topk(k).indices, "this is unit 0"),
        (lambda m, u, k: peaks(m, u).argsort(descending=True), r"shape \(3,\)"),
        (lambda m, u, k: peaks(m.mul_(2), u).topk(k).indices, "changed `maps`"),
        (lambda m, u, k: None, "None"),
    ],
)
def test_mine_names_the_mistake(wrong, match):
    assert_rejected("activations.mine", wrong, match)


def test_a_guess_is_a_correlation():
    assert_accepted("activations.loudness", -0.3)
    assert_rejected("activations.loudness", 50, "write 50% as 0.5")
    assert_rejected("activations.loudness", "0.5", "without quotes")
    assert_rejected("activations.loudness", -200, "from -1 to 1")


def test_every_exercise_with_several_steps_has_hints():
    hints = {e.id: len(e.hints) for e in exercises_of("activations") if e.kind != "predict"}
    names = ["importance", "mine", "caption"]
    assert hints == dict.fromkeys([f"activations.{name}" for name in names], 3)
