"""Checks of `cam`: right answers pass, also unlike ours; wrong ones are named."""

import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution import cam as package
from xailab.core import capture
from xailab.course.registry import exercises_of, find_exercise

LESSON = "cam"


def test_class_map_takes_the_model_answer_and_another_way():
    assert_accepted("cam.class_map", solution_of(LESSON, "class_map"))

    def one_by_one(maps, weight, bias, target):
        heat = bias[target].expand(maps.shape[1:]).clone().detach()
        for k, small in enumerate(maps):
            heat += weight[target, k].item() * small
        return heat

    assert_accepted("cam.class_map", one_by_one)


def einsum(weights, maps):
    return torch.einsum("k,khw->hw", weights, maps)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda maps, w, b, t: einsum(w[t], maps), "bias is missing"),
        (lambda maps, w, b, t: einsum(w[t], maps) + b[t] / maps[0].numel(), "shared out"),
        (lambda maps, w, b, t: einsum(w[0], maps) + b[0], "weights of class 0"),
        (lambda maps, w, b, t: einsum(w[:, t], maps) + b[t], "takes a column"),
        (lambda maps, w, b, t: (w[t][:, None, None] * maps).mean(0) + b[t], "average over the ch"),
        (lambda maps, w, b, t: (einsum(w[t], maps) + b[t]).relu(), "cut off"),
        (lambda maps, w, b, t: einsum(w[t], maps).relu() + b[t], "cut off"),
        (lambda maps, w, b, t: w[t][:, None, None] * maps + b[t], r"shape \(1, 2\)"),
        (lambda maps, w, b, t: einsum(w[t], maps) + b[t] / 49, "divided by 49"),
        (lambda maps, w, b, t: (w[t][:, None, None] * maps + b[t]).sum(0), "added once for each"),
        (
            lambda maps, w, b, t: (einsum(w[t], maps) + b[t]).mean().expand(maps.shape[1:]),
            "does not say where",
        ),
        (lambda maps, w, b, t: maps.mul_(w[t][:, None, None]).sum(0) + b[t], "changed `maps`"),
        (lambda maps, w, b, t: None, "None"),
    ],
)
def test_class_map_names_the_mistake(wrong, match):
    assert_rejected("cam.class_map", wrong, match)


def by_steps(weigh, finish=torch.relu, score=lambda logits, target: logits[:, target].sum()):
    """Grad-CAM with one step replaced."""

    def answer(model, x, target, layer):
        with capture(model, layer) as kept:
            logits = model(x.clone().requires_grad_())
        maps = kept[layer]
        (grads,) = torch.autograd.grad(score(logits, target), maps)
        return finish((weigh(grads) * maps).sum(1, keepdim=True)).detach()

    return answer


def as_in_the_lesson(model, x, target, layer):
    """The lesson's cells, put one below the other: x asks for no gradient."""
    with capture(model, layer) as kept:
        logits = model(x)
    (grads,) = torch.autograd.grad(logits[:, target].sum(), kept[layer])
    return (mean(grads) * kept[layer]).sum(1, keepdim=True).relu().detach()


def mean(grads):
    return grads.mean((2, 3), keepdim=True)


def test_grad_cam_takes_the_model_answer_and_other_ways():
    assert_accepted("cam.grad_cam", solution_of(LESSON, "my_grad_cam"))
    assert_accepted("cam.grad_cam", by_steps(mean))
    assert_accepted("cam.grad_cam", as_in_the_lesson)
    assert_accepted(
        "cam.grad_cam",
        lambda model, x, t, layer: package.grad_cam(model, x, t, layer=layer, upsample=False),
    )


def leaves_gradients(model, x, target, layer):
    with capture(model, layer) as kept:
        logits = model(x.clone().requires_grad_())
    kept[layer].retain_grad()
    logits[:, target].sum().backward()
    return (mean(kept[layer].grad) * kept[layer]).sum(1, keepdim=True).relu().detach()


def changes_x(model, x, target, layer):
    heat = by_steps(mean)(model, x, target, layer)
    x.zero_()
    return heat


