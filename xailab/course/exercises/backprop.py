"""Exercises of lesson `backprop`: backward passes, and what goes wrong in them."""

from typing import Any

import numpy as np

from xailab.course import (
    Mistake,
    criticize,
    exercise,
    expect_choice,
    expect_close,
    expect_finite,
    expect_number,
    question,
)
from xailab.foundations.backprop import MLP, Sigmoid, Tanh, softmax_cross_entropy


@exercise("backprop.dead_unit", kind="predict", points=1, minutes=1)
def dead_unit(guess: Any) -> None:
    """A slope."""
    expect_number(guess, -10, 10)


@exercise("backprop.big_step", kind="predict", points=1, minutes=1)
def big_step(guess: Any) -> None:
    """Lower or higher."""
    expect_choice(guess, ["lower", "higher"])


class _Number:
    """The lesson's `Number`, to be given to an answer that is written for it."""

    def __init__(self, data: float, parents: tuple[Any, ...] = (), slopes: Any = ()) -> None:
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other: Any) -> "_Number":
        return _Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Any) -> "_Number":
        return _Number(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self, signal: float = 1.0) -> None:
        self.grad += signal
        for parent, slope in zip(self.parents, self.slopes, strict=True):
            parent.backward(signal * slope)


@exercise(
    "backprop.relu",
    kind="code",
    points=1,
    minutes=3,
    difficulty=1,
    hints=(
        "Look at __add__: what are the three things that it gives to Number?",
        "The value is max(0.0, number.data); the slope is 1.0 above 0, else 0.0.",
        "return Number(max(0.0, number.data), (number,), (...,))",
    ),
)
def relu(answer: Any) -> None:
    """Value and slope at 2 and at -3, by sending a signal of 5 back."""
    for data, slope in ((2.0, 1.0), (-3.0, 0.0)):
        number = _Number(data)
        result = answer(number)
        _expect_number_object(result)
        if number.data != data:
            raise Mistake("your function changes the number in place; return a new Number.")
        expect_close(result.data, max(0.0, data), f"the value of the ReLU of {data:g}")
        _send_back(result, 5.0)
        _expect_slope(number.grad / 5.0, slope, data)


def _expect_number_object(result: Any) -> None:
    if result is not None and not hasattr(result, "backward"):
        raise Mistake(f"return a Number, which knows its parent; a {type(result).__name__} came.")
    if result is None:
        raise Mistake("nothing came back: does your code return a Number on every path?")


def _send_back(result: Any, signal: float) -> None:
    try:
        result.backward(signal)
    except (TypeError, ValueError) as error:
        raise Mistake(
            "parents and slopes are tuples of one each, with a comma: (number,) and (slope,)."
        ) from error


def _expect_slope(came: float, slope: float, data: float) -> None:
    known = {
        "above 0 nothing passes: give the Number its parent and the slope 1.": 0.0,
        "that is the value; the slope of a ReLU above 0 is 1.": data,
    }
    off = {
        "below 0 the ReLU is off: its slope is 0, not 1.": 1.0,
        "that is the number itself; below 0 the slope of a ReLU is 0.": data,
    }
    what = f"the slope of the ReLU at {data:g}"
    expect_close(came, slope, what, known=known if data > 0 else off)


@exercise(
    "backprop.sigmoid",
    kind="code",
    points=1,
    minutes=5,
    difficulty=1,
    hints=(
        "What comes from above is multiplied by the slope of the activation at z.",
        "Compute s = sigmoid(z) first; the slope is s * (1 - s), not z * (1 - z).",
        "s = 1 / (1 + np.exp(-z)); return signal * ...",
    ),
)
def sigmoid(answer: Any) -> None:
    """Equals the package's sigmoid, for any shape, and far from 0."""
    z, signal = np.array([[-2.0, 0.0, 1.0]]), np.array([[1.0, 8.0, -3.0]])
    layer = Sigmoid()
    s, want = layer.forward(z), layer.backward(signal)
    known = {
        "signal is not used: multiply what comes from above by the slope.": s * (1 - s),
        "the slope is s * (1 - s) with s = sigmoid(z), not with z itself.": signal * z * (1 - z),
        "this multiplies by the activation s, not by its slope s * (1 - s).": signal * s,
        "that is tanh's slope; sigmoid's is s * (1 - s).": signal * (1 - s**2),
        "a factor is missing: the slope is s * (1 - s).": signal * (1 - s),
    }
    _expect_backward(answer, z, signal, want, known, "sigmoid")


