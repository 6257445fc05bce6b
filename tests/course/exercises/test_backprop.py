"""The checks of lesson `backprop`: right answers pass, planted mistakes are named."""

import numpy as np
import pytest
import torch

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.course.exercises.backprop import _Number
from xailab.course.registry import find_question, questions_of

LESSON = "backprop"


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# ---------------------------------------------------------------- forward and backward by hand


def one_forward(x, w1, b1, w2, b2, *, bend=lambda z: np.maximum(0, z), bias=1, floor=False):
    z1 = w1 @ x + bias * b1
    a1 = bend(z1)
    z2 = w2 @ a1 + b2
    return z1, a1, np.maximum(0, z2) if floor else z2


def of_forward(**wrong):
    return lambda *given: one_forward(*given, **wrong)


def changes_w1(x, w1, b1, w2, b2):
    out = one_forward(x, w1, b1, w2, b2)
    w1 += 1
    return out


def test_forward_takes_the_model_answer_and_another_way():
    assert_accepted("backprop.forward", solution_of(LESSON, "forward"))

    def by_sums(x, w1, b1, w2, b2):
        z1 = (w1 * x).sum(axis=1) + b1
        a1 = z1 * (z1 > 0)
        return [z1, a1, (w2 * a1).sum(axis=1) + b2]

    assert_accepted("backprop.forward", by_sums)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (of_forward(bias=0), "z1 lacks the bias"),
        (of_forward(bend=lambda z: z), "the ReLU is missing"),
        (of_forward(bend=lambda z: (z > 0) * 1.0), "not a 1"),
        (of_forward(bend=np.abs), "absolute value"),
        (of_forward(bend=lambda z: np.minimum(0, z)), "np.minimum"),
        (of_forward(floor=True), "last layer gets no activation"),
        (
            lambda x, w1, b1, w2, b2: (
                *one_forward(x, w1, b1, w2, b2)[:2],
                w2 @ (w1 @ x + b1) + b2,
            ),
            "from z1",
        ),
        (
            lambda x, w1, b1, w2, b2: (
                *one_forward(x, w1, b1, w2, b2)[:2],
                one_forward(x, w1, b1, w2, b2)[2] - b2,
            ),
            "lacks the bias b2",
        ),
        (lambda *given: one_forward(*given)[2], r"return 3 arrays, .* not one value"),
        (lambda *given: one_forward(*given)[1:], r"return 3 arrays, .* not 2"),
        (changes_w1, "in place"),
    ],
)
def test_forward_names_the_mistake(wrong, match):
    assert_rejected("backprop.forward", wrong, match)


def one_backward(*, gate="z1", below="a1", order=(0, 1, 2, 3)):
    """The answer with one thing wrong."""

    def gradients(x, z1, a1, delta2, w2):
        blame = w2.T @ delta2
        gates = {"z1": z1 > 0, "none": 1, "activation": a1, "sum": z1, "blame": blame > 0}
        delta1 = blame * gates[gate]
        four = np.outer(delta1, x), delta1, np.outer(delta2, a1 if below == "a1" else z1), delta2
        return tuple(four[i] for i in order)

    return gradients


def changes_delta(x, z1, a1, delta2, w2):
    out = one_backward()(x, z1, a1, delta2.copy(), w2)
    delta2 *= 2
    return out


def test_backward_takes_the_model_answer_and_another_way():
    assert_accepted("backprop.backward", solution_of(LESSON, "backward"))

    def by_columns(x, z1, a1, delta2, w2):
        delta1 = np.where(z1 > 0, delta2 @ w2, 0)
        return [delta1[:, None] * x, delta1, delta2[:, None] * a1, delta2]

    assert_accepted("backprop.backward", by_columns)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (one_backward(gate="none"), "lacks the derivative of the ReLU"),
        (one_backward(gate="activation"), "multiplied by the activation"),
        (one_backward(gate="sum"), "multiplied by z1"),
        (one_backward(gate="blame"), "sign of the blame"),
        (one_backward(below="z1"), "the weights see a1"),
        (one_backward(order=(2, 3, 0, 1)), "another order"),
        (one_backward(order=(0, 1, 2)), "return 4 arrays, .* not 3"),
        (lambda *given: [g.T for g in one_backward()(*given)], "another order|should have shape"),
        (changes_delta, "in place"),
    ],
)
def test_backward_names_the_mistake(wrong, match):
    assert_rejected("backprop.backward", wrong, match)