def attached(model, x, target, layer):
    with capture(model, layer) as kept:
        logits = model(x.clone().requires_grad_())
    (grads,) = torch.autograd.grad(logits[:, target].sum(), kept[layer])
    return (mean(grads) * kept[layer]).sum(1, keepdim=True).relu()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_steps(mean, finish=lambda heat: heat), "is a ReLU missing"),
        (by_steps(lambda g: g.sum((2, 3), keepdim=True)), "a sum for a mean"),
        (by_steps(lambda g: g.mean(1, keepdim=True)), "over the channels"),
        (by_steps(lambda g: g.mean((0, 2, 3), keepdim=True)), "rows of the batch"),
        (by_steps(lambda g: mean(g).relu()), "ReLU cuts the weights"),
        (by_steps(lambda g: g), "its own gradient"),
        (by_steps(lambda g: mean(g).abs()), "absolute values"),
        (by_steps(lambda g: -mean(g)), "is not what is expected"),
        (by_steps(mean, score=lambda logits, t: logits.softmax(1)[:, t].sum()), "probability"),
        (by_steps(mean, score=lambda logits, t: logits.sum()), "all logits"),
        (by_steps(mean, score=lambda logits, t: logits[0, t]), "only the first row"),
        (by_steps(mean, finish=lambda heat: heat.relu() / 2), "is a mean here"),
        (by_steps(mean, score=lambda logits, t: logits[:, t].mean()), "is a mean here"),
        (by_steps(mean, finish=lambda heat: heat.relu()[:, 0]), "axis of length 1"),
        (leaves_gradients, "left a gradient"),
        (changes_x, "changed x"),
        (attached, "carries its graph"),
        (lambda *_: None, "None"),
    ],
)
def test_grad_cam_names_the_mistake(wrong, match):
    assert_rejected("cam.grad_cam", wrong, match)


def test_no_two_mistakes_look_alike():
    """A slip that computes the right map, or another slip's map, would be named wrongly."""
    module = __import__("xailab.course.exercises.cam", fromlist=["_slips"])
    net, x = module.uneven_network(), module._two_pictures()
    gradient = net[3].weight[1].detach().reshape(1, 2, 2, 2) * (x > 0)
    right = package.grad_cam(net, x, 1, layer="0")
    found = [right, *module._slips(net, x, gradient).values()]
    for i, a in enumerate(found):
        assert not any(torch.allclose(a, b) for b in found[:i])


@pytest.mark.parametrize("id", ["cam.plus_plus", "cam.layer"])
def test_guesses_are_shares(id):
    assert_accepted(id, 0.5)
    assert_rejected(id, 50, "write 50% as 0.5")
    assert_rejected(id, "0.5", "without quotes")
    assert_rejected(id, -0.1, "from 0 to 1")
    assert_rejected(id, "half", "should be numbers")


def test_blind_takes_the_model_answer_and_other_ways():
    assert_accepted("cam.blind", solution_of(LESSON, "blind_weights"))
    assert_accepted("cam.blind", [[3.0, -1.0], [-1.0, -1.0]])
    assert "ReLU" in find_exercise("cam.blind").check([[2.0, 0.0], [-4.0, -4.0]])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([[1.0, 0.0], [-1.0, 0.0]], "score is 3"),
        ([[2.0, 0.0], [0.0, 0.0]], "mean weight is 0.5"),
        ([2.0, 0.0, -2.0, 0.0], r"\(2, 2\)"),
        ([[float("nan"), 0.0], [0.0, 0.0]], "finite"),
        ([[0.0, 0.0], [0.0, 0.0]], "score is 0"),
    ],
)
def test_blind_names_the_mistake(wrong, match):
    assert_rejected("cam.blind", wrong, match)


def test_blind_agrees_with_grad_cam():
    """The check's rule, mean weight at most 0, is the package's map of zeros."""
    net = torch.nn.Sequential(
        torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False)
    )
    net[2].weight.data = torch.tensor(solution_of(LESSON, "blind_weights")).float().reshape(1, 4)
    bright = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]])
    assert net(bright).item() >= 6
    assert not package.grad_cam(net, bright, 0, layer="0").any()


def test_every_exercise_with_a_number_of_steps_has_hints():
    steps = {e.id: len(e.hints) for e in exercises_of("cam") if e.kind != "predict"}
    assert len(steps) == 8
    assert set(steps.values()) == {3}


