"""Checks of `integrated_gradients`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution import paths, relevance
from xailab.course.exercises import integrated_gradients as module
from xailab.course.registry import exercises_of

LESSON = "integrated_gradients"
MIDPOINT = "integrated_gradients.midpoint"
STEP = "integrated_gradients.lrp_step"


def along(
    points=lambda n: (np.arange(n) + 0.5) / n,
    *,
    finish=lambda mean, x, b: (x - b) * mean,
    start=lambda b: b,
    score=lambda logits, t: logits[torch.arange(len(t)), t].sum(),
):
    """Integrated gradients with one step replaced."""

    def answer(model, x, targets, baseline, n_steps):
        total = torch.zeros_like(x)
        for point in points(n_steps):
            b = start(baseline)
            leaf = (b + float(point) * (x - b)).detach().requires_grad_()
            total += torch.autograd.grad(score(model(leaf), targets), leaf)[0]
        return finish(total / n_steps, x, baseline)

    return answer


def all_at_once(model, x, targets, baseline, n_steps):
    """One big batch of all rows at all places."""
    alphas = (torch.arange(n_steps) + 0.5) / n_steps
    way = x - baseline
    places = (x - way) + alphas.reshape(-1, 1, 1) * way  # (n, N, D)
    leaf = places.flatten(0, 1).requires_grad_()
    scores = model(leaf).gather(1, targets.repeat(n_steps)[:, None])
    (gradients,) = torch.autograd.grad(scores.sum(), leaf)
    return way * gradients.reshape(places.shape).mean(0)


def test_midpoint_takes_the_model_answer_and_other_ways():
    assert_accepted(MIDPOINT, solution_of(LESSON, "my_integrated_gradients"))
    assert_accepted(MIDPOINT, all_at_once)
    assert_accepted(MIDPOINT, along())
    assert_accepted(
        MIDPOINT,
        lambda model, x, t, b, n: paths.integrated_gradients(
            model, x, t, baseline=b, n_steps=n, rule="midpoint"
        ),
    )


def leaves_gradients(model, x, targets, baseline, n_steps):
    found = all_at_once(model, x, targets, baseline, n_steps)
    model(x).sum().backward()
    return found


def changes_x(model, x, targets, baseline, n_steps):
    found = all_at_once(model, x, targets, baseline, n_steps)
    x.zero_()
    return found


def asks_of_x(model, x, targets, baseline, n_steps):
    found = along()(model, x, targets, baseline, n_steps)
    x.requires_grad_()
    return found


def attached(model, x, targets, baseline, n_steps):
    return along()(model, x, targets, baseline, n_steps) * torch.ones(1, requires_grad=True)


def with_respect_to_x(model, x, targets, baseline, n_steps):
    leaf, total = x.clone().requires_grad_(), 0
    for k in range(n_steps):
        place = baseline + (k + 0.5) / n_steps * (leaf - baseline)
        score = model(place).gather(1, targets[:, None]).sum()
        total += torch.autograd.grad(score, leaf)[0]
    return (x - baseline) * total / n_steps


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (with_respect_to_x, "with respect to the place"),
        (along(lambda n: np.arange(n) / n), "left ends"),
        (along(lambda n: (np.arange(n) + 1) / n), "right ends"),
        (along(lambda n: np.linspace(0, 1, n)), "both included"),
        (along(lambda n: np.ones(n)), "gradient at x alone"),
        (along(finish=lambda mean, x, b: mean), "missing as a factor"),
        (along(finish=lambda mean, x, b: mean * x), "the factor is x"),
        (along(finish=lambda mean, x, b: mean * (b - x)), "sign"),
        (along(finish=lambda mean, x, b: 4 * mean * (x - b)), "take their mean"),
        (along(start=torch.zeros_like), "only the factor uses"),
        (along(start=torch.zeros_like, finish=lambda mean, x, b: mean * x), "begins at 0"),
        (along(score=lambda logits, t: logits.sum()), "all logits"),
        (along(score=lambda logits, t: logits[:, t[0]].sum()), "first row's target"),
        (
            along(score=lambda logits, t: logits[torch.arange(len(t)), t].mean()),
            "sum over the rows' scores a mean",
        ),
        (
            along(score=lambda logits, t: logits.softmax(1)[torch.arange(len(t)), t].sum()),
            "probability",
        ),
        (lambda *a: along()(*a).abs(), "sign"),
        (lambda *a: along()(*a).sum(1), "shape"),
        (leaves_gradients, "left a gradient"),
        (changes_x, "changed x"),
        (asks_of_x, "changed x"),
        (attached, "carries its graph"),
        (lambda *_: None, "None"),
    ],
)
def test_midpoint_names_the_mistake(wrong, match):
    assert_rejected(MIDPOINT, wrong, match)


def unlike(right, slips):
    """Assert that no slip computes the right answer, or what another slip does."""
    found = [right, *slips.values()]
    for i, a in enumerate(found):
        assert not any(torch.allclose(a, b) for b in found[:i])


def test_no_two_mistakes_look_alike():
    net, (x, targets, b) = module._bent_network(), module._two_rows()
    right = paths.integrated_gradients(net, x, targets, baseline=b, n_steps=4, rule="midpoint")
    unlike(right, module._slips(net, x, targets, b))
    torch.manual_seed(0)
    x, weight, bias, above = (torch.randn(*shape) for shape in [(2, 3), (2, 3), (2,), (2, 2)])
    right = module._shared(x, weight, above, away(x @ weight.T + bias, 0.5))
    unlike(right, module._wrong_shares(x, weight, bias, above, 0.5))


def away(z, epsilon):
    return z + torch.where(z >= 0, epsilon, -epsilon)


def step(below=away, products=lambda x, w, b: x[:, None, :] * w, inputs=lambda x: x):
    """One step of LRP, written as shares (N, J, I), with one part replaced."""

    def answer(x, weight, bias, relevance_out, epsilon):
        z = products(x, weight, bias)
        total = below(x @ weight.T + bias, epsilon)
        return (z / total[:, :, None] * relevance_out[:, :, None]).sum(1)

    return answer


def by_the_package(x, weight, bias, relevance_out, epsilon):
    """Hand down one output at a time: a layer whose only score is z_j, scaled to R_j."""
    total = torch.zeros_like(x)
    for j in range(len(weight)):
        layer = torch.nn.Linear(x.shape[1], 1)
        layer.weight.data, layer.bias.data = weight[j : j + 1], bias[j : j + 1]
        z = layer(x).detach()  # (N, 1)
        sign = torch.where(z >= 0, 1.0, -1.0)
        slope = relevance_out[:, j : j + 1] / (z + epsilon * sign)
        total += x * weight[j] * slope
    return total


def test_lrp_step_takes_the_model_answer_and_other_ways():
    assert_accepted(STEP, solution_of(LESSON, "lrp_step"))
    assert_accepted(STEP, step())
    assert_accepted(STEP, by_the_package)


def test_the_model_answer_is_the_packages_rule():
    answer = solution_of(LESSON, "lrp_step")
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 1), torch.randn(3, 4)
    score = layer(x).detach()
    got = answer(x, layer.weight.detach(), layer.bias.detach(), score, 0.1)
    torch.testing.assert_close(got, relevance.lrp(layer, x, 0, epsilon=0.1))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda x, w, b, R, e: x * ((R / away(x @ w.T, e)) @ w), "bias is missing"),
        (step(lambda z, e: z + e), "negative sums"),
        (step(lambda z, e: 2 * z - away(z, e)), "away from 0"),
        (step(lambda z, e: z), "epsilon is missing"),
        (lambda x, w, b, R, e: x * (R @ w), "divided by what fed the unit"),
        (step(lambda z, e: z + e * torch.sign(z)), r"torch\.sign"),
        (lambda x, w, b, R, e: (R / away(x @ w.T + b, e)) @ w, "multiply by x"),
        (
            step(products=lambda x, w, b: x[:, None, :] * w + b[:, None] / x.shape[1]),
            "keeps its own share",
        ),
        (lambda *a: step()(*a) / 2, "mean over the outputs"),
        (lambda *a: step()(*a).sum(1), "shape"),
        (lambda *a: -step()(*a), "sign"),
        (lambda *_: None, "None"),
    ],
)
def test_lrp_step_names_the_mistake(wrong, match):
    assert_rejected(STEP, wrong, match)


def test_the_z_plus_rule_is_told_from_epsilon():
    def positive(x, weight, bias, relevance_out, epsilon):
        z = (x[:, None, :] * weight).clamp(min=0)
        return (z / z.sum(2, keepdim=True).clamp(min=1e-9) * relevance_out[:, :, None]).sum(1)

    assert_rejected(STEP, positive, "z-plus")


@pytest.mark.parametrize(
    "id", ["integrated_gradients.first_tenth", "integrated_gradients.black_share"]
)
def test_guesses_are_shares(id):
    assert_accepted(id, 0.5)
    assert_rejected(id, 50, "write 50% as 0.5")
    assert_rejected(id, "0.5", "without quotes")
    assert_rejected(id, -0.1, "from 0 to 1")


def test_every_exercise_has_its_place_in_the_lesson():
    ids = [entry.id for entry in exercises_of("integrated_gradients")]
    assert len(ids) == 5
    assert all(id.startswith("integrated_gradients.") for id in ids)