def moving(combine, *, back=True, to=None):
    def difference(loss, array, i, eps=1e-6):
        old, here = array[i], loss()
        array = array if to is None else to(array)
        array[i] = old + eps
        above = loss()
        array[i] = old - eps
        below = loss()
        array[i] = old if back else array[i]
        return combine(above, here, below, eps)

    return difference


def test_by_moving_takes_the_model_answer_and_another_way():
    assert_accepted("backprop.by_moving", solution_of(LESSON, "by_moving"))

    def in_steps(loss, array, i, eps=1e-6):
        array[i] += eps
        above = loss()
        array[i] -= 2 * eps
        below = loss()
        array[i] += eps
        return (above - below) / eps / 2

    assert_accepted("backprop.by_moving", in_steps)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (moving(lambda a, h, b, e: (a - b) / e), "2 \\* eps apart"),
        (moving(lambda a, h, b, e: (a - h) / e), "up only"),
        (moving(lambda a, h, b, e: (h - b) / e), "down only"),
        (moving(lambda a, h, b, e: (b - a) / (2 * e)), "sign is wrong"),
        (moving(lambda a, h, b, e: a - b), "not divided"),
        (moving(lambda a, h, b, e: (a - b) / 2 * e), "in parentheses"),
        (moving(lambda a, h, b, e: (a - b) / (2 * e), back=False), "put the old number back"),
        (moving(lambda a, h, b, e: (a - b) / (2 * e), to=np.copy), "nothing moved"),
    ],
)
def test_by_moving_names_the_mistake(wrong, match):
    assert_rejected("backprop.by_moving", wrong, match)


# ---------------------------------------------------------------- the order and the sweep


def walk(result, *, key=id, first=False, again=False, last=True):
    """Numbers below a result, with one thing wrong."""
    order, seen = [], set()

    def visit(number):
        if again or key(number) not in seen:
            seen.add(key(number))
            if first:
                order.append(number)
            for parent in number.parents:
                visit(parent)
            if not first:
                order.append(number)

    visit(result)
    return order if last else order[:-1]


def of_walk(**wrong):
    return lambda result: walk(result, **wrong)


def test_ordered_takes_the_model_answer_and_another_way():
    assert_accepted("backprop.ordered", solution_of(LESSON, "ordered"))

    def by_asking(result):
        found, order = walk(result), []
        while len(order) < len(found):
            ready = {id(number) for number in order}
            for number in found:
                if id(number) not in ready and all(id(p) in ready for p in number.parents):
                    order.append(number)
                    break
        return order

    assert_accepted("backprop.ordered", by_asking)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (of_walk(again=True), "more than once"),
        (of_walk(key=lambda number: number.data), "equal but not the same"),
        (of_walk(first=True), "result stands first"),
        (of_walk(last=False), "the result is missing"),
        (lambda result: [*walk(result), _Number(0.0)], "does not depend on"),
        (lambda result: [walk(result)[i] for i in (2, 0, 1, 3, 4)], "before one of its parents"),
        (lambda result: tuple(walk(result)), "a tuple came"),
        (lambda result: None, "None"),
    ],
)
def test_ordered_names_the_mistake(wrong, match):
    assert_rejected("backprop.ordered", wrong, match)


def swept(send, *, reset=True, one=1.0, turn=True):
    """A sweep with one thing wrong; `send` gives a parent's new grad."""

    def backward(result):
        order = walk(result)
        for number in order if reset else ():
            number.grad = 0.0
        result.grad = one
        for number in reversed(order) if turn else order:
            for parent, slope in zip(number.parents, number.slopes, strict=True):
                parent.grad = send(parent.grad, slope, number.grad)

    return backward


def right(old, slope, grad):
    return old + slope * grad


def by_every_path(result):
    for number in walk(result):
        number.grad = 0.0

    def send(number, signal):
        number.grad += signal
        for parent, slope in zip(number.parents, number.slopes, strict=True):
            send(parent, signal * slope)

    send(result, 1.0)