@exercise(
    "backprop.tanh",
    kind="code",
    points=1,
    minutes=5,
    difficulty=1,
    hints=(
        "As for the sigmoid: the signal times the slope at z.",
        "The slope of tanh falls from 1 at z = 0 to 0 far away: 1 - tanh(z) squared.",
        "t = np.tanh(z); return signal * ...",
    ),
)
def tanh(answer: Any) -> None:
    """Equals the package's tanh, for any shape, and far from 0."""
    z, signal = np.array([[-2.0, 0.0, 1.0]]), np.array([[1.0, 8.0, -3.0]])
    layer = Tanh()
    t, want = layer.forward(z), layer.backward(signal)
    known = {
        "signal is not used: multiply what comes from above by the slope.": 1 - t**2,
        "the slope is 1 - t**2 with t = tanh(z), not with z itself.": signal * (1 - z**2),
        "this multiplies by the activation t, not by its slope 1 - t**2.": signal * t,
        "the square is missing: the slope is 1 - t**2.": signal * (1 - t),
        "that is sigmoid's slope; tanh's is 1 - t**2.": signal * t * (1 - t),
        "parentheses are missing: multiply the signal by all of (1 - t**2).": signal - t**2,
    }
    _expect_backward(answer, z, signal, want, known, "tanh")


_OVERFLOW = (
    "e^1000 overflows, and infinity over infinity is nan: compute the activation first and write "
    "the slope with it."
)


def _expect_backward(
    answer: Any, z: Any, signal: Any, want: Any, known: dict[str, Any], name: str
) -> None:
    before = signal.copy()
    expect_close(answer(signal, z), want, f"{name}'s backward", known=known)
    if not np.array_equal(signal, before):
        raise Mistake("your function changes signal in place; return a new array.")
    with np.errstate(over="ignore", invalid="ignore"):
        far = answer(np.ones(2), np.array([-1000.0, 1000.0]))
    expect_finite(far, "the slope at z = -1000 and 1000", _OVERFLOW)
    expect_close(far, [0.0, 0.0], "the slope at z = -1000 and 1000")


@exercise(
    "backprop.two_layer",
    kind="code",
    points=3,
    minutes=15,
    difficulty=3,
    hints=(
        "Forward first, and keep z1 and a1: the way back needs both.",
        "delta2 has the shape (N, K). dW2 must have (K, H): which product of delta2 and a1 has?",
        "delta1 = (delta2 @ W2) * (z1 > 0); dW1 = delta1.T @ X; db1 = delta1.sum(axis=0)",
    ),
)
def two_layer(answer: Any) -> None:
    """Four gradients on a batch of five, against the package's network."""
    rng = np.random.default_rng(7)
    net = MLP([4, 6, 3], seed=7)
    net.dense[0].bias[...] = rng.normal(size=6)
    x, y = rng.normal(size=(5, 4)), np.array([0, 2, 1, 1, 0])
    _, delta = softmax_cross_entropy(net.forward(x), y)
    net.backward(delta)
    names = ("dW1", "db1", "dW2", "db2")
    got = _four(answer(x.copy(), y.copy(), *[p.copy() for p in net.parameters()]))
    shapes, due = [np.shape(g) for g in got], [g.shape for g in net.gradients()]
    if shapes != due and sorted(shapes) == sorted(due):
        raise Mistake(f"the four are in another order than ({', '.join(names)}).")
    known = _known_mistakes(net, x, y, delta)
    # From the top down: an error in delta2 would otherwise be reported as one of delta1.
    for name in ("dW2", "db2", "dW1", "db1"):
        want = net.gradients()[names.index(name)]
        expect_close(got[names.index(name)], want, name, known=known[name])


def _four(gradients: Any) -> Any:
    if not isinstance(gradients, (tuple, list)) or len(gradients) != 4:
        count = len(gradients) if isinstance(gradients, (tuple, list)) else "one value"
        raise Mistake(f"return four arrays, (dW1, db1, dW2, db2), not {count}.")
    return gradients


