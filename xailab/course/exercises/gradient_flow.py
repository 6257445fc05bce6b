"""Exercises of lesson `gradient_flow`: products of slopes, clipping, and what a norm does not say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_close,
    expect_finite,
    expect_number,
    expect_shape,
    expect_share,
    question,
)

if TYPE_CHECKING:
    from torch import Tensor


@exercise(
    "gradient_flow.chain",
    kind="code",
    points=2,
    minutes=4,
    difficulty=1,
    hints=(
        "Go through the chain from x upward, and keep two numbers: h, and the product so far.",
        "At each layer h becomes tanh(w * h); its derivative is w * (1 - h**2) with the new h.",
        "h, product = x, 1.0; for w in weights: h = np.tanh(w * h); product *= ...",
    ),
)
def chain(answer: Any) -> None:
    """One layer, then three with unlike weights, then none, then a long one."""
    for weights, x in (([2.0], 0.3), ([0.5, -2.0, 1.5], 0.7)):
        what = f"the derivative of the chain with weights {weights} at x = {x}"
        expect_close(answer(weights, x), _slope(weights, x), what, known=_chain_slips(weights, x))
    expect_close(answer([], 0.7), 1.0, "the derivative of a chain without layers")
    long = [1.1] * 30
    expect_close(
        answer(long, 0.2), _slope(long, 0.2), "the derivative of 30 layers with weights 1.1"
    )


def _states(weights: Sequence[float], x: float) -> list[tuple[float, float, float]]:
    """Return (w, z, h) of every layer."""
    states, h = [], x
    for w in weights:
        z = w * h
        h = float(np.tanh(z))
        states.append((w, z, h))
    return states


def _slope(weights: Sequence[float], x: float) -> float:
    return float(np.prod([w * (1 - h**2) for w, _, h in _states(weights, x)]))


def _chain_slips(weights: Sequence[float], x: float) -> dict[str, float]:
    states = _states(weights, x)
    inputs = [x, *(h for _, _, h in states)]
    return {
        "the weights are missing: the derivative of tanh(w h) by h is w (1 - tanh(w h)^2).": float(
            np.prod([1 - h**2 for _, _, h in states])
        ),
        "only the weights are multiplied: the derivatives 1 - h^2 are missing.": float(
            np.prod(weights)
        ),
        "derivatives along a chain multiply; these were added.": float(
            np.sum([w * (1 - h**2) for w, _, h in states])
        ),
        "1 - h^2 was taken with the h that comes in; the derivative belongs to what goes out.": float(
            np.prod([w * (1 - h**2) for (w, _, _), h in zip(states, inputs, strict=False)])
        ),
        "1 - z^2 was taken: put tanh(z) there, not z.": float(
            np.prod([w * (1 - z**2) for w, z, _ in states])
        ),
        "that is the value at the end of the chain, not its derivative.": states[-1][2],
        "that is the derivative of the last layer alone.": states[-1][0] * (1 - states[-1][2] ** 2),
        "that is the derivative of the first layer alone: does return stand inside the loop?": (
            states[0][0] * (1 - states[0][2] ** 2)
        ),
        "every layer was given x; from the second on, the h of the layer before comes in.": float(
            np.prod([w * (1 - np.tanh(w * x) ** 2) for w, _, _ in states])
        ),
        "1 - h was taken; the derivative of tanh is 1 - h^2.": float(
            np.prod([w * (1 - h) for w, _, h in states])
        ),
        "tanh was taken of h; the weight belongs inside: tanh(w h).": float(
            np.prod(
                [w * (1 - np.tanh(i) ** 2) for (w, _, _), i in zip(states, inputs, strict=False)]
            )
        ),
        "the weights are taken from the last to the first; w_1 comes first.": _slope(
            list(weights)[::-1], x
        ),
        "the derivative of a sigmoid, h (1 - h), was taken; that of tanh is 1 - h^2.": float(
            np.prod([w * h * (1 - h) for w, _, h in states])
        ),
    }


@exercise(
    "gradient_flow.norms",
    kind="code",
    points=2,
    minutes=4,
    difficulty=2,
    hints=(
        "Three steps: the list of matrices, their gradients, the root of each sum of squares.",
        "weights = [layer.linear.weight for layer in net[:-1]]; "
        "grads = torch.autograd.grad(F.cross_entropy(net(x), y), weights)",
        "return [grad.square().sum().sqrt().item() for grad in ...]",
    ),
)
def norms(answer: Any) -> None:
    """The norms of a network of three hidden layers, with nothing left behind."""
    import torch
    from torch.nn.functional import cross_entropy

    from xailab.foundations.gradient_flow import deep_mlp

    net = deep_mlp(3, 5, "tanh", n_inputs=4, n_outputs=3, seed=1)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    weights = [layer.linear.weight for layer in net[:-1]]  # type: ignore[union-attr]
    grads = torch.autograd.grad(cross_entropy(net(x), y), weights)  # type: ignore[arg-type]
    want = torch.tensor([grad.norm().item() for grad in grads])
    got = answer(net, x, y)
    if any(parameter.grad is not None for parameter in net.parameters()):
        raise Mistake(
            ".backward() left a gradient in every parameter; torch.autograd.grad leaves nothing."
        )
    if not isinstance(got, list | tuple) and getattr(got, "ndim", 0) != 1:
        raise Mistake(f"return a list with one number for each layer; {type(got).__name__} came.")
    _expect_three(len(got))
    found = torch.stack([torch.as_tensor(each).detach().float() for each in got])
    if found.ndim > 1:
        raise Mistake("return one number for each layer, not a whole array: its norm is asked for.")
    of = {
        "the root is missing: the norm is the root of the sum of squares.": want.square(),
        "the absolute values were added: that is another norm; square, sum, root.": torch.stack(
            [grad.abs().sum() for grad in grads]
        ),
        "the mean of the squares was taken; the norm needs their sum.": torch.stack(
            [grad.square().mean().sqrt() for grad in grads]
        ),
        "these are the norms of the weights, not of their gradients.": torch.stack(
            [weight.detach().norm() for weight in weights]  # type: ignore[operator]
        ),
        "the order is reversed: layer 1 first.": want.flip(0),
        "the loss was summed over the rows; F.cross_entropy takes their mean.": want * len(x),
    }
    expect_close(found, want, "the norms of three layers", rtol=1e-4, known=of)


def _expect_three(count: int) -> None:
    if count == 4:
        raise Mistake("four numbers came for three hidden layers: net[:-1] leaves out the head.")
    if count != 3:
        raise Mistake(f"{count} numbers came for a network of three hidden layers.")


@exercise("gradient_flow.powers", kind="predict", points=1, minutes=1)
def powers(guess: Any) -> None:
    """A number of powers of ten."""
    if isinstance(guess, float) and 0 < guess < 0.5:
        raise Mistake("give the exponent: 18 for a factor of 10^-18.")
    expect_number(guess, 0, 300)


@exercise(
    "gradient_flow.kaiming",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "For which v is one half times n times v equal to 1? Which of the two sizes is n?",
        "A unit adds up n_in products, so v = 2 / n_in.",
        "return torch.randn(n_out, n_in) * ... , the root of the variance.",
    ),
)
def kaiming(answer: Any) -> None:
    """The standard deviation of a wide and a narrow layer, within what chance allows."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for n_out, n_in in ((300, 200), (100, 800)):
            weights = answer(n_out, n_in)
            if weights is None:
                raise Mistake("nothing came back: return the weights.")
            expect_shape(weights, (n_out, n_in), "the weights")
            _expect_spread(float(weights.mean()), float(weights.std()), n_out, n_in)


