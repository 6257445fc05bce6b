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


@exercise(
    "backprop.forward",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "One line for each formula; return all three, in the order z1, a1, z2.",
        "z1 = W1 @ x + b1, and np.maximum(0, z1) is the ReLU of every number.",
        "z2 = W2 @ a1 + ..., with no ReLU after it.",
    ),
)
def forward(answer: Any) -> None:
    """Weighted sums, ReLU, logits of one example."""
    x, w1, b1, w2, b2 = _example()
    z1 = w1 @ x + b1
    a1 = np.maximum(0, z1)
    z2 = w2 @ a1 + b2
    given = [array.copy() for array in (x, w1, b1, w2, b2)]
    got = _several(answer(*given), ("z1", "a1", "z2"))
    expect_close(got[0], z1, "z1", known={"z1 lacks the bias b1.": z1 - b1})
    known = {
        "a1 is z1: the ReLU is missing.": z1,
        "the ReLU keeps the number itself where it is positive, not a 1.": (z1 > 0) * 1.0,
        "a1 is the absolute value of z1; the ReLU turns negative numbers into 0.": np.abs(z1),
        "np.minimum keeps the negative numbers; the ReLU keeps the positive ones.": (
            np.minimum(0, z1)
        ),
    }
    expect_close(got[1], a1, "a1", known=known)
    known = {
        "z2 lacks the bias b2.": z2 - b2,
        "z2 is computed from z1; layer 2 sees a1, after the ReLU.": w2 @ z1 + b2,
        "the logits went through a ReLU: the last layer gets no activation.": np.maximum(0, z2),
    }
    expect_close(got[2], z2, "z2", known=known)
    if not all(map(np.array_equal, given, (x, w1, b1, w2, b2))):
        raise Mistake("right, but your function changes its inputs in place.")


def _example() -> tuple[Any, ...]:
    """One example and a network of 2, 3 and 2 units; one hidden unit is off, one logit negative."""
    x, b1, b2 = np.array([2.0, 1.0]), np.array([1.0, -1.0, 0.5]), np.array([0.5, -1.0])
    w1 = np.array([[1.0, -1.0], [-0.5, 1.0], [0.5, 2.0]])
    return x, w1, b1, np.array([[1.0, 2.0, 0.5], [-2.0, 1.0, 0.5]]), b2


def _several(got: Any, names: tuple[str, ...]) -> Any:
    """Return what came if it holds as many arrays as there are names."""
    if not isinstance(got, (tuple, list)) or len(got) != len(names):
        count = len(got) if isinstance(got, (tuple, list)) else "one value"
        raise Mistake(f"return {len(names)} arrays, ({', '.join(names)}), not {count}.")
    return got


@exercise("backprop.dead_unit", kind="predict", points=1, minutes=1)
def dead_unit(guess: Any) -> None:
    """A derivative."""
    expect_number(guess, -10, 10)


@exercise(
    "backprop.backward",
    kind="code",
    points=3,
    minutes=5,
    difficulty=2,
    hints=(
        "Three lines will do: rule 1 for layer 2, rules 2 and 3 for delta1, rule 1 again.",
        "Rule 1 is np.outer(delta2, a1) for the weights, delta2 for the biases; in layer 1 the "
        "activation below is x.",
        "delta1 = (W2.T @ delta2) * (z1 > 0); return dW1, db1, dW2, db2 in this order.",
    ),
)
def backward(answer: Any) -> None:
    """Four gradients of one example, in the shapes of their arrays."""
    x, w1, b1, w2, _ = _example()
    z1 = w1 @ x + b1
    a1, delta2 = np.maximum(0, z1), np.array([-0.75, 0.25])
    blame = w2.T @ delta2
    names = ("dW1", "db1", "dW2", "db2")
    given = [array.copy() for array in (x, z1, a1, delta2, w2)]
    got = _several(answer(*given), names)
    delta1 = blame * (z1 > 0)
    due = (np.outer(delta1, x), delta1, np.outer(delta2, a1), delta2)
    shapes = [np.shape(g) for g in got]
    if shapes != [g.shape for g in due] and sorted(shapes) == sorted(g.shape for g in due):
        raise Mistake(f"the four are in another order than ({', '.join(names)}).")
    known = {
        "delta1 lacks the derivative of the ReLU: multiply by (z1 > 0).": blame,
        "delta1 is multiplied by the activation a1; it must be the derivative, (z1 > 0).": (
            blame * a1
        ),
        "delta1 is multiplied by z1; it must be the derivative of the ReLU, (z1 > 0).": blame * z1,
        "the mask asks for the sign of the blame; the ReLU asks for the sign of z1.": (
            blame * (blame > 0)
        ),
    }
    expect_close(got[3], delta2, "db2")
    expect_close(
        got[2], due[2], "dW2", known={"dW2 uses z1; the weights see a1.": np.outer(delta2, z1)}
    )
    expect_close(got[1], delta1, "db1", known=known)
    of_weights = {sentence: np.outer(delta, x) for sentence, delta in known.items()}
    expect_close(got[0], due[0], "dW1", known=of_weights)
    if not all(map(np.array_equal, given, (x, z1, a1, delta2, w2))):
        raise Mistake("right, but your function changes its inputs in place.")


