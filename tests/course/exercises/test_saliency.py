"""The checks of lesson `saliency`: right answers pass, planted mistakes are named."""

from itertools import count

import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution.saliency import input_x_gradient, saliency
from xailab.course.registry import find_question, questions_of

LESSON = "saliency"


# ---------------------------------------------------------------- the gradient of a batch


def row_by_row(model, x, targets):
    found = []
    for row, target in zip(x, targets, strict=True):
        leaf = row[None].detach().clone().requires_grad_()
        found.append(torch.autograd.grad(model(leaf)[0, target], leaf)[0])
    return torch.cat(found)


def graph_kept(model, x, targets):
    leaf = x.clone().requires_grad_()
    scores = model(leaf).gather(1, targets[:, None])
    return torch.autograd.grad(scores.sum(), leaf, create_graph=True)[0]


def on_x_itself(model, x, targets):
    x.requires_grad_()
    return torch.autograd.grad(model(x).gather(1, targets[:, None]).sum(), x)[0]


def with_backward(model, x, targets):
    leaf = x.clone().requires_grad_()
    model(leaf).gather(1, targets[:, None]).sum().backward()
    return leaf.grad


def x_overwritten(model, x, targets):
    gradient = saliency(model, x, targets)
    x *= 0
    return gradient


def of_the_loss(model, x, targets):
    return saliency(lambda rows: -model(rows).log_softmax(1), x, targets)


def test_sensitivity_accepts_the_model_answer_and_another_way():
    assert_accepted("saliency.sensitivity", solution_of(LESSON, "sensitivity"))
    assert_accepted("saliency.sensitivity", row_by_row)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda m, x, t: saliency(m, x, t, absolute=True), "lost its signs"),
        (lambda m, x, t: saliency(m, x, int(t[0])), "first row's target"),
        (lambda m, x, t: saliency(lambda r: m(r).sum(1), x, None), "all logits were summed"),
        (lambda m, x, t: saliency(lambda r: m(r).amax(1), x, None), "largest logit"),
        (lambda m, x, t: saliency(lambda r: m(r).softmax(1), x, t), "leave softmax away"),
        (of_the_loss, "gradient of the loss"),
        (lambda m, x, t: of_the_loss(m, x, t) / len(x), "gradient of the mean loss"),
        (input_x_gradient, "input x gradient"),
        (lambda m, x, t: saliency(m, x, t) / len(x), "0.3333 times"),
        (lambda m, x, t: saliency(m, x, t).sum(1), "summed or averaged away"),
        (graph_kept, r"\.detach\(\)"),
        (on_x_itself, "requires_grad is still on"),
        (with_backward, r"\.backward\(\) fills them"),
        (x_overwritten, "changed x itself"),
    ],
)
def test_sensitivity_names_the_mistake(wrong, match):
    assert_rejected("saliency.sensitivity", wrong, match)


# ---------------------------------------------------------------- SmoothGrad


def smooth_with(draw, spread=lambda x: x.max() - x.min(), over=lambda g: g.mean(0, keepdim=True)):
    """SmoothGrad with a planted change: how to draw, how to scale, how to join the copies."""

    def smooth(model, x, target, noise, n_samples, seed):
        generator = torch.Generator().manual_seed(seed)
        copies = x + noise * spread(x) * draw((n_samples, *x.shape[1:]), generator)
        return over(saliency(model, copies, target))

    return smooth


def normal(shape, generator):
    return torch.randn(shape, generator=generator)


def one_copy_at_a_time(model, x, target, noise, n_samples, seed):
    generator, total = torch.Generator().manual_seed(seed), torch.zeros_like(x)
    sigma = noise * (x.max() - x.min())
    for _ in range(n_samples):
        total += saliency(model, torch.normal(x, sigma, generator=generator), target)
    return total / n_samples


