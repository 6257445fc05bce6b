"""Backpropagation in NumPy: one number at a time (`Value`), and a layer at a time (`MLP`).

Lesson `backprop` teaches this file. Everything is float64. Batches come first: x is (N, inputs), a
weight matrix is (outputs, inputs) as in `torch.nn.Linear`, and a gradient has the shape of what it
is the gradient of. "Delta" is the gradient of the loss with respect to a layer's result.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, Protocol, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Operand = Union["Value", float]


class Value:
    r"""A number that remembers how it was computed, and can therefore be differentiated.

    $$\frac{\partial L}{\partial p} = \sum_{\text{uses } v \text{ of } p}
      \frac{\partial v}{\partial p} \cdot \frac{\partial L}{\partial v}$$

    Each operation stores its operands and the slope of its result in each of them; `backward`
    multiplies the slopes along every path and adds up the paths.

    Args:
        data: a finite number.
        name: a label for drawings.
        op: the operation that made it; empty for a number you wrote down yourself.
        parents: the Values it was computed from.
        slopes: the derivative of this Value by each parent.

    Attributes:
        data: the number.
        grad: after `backward`, how much the result changes per unit of this number; 0 before.

    Raises:
        TypeError: arithmetic with something that is not a number.
        ValueError: NaN or infinity; the log of 0 or less; a root of a negative number.
        ZeroDivisionError: division by 0.
        OverflowError: a result too large for a float.

    Reference: Linnainmaa (1976), Taylor expansion of the accumulated rounding error; Rumelhart,
        Hinton, Williams (1986), Learning representations by back-propagating errors.
    Elsewhere: a `torch.Tensor` with one element and `requires_grad=True`.

    >>> a, b = Value(3.0), Value(-2.0)
    >>> (a * b + a).backward()
    >>> a.grad, b.grad
    (-1.0, 3.0)
    """

    data: float
    name: str
    op: str
    grad: float
    parents: tuple["Value", ...]
    slopes: tuple[float, ...]
    __array_ufunc__ = None  # numpy_number * Value comes to Value.__rmul__, not to an object array

    def __init__(
        self,
        data: float,
        name: str = "",
        *,
        op: str = "",
        parents: Sequence["Value"] = (),
        slopes: Sequence[float] = (),
    ) -> None:
        if not isinstance(data, Real):
            raise TypeError(f"a Value is made of a number, got {type(data).__name__}")
        self.data = float(data)
        if not math.isfinite(self.data):
            raise ValueError(f"a Value must be finite, got {self.data} from {op or 'the start'}")
        self.name, self.op = name, op
        self.parents, self.slopes = tuple(parents), tuple(slopes)
        self.grad = 0.0

    def __repr__(self) -> str:
        label = f", name={self.name!r}" if self.name else ""
        return f"Value({self.data:g}, grad={self.grad:g}{label})"

    def walk(self) -> list["Value"]:
        """Return every Value that this one depends on, operands first, each once, itself last.

        >>> a = Value(2.0, "a")
        >>> [node.op or node.name for node in (a * a + a).walk()]
        ['a', '*', '+']
        """
        order: list[Value] = []
        seen: set[int] = set()
        waiting: list[tuple[Value, bool]] = [(self, False)]
        while waiting:  # a loop, not recursion: a long sum would exceed Python's stack
            node, operands_done = waiting.pop()
            if operands_done:
                order.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                waiting.append((node, True))
                waiting.extend((parent, False) for parent in reversed(node.parents))
        return order

    def backward(self) -> None:
        """Set `grad` of every Value below to the derivative of this one; a second call repeats it.

        Elsewhere: `torch.Tensor.backward`, which adds to the old gradients.
        """
        nodes = self.walk()
        for node in nodes:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(nodes):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad

    def _unary(self, op: str, result: float, slope: float) -> "Value":
        return Value(result, op=op, parents=(self,), slopes=(slope,))

    def __add__(self, other: "Operand") -> "Value":
        b = _value(other)
        return Value(self.data + b.data, op="+", parents=(self, b), slopes=(1.0, 1.0))

    def __sub__(self, other: "Operand") -> "Value":
        b = _value(other)
        return Value(self.data - b.data, op="-", parents=(self, b), slopes=(1.0, -1.0))

    def __mul__(self, other: "Operand") -> "Value":
        b = _value(other)
        return Value(self.data * b.data, op="*", parents=(self, b), slopes=(b.data, self.data))

    def __truediv__(self, other: "Operand") -> "Value":
        b = _value(other)
        quotient = self.data / b.data
        return Value(quotient, op="/", parents=(self, b), slopes=(1 / b.data, -quotient / b.data))

    def __pow__(self, exponent: float) -> "Value":
        if not isinstance(exponent, Real):
            raise TypeError(f"the exponent must be a number, got {type(exponent).__name__}")
        n = float(exponent)
        if self.data < 0 and not n.is_integer():
            raise ValueError(f"{self.data:g} ** {n:g} is not a real number")
        slope = n * self.data ** (n - 1) if n else 0.0  # x ** 0 is flat, at x = 0 too
        return self._unary(f"**{n:g}", self.data**n, slope)

    def __radd__(self, other: float) -> "Value":
        return _value(other) + self

    def __rsub__(self, other: float) -> "Value":
        return _value(other) - self

    def __rmul__(self, other: float) -> "Value":
        return _value(other) * self

    def __rtruediv__(self, other: float) -> "Value":
        return _value(other) / self

    def __neg__(self) -> "Value":
        return self._unary("neg", -self.data, -1.0)

    def exp(self) -> "Value":
        """Return e to this power; its slope is itself."""
        power = math.exp(self.data)
        return self._unary("exp", power, power)

    def log(self) -> "Value":
        """Return the natural logarithm; its slope is 1 / x."""
        if self.data <= 0:
            raise ValueError(f"log needs a number above 0, got {self.data:g}")
        return self._unary("log", math.log(self.data), 1 / self.data)

    def relu(self) -> "Value":
        """Return max(0, x); its slope is 1 above 0, and 0 elsewhere (at 0 too, as in torch)."""
        return self._unary("relu", max(0.0, self.data), float(self.data > 0))

    def tanh(self) -> "Value":
        """Return the hyperbolic tangent t; its slope is 1 - t^2."""
        t = math.tanh(self.data)
        return self._unary("tanh", t, 1 - t * t)

    def sigmoid(self) -> "Value":
        """Return s = 1 / (1 + e^-x); its slope is s (1 - s)."""
        s = float(_sigmoid(self.data))
        return self._unary("sigmoid", s, s * (1 - s))


def _value(x: Operand) -> Value:
    return x if isinstance(x, Value) else Value(x)


def _sigmoid(x: ArrayLike) -> Array:
    """Return 1 / (1 + e^-x) with no overflow at either end."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(x, dtype=np.float64)))