def _known_mistakes(net: MLP, x: Any, y: Any, delta2: Any) -> dict[str, dict[str, Any]]:
    """What each common mistake gives, by the name of the gradient in which it shows."""
    z1 = x @ net.dense[0].weight.T + net.dense[0].bias
    a1, signal = np.maximum(0, z1), delta2 @ net.dense[1].weight
    logits = a1 @ net.dense[1].weight.T + net.dense[1].bias
    floored = softmax_cross_entropy(np.maximum(0, logits), y)[1]
    positive = signal * (signal > 0)
    unbent = softmax_cross_entropy(z1 @ net.dense[1].weight.T + net.dense[1].bias, y)[1]
    no_mask = "delta1 lacks the slope of the ReLU: multiply by (z1 > 0)."
    activation = "delta1 is multiplied by the activation a1; it must be its slope, (z1 > 0)."
    no_bend = "a1 is z1: the ReLU of the forward pass is missing."
    clipped = "the logits went through a ReLU: the last layer gets no activation."
    wrong_sign = "the mask asks for the sign of the signal; the ReLU asks for the sign of z1."
    mean = "db is the sum of the deltas over the rows; delta2 is divided by N already."
    return {
        "dW2": {no_bend: unbent.T @ z1, clipped: floored.T @ a1},
        "db2": {mean: delta2.mean(axis=0)},
        "dW1": {
            no_mask: signal.T @ x,
            activation: (signal * a1).T @ x,
            wrong_sign: positive.T @ x,
        },
        "db1": {
            no_mask: signal.sum(axis=0),
            activation: (signal * a1).sum(axis=0),
            wrong_sign: positive.sum(axis=0),
            mean: (signal * (z1 > 0)).mean(axis=0),
        },
    }


criticize(
    "backprop.review",
    points=2,
    minutes=5,
    difficulty=2,
    hints=(
        "Read it beside section 3: which lines differ?",
        "One error is in how out and loss are made, one in delta1, one in the order of the lines.",
        "When delta1 is computed, which W2 does it use: the old one or the new one?",
    ),
    model="""
    1. The output goes through a ReLU and then a log. A negative score gives an infinite loss, a
    score above 1 a negative one, and delta2 = out - onehot(y) is not the gradient of this loss.
    The last layer needs no activation; use softmax and cross-entropy, whose gradient is p -
    onehot(y). 2. delta1 multiplies by the activation a1. It must be the slope of the ReLU, the
    mask z1 > 0. 3. W2 is changed before delta1 uses it: the blame goes down through the new
    weights instead of those that made the mistake. Compute all gradients first, then change the
    weights. Finite differences on each weight find 1 and 2 at once, and 3 if the whole step is
    checked.
    """,
    rubric={
        "ReLU and log": "The output goes through a ReLU and a log: a score below 0 gives an "
        "infinite loss, one above 1 a negative loss.",
        "gradient of another loss": "out - onehot(y) is the gradient of softmax with "
        "cross-entropy, not of this loss: leave the scores as they are, and use those two.",
        "slope": "delta1 must be multiplied by the derivative of the ReLU, the mask z1 > 0, not "
        "by the activation a1.",
        "order": "W2 is changed before delta1 uses it: compute all gradients first, then change "
        "the weights.",
        "how to find it": "Finite differences on single weights disagree with these gradients.",
    },
)


question(
    "backprop.q_relu",
    "A hidden ReLU unit has the sum z = -3. The signal from above is 2. What is its delta?",
    choices={
        "2": "That would be right for a positive sum: there the slope is 1.",
        "0": "The slope of a ReLU at a negative sum is 0, so nothing passes, whatever the signal.",
        "-6": "You multiplied by the sum z. The factor is the slope of the activation, here 0.",
        "-3": "That is the sum itself; it decides only whether the signal passes.",
    },
    right="0",
)

question(
    "backprop.q_paths",
    "The loss depends on w along two paths. Along one its slope is 3, along the other -3. "
    "What is the gradient in w?",
    choices={
        "3": "A gradient does not pick the first path: the paths add, 3 + (-3).",
        "-9": "Slopes multiply along one path; slopes of different paths add.",
        "0": "3 + (-3) = 0. A small change of w moves the loss up on one path and down as much on "
        "the other. That w matters in both, the gradient does not say.",
        "6": "Slopes have signs: 3 + (-3), not 3 + 3.",
    },
    right="0",
)