def in_a_fork(model, x, target, noise, n_samples, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return smooth_with(lambda shape, _: torch.randn(shape))(
            model, x, target, noise, n_samples, seed
        )


def global_state(model, x, target, noise, n_samples, seed):
    torch.manual_seed(seed)
    return smooth_with(lambda shape, _: torch.randn(shape))(
        model, x, target, noise, n_samples, seed
    )


def copies_averaged_first(model, x, target, noise, n_samples, seed):
    draws = torch.randn(n_samples, x.shape[1], generator=torch.Generator().manual_seed(seed))
    return saliency(model, (x + noise * (x.max() - x.min()) * draws).mean(0, keepdim=True), target)


def seed_ignored(model, x, target, noise, n_samples, seed):
    return smooth_with(normal)(model, x, target, noise, n_samples, 0)


_calls = count()


def never_the_same(model, x, target, noise, n_samples, seed):
    return smooth_with(normal)(model, x, target, noise, n_samples, next(_calls))


def graph_left(model, x, target, noise, n_samples, seed):
    return one_copy_at_a_time(model, x, target, noise, n_samples, seed).requires_grad_()


def square_root(model, x, target, noise, n_samples, seed):
    return smooth_with(normal, lambda x: (x.max() - x.min()) / noise**0.5)(
        model, x, target, noise, n_samples, seed
    )


@pytest.mark.parametrize("right", [one_copy_at_a_time, in_a_fork, smooth_with(normal)])
def test_smooth_accepts_other_ways(right):
    assert_accepted("saliency.smooth", right)


def test_smooth_accepts_the_model_answer():
    assert_accepted("saliency.smooth", solution_of(LESSON, "smooth"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (global_state, "global random state"),
        (smooth_with(normal, spread=lambda x: 1.0), "not scaled"),
        (smooth_with(normal, spread=lambda x: x.max()), "not of the maximum"),
        (smooth_with(normal, spread=torch.std), r"not of x.std\(\)"),
        (square_root, "not a variance"),
        (copies_averaged_first, "copies averaged before"),
        (smooth_with(lambda s, g: torch.randn((s[0], 1), generator=g)), "one draw for all numbers"),
        (smooth_with(lambda s, g: 2 * torch.rand(s, generator=g) - 1), "noise is uniform; "),
        (smooth_with(lambda s, g: torch.rand(s, generator=g)), "uniform from 0 to 1"),
        (smooth_with(normal, over=lambda g: g.sum(0, keepdim=True)), "a sum for a mean"),
        (smooth_with(normal, over=lambda g: g.abs().mean(0, keepdim=True)), "lost its signs"),
        (smooth_with(normal, over=lambda g: g.mean(0)), "axis of length 1 is missing"),
        (smooth_with(normal, over=lambda g: g), "shape"),
        (lambda m, x, t, n, k, s: smooth_with(normal)(m, x, t, n, 1, s), "one noisy copy"),
        (lambda m, x, *rest: x * smooth_with(normal)(m, x, *rest), "times the input"),
        (lambda m, x, t, n, k, s: smooth_with(normal)(m, x, 0, n, k, s), "explains output 0"),
        (seed_ignored, "does your code use seed"),
        (never_the_same, "seed the generator inside"),
        (graph_left, r"\.detach\(\)"),
    ],
)
def test_smooth_names_the_mistake(wrong, match):
    assert_rejected("saliency.smooth", wrong, match)


# ---------------------------------------------------------------- guesses, text, questions


@pytest.mark.parametrize(
    ("id", "guess", "wrong"),
    [
        ("saliency.alarm", 0.5, 99),
        ("saliency.noisy_four", 0.3, 80),
        ("saliency.espresso", -0.1, 2),
    ],
)
def test_guesses_are_asked_for_in_their_form(id, guess, wrong):
    assert_accepted(id, guess)
    assert_rejected(id, wrong, "should be a number from")
    assert_rejected(id, "much", "should be numbers")


def test_each_question_explains_every_choice():
    assert {entry.id for entry in questions_of("saliency")} == {
        "saliency.q_zero",
        "saliency.q_controls",
    }
    assert "tiny change" in find_question("saliency.q_zero").right
    assert "bright places" in find_question("saliency.q_controls").right