def test_sweep_takes_the_model_answer_and_another_way():
    assert_accepted("backprop.sweep", solution_of(LESSON, "my_backward"))
    assert_accepted("backprop.sweep", by_every_path)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (swept(lambda old, slope, grad: slope * grad), r"use \+="),
        (swept(lambda old, slope, grad: old + grad), "slope is missing"),
        (swept(lambda old, slope, grad: old + slope), "grad is missing"),
        (swept(right, turn=False), "from its end"),
        (swept(right, reset=False), "second time"),
        (swept(right, one=0.0), "starts with 1"),
    ],
)
def test_sweep_names_the_mistake(wrong, match):
    assert_rejected("backprop.sweep", wrong, match)


# ---------------------------------------------------------------- activations


def test_sigmoid_accepts_the_model_answer_and_another_way():
    assert_accepted("backprop.sigmoid", solution_of(LESSON, "sigmoid_backward"))
    assert_accepted("backprop.sigmoid", lambda d, z: d * sigmoid(z) * sigmoid(-z))


def in_place(delta, z):
    delta *= sigmoid(z) * (1 - sigmoid(z))
    return delta


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda d, z: sigmoid(z) * (1 - sigmoid(z)), "signal is not used"),
        (lambda d, z: d * z * (1 - z), "not with z itself"),
        (lambda d, z: d * sigmoid(z), "by the activation s, not by its derivative"),
        (lambda d, z: d * (1 - sigmoid(z) ** 2), "tanh's derivative"),
        (lambda d, z: -d * sigmoid(z) * (1 - sigmoid(z)), "wrong sign"),
        (lambda d, z: (d * sigmoid(z) * (1 - sigmoid(z))).sum(), "shape"),
        (lambda d, z: d * np.exp(z) / (1 + np.exp(z)) ** 2, "overflows, .* compute the activation"),
        (
            lambda d, z: d * np.exp(-z) / (1 + np.exp(-z)) ** 2,
            "overflows, .* compute the activation",
        ),
        (lambda d, z: d * (1 - sigmoid(z)), "a factor is missing"),
        (in_place, "in place"),
    ],
)
def test_sigmoid_names_the_mistake(wrong, match):
    assert_rejected("backprop.sigmoid", wrong, match)


def test_tanh_accepts_the_model_answer_and_another_way():
    assert_accepted("backprop.tanh", solution_of(LESSON, "tanh_backward"))
    assert_accepted("backprop.tanh", lambda d, z: d * 4 * sigmoid(2 * z) * sigmoid(-2 * z))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda d, z: 1 - np.tanh(z) ** 2, "signal is not used"),
        (lambda d, z: d * (1 - z**2), "not with z itself"),
        (lambda d, z: d * np.tanh(z), "by the activation t"),
        (lambda d, z: d * (1 - np.tanh(z)), "the square is missing"),
        (lambda d, z: d * np.tanh(z) * (1 - np.tanh(z)), "sigmoid's derivative"),
        (lambda d, z: 2 * d * (1 - np.tanh(z) ** 2), "2 times what is expected"),
        (lambda d, z: d * 1 - np.tanh(z) ** 2, "parentheses are missing"),
        (lambda d, z: None, "return"),
    ],
)
def test_tanh_names_the_mistake(wrong, match):
    assert_rejected("backprop.tanh", wrong, match)


# ---------------------------------------------------------------- a ReLU for Number


def number_and(relu):
    """An answer to the exercise: `relu(Number, number)` with the lesson's class `Number`."""
    Number = type(solution_of(LESSON, "relu")(_Number(1.0)))
    return lambda number: relu(Number, number)


def in_the_number(Number, n):
    n.data = max(0.0, n.data)
    return n


def test_relu_accepts_the_model_answer_and_two_other_ways():
    assert_accepted("backprop.relu", solution_of(LESSON, "relu"))
    by_product = number_and(lambda Number, n: n * Number(float(n.data > 0)))
    assert_accepted("backprop.relu", by_product)
    by_case = number_and(lambda Number, n: n if n.data > 0 else Number(0.0))
    assert_accepted("backprop.relu", by_case)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda Number, n: max(0.0, n.data), "return a Number.* a float came"),
        (lambda Number, n: None, "nothing came back"),
        (lambda Number, n: Number(max(0.0, n.data)), "above 0 nothing passes"),
        (lambda Number, n: Number(max(0.0, n.data), (n,), (n.data,)), "that is the value"),
        (lambda Number, n: Number(max(0.0, n.data), (n,), (1.0,)), "below 0 the ReLU is off"),
        (lambda Number, n: Number(max(0.0, n.data), (n,), 1.0), "tuples of one"),
        (lambda Number, n: Number(max(0.0, n.data), n, (1.0,)), "tuples of one"),
        (lambda Number, n: Number(abs(n.data), (n,), (1.0,)), "the value of the ReLU of -3"),
        (in_the_number, "in place"),
    ],
)
def test_relu_names_the_mistake(wrong, match):
    assert_rejected("backprop.relu", number_and(wrong), match)


