"""Backpropagation: numbers worked out by hand, and torch.autograd in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from xailab.foundations.backprop import (
    MLP,
    Dense,
    ReLU,
    Sigmoid,
    Tanh,
    Value,
    mean_squared_error,
    numerical_gradient,
    softmax_cross_entropy,
)

TORCH = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
X, W1, B1 = [[1.0, 2.0]], [[1.0, -1.0], [0.5, 0.5], [2.0, -0.5]], [0.0, 0.5, 0.0]
W2, B2 = [[2.0, 1.0, -1.0], [1.0, -1.0, 1.0]], [0.0, 2.0]


def paper_net():
    """The 2-3-2 network of lesson `backprop`, whose numbers fit on a sheet of paper."""
    net = MLP([2, 3, 2])
    for parameter, value in zip(net.parameters(), [W1, B1, W2, B2], strict=True):
        parameter[...] = value
    return net


# ---------------------------------------------------------------- by hand


def test_the_paper_network_forward():
    assert_array_equal(paper_net().forward(X), [[1.0, 1.0]])


def test_the_paper_network_backward_from_cross_entropy():
    net = paper_net()
    loss, delta = softmax_cross_entropy(net.forward(X), [0])
    assert loss == pytest.approx(math.log(2))
    assert_allclose(delta, [[-0.5, 0.5]])
    assert_allclose(net.backward(delta), [[1.5, -1.0]])
    by_hand = [[[0, 0], [-1, -2], [1, 2]], [0, -1, 1], [[0, -1, -0.5], [0, 1, 0.5]], [-0.5, 0.5]]
    for got, want in zip(net.gradients(), by_hand, strict=True):
        assert_allclose(got, want, atol=1e-15)


def test_the_paper_network_backward_from_squared_error():
    net = paper_net()
    loss, delta = mean_squared_error(net.forward(X), [[3.0, 0.0]])
    assert loss == 2.5
    assert_array_equal(delta, [[-2.0, 1.0]])
    net.backward(delta)
    by_hand = [[[0, 0], [-3, -6], [3, 6]], [0, -3, 3], [[0, -4, -2], [0, 2, 1]], [-2, 1]]
    for got, want in zip(net.gradients(), by_hand, strict=True):
        assert_array_equal(got, want)


def test_cross_entropy_of_a_quarter():
    loss, delta = softmax_cross_entropy([[0.0, math.log(3)], [0.0, math.log(3)]], [0, 1])
    assert loss == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)
    assert_allclose(delta, [[-0.375, 0.375], [0.125, -0.125]])  # (p - onehot) / 2 rows


def test_softmax_survives_large_logits():
    loss, delta = softmax_cross_entropy([[1000.0, 0.0], [-1000.0, 1000.0]], [0, 0])
    assert loss == 1000.0  # the mean of 0 and 2000
    assert_array_equal(delta, [[0, 0], [-0.5, 0.5]])


def test_sigmoid_survives_large_inputs():
    with np.errstate(all="raise", under="ignore"):
        assert_array_equal(Sigmoid().forward([-1000.0, 0.0, 1000.0]), [0.0, 0.5, 1.0])


def test_relu_passes_nothing_at_exactly_zero():
    relu = ReLU()
    relu.forward([-1.0, 0.0, 3.0])
    assert_array_equal(relu.backward([7.0, 7.0, 7.0]), [0.0, 0.0, 7.0])


# ---------------------------------------------------------------- against torch


def torch_gradients(net, activation, x, loss_fn):
    """Loss, dL/dx and dL/dparameters of the same network written in torch."""
    start = torch.tensor(x, requires_grad=True)
    parameters = [torch.tensor(p, requires_grad=True) for p in net.parameters()]
    a = start
    for i in range(0, len(parameters), 2):
        a = torch.nn.functional.linear(
            a if i == 0 else TORCH[activation](a), *parameters[i : i + 2]
        )
    loss = loss_fn(a)
    return loss.item(), [g.numpy() for g in torch.autograd.grad(loss, [start, *parameters])]


def agree(net, activation, x, loss_and_delta, torch_loss):
    loss, delta = loss_and_delta(net.forward(x))
    got = [net.backward(delta), *net.gradients()]
    want_loss, want = torch_gradients(net, activation, x, torch_loss)
    assert loss == pytest.approx(want_loss, abs=1e-10)
    for g, w in zip(got, want, strict=True):
        assert_allclose(g, w, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", TORCH)
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    rows=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_mlp_equals_torch(activation, sizes, rows, seed):
    rng = np.random.default_rng(seed)
    net = MLP(sizes, activation, seed)
    for bias in net.parameters()[1::2]:
        bias[...] = rng.normal(size=bias.shape)
    x = rng.normal(size=(rows, sizes[0]))
    y, targets = rng.integers(0, sizes[-1], rows), rng.normal(size=(rows, sizes[-1]))
    agree(
        net,
        activation,
        x,
        lambda z: softmax_cross_entropy(z, y),
        lambda z: torch.nn.functional.cross_entropy(z, torch.tensor(y)),
    )
    agree(
        net,
        activation,
        x,
        lambda z: mean_squared_error(z, targets),
        lambda z: torch.nn.functional.mse_loss(z, torch.tensor(targets)),
    )


EXPRESSIONS = {
    "sum of products": lambda a, b, c: a * b + c * 2 - 1,
    "quotient": lambda a, b, c: (a - b) / c + 3 / a,
    "powers": lambda a, b, c: a**3 + a**-1.5 - b**2 + 2 - c,
    "neuron": lambda a, b, c: (a * b + c).tanh(),
    "log of softmax": lambda a, b, c: (a.exp() / (a.exp() + b.exp() + c.exp())).log(),
    "gates": lambda a, b, c: (a * b).sigmoid() * c.relu() + (-c).relu(),
    "shared": lambda a, b, c: (lambda s: s * s + s.exp() * a + s)(a * b - c),
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_value_equals_torch(expression):
    numbers = (1.5, -0.75, 2.25)
    mine = [Value(n) for n in numbers]
    theirs = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
    result, expected = expression(*mine), expression(*theirs)
    result.backward()
    expected.backward()
    assert result.data == pytest.approx(expected.item(), abs=1e-12)
    for m, t in zip(mine, theirs, strict=True):
        assert m.grad == pytest.approx(t.grad.item() if t.grad is not None else 0.0, abs=1e-12)


# ---------------------------------------------------------------- Value


def test_a_number_used_three_times_collects_three_slopes():
    a = Value(3.0)
    shared = a * a  # 9, slope 6
    (shared * shared + a).backward()  # a^4 + a: slope 4 * 27 + 1
    assert a.grad == 109.0
    assert shared.grad == 18.0


def test_backward_twice_gives_the_same():
    a = Value(2.0)
    b = a**3
    b.backward()
    b.backward()
    assert a.grad == 12.0


def test_walk_puts_operands_first_and_each_once():
    a, b = Value(1.0, "a"), Value(2.0, "b")
    inner = a + b
    outer = inner * (inner - b)
    order = outer.walk()
    assert len(order) == len(set(map(id, order))) == 5
    place = {id(node): i for i, node in enumerate(order)}
    assert all(place[id(p)] < place[id(node)] for node in order for p in node.parents)


def test_a_sum_longer_than_the_stack():
    a = Value(1.0)
    total = a
    for _ in range(5000):
        total = total + a
    total.backward()
    assert a.grad == 5001.0


def test_value_meets_plain_and_numpy_numbers():
    a = Value(2.0, "a")
    result = np.float64(3.0) * a + 1 - a / np.float32(2) + (10 - a) + 4 / a
    assert isinstance(result, Value)
    assert result.data == 6 + 1 - 1 + 8 + 2
    result.backward()
    assert a.grad == 3 - 0.5 - 1 - 1
    assert repr(a) == "Value(2, grad=0.5, name='a')"


def test_power_zero_is_flat_at_zero():
    a = Value(0.0)
    (a**0).backward()
    assert a.grad == 0.0


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda: Value("3"), TypeError, "number, got str"),
        (lambda: Value(1.0) + "3", TypeError, "number, got str"),
        (lambda: Value(2.0) ** Value(2.0), TypeError, "exponent must be a number, got Value"),
        (lambda: Value(float("nan")), ValueError, "must be finite, got nan"),
        (lambda: Value(1e200) * 1e200, ValueError, r"finite, got inf from \*"),
        (lambda: Value(0.0).log(), ValueError, "above 0, got 0"),
        (lambda: Value(-2.0) ** 0.5, ValueError, r"-2 \*\* 0.5 is not a real number"),
        (lambda: 1 / Value(0.0), ZeroDivisionError, None),
        (lambda: Value(1000.0).exp(), OverflowError, None),
    ],
)
def test_value_refuses(action, error, words):
    with pytest.raises(error, match=words):
        action()


# ---------------------------------------------------------------- numerical_gradient


def test_numerical_gradient_agrees_within_a_millionth():
    net = MLP([3, 4, 2], "tanh")
    x, y = np.random.default_rng(1).normal(size=(5, 3)), [0, 1, 1, 0, 1]

    def loss(_=None):
        return softmax_cross_entropy(net.forward(x), y)[0]

    _, delta = softmax_cross_entropy(net.forward(x), y)
    net.backward(delta)
    grads = [g.copy() for g in net.gradients()]
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        before = parameter.copy()
        assert np.abs(numerical_gradient(loss, parameter) - grad).max() < 1e-6
        assert_array_equal(parameter, before)


def test_numerical_gradient_of_a_transposed_and_of_a_single_number():
    x = np.arange(6.0).reshape(2, 3).T
    assert_allclose(numerical_gradient(lambda v: (v**2).sum(), x), 2 * x, atol=1e-8)
    assert numerical_gradient(lambda v: 3 * v[()], np.array(1.0)) == pytest.approx(3)


def test_numerical_gradient_puts_x_back_when_f_raises():
    x = np.array([1.0, 2.0])
    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(lambda v: (_ for _ in ()).throw(KeyboardInterrupt), x)
    assert_array_equal(x, [1.0, 2.0])


@pytest.mark.parametrize("x", [np.ones(2, np.float32), np.ones(2, int), [1.0, 2.0]])
def test_numerical_gradient_needs_float64(x):
    with pytest.raises(TypeError, match="float64 array, got"):
        numerical_gradient(np.sum, x)


def test_numerical_gradient_refuses_bad_steps_and_results():
    with pytest.raises(ValueError, match="eps must be above 0, got 0"):
        numerical_gradient(np.sum, np.ones(2), eps=0)
    with pytest.raises(ValueError, match=r"f returned inf with x\[1\]"):
        numerical_gradient(lambda x: np.inf if x[1] > 1 else 0.0, np.ones(2))


# ---------------------------------------------------------------- the rest of the contract


def test_parameters_are_live_and_the_seed_decides():
    net = MLP([2, 3, 2], seed=4)
    for p, q in zip(net.parameters(), MLP([2, 3, 2], seed=4).parameters(), strict=True):
        assert_array_equal(p, q)
    assert (net.parameters()[0] != MLP([2, 3, 2], seed=5).parameters()[0]).all()
    before = net.forward(X)
    net.parameters()[-1][...] += 1.0
    assert_allclose(net.forward(X), before + 1.0)


def test_initial_weights_keep_the_variance():
    for activation, variance in {"relu": 2.0, "tanh": 1.0, "sigmoid": 1.0}.items():
        weight = MLP([400, 300], activation).parameters()[0]
        assert weight.var() * 400 == pytest.approx(variance, rel=0.02)


def test_a_second_backward_replaces_the_gradients():
    net = paper_net()
    _, delta = softmax_cross_entropy(net.forward(X), [0])
    net.backward(delta)
    net.backward(2 * delta)
    assert_allclose(net.gradients()[3], [-1.0, 1.0])


def test_one_step_down_the_gradient_lowers_the_loss():
    net = paper_net()
    loss, delta = softmax_cross_entropy(net.forward(X), [0])
    net.backward(delta)
    for parameter, grad in zip(net.parameters(), net.gradients(), strict=True):
        parameter -= 0.1 * grad
    assert softmax_cross_entropy(net.forward(X), [0])[0] < loss / 2


def test_dense_copies_its_weights():
    weight = np.ones((1, 2))
    layer = Dense(weight, [0.0])
    weight[...] = 5.0
    assert_array_equal(layer.forward([[1.0, 1.0]]), [[2.0]])


NAN = float("nan")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: Dense(W1, B2), r"bias \(outputs,\), got \(3, 2\) and \(2,\)"),
        (lambda: Dense([[NAN]], [0.0]), "weight holds 1 values that are NaN"),
        (lambda: paper_net().forward([[1.0, 2.0, 3.0]]), r"\(N, 2\), got \(1, 3\)"),
        (lambda: paper_net().forward([1.0, 2.0]), r"\(N, 2\), got \(2,\)"),
        (lambda: paper_net().forward([[1.0, NAN]]), "x holds 1 values that are NaN"),
        (lambda: paper_net().forward(np.ones((0, 2))), "x is empty"),
        (lambda: MLP([2]), r"like \[2, 3, 2\], got \[2\]"),
        (lambda: MLP([2, 0]), r"at least 1, got \[2, 0\]"),
        (lambda: MLP([2, 2], "swish"), "one of .*'tanh'.*, got 'swish'"),
        (lambda: softmax_cross_entropy([1.0, 2.0], [0]), r"\(N, K\), got \(2,\)"),
        (lambda: softmax_cross_entropy([[1.0, 2.0]], [2]), r"0..1, got 2..2"),
        (lambda: softmax_cross_entropy([[1.0, 2.0]], [-1]), r"0..1, got -1..-1"),
        (lambda: softmax_cross_entropy([[1.0, 2.0]], [0, 1]), r"\(1,\), got \(2,\)"),
        (lambda: softmax_cross_entropy([[1.0, NAN]], [0]), "logits holds 1 values"),
        (lambda: mean_squared_error(np.ones((3, 1)), np.ones(3)), r"got \(3, 1\) and \(3,\)"),
        (lambda: mean_squared_error([1.0], [np.inf]), "y holds 1 values"),
    ],
)
def test_bad_values_are_named(action, words):
    with pytest.raises(ValueError, match=words):
        action()


@pytest.mark.parametrize("y", [[[1.0, 0.0]], [0.0]])
def test_labels_must_be_integers(y):
    with pytest.raises(TypeError, match="integers, not one-hot"):
        softmax_cross_entropy([[1.0, 2.0]], y)


@pytest.mark.parametrize("size", [2.0, True, "2"])
def test_sizes_must_be_integers(size):
    with pytest.raises(TypeError, match="sizes must hold integers"):
        MLP([size, 2])


@pytest.mark.parametrize("layer", [Dense(W1, B1), ReLU(), Sigmoid(), Tanh(), MLP([2, 3])])
def test_backward_checks_order_and_shape(layer):
    with pytest.raises(RuntimeError, match="call forward before backward"):
        layer.backward([[1.0, 1.0, 1.0]])
    layer.forward([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"delta must have the result's shape .* got \(4,\)"):
        layer.backward([1.0] * 4)


def test_gradients_need_a_backward():
    with pytest.raises(RuntimeError, match="call backward before gradients"):
        MLP([2, 3]).gradients()


def test_a_single_column_says_nothing_and_two_columns_are_the_sigmoid():
    assert softmax_cross_entropy([[2.0]], [0])[0] == 0
    loss, delta = softmax_cross_entropy([[0.0, 2.0]], [1])
    sigmoid = 1 / (1 + math.exp(-2))
    assert loss == pytest.approx(-math.log(sigmoid))
    assert delta[0, 1] == pytest.approx(sigmoid - 1)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (["a"], "must be an array of numbers"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers"),
        (torch.ones(1, requires_grad=True), "must be an array of numbers"),
        (np.ones(1, dtype=complex), "must hold real numbers"),
    ],
)
def test_what_holds_no_numbers_is_refused(x, words):
    with pytest.raises(TypeError, match=f"pred {words}"):
        mean_squared_error(x, [1.0])