class Layer(Protocol):
    """A step of a network: `forward` computes and remembers, `backward` hands a gradient down."""

    def forward(self, x: ArrayLike) -> Array:
        """Return the layer's result for x."""

    def backward(self, delta: ArrayLike) -> Array:
        """Return dL/dx, given dL/d(result)."""


class Dense:
    r"""A fully connected layer.

    $$z = x W^\top + b \qquad
      \frac{\partial L}{\partial W} = \delta^\top x \quad
      \frac{\partial L}{\partial b} = \sum_n \delta_n \quad
      \frac{\partial L}{\partial x} = \delta W \qquad \delta = \frac{\partial L}{\partial z}$$

    Args:
        weight: (outputs, inputs); copied as float64.
        bias: (outputs,); copied as float64.

    Attributes:
        weight_grad, bias_grad: set by `backward`, in the shapes of `weight` and `bias`.

    Raises:
        ValueError: shapes that do not fit; NaN or infinity; an empty batch.
        RuntimeError: `backward` before `forward`.

    Reference: Rumelhart, Hinton, Williams (1986), Learning representations by back-propagating
        errors.
    Elsewhere: `torch.nn.Linear`.

    >>> layer = Dense([[2.0, -1.0]], [0.5])
    >>> layer.forward([[3.0, 4.0]])
    array([[2.5]])
    >>> layer.backward([[10.0]]), layer.weight_grad, layer.bias_grad
    (array([[ 20., -10.]]), array([[30., 40.]]), array([10.]))
    """

    def __init__(self, weight: ArrayLike, bias: ArrayLike) -> None:
        self.weight, self.bias = _floats(weight, "weight").copy(), _floats(bias, "bias").copy()
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                "weight must have shape (outputs, inputs) and bias (outputs,), "
                f"got {self.weight.shape} and {self.bias.shape}"
            )
        self.weight_grad: Array | None = None
        self.bias_grad: Array | None = None
        self._x: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return z (N, outputs) for x (N, inputs)."""
        x = _floats(x, "x")
        if x.ndim != 2 or x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"x must have shape (N, {self.weight.shape[1]}), got {x.shape}")
        self._x = x
        return x @ self.weight.T + self.bias

    def backward(self, delta: ArrayLike) -> Array:
        """Set `weight_grad` and `bias_grad`; return dL/dx (N, inputs), given dL/dz (N, outputs)."""
        x = _remembered(self._x)
        delta = _delta(delta, (len(x), len(self.bias)))
        self.weight_grad = delta.T @ x
        self.bias_grad = delta.sum(axis=0)
        return delta @ self.weight


class ReLU:
    r"""Keep what is positive: $a = \max(0, z)$, and backward $\delta \odot \mathbb 1[z > 0]$.

    The slope at 0 is taken as 0. Shapes are free, errors as for `Dense`.

    Reference: Nair, Hinton (2010), Rectified Linear Units Improve Restricted Boltzmann Machines.
    Elsewhere: `torch.nn.ReLU`.

    >>> relu = ReLU()
    >>> relu.forward([-1.0, 2.0]), relu.backward([5.0, 5.0])
    (array([0., 2.]), array([0., 5.]))
    """

    def __init__(self) -> None:
        self._slope: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return max(0, x)."""
        x = _floats(x, "x")
        self._slope = (x > 0).astype(np.float64)
        return np.maximum(x, 0.0)

    def backward(self, delta: ArrayLike) -> Array:
        """Return dL/dx: delta where x was positive, 0 elsewhere."""
        slope = _remembered(self._slope)
        return _delta(delta, slope.shape) * slope