@exercise(
    "backprop.by_moving",
    kind="code",
    points=2,
    minutes=3,
    difficulty=2,
    hints=(
        "Keep the old number first. Then up and ask, down and ask, and put it back.",
        "old = array[i]; array[i] = old + eps; above = loss()",
        "array[i] = old - eps; below = loss(); array[i] = old; the way from one to the other is "
        "2 * eps long.",
    ),
)
def by_moving(answer: Any) -> None:
    """Central difference of a cubic, with a step of 0.25; the array is as it was."""
    array = np.array([[1.0, 2.0], [3.0, -1.0]])
    before = array.copy()

    def loss() -> float:
        return float((array**3).sum() + array[0, 1] * array[1, 0])

    got = answer(loss, array, (0, 1), 0.25)
    if not np.array_equal(array, before):
        raise Mistake("the array is not as it was: put the old number back before you return.")
    known = {
        "divided by eps: the two places lie 2 * eps apart.": 30.125,
        "this moves it up only (a one-sided difference): move it down as well.": 16.5625,
        "this moves it down only (a one-sided difference): move it up as well.": 13.5625,
        "the sign is wrong: above minus below.": -15.0625,
        "the difference is not divided by 2 * eps.": 7.53125,
        "divided by 2 and multiplied by eps: write (2 * eps) in parentheses.": 7.53125 / 2 * 0.25,
        "nothing moved: change the number in `array` itself, then ask for the loss.": 0.0,
    }
    expect_close(got, 15.0625, "the central difference", known=known)


class _Number:
    """The lesson's `Number`, to be given to an answer that is written for it."""

    def __init__(self, data: float, parents: tuple[Any, ...] = (), slopes: Any = ()) -> None:
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other: Any) -> "_Number":
        return _Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Any) -> "_Number":
        return _Number(self.data * other.data, (self, other), (other.data, self.data))


@exercise(
    "backprop.ordered",
    kind="code",
    points=2,
    minutes=4,
    difficulty=3,
    hints=(
        "An empty list, an empty set, and an inner function visit(number). Call visit(result).",
        "In visit: if id(number) is not in the set, add it, visit every parent, and only then "
        "append the number.",
        "for parent in number.parents: visit(parent), and after the loop order.append(number)",
    ),
)
def ordered(answer: Any) -> None:
    """Every number once, parents first, on a graph where a number is used three times."""
    a, b = _Number(3.0), _Number(3.0)  # equal, but two numbers
    c = a * b
    d = c + a
    result = c * d
    got = answer(result)
    if not isinstance(got, list):
        raise Mistake(f"a list is asked for; a {type(got).__name__} came.")
    ids = [id(number) for number in got]
    everything = {"a": a, "b": b, "c = a b": c, "d = c + a": d, "the result": result}
    where = "In the graph of c = a b, d = c + a, result = c d"
    if len(ids) > len(set(ids)):
        raise Mistake(f"{where}, a number stands in the list more than once: remember its id.")
    if a.data == b.data and len(got) == 4 and (id(a) in ids) != (id(b) in ids):
        raise Mistake(f"{where}, a and b are equal but not the same: compare ids, not data.")
    for name, number in everything.items():
        if id(number) not in ids:
            raise Mistake(f"{where}, {name} is missing from the list.")
    if len(ids) > len(everything):
        raise Mistake("the list holds something that the result does not depend on.")
    if ids[0] == id(result):
        raise Mistake("the result stands first: append a number after its parents, not before.")
    for number in got:
        if any(ids.index(id(parent)) > ids.index(id(number)) for parent in number.parents):
            raise Mistake(f"{where}, a number stands before one of its parents.")


