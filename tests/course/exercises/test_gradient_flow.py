"""Checks of `gradient_flow`: right answers pass, also unlike ours; wrong ones are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.registry import exercises_of, questions_of
from xailab.foundations.gradient_flow import clip_by_norm, gradient_norms

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
        (chain(factor=lambda w, b, z, h: w * h * (1 - h)), "derivative of a sigmoid"),
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


# ---------------------------------------------------------------- norms of layers


def gradients_of(net, x, y, *, layers=slice(None, -1), reduction="mean"):
    weights = [getattr(layer, "linear", layer).weight for layer in list(net)[layers]]
    loss = torch.nn.functional.cross_entropy(net(x), y, reduction=reduction)
    return torch.autograd.grad(loss, weights)


def of_gradients(size, **options):
    return lambda net, x, y: [size(grad) for grad in gradients_of(net, x, y, **options)]


def by_backward(net, x, y):
    torch.nn.functional.cross_entropy(net(x), y).backward()
    return [layer.linear.weight.grad.norm().item() for layer in net[:-1]]


def test_norms_accepts_the_model_answer_and_another_way():
    assert_accepted("gradient_flow.norms", solution_of(LESSON, "layer_norms"))

    def by_package(net, x, y):
        loss = torch.nn.functional.cross_entropy
        return torch.tensor(list(gradient_norms(net, x, y, loss).values())[:-1])

    assert_accepted("gradient_flow.norms", by_package)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (of_gradients(lambda g: g.square().sum()), "the root is missing"),
        (of_gradients(lambda g: g.abs().sum()), "absolute values"),
        (of_gradients(lambda g: g.square().mean().sqrt()), "mean of the squares"),
        (of_gradients(torch.norm, layers=slice(None)), "leaves out the head"),
        (of_gradients(torch.norm, layers=slice(1, 3)), "2 numbers came"),
        (of_gradients(torch.norm, layers=slice(2, None, -1)), "layer 1 first"),
        (of_gradients(torch.norm, reduction="sum"), "summed over the rows"),
        (of_gradients(lambda g: g.norm(dim=1)[:5]), "not a whole array"),
        (lambda net, x, y: [layer.linear.weight.norm() for layer in net[:-1]], "of the weights"),
        (lambda net, x, y: 1.0, "float came"),
        (by_backward, "left a gradient"),
    ],
)
def test_norms_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.norms", wrong, match)


# ---------------------------------------------------------------- remedies


def test_kaiming_accepts_the_model_answer_and_another_way():
    assert_accepted("gradient_flow.kaiming", solution_of(LESSON, "kaiming"))

    def by_torch(n_out, n_in):
        return torch.nn.init.kaiming_normal_(torch.empty(n_out, n_in), nonlinearity="relu")

    assert_accepted("gradient_flow.kaiming", by_torch)


def drawn(spread, draw=torch.randn):
    return lambda n_out, n_in: draw(n_out, n_in) * spread(n_out, n_in)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (drawn(lambda o, i: 2 / i), "multiply by its root"),
        (drawn(lambda o, i: (2 / o) ** 0.5), "n_in, not n_out"),
        (drawn(lambda o, i: i**-0.5), "the ReLU takes half away"),
        (drawn(lambda o, i: (3 * i) ** -0.5), "of nn.Linear"),
        (drawn(lambda o, i: (i / 2) ** 0.5), "multiply by it"),
        (torch.randn, "still 1"),
        (drawn(lambda o, i: (2 / i) ** 0.5, draw=torch.rand), "around 0"),
        (drawn(lambda o, i: 3.3), "the standard deviation is"),
        (lambda o, i: torch.randn(i, o), "should have shape"),
        (lambda o, i: None, "nothing came back"),
    ],
)
def test_kaiming_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.kaiming", wrong, match)


def test_layer_norm_accepts_the_model_answer_and_another_way():
    assert_accepted("gradient_flow.layer_norm", solution_of(LESSON, "layer_norm"))
    assert_accepted(
        "gradient_flow.layer_norm", lambda z: torch.nn.functional.layer_norm(z, z.shape[1:])
    )


def normed(dim=1, power=0.5, unbiased=False, center=1, eps=1e-5):
    def norm(z):
        variance = z.var(dim, unbiased=unbiased, keepdim=True) + eps
        return (z - center * z.mean(dim, keepdim=True)) / variance**power

    return norm


def changes_z(z):
    z -= z.mean(1, keepdim=True)
    return normed()(z)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (normed(dim=0), "batch norm"),
        (lambda z: (z - z.mean()) / z.std(unbiased=False), "whole table"),
        (normed(power=1), "the root is missing"),
        (normed(unbiased=True), "units - 1"),
        (normed(center=0), "not subtracted"),
        (normed(power=0), "not divided"),
        (normed(eps=0), "inside the root"),
        (changes_z, "changes z"),
    ],
)
def test_layer_norm_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.layer_norm", wrong, match)


def test_skips_accepts_the_model_answer_and_another_way():
    assert_accepted("gradient_flow.skips", solution_of(LESSON, "through_blocks"))

    def one_by_one(h, branches):
        return one_by_one(h + branches[0](h), branches[1:]) if branches else h

    assert_accepted("gradient_flow.skips", one_by_one)


def looped(step, end=lambda h, start: h):
    def through(h, branches):
        start = h
        for branch in branches:
            h = step(h, start, branch)
        return end(h, start)

    return through


def in_place(h, branches):
    for branch in branches:
        h += branch(h)
    return h


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (looped(lambda h, s, F: F(h)), "plain chain"),
        (looped(lambda h, s, F: h + F(s)), "the newest one"),
        (looped(lambda h, s, F: F(h), end=lambda h, s: h + s), "around everything"),
        (lambda h, branches: h + branches[0](h), "inside the loop"),
        (lambda h, branches: h, "nothing was added"),
        (in_place, "in place"),
    ],
)
def test_skips_names_the_mistake(wrong, match):
    assert_rejected("gradient_flow.skips", wrong, match)


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


def clips_in_place(grads, max_norm):
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
        (clips_in_place, "changes the tensors"),
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
    assert_accepted("gradient_flow.flat", solution_of(LESSON, "flat_guess"))


@pytest.mark.parametrize(
    ("id", "wrong", "match"),
    [
        ("gradient_flow.powers", 1e-18, "give the exponent"),
        ("gradient_flow.powers", "many", "should be"),
        ("gradient_flow.powers", -18, "should be"),
        ("gradient_flow.flat", 90, "write 90% as 0.9"),
        ("gradient_flow.flat", "most", "should be"),
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