class Sigmoid:
    r"""Squash to (0, 1): $s = 1 / (1 + e^{-z})$, and backward $\delta \odot s \odot (1 - s)$.

    Shapes are free, errors as for `Dense`. Stable for inputs of 1000.

    Reference: Rumelhart, Hinton, Williams (1986), Learning representations by back-propagating
        errors.
    Elsewhere: `torch.nn.Sigmoid`.

    >>> sigmoid = Sigmoid()
    >>> sigmoid.forward([0.0]), sigmoid.backward([8.0])
    (array([0.5]), array([2.]))
    """

    def __init__(self) -> None:
        self._s: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return 1 / (1 + e^-x)."""
        self._s = _sigmoid(_floats(x, "x"))
        return self._s

    def backward(self, delta: ArrayLike) -> Array:
        """Return dL/dx = delta * s * (1 - s)."""
        s = _remembered(self._s)
        return _delta(delta, s.shape) * s * (1 - s)


class Tanh:
    r"""Squash to (-1, 1): $t = \tanh z$, and backward $\delta \odot (1 - t^2)$.

    Shapes are free, errors as for `Dense`.

    Reference: LeCun, Bottou, Orr, Müller (1998), Efficient BackProp.
    Elsewhere: `torch.nn.Tanh`.

    >>> tanh = Tanh()
    >>> tanh.forward([0.0]), tanh.backward([3.0])
    (array([0.]), array([3.]))
    """

    def __init__(self) -> None:
        self._t: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return tanh x."""
        self._t = np.tanh(_floats(x, "x"))
        return self._t

    def backward(self, delta: ArrayLike) -> Array:
        """Return dL/dx = delta * (1 - t^2)."""
        t = _remembered(self._t)
        return _delta(delta, t.shape) * (1 - t * t)


ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh}