@exercise(
    "backprop.sweep",
    kind="code",
    points=2,
    minutes=3,
    difficulty=2,
    hints=(
        "Three steps: all grads to 0, the result's to 1, then the order from its end.",
        "for number in reversed(ordered(result)): and inside, a loop over its parents and slopes.",
        "parent.grad += slope * number.grad",
    ),
)
def sweep(answer: Any) -> None:
    """Derivatives of a graph in which a path must wait for another; the same when run twice."""
    a, b = _Number(3.0), _Number(-2.0)
    c = a * b  # -6
    d = c + a  # -3
    result = c * d + c  # f = c d + c with c = a b: df/dc = 2 c + a + 1 = -8
    for turn in ("once", "a second time"):
        answer(result)
        if result.grad == 0:
            raise Mistake("the grad of the result is 0: it starts with 1, or nothing flows back.")
        if turn == "a second time" and not np.isclose(a.grad, 10.0):
            raise Mistake("run a second time it gives something else: set every grad to 0 first.")
        known = {
            "the last path overwrites the others: use += for the parents.": 12.0,
            "the slope is missing: each parent gets the grad times the slope.": 4.0,
            "the grad is missing: each parent gets the slope times the number's own grad.": -1.0,
            "nothing arrives at a: go through the order from its end.": 0.0,
        }
        expect_close(
            a.grad, 10.0, "with c = a b, d = c + a, f = c d + c, the grad of a", known=known
        )
        expect_close(c.grad, -8.0, "with f = c d + c, the grad of c")
        expect_close(b.grad, -24.0, "with c = a b, f = c d + c, the grad of b")


@exercise("backprop.big_step", kind="predict", points=1, minutes=1)
def big_step(guess: Any) -> None:
    """Lower or higher."""
    expect_choice(guess, ["lower", "higher"])


@exercise(
    "backprop.relu",
    kind="code",
    points=1,
    minutes=2,
    difficulty=1,
    hints=(
        "Look at __add__: what are the three things that it gives to Number?",
        "The value is max(0.0, number.data); the slope is 1.0 above 0, else 0.0.",
        "return Number(max(0.0, number.data), (number,), (...,))",
    ),
)
def relu(answer: Any) -> None:
    """Value and slope at 2 and at -3, along every path to the number."""
    for data, slope in ((2.0, 1.0), (-3.0, 0.0)):
        number = _Number(data)
        result = answer(number)
        _expect_number_object(result)
        if number.data != data:
            raise Mistake("your function changes the number in place; return a new Number.")
        expect_close(result.data, max(0.0, data), f"the value of the ReLU of {data:g}")
        _expect_slope(_derivative(result, number), slope, data)


def _expect_number_object(result: Any) -> None:
    if result is not None and not hasattr(result, "slopes"):
        raise Mistake(f"return a Number, which knows its parent; a {type(result).__name__} came.")
    if result is None:
        raise Mistake("nothing came back: does your code return a Number on every path?")


def _derivative(result: Any, number: Any) -> float:
    """Multiply the slopes along every path from a result to a number, and add up the paths."""
    if result is number:
        return 1.0
    if not isinstance(result.parents, tuple) or not isinstance(result.slopes, tuple):
        raise Mistake(
            "parents and slopes are tuples of one each, with a comma: (number,) and (slope,)."
        )
    pairs = zip(result.parents, result.slopes, strict=True)
    return sum((slope * _derivative(parent, number) for parent, slope in pairs), 0.0)


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
    minutes=3,
    difficulty=1,
    hints=(
        "What comes from above is multiplied by the derivative of the activation at z.",
        "Compute s = sigmoid(z) first; the derivative is s * (1 - s), not z * (1 - z).",
        "s = 1 / (1 + np.exp(-z)); return signal * ...",
    ),
)
def sigmoid(answer: Any) -> None:
    """Equals the package's sigmoid, for any shape, and far from 0."""
    z, signal = np.array([[-2.0, 0.0, 1.0]]), np.array([[1.0, 8.0, -3.0]])
    layer = Sigmoid()
    s, want = layer.forward(z), layer.backward(signal)
    known = {
        "signal is not used: multiply what comes from above by the derivative.": s * (1 - s),
        "the derivative is s * (1 - s) with s = sigmoid(z), not with z itself.": signal
        * z
        * (1 - z),
        "this multiplies by the activation s, not by its derivative s * (1 - s).": signal * s,
        "that is tanh's derivative; sigmoid's is s * (1 - s).": signal * (1 - s**2),
        "a factor is missing: the derivative is s * (1 - s).": signal * (1 - s),
    }
    _expect_backward(answer, z, signal, want, known, "sigmoid")