def _expect_spread(mean: float, spread: float, n_out: int, n_in: int) -> None:
    """Name what gives the standard deviation that came; chance moves it by half a percent."""
    right = (2 / n_in) ** 0.5
    if abs(mean) > 0.05 * right and abs(mean) > 0.05 * spread:
        raise Mistake("the weights are not drawn around 0: use torch.randn, not torch.rand.")
    known = {
        "it was multiplied by the variance; multiply by its root.": 2 / n_in,
        "n is the number of products that a unit adds up: n_in, not n_out.": (2 / n_out) ** 0.5,
        "variance 1/n keeps the scale without a ReLU; the ReLU takes half away.": n_in**-0.5,
        "that is the variance 1/(3n) of nn.Linear.": (3 * n_in) ** -0.5,
        "it was divided by the standard deviation; multiply by it.": (n_in / 2) ** 0.5,
        "the variance is still 1: multiply by the root of 2 / n_in.": 1.0,
    }
    if abs(spread / right - 1) > 0.03:
        for reason, slip in known.items():
            if abs(spread / slip - 1) < 0.03:
                raise Mistake(reason)
        raise Mistake(
            f"for n_out = {n_out} and n_in = {n_in}, the standard deviation is {spread:.3g}, "
            f"not {right:.3g}."
        )