def test_logit_takes_the_model_answer_and_another_way():
    assert_accepted("cam.logit", solution_of(LESSON, "logit_by_hand"))
    assert_accepted("cam.logit", lambda maps, w, b, t: float((w @ maps.flatten(1).mean(1) + b)[t]))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda maps, w, b, t: w[t] @ maps.mean((1, 2)), "bias is missing"),
        (lambda maps, w, b, t: w[t] @ maps.sum((1, 2)) + b[t], "network averages them"),
        (lambda maps, w, b, t: w[t] @ maps.amax((1, 2)) + b[t], "largest cell"),
        (lambda maps, w, b, t: w[0] @ maps.mean((1, 2)) + b[0], "weights of class 0"),
        (lambda maps, w, b, t: w[:, t] @ maps.mean((1, 2)) + b[t], "takes a column"),
        (lambda maps, w, b, t: w @ maps.mean((1, 2)) + b, "of all classes"),
        (lambda maps, w, b, t: (w[t] * maps.mean((1, 2))).mean() + b[t], "sum over them"),
        (lambda maps, w, b, t: (w @ maps.mean((1, 2)) + b).softmax(0)[t], "softmax"),
        (lambda maps, w, b, t: None, "None"),
    ],
)
def test_logit_names_the_mistake(wrong, match):
    assert_rejected("cam.logit", wrong, match)


def test_ratio_takes_any_number():
    assert_accepted("cam.ratio", 49)
    assert_rejected("cam.ratio", -1, "from 0 to")
    assert_rejected("cam.ratio", "forty-nine", "number")


def of_gradients(weigh):
    return lambda logit, maps: weigh(torch.autograd.grad(logit, maps)[0])


def left_behind(logit, maps):
    logit.backward()
    return maps.grad.mean((2, 3), keepdim=True)


def test_channel_weights_takes_the_model_answer_and_another_way():
    assert_accepted("cam.channel_weights", solution_of(LESSON, "channel_weights"))
    assert_accepted(
        "cam.channel_weights", of_gradients(lambda g: g.flatten(2).mean(2)[:, :, None, None])
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (of_gradients(lambda g: g.mean(1, keepdim=True)), "over the channels"),
        (of_gradients(lambda g: g), "mean over the cells is missing"),
        (of_gradients(lambda g: g.mean((2, 3))), "axis of length 1 is missing"),
        (of_gradients(lambda g: g.sum((2, 3), keepdim=True)), "4 times"),
        (of_gradients(lambda g: g.abs().mean((2, 3), keepdim=True)), "stay negative"),
        (of_gradients(lambda g: g.relu().mean((2, 3), keepdim=True)), "cut off"),
        (lambda logit, maps: maps.detach().mean((2, 3), keepdim=True), "over their gradients"),
        (lambda logit, maps: torch.autograd.grad(logit, maps), "unpack"),
        (left_behind, "left a gradient behind"),
    ],
)
def test_channel_weights_names_the_mistake(wrong, match):
    assert_rejected("cam.channel_weights", wrong, match)


def test_pointing_takes_the_model_answer_and_another_way():
    assert_accepted("cam.pointing", solution_of(LESSON, "pointing"))

    def one_by_one(heat, truth):
        places = [divmod(int(one.argmax()), one.shape[-1]) for one in heat]
        hits = [bool(mask[place]) for mask, place in zip(truth, places, strict=True)]
        return sum(hits) / len(hits)

    assert_accepted("cam.pointing", one_by_one)


def hits(heat, truth):
    return truth.flatten(1)[torch.arange(len(truth)), heat.flatten(1).argmax(1)].float()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda heat, truth: hits(heat.abs(), truth).mean(), "absolute value"),
        (lambda heat, truth: hits(heat, truth).sum(), "counted"),
        (hits, "one number for all 4"),
        (lambda heat, truth: truth.flatten()[heat.argmax()].float(), "whole batch"),
        (lambda heat, truth: truth.float().mean(), "what chance gives"),
        (
            lambda heat, truth: (
                (heat.clamp(min=0)[:, 0] * truth).sum((1, 2)) / heat.clamp(min=0).sum((1, 2, 3))
            ).mean(),
            "mass",
        ),
    ],
)
def test_pointing_names_the_mistake(wrong, match):
    assert_rejected("cam.pointing", wrong, match)


def test_mended_takes_the_model_answer_and_the_package():
    assert_accepted("cam.mended", solution_of(LESSON, "mended"))
    assert_accepted(
        "cam.mended",
        lambda model, x, target, layer: package.hires_cam(
            model, x, target, layer=layer, relu=False, upsample=False
        ),
    )


def with_own(weigh, finish=lambda heat: heat):
    return by_steps(weigh, finish)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (with_own(mean), "step that loses the answer"),
        (with_own(mean, torch.relu), "still Grad-CAM"),
        (with_own(lambda g: g, torch.relu), "leave it out"),
        (with_own(torch.relu), "LayerCAM"),
        (with_own(torch.abs), "lost their signs"),
    ],
)
def test_mended_names_the_mistake(wrong, match):
    assert_rejected("cam.mended", wrong, match)