class MLP:
    r"""A stack of `Dense` layers with an activation between them, and none after the last.

    $$a^0 = x, \quad z^l = a^{l-1} {W^l}^\top + b^l, \quad a^l = \phi(z^l); \qquad
      \delta^l = (\delta^{l+1} W^{l+1}) \odot \phi'(z^l)$$

    Weights start as normal numbers with variance 2 / inputs (ReLU) or 1 / inputs; biases at 0.

    Args:
        sizes: units per layer, from inputs to outputs: [2, 3, 2] has one hidden layer of 3.
        activation: "relu", "sigmoid" or "tanh".
        seed: of the initial weights.

    Attributes:
        layers: all steps in order; dense: those with weights.

    Raises:
        TypeError: a size that is not an integer.
        ValueError: fewer than two sizes, a size below 1, an unknown activation; then as `Dense`.
        RuntimeError: `backward` before `forward`, `gradients` before `backward`.

    Reference: Rumelhart, Hinton, Williams (1986), Learning representations by back-propagating
        errors; He, Zhang, Ren, Sun (2015), Delving Deep into Rectifiers (initial weights).
    Elsewhere: `torch.nn.Sequential` of `Linear` and activations; `sklearn.neural_network`.

    >>> net = MLP([2, 3, 2])
    >>> loss, delta = softmax_cross_entropy(net.forward([[1.0, 2.0]]), [0])
    >>> net.backward(delta).shape, [g.shape for g in net.gradients()]
    ((1, 2), [(3, 2), (3,), (2, 3), (2,)])
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu", seed: int = 0) -> None:
        _check_sizes(sizes)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {list(ACTIVATIONS)}, got {activation!r}")
        rng = np.random.default_rng(seed)
        gain = 2.0 if activation == "relu" else 1.0
        self.sizes = tuple(sizes)
        self.dense = [
            Dense(rng.normal(0.0, math.sqrt(gain / n_in), (n_out, n_in)), np.zeros(n_out))
            for n_in, n_out in pairwise(sizes)
        ]
        self.layers: list[Layer] = [self.dense[0]]
        for dense in self.dense[1:]:
            self.layers += [ACTIVATIONS[activation](), dense]

    def forward(self, x: ArrayLike) -> Array:
        """Return the outputs (logits) (N, sizes[-1]) for x (N, sizes[0])."""
        for layer in self.layers:
            x = layer.forward(x)
        return np.asarray(x)

    def backward(self, delta: ArrayLike) -> Array:
        """Set all gradients; return dL/dx (N, sizes[0]), given dL/d(outputs) (N, sizes[-1])."""
        for layer in reversed(self.layers):
            delta = layer.backward(delta)
        return np.asarray(delta)

    def parameters(self) -> list[Array]:
        """Return [W1, b1, W2, b2, ...]: the arrays themselves, so `p -= step` trains the net."""
        return [p for dense in self.dense for p in (dense.weight, dense.bias)]

    def gradients(self) -> list[Array]:
        """Return dL/dW1, dL/db1, ... of the last `backward`, in the order of `parameters`."""
        grads = [g for dense in self.dense for g in (dense.weight_grad, dense.bias_grad)]
        return [_remembered(g, "backward", "gradients") for g in grads]


def softmax_cross_entropy(logits: ArrayLike, y: ArrayLike) -> tuple[float, Array]:
    r"""Mean surprise at the true classes, and its gradient.

    $$L = -\frac{1}{N} \sum_n \log p_{n, y_n}, \quad p = \mathrm{softmax}(z), \qquad
      \frac{\partial L}{\partial z} = \frac{p - \mathrm{onehot}(y)}{N}$$

    The largest logit of a row is subtracted first, so logits of 1000 do not overflow.

    Args:
        logits: (N, K) floats, before any softmax. The softmax of a single column is 1 whatever it
            holds: of one logit z make the two columns (0, z), whose softmax is its sigmoid.
        y: (N,) integers in 0..K-1.

    Returns:
        The loss in nats, and dL/d(logits) (N, K).

    Raises:
        TypeError: y does not hold integers.
        ValueError: shapes that do not fit, a label out of range, NaN or infinity, no rows.

    Reference: Bridle (1990), Training stochastic model recognition algorithms as networks can
        lead to maximum mutual information estimation of parameters.
    Elsewhere: `torch.nn.functional.cross_entropy`.

    >>> loss, delta = softmax_cross_entropy([[1.0, 1.0]], [0])
    >>> round(loss, 4), delta
    (0.6931, array([[-0.5,  0.5]]))
    """
    logits = _floats(logits, "logits")
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape (N, K), got {logits.shape}")
    n, k = logits.shape
    rows, labels = np.arange(n), _labels(y, n, k)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    delta = np.exp(log_p)
    delta[rows, labels] -= 1.0
    return 0.0 - float(log_p[rows, labels].mean()), delta / n  # 0.0 - 0.0, never "-0.0"


def mean_squared_error(pred: ArrayLike, y: ArrayLike) -> tuple[float, Array]:
    r"""Mean squared difference, and its gradient.

    $$L = \frac{1}{M} \sum_m (\hat y_m - y_m)^2, \qquad
      \frac{\partial L}{\partial \hat y} = \frac{2}{M} (\hat y - y)$$

    Args:
        pred: floats of any shape; M counts all its elements.
        y: floats of the same shape. (N,) against (N, 1) is refused, not broadcast.

    Returns:
        The loss in squared units of y, and dL/d(pred) in the shape of pred.

    Raises:
        ValueError: different shapes, NaN or infinity, no elements.

    Reference: Legendre (1805), Nouvelles méthodes pour la détermination des orbites des comètes.
    Elsewhere: `torch.nn.functional.mse_loss`.

    >>> mean_squared_error([[1.0, 1.0]], [[3.0, 0.0]])
    (2.5, array([[-2.,  1.]]))
    """
    pred, y = _floats(pred, "pred"), _floats(y, "y")
    if pred.shape != y.shape:
        raise ValueError(f"pred and y must have one shape, got {pred.shape} and {y.shape}")
    difference = pred - y
    return float(np.mean(difference**2)), 2 * difference / pred.size


def numerical_gradient(f: Callable[[Array], Any], x: Array, eps: float = 1e-6) -> Array:
    r"""Gradient by trying: move each number a little both ways and see what f does.

    $$\frac{\partial f}{\partial x_i} \approx
      \frac{f(x + \epsilon e_i) - f(x - \epsilon e_i)}{2 \epsilon}$$

    x is changed in place while f runs (so f may ignore its argument and read a network's weights)
    and restored after, also when f raises. Two calls of f per number: for checking, not training.

    Args:
        f: takes x, returns one number.
        x: a float64 array of any shape.
        eps: the step, in units of x.

    Returns:
        (shape of x), in units of f per unit of x; the error is about eps^2 + 1e-16 / eps.

    Raises:
        TypeError: x is not a float64 array (in float32 a step of 1e-6 is lost in rounding).
        ValueError: eps is not above 0, or f returned NaN or infinity.

    Reference: Nocedal, Wright (2006), Numerical Optimization, section 8.1.
    Elsewhere: `torch.autograd.gradcheck`, `scipy.optimize.approx_fprime` (one-sided).

    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, -3.0])).round(6)
    array([ 2., -6.])
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float64:
        raise TypeError(f"x must be a float64 array, got {getattr(x, 'dtype', type(x).__name__)}")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}")
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        gradient[i] = (_moved(f, x, i, eps) - _moved(f, x, i, -eps)) / (2 * eps)
    return gradient