@exercise(
    "gradient_flow.layer_norm",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "Mean and variance of each row: over which dim do you take them?",
        "z.mean(dim=1, keepdim=True) is (rows, 1) and can be subtracted from z.",
        "return (z - mean) / (z.var(dim=1, unbiased=False, keepdim=True) + 1e-5).sqrt()",
    ),
)
def layer_norm(answer: Any) -> None:
    """Rows of unlike scale; then a row that is constant."""
    import torch

    z = torch.tensor([[1.0, 2.0, 6.0], [30.0, -10.0, 10.0], [0.0, 0.5, -1.0], [4.0, 4.5, 3.0]])
    given = z.clone()
    rows = _normed(z, 1)
    known = {
        "each column was normalized: that is batch norm. Take mean and variance over dim 1.": (
            _normed(z, 0)
        ),
        "the whole table was normalized at once; each row has a mean and a variance of its own.": (
            (z - z.mean()) / z.std(unbiased=False)
        ),
        "the root is missing: divide by the standard deviation, not by the variance.": (
            (z - z.mean(1, keepdim=True)) / (z.var(1, unbiased=False, keepdim=True) + 1e-5)
        ),
        "the variance was divided by units - 1: unbiased=False divides by their number.": (
            (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True) + 1e-5).sqrt()
        ),
        "the mean was not subtracted.": z / (z.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
        "it was not divided by the standard deviation.": z - z.mean(1, keepdim=True),
    }
    expect_close(answer(z), rows, "four rows, normalized", rtol=1e-4, known=known)
    if not torch.equal(z, given):
        raise Mistake("right, but your function changes z; return a new tensor.")
    flat = answer(torch.full((2, 3), 7.0))
    reason = "0 / 0 is nan: add 1e-5 to the variance, inside the root."
    expect_finite(flat, "a row whose units are all alike", reason)


def _normed(z: "Tensor", dim: int) -> "Tensor":
    variance = z.var(dim, unbiased=False, keepdim=True)
    return (z - z.mean(dim, keepdim=True)) / (variance + 1e-5).sqrt()


@exercise(
    "gradient_flow.skips",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "A loop over the branches; in each turn h becomes h plus what the branch makes of it.",
        "Each branch gets the newest h, not the one that came in at the bottom.",
        "for branch in branches: h = h + ...",
    ),
)
def skips(answer: Any) -> None:
    """Three unlike branches, then none; the input is left alone."""
    import torch

    branches = [lambda h: 2 * h, lambda h: h + 1, torch.sin]
    h = torch.tensor([[1.0, -0.5]])
    given = h.clone()
    want, chain, shared = given.clone(), given.clone(), given.clone()
    for branch in branches:
        want = want + branch(want)
        chain = branch(chain)
        shared = shared + branch(given)
    known = {
        "that is the plain chain: the skips are missing, h + F(h).": chain,
        "every branch was given the h from the bottom; give it the newest one.": shared,
        "there is one skip around everything; each block has its own.": given + chain,
        "only the first branch was used: does return stand inside the loop?": given * 3,
        "nothing was added to h.": given,
    }
    expect_close(answer(h, branches), want, "h after three blocks", known=known)
    if not torch.equal(h, given):
        raise Mistake(
            "right, but your function changes h in place: write h = h + ..., not h += ..."
        )
    expect_close(answer(h, []), given, "h after no block at all")