@exercise(
    "backprop.tanh",
    kind="code",
    points=1,
    minutes=3,
    difficulty=1,
    hints=(
        "As for the sigmoid: the signal times the derivative at z.",
        "The derivative of tanh falls from 1 at z = 0 to 0 far away: 1 - tanh(z) squared.",
        "t = np.tanh(z); return signal * ...",
    ),
)
def tanh(answer: Any) -> None:
    """Equals the package's tanh, for any shape, and far from 0."""
    z, signal = np.array([[-2.0, 0.0, 1.0]]), np.array([[1.0, 8.0, -3.0]])
    layer = Tanh()
    t, want = layer.forward(z), layer.backward(signal)
    known = {
        "signal is not used: multiply what comes from above by the derivative.": 1 - t**2,
        "the derivative is 1 - t**2 with t = tanh(z), not with z itself.": signal * (1 - z**2),
        "this multiplies by the activation t, not by its derivative 1 - t**2.": signal * t,
        "the square is missing: the derivative is 1 - t**2.": signal * (1 - t),
        "that is sigmoid's derivative; tanh's is 1 - t**2.": signal * t * (1 - t),
        "parentheses are missing: multiply the signal by all of (1 - t**2).": signal - t**2,
    }
    _expect_backward(answer, z, signal, want, known, "tanh")


_OVERFLOW = (
    "e^1000 overflows, and infinity over infinity is nan: compute the activation first and write "
    "the derivative with it."
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
    expect_finite(far, "the derivative at z = -1000 and 1000", _OVERFLOW)
    expect_close(far, [0.0, 0.0], "the derivative at z = -1000 and 1000")


@exercise(
    "backprop.two_layer",
    kind="code",
    points=3,
    minutes=12,
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
    got = _several(answer(x.copy(), y.copy(), *[p.copy() for p in net.parameters()]), names)
    shapes, due = [np.shape(g) for g in got], [g.shape for g in net.gradients()]
    if shapes != due and sorted(shapes) == sorted(due):
        raise Mistake(f"the four are in another order than ({', '.join(names)}).")
    known = _known_mistakes(net, x, y, delta)
    # From the top down: an error in delta2 would otherwise be reported as one of delta1.
    for name in ("dW2", "db2", "dW1", "db1"):
        want = net.gradients()[names.index(name)]
        expect_close(got[names.index(name)], want, name, known=known[name])


def _known_mistakes(net: MLP, x: Any, y: Any, delta2: Any) -> dict[str, dict[str, Any]]:
    """What each common mistake gives, by the name of the gradient in which it shows."""
    z1 = x @ net.dense[0].weight.T + net.dense[0].bias
    a1, signal = np.maximum(0, z1), delta2 @ net.dense[1].weight
    logits = a1 @ net.dense[1].weight.T + net.dense[1].bias
    floored = softmax_cross_entropy(np.maximum(0, logits), y)[1]
    positive = signal * (signal > 0)
    unbent = softmax_cross_entropy(z1 @ net.dense[1].weight.T + net.dense[1].bias, y)[1]
    no_mask = "delta1 lacks the derivative of the ReLU: multiply by (z1 > 0)."
    activation = "delta1 is multiplied by the activation a1; it must be its derivative, (z1 > 0)."
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
    onehot(y). 2. delta1 multiplies by the activation a1. It must be the derivative of the ReLU, the
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
        "derivative": "delta1 must be multiplied by the derivative of the ReLU, the mask z1 > 0, "
        "not by the activation a1.",
        "order": "W2 is changed before delta1 uses it: compute all gradients first, then change "
        "the weights.",
        "how to find it": "Finite differences on single weights disagree with these gradients.",
    },
)


question(
    "backprop.q_relu",
    "A hidden ReLU unit has the sum z = -3. The signal from above is 2. What is its delta?",
    choices={
        "2": "That would be right for a positive sum: there the derivative is 1.",
        "0": "The derivative of a ReLU at a negative sum is 0, so nothing passes, whatever the signal.",
        "-6": "You multiplied by the sum z. The factor is the derivative of the activation, here 0.",
        "-3": "That is the sum itself; it decides only whether the signal passes.",
    },
    right="0",
)

question(
    "backprop.q_paths",
    "The loss depends on w along two paths. Along one its derivative is 3, along the other -3. "
    "What is the gradient in w?",
    choices={
        "3": "A gradient does not pick the first path: the paths add, 3 + (-3).",
        "-9": "Derivatives multiply along one path; derivatives of different paths add.",
        "0": "3 + (-3) = 0. A small change of w moves the loss up on one path and down as much on "
        "the other. That w matters in both, the gradient does not say.",
        "6": "Derivatives have signs: 3 + (-3), not 3 + 3.",
    },
    right="0",
)