def _moved(f: Callable[[Array], Any], x: Array, i: tuple[int, ...], step: float) -> float:
    """Return f with one number of x moved, and put the number back."""
    old = x[i]
    try:
        x[i] = old + step
        result = float(f(x))
    finally:
        x[i] = old
    if not math.isfinite(result):
        raise ValueError(f"f returned {result} with x{list(i)} = {old + step}")
    return result


def _floats(x: ArrayLike, name: str) -> Array:
    """Return x as float64 if it holds real numbers that are finite."""
    try:
        given = np.asarray(x)
        array = np.asarray(given.real, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}") from error
    if given.dtype.kind == "c":
        raise TypeError(f"{name} must hold real numbers, not complex ones")
    if array.size == 0:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite")
    return array


def _labels(y: ArrayLike, n: int, k: int) -> NDArray[np.integer]:
    """Return y if it holds one class number in 0..k-1 for each of n rows."""
    labels = np.asarray(y)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"y must hold class numbers (integers, not one-hot), got {labels.dtype}")
    if labels.shape != (n,):
        raise ValueError(f"y must have shape ({n},), got {labels.shape}")
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"y must lie in 0..{k - 1}, got {labels.min()}..{labels.max()}")
    return labels


def _delta(delta: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return an incoming gradient if it has the shape of the result it belongs to."""
    delta = _floats(delta, "delta")
    if delta.shape != shape:
        raise ValueError(f"delta must have the result's shape {shape}, got {delta.shape}")
    return delta


def _remembered(value: Array | None, first: str = "forward", then: str = "backward") -> Array:
    """Return what an earlier pass stored."""
    if value is None:
        raise RuntimeError(f"call {first} before {then}")
    return value


def _check_sizes(sizes: Sequence[int]) -> None:
    if len(sizes) < 2:
        raise ValueError(f"sizes needs inputs and outputs, like [2, 3, 2], got {list(sizes)}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"sizes must hold integers, got {size!r}")
        if size < 1:
            raise ValueError(f"sizes must be at least 1, got {list(sizes)}")