# ---------------------------------------------------------------- the two-layer network


def by_torch(x, y, *parameters):
    w1, b1, w2, b2 = leaves = [torch.tensor(p, requires_grad=True) for p in parameters]
    logits = torch.relu(torch.tensor(x) @ w1.T + b1) @ w2.T + b2
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y))
    return torch.autograd.grad(loss, leaves)


def two_layer(
    *, slope=None, rows="sum", bend=True, floor=False, mean=True, axis=1, order=(0, 1, 2, 3)
):
    """The answer with one thing wrong."""

    def gradients(x, y, w1, b1, w2, b2):
        z1 = x @ w1.T + b1
        a1 = np.maximum(0, z1) if bend else z1
        logits = a1 @ w2.T + b2
        e = np.exp(np.maximum(0, logits) if floor else logits)
        delta2 = e / e.sum(axis=axis, keepdims=True) - np.eye(len(b2))[y]
        delta2 = delta2 / len(x) if mean else delta2
        signal = delta2 @ w2
        factors = {None: z1 > 0, "none": 1.0, "activation": a1, "sign of the signal": signal > 0}
        delta1 = signal * factors[slope]
        db1, db2 = (getattr(d, rows)(axis=0) for d in (delta1, delta2))
        four = delta1.T @ x, db1, delta2.T @ a1, db2
        return tuple(four[i] for i in order)

    return gradients


def test_two_layer_accepts_the_model_answer_and_two_other_ways():
    assert_accepted("backprop.two_layer", solution_of(LESSON, "two_layer_gradients"))
    assert_accepted("backprop.two_layer", by_torch)
    assert_accepted("backprop.two_layer", two_layer())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (two_layer(slope="none"), r"dW1: delta1 lacks the derivative of the ReLU"),
        (two_layer(slope="activation"), r"dW1: delta1 is multiplied by the activation"),
        (two_layer(bend=False), "dW2: a1 is z1"),
        (two_layer(mean=False), "5 times what is expected: a sum for a mean"),
        (two_layer(rows="mean"), "db2: db is the sum of the deltas"),
        (two_layer(axis=0), "dW2 is not what is expected"),
        (two_layer(order=(1, 0, 3, 2)), "another order than .dW1, db1"),
        (two_layer(slope="sign of the signal"), "dW1: the mask asks for the sign of the signal"),
        (two_layer(floor=True), "dW2: the logits went through a ReLU"),
        (lambda *a: [g.T for g in two_layer()(*a)], r"dW2 should have shape .* swapped"),
        (lambda *a: two_layer()(*a)[:2], "return 4 arrays, .* not 2"),
        (lambda *a: two_layer()(*a)[0], "return 4 arrays, .* not one value"),
    ],
)
def test_two_layer_names_the_mistake(wrong, match):
    assert_rejected("backprop.two_layer", wrong, match)


# ---------------------------------------------------------------- guesses, review, quiz


def test_guesses_have_the_right_form():
    assert_accepted("backprop.dead_unit", solution_of(LESSON, "slope_of_unit_0"))
    assert_accepted("backprop.dead_unit", -0.5)
    assert_accepted("backprop.big_step", solution_of(LESSON, "after_a_big_step"))
    assert_accepted("backprop.big_step", "lower")


@pytest.mark.parametrize("wrong", ["zero", [0.0, 1.0], 1000.0])
def test_a_slope_is_one_number(wrong):
    assert_rejected("backprop.dead_unit", wrong, "should be")


@pytest.mark.parametrize("wrong", ["the same", 3.59, ""])
def test_a_step_goes_lower_or_higher(wrong):
    assert_rejected("backprop.big_step", wrong, "one of 'lower', 'higher'")
    assert_accepted("backprop.big_step", "Lower")


def test_the_questions_have_one_right_answer_each():
    assert [q.id for q in questions_of("backprop")] == ["backprop.q_relu", "backprop.q_paths"]
    assert find_question("backprop.q_relu").right == "0"
    assert find_question("backprop.q_paths").right == "0"