@exercise("gradient_flow.flat", kind="predict", points=1, minutes=1)
def flat(guess: Any) -> None:
    """A share."""
    expect_share(guess)


@exercise(
    "gradient_flow.clip",
    kind="code",
    points=2,
    minutes=6,
    difficulty=2,
    hints=(
        "Think of all gradients as one long list of numbers: what is its length?",
        "The squares of all entries of all tensors, summed, under one root. Where that is below "
        "max_norm, nothing changes.",
        "norm = sum(g.square().sum() for g in grads).sqrt(); factor = min(1.0, max_norm / norm); ...",
    ),
)
def clip(answer: Any) -> None:
    """One factor from the common norm; short gradients untouched; nothing in place; any shapes."""
    grads = _gradients()
    given = [grad.clone() for grad in grads]
    clipped = _listed(answer(grads, 6.5), len(grads))
    _expect_unchanged(grads, given)
    for i, grad in enumerate(given):
        expect_shape(clipped[i], tuple(grad.shape), f"tensor {i} of the clipped gradient")
    known = {reason: _joined(wrong) for reason, wrong in _clip_slips(given, 6.5).items()}
    what = "a gradient of norm 13 clipped to 6.5, all tensors in one row"
    want = _joined([grad / 2 for grad in given])
    expect_close(_joined(clipped), want, what, rtol=1e-4, known=known)
    _expect_short_ones_stay(answer, given)


def _gradients() -> "list[Tensor]":
    """Return three tensors with the norms 3, 4 and 12: together 13."""
    import torch

    return [
        torch.tensor([[2.0, -1.0], [2.0, 0.0]]),
        torch.tensor([4.0]),
        torch.tensor([[[7.2, -9.6]]]),
    ]


def _joined(tensors: Any) -> "Tensor":
    import torch

    return torch.cat([torch.as_tensor(tensor).detach().flatten() for tensor in tensors])


def _clip_slips(grads: "list[Tensor]", limit: float) -> "dict[str, list[Tensor]]":
    """Return what each of the usual mistakes computes."""
    flat = _joined(grads)

    def times(norm: Any) -> "list[Tensor]":
        return [grad * limit / norm for grad in grads]

    return {
        "each tensor was clipped by itself; one factor, from the common norm, serves all.": [
            grad * min(1.0, limit / grad.norm().item()) for grad in grads
        ],
        "the entries were cut off one by one, which turns the gradient; shorten them all by one "
        "factor.": [grad.clamp(-limit, limit) for grad in grads],
        "the norms of the tensors were added; their squares have to be added, under one "
        "root.": times(3 + 4 + 12),
        "the root is missing: the norm is the root of the sum of squares.": times(169),
        "the absolute values were added: that is another norm; square, sum, root.": times(
            flat.abs().sum()
        ),
        "the largest entry was taken for the norm.": times(flat.abs().max()),
        "all have length 1 now: the limit is missing in the factor.": [g / 13 for g in grads],
        "the mean of the squares was taken; the norm needs their sum.": times(
            flat.square().mean().sqrt()
        ),
        "nothing was shortened: is the factor min(1, max_norm / norm)?": grads,
    }


def _listed(clipped: Any, count: int) -> list[Any]:
    if clipped is None:
        raise Mistake("nothing came back: return the list of shortened tensors.")
    if not isinstance(clipped, list | tuple) or len(clipped) != count:
        came = f"{len(clipped)}" if isinstance(clipped, list | tuple) else type(clipped).__name__
        raise Mistake(f"return a list of {count} tensors, one for each that came in; got {came}.")
    return list(clipped)


def _expect_unchanged(grads: "list[Tensor]", given: "list[Tensor]") -> None:
    if not all(bool((a == b).all()) for a, b in zip(grads, given, strict=True)):
        raise Mistake("your function changes the tensors that it was given; return new ones.")


def _expect_short_ones_stay(answer: Any, grads: "list[Tensor]") -> None:
    kept = _listed(answer([grad.clone() for grad in grads], 100.0), len(grads))
    longer = {"it was made longer: the factor must not exceed 1.": grads[0] * 100 / 13}
    expect_close(kept[0], grads[0], "a gradient shorter than the limit", known=longer)
    zeros = _listed(answer([grad * 0 for grad in grads], 1.0), len(grads))
    expect_close(zeros[0], grads[0] * 0, "a gradient of zeros")


@exercise(
    "gradient_flow.drop_one",
    kind="predict",
    points=1,
    minutes=2,
    hints=(
        "Guessing gets a tenth of the digits right. What does a layer make of an input that it was "
        "not trained on?",
    ),
)
def drop_one(guess: Any) -> None:
    """Two shares."""
    if not isinstance(guess, list | tuple) or len(guess) != 2:
        raise Mistake("give two shares, first for the network with skips, then for the plain one.")
    for share in guess:
        expect_share(share)


criticize(
    "gradient_flow.report",
    points=3,
    minutes=6,
    difficulty=3,
    hints=(
        "There are three conclusions: stable, most important, can be removed. What was measured "
        "for each?",
        "What does the norm read after clipping to 1 if the loss explodes? What did the twin "
        "networks of section 7 share?",
        "Norm before clipping and the loss; rescaled layers; remove a layer and measure accuracy; "
        "plain networks do not bear it.",
    ),
    model="""
    The norm was read after clipping, so it is at most 1 by construction: the loss and the norm
    before clipping may explode, and I would plot both, and how often it was clipped. One norm
    for all parameters also says nothing about single layers, which may vanish while others are
    large: measure layer by layer. A large gradient is not importance: scaling one layer up and
    the next one down leaves the network the same and changes both norms. To know what a layer
    is worth, remove it (bypass it) and measure the held-out accuracy. In a plain network
    without skips, removing any single layer is likely to ruin it, however small its gradient;
    only residual networks bear that.
    """,
    rubric={
        "after clipping": "The norm was read after clipping, so it cannot exceed 1: look at the "
        "norm before it, and at the loss.",
        "by layer": "One norm over all parameters hides single layers, which may vanish: measure "
        "layer by layer.",
        "not importance": "A large gradient is not importance: rescaling two layers leaves the "
        "network the same and changes both norms.",
        "remove and measure": "What a layer is worth is found by bypassing it and measuring "
        "held-out accuracy.",
        "plain networks": "Without skips, removing a layer is likely to ruin the network, however "
        "small its gradient.",
    },
)


question(
    "gradient_flow.q_relu",
    "A unit's ReLU is on for half of the rows, and its derivative is 1 there. Why does the gradient of "
    "30 such layers still vanish as PyTorch starts them?",
    choices={
        "The derivative of a ReLU is 0 at 0.": "At one single point; hardly any row hits it.",
        "The weights are too small to make up for the halves that are off.": "Each layer "
        "multiplies by derivatives and weights: half of the mean square times 48 weights of variance "
        "1/(3 * 48) leaves a sixth.",
        "The loss is too small.": "It is 2.3, the same as in networks that learn.",
    },
    right="The weights are too small to make up for the halves that are off.",
)

question(
    "gradient_flow.q_norm",
    "Two layers of one network have gradient norms 10 and 0.1. What do you know?",
    choices={
        "The first layer is more important.": "Scale one layer up and the next one down: the "
        "outputs stay, the norms change as you like.",
        "With plain gradient steps of one rate, the first layer's weights move farther.": "That "
        "much the norm says: rate times norm is how far the weights move, and no more.",
        "The second layer's units are dead.": "They may be, or its weights are just large: count "
        "units that are 0 for all rows.",
    },
    right="With plain gradient steps of one rate, the first layer's weights move farther.",
)
