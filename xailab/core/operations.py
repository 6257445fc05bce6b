"""Another backward pass for every operation of a network, however the operation is written.

`nn.ReLU()(z)`, `F.relu(z)`, `torch.relu(z)` and `z.relu_()` are one operation. While a forward pass
is watched, each operation on numbers that depend on the input is told by its name and its operands,
and a method says in its place what it computes and what it hands back. Whatever no method has
spoken for is found in the recorded graph, and refused by name.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xailab.core.checks import Target
from xailab.core.company import trial
from xailab.core.layers import replaced
from xailab.core.outputs import answer_of, logits_of
from xailab.core.scores import check_graph, scores_of
from xailab.core.state import alone, laid_plainly, same_randomness

# Nodes of the autograd graph that only move numbers: what comes back is added up at its source.
MOVES = frozenset([
    "AccumulateGrad", "View", "UnsafeView", "ReshapeAlias", "Transpose", "T", "Permute",
    "Clone", "Alias", "Select", "Slice", "Split", "SplitWithSizes", "UnsafeSplit", "Unbind",
    "Squeeze", "Unsqueeze", "Cat", "Stack", "Index", "IndexSelect", "Gather", "Copy", "ToCopy",
    "AsStrided", "Expand", "Repeat", "Roll", "Flip", "Unfold", "Im2Col", "PixelShuffle",
    "PixelUnshuffle", "Diagonal", "ChannelShuffle", "NativeChannelShuffle", "ConstantPadNd",
])  # fmt: skip
_ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid",
    "log_sigmoid", "prelu", "rrelu", "threshold", "clamp", "clip", "clamp_min", "clamp_max",
    "hardshrink", "softshrink", "tanhshrink",
]  # fmt: skip
_CURVES = [
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "abs", "absolute",
    "erf", "sin", "cos", "atan",
]  # fmt: skip
_SUMS = [
    "sum", "mean", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "upsample", "grid_sample",
    "fold", "tril", "triu",
]  # fmt: skip
_LAYERS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
_CASTS = ("to", "int", "long", "short", "char", "byte", "type")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Files of libraries whose modules are activations, some written with several operations.
_LIBRARIES = ("transformers.activations", "timm.layers.activations", "timm.layers.activations_me")


class Layer(NamedTuple):
    """A linear or convolution layer that runs.

    Attributes:
        kind: `nn.Linear`, `nn.Conv2d` and so on, also where it was called as a function.
        apply: (x, weight, bias) -> output, with its stride, padding and groups.
        x, weight, bias: what it is given.
        module: the module that it is, or that called it.
    """

    kind: type[nn.Module]
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    module: nn.Module

    @property
    def constant(self) -> Tensor | float:
        """The bias as it is added to every output."""
        if self.bias is None:
            return 0.0
        places = 0 if self.kind is nn.Linear else self.weight.ndim - 2
        return self.bias.reshape(-1, *[1] * places)


class HandedBack(torch.autograd.Function):
    """A result that hands back, to each of its operands, what a method says."""

    @staticmethod
    def forward(ctx: Any, made: tuple[Tensor, Callable[..., Any]], *operands: Tensor) -> Tensor:
        """Give the result that was computed before, and keep how it shares."""
        out, ctx.share = made
        ctx.seen = [(one.detach(), one._version) for one in (*operands, out)]
        return out

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor | None, ...]:
        """Share what came back."""
        if any(one._version != version for one, version in ctx.seen):
            raise ValueError(
                "the model writes into a tensor that an earlier operation still needs, in a way "
                "that is not followed (an assignment to a part of it?): write x = x.op() there"
            )
        shared = ctx.share(signal)
        return None, *(shared if isinstance(shared, (tuple, list)) else (shared,))


class Moved(HandedBack):
    """The same of an operation that only moves numbers, constants beside them."""


class Operations(TorchFunctionMode):
    """A forward pass that is watched; each method says what becomes of one kind of operation.

    A method is given operands of which at least one depends on the input, and returns the
    operation's result; `NotImplemented` leaves the operation as it is.

    Args:
        model: the network, frozen while it is watched.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        self.probabilities: set[Any] = set()  # the nodes of softmax
        self._owners: dict[int, list[nn.Module]] = {}
        for module in self.names:
            for weight in module._parameters.values():
                self._owners.setdefault(id(weight), []).append(module)
        self._running, self._paused = [model], False
        self._instead: dict[int, tuple[Tensor, Tensor]] = {}
        self._cut: dict[int, Tensor] = {}  # numbers of x that are no longer in the graph
        self._told: dict[Any, str] = {}

    # ---- kinds of operations, for a method to take over

    def layer(self, layer: Layer) -> Any:
        """Take over a linear or convolution layer."""
        return NotImplemented

    def batch_norm(self, function: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Any:
        """Take over x * scale + shift, one number a channel (axis 1)."""
        return NotImplemented

    def linear(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
        """Take over an average, a sum, or another linear function without a constant."""
        return NotImplemented

    def plus(self, a: Any, b: Any) -> Any:
        """Take over a + b."""
        return NotImplemented

    def scaled(self, out: Tensor, x: Tensor, factor: Any) -> Any:
        """Take over out = factor * x, the factor a constant."""
        return NotImplemented

    def product(self, function: Callable[..., Tensor], a: Tensor, b: Tensor) -> Any:
        """Take over what is linear in a and in b (*, @): both depend on the input."""
        return NotImplemented

    def quotient(self, a: Any, b: Tensor) -> Any:
        """Take over a / b, where b depends on the input."""
        return NotImplemented

    def activation(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Any:
        """Take over an activation, a function of each number by itself."""
        return NotImplemented

    def curve(self, name: str, function: Callable[[Tensor], Tensor], z: Tensor) -> Any:
        """Take over another function of each number: a root, an exponential."""
        return NotImplemented

    def winner(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Any:
        """Take over a max pooling, which is given with the places of its winners."""
        return NotImplemented

    def softmax(self, z: Tensor, dim: int) -> Any:
        """Take over a softmax."""
        return NotImplemented

    def standardized(self, x: Tensor, axes: tuple[int, ...], eps: float, centered: bool) -> Any:
        """Take over (x - mean) / sqrt(var + eps) over axes of a row: the norms' common part."""
        return NotImplemented

    def moved(self, function: Callable[..., Tensor], *operands: Tensor) -> Any:
        """Take over a move that puts constants beside the operands (padding, a class token)."""
        return NotImplemented

    def copied(self, before: Tensor, after: Tensor) -> None:
        """Hear of a copy."""

    # ---- watching

    def scores(self, leaf: Tensor, target: Target, known: frozenset[str]) -> Tensor:
        """Run the model on a leaf, and return the target's scores, (N,), inside the graph.

        Args:
            leaf: (N, ...), which requires a gradient.
            target: as for every method.
            known: names of further nodes of the graph that are right as they are.

        Raises:
            ValueError: an operation that nobody spoke for, answers that differ from those of the
                model left alone, no way back to the leaf.
        """
        self._instead, self._cut = {}, {}
        asked = scores_of if callable(target) else lambda model, x, _: answer_of(model, x)
        with trial(), same_randomness():
            plain = asked(self.model, leaf.detach(), target)
        with self._watched() as answers:
            scores = scores_of(self.model, leaf, target)
        _refuse_difference(plain, scores if callable(target) else logits_of(answers[-1]))
        self._refuse_unknown(scores, known)
        check_graph(scores, leaf)
        return scores

    @contextmanager
    def _watched(self) -> Iterator[list[Any]]:
        """Intercept all that happens in this block; yields the list of the model's answers."""
        answers: list[Any] = []

        def enter(module: nn.Module, inputs: Any) -> None:
            self._running.append(module)

        def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
            while self._running.pop() is not module:
                pass
            output = self._current(output)
            answers.extend([output] if module is self.model else [])
            return output

        with alone(), ExitStack() as stack:
            stack.enter_context(replaced(self._library_activations()))
            for module in self.names:
                if not isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
                    stack.callback(module.register_forward_pre_hook(enter).remove)
                    stack.callback(module.register_forward_hook(leave, prepend=True).remove)
            stack.enter_context(self)
            yield answers

    def _library_activations(self) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
        """Return what the modules do that are activations by the file they come from."""

        def run(module: nn.Module, z: Tensor) -> Tensor:
            plain = partial(type(module).forward, module)
            self._paused = True
            try:
                return (
                    self.activation(lambda one: plain(one.clone()), z) if _depends(z) else plain(z)
                )
            finally:
                self._paused = False

        return {
            module: partial(run, module)
            for module in self.names
            if type(module).__module__ in _LIBRARIES and not any(module.parameters())
        }

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = self._current(args), self._current(kwargs or {})
        if self._paused:
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        given = [*args, *kwargs.values()]
        cut = any(id(one) in self._cut and not one.requires_grad for one in _tensors(given))
        if _depends(*given):
            if cut:
                self._refuse_cut(name)
            found, told = self._followed(name, function, args, kwargs)
            cut = not (told and torch.is_grad_enabled())
        else:
            if cut and (name == "__setitem__" or _in_place(name, args, kwargs)):
                self._refuse_cut(name)  # .data: the graph would not hear of it
            found = function(*args, **kwargs)
        if cut and not name.startswith("new_") and not name.endswith("_like"):
            self._note_cut(name, found)
        return found

    def _followed(
        self, name: str, function: Any, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[Any, bool]:
        """Ask the method, failing that run the operation; in place nothing is ever changed.

        Returns:
            The result, and whether the method gave it.
        """
        changed = args[0] if args and _in_place(name, args, kwargs) else None
        found = self._handled(name.strip("_"), function, args, kwargs)
        told = found is not NotImplemented
        if not told:
            args = (changed.clone(), *args[1:]) if isinstance(changed, Tensor) else args
            found = function(*args, **kwargs)
            self._note(name, found)
        if isinstance(changed, Tensor):
            self._instead[id(changed)] = changed, found
        return found, told

    def _note_cut(self, name: str, found: Any) -> None:
        """Remember numbers of x that are no longer in the graph.

        A comparison or a place (argmax) holds no numbers of x.
        """
        for one in _tensors([found]):
            if not one.requires_grad and (one.is_floating_point() or name in _CASTS):
                self._cut[id(one)] = one

    def _refuse_cut(self, name: str) -> None:
        """Raise where they come back into it: what x does through them would go unseen."""
        if name != "to" and not name.endswith("_as"):
            raise ValueError(
                "no rule is known for numbers that depend on x and were cut off from the graph "
                f"(detach, .data, no_grad): here they are used again ({name}, in "
                f"{self.place or 'the model'!r}); let the modules use them uncut"
            )

    def _handled(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Read the operands by the names that torch gives them, and ask the method."""
        if name not in _READERS:
            return NotImplemented
        reader, signature = _READERS[name]
        try:
            bound = signature.bind(self, function, *args, **kwargs)
        except TypeError:  # called in a way that is not known here
            return NotImplemented
        return reader(*bound.args, **bound.kwargs)

    def written_out(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute something that is made of several operations, each of them intercepted."""
        with self:
            return function(*args, **kwargs)

    def module_of(self, weight: Any) -> nn.Module:
        """Return the module that a weight belongs to, failing that the innermost one that runs."""
        inner, owners = self._running[-1], self._owners.get(id(weight), [])
        return inner if inner in owners or len(owners) != 1 else owners[0]

    @property
    def place(self) -> str:
        """The dotted name of the innermost module that runs."""
        return self.names[self._running[-1]]

    def _current(self, value: Any) -> Any:
        """Exchange tensors that were changed in place for what they have become."""
        if not self._instead:
            return value
        if isinstance(value, Tensor):
            while id(value) in self._instead:
                value = self._instead[id(value)][1]
            return value
        if type(value) in (tuple, list):
            return type(value)(map(self._current, value))
        if type(value) is dict:
            return {key: self._current(one) for key, one in value.items()}
        return value

    def _note(self, name: str, found: Any) -> None:
        """Remember which operation of which layer made a node of the graph."""
        for one in found if isinstance(found, (tuple, list)) else (found,):
            node = one.grad_fn if isinstance(one, Tensor) else None
            if node is not None and (not is_move(node) or name in _RECURRENT):
                self._told.setdefault(node, f"{name}, in {self.place or 'the model'!r}")

    def _refuse_unknown(self, scores: Tensor, known: frozenset[str]) -> None:
        """Raise if the recorded graph holds an operation that nobody has spoken for."""
        waiting: list[tuple[Any, str]] = [(scores.grad_fn, "")]
        seen: set[Any] = {None}
        _refuse_probabilities(scores.grad_fn, self.probabilities)
        while waiting:
            node, told = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            told = "" if _is_ours(node) else self._told.get(node, told)
            if not _is_known(node, known):
                raise ValueError(
                    f"no rule is known for the operation {node.name()}"
                    + (f" ({told})" if told else "")
                    + ": known are linear and convolution layers, the usual activations, pooling, "
                    "norms, sums, products and attention, as modules or as functions, up to the "
                    "logits; no recurrent layers"
                )
            waiting.extend((parent, told) for parent, _ in node.next_functions)


# ---- what is in the graph ------------------------------------------------------------------------


def name_of(node: Any) -> str:
    """Return the operation that made a node: "Addmm" of "AddmmBackward0"."""
    return re.sub(r".*::|([123]D)?(With\w+)?(Backward\d*)?$", "", node.name())


def is_move(node: Any) -> bool:
    """Tell whether a node only moves numbers."""
    own = getattr(node, "_forward_cls", None)  # somebody's autograd function
    return own is Moved if own is not None else name_of(node) in MOVES


def untouched(x: Tensor, leaf: Tensor) -> bool:
    """Tell whether a tensor holds numbers of a leaf and nothing else, moved at most.

    >>> leaf = torch.ones(2, requires_grad=True)
    >>> untouched(leaf.clone()[:1], leaf), untouched(leaf * 2, leaf)
    (True, False)
    """
    node: Any = x.grad_fn
    while node is not None and is_move(node):
        if getattr(node, "variable", None) is leaf:
            return True
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        node = parents[0] if len(parents) == 1 else None
    return x is leaf


def pulled_back(
    function: Callable[..., Tensor], signal: Tensor, *operands: Tensor
) -> tuple[Tensor, ...]:
    """Return the signal times the slopes of a function, for each operand.

    >>> pulled_back(torch.square, torch.ones(1), torch.tensor([3.0]))
    (tensor([6.]),)
    """
    with torch.enable_grad():
        leaves = [one.detach().requires_grad_() for one in operands]
        out = function(*leaves)
    return torch.autograd.grad(out, leaves, signal)


def _is_ours(node: Any) -> bool:
    return getattr(node, "_forward_cls", None) in (HandedBack, Moved)


def _is_known(node: Any, known: frozenset[str]) -> bool:
    if hasattr(node, "_forward_cls"):  # somebody's autograd function
        return _is_ours(node)
    if getattr(node, "_saved_training", False):  # a norm by the statistics of the batch
        return False
    slots = [parent is not None for parent, _ in node.next_functions]
    if name_of(node) in ("Mul", "Div", "Mm", "Bmm", "Mv"):  # linear if the rest is a constant
        return name_of(node) in known and sum(slots) == 1 and (name_of(node) != "Div" or slots[0])
    return name_of(node) in known | MOVES


def _refuse_probabilities(node: Any, of_softmax: set[Any]) -> None:
    """Raise if the scores come right out of a softmax: their sum says nothing."""
    while node is not None and node not in of_softmax and is_move(node):
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    if node in of_softmax:
        raise ValueError(
            "the scores are probabilities, and no rule is known for the Softmax that the model "
            "ends in: explain its modules up to the logits"
        )


def _refuse_difference(plain: Tensor, watched: Tensor) -> None:
    """Raise if a model answers otherwise when it is watched."""
    share = torch.finfo(plain.dtype).eps ** 0.5
    size = plain.abs().nan_to_num().amax() if plain.numel() else 0.0
    if plain.isnan().any():
        raise ValueError("the model answers NaN, to x or to what it is compared with: 0 / 0?")
    gap = plain + torch.nan
    if plain.shape == watched.shape:  # a class may be hidden: -inf is -inf
        gap = torch.where(plain == watched, 0, (plain - watched.detach()).abs())
    if not (gap <= share * size).all():
        raise ValueError(
            "the model answers otherwise when its operations are followed one by one: it changes "
            "tensors in place through other names of them (a view, an assignment), or draws at "
            "random, so that no rule is known for what it does; write x = x.op() in its modules"
        )


def _depends(*values: Any) -> bool:
    """Tell whether any of the tensors depends on the input: all weights are frozen."""
    return any(
        _depends(*one) if isinstance(one, (tuple, list)) else isinstance(one, Tensor) and one.requires_grad  # noqa: E501
        for one in values
    )  # fmt: skip


def _tensors(values: Any) -> Iterator[Tensor]:
    for one in values:
        if isinstance(one, (tuple, list)):
            yield from _tensors(one)
        elif isinstance(one, Tensor):
            yield one


def _in_place(name: str, args: Any, kwargs: Any) -> bool:
    if name == "requires_grad_":
        return False
    if name.startswith("__"):
        return name in ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__")
    told = kwargs.get("inplace") or any(one is True for one in args[1:])
    return name.endswith("_") or bool(told and name in _ACTIVATIONS)


# ---- reading the operands ------------------------------------------------------------------------

Reader = Callable[..., Any]
_READERS: dict[str, tuple[Reader, inspect.Signature]] = {}


def _reads(*names: str) -> Callable[[Reader], Reader]:
    """Enter the reader of operations of these names, whichever of torch's modules they are in.

    A reader is given the watching `Operations`, the function that was called, and its arguments,
    which have the names that torch gives them.
    """

    def enter(reader: Reader) -> Reader:
        for name in names:
            _READERS[name] = reader, inspect.signature(reader)
        return reader

    return enter


@_reads(*_ACTIVATIONS)
def _activation(ops: Operations, function: Any, input: Tensor, *more: Any, **options: Any) -> Any:
    if _depends(*more, *options.values()):
        return NotImplemented
    changes = _in_place(function.__name__, (input, *more), options)
    return ops.activation(lambda z: function(z.clone() if changes else z, *more, **options), input)


@_reads(*_CURVES)
def _curve(ops: Operations, function: Any, input: Tensor) -> Any:
    changes = _in_place(function.__name__, (), {})
    plain = lambda z: function(z.clone() if changes else z)  # noqa: E731
    return ops.curve(function.__name__.strip("_"), plain, input)


@_reads("pow")
def _power(ops: Operations, function: Any, input: Tensor, exponent: Any) -> Any:
    if isinstance(exponent, Tensor):
        return NotImplemented
    return ops.curve("reciprocal" if exponent < 0 else "power", lambda z: z**exponent, input)


@_reads("glu")
def _glu(ops: Operations, function: Any, input: Tensor, dim: int = -1) -> Any:
    def glu() -> Tensor:
        value, gate = input.chunk(2, dim)
        return value * gate.sigmoid()

    return ops.written_out(glu)


@_reads(*_LAYERS)
def _layer(
    ops: Operations,
    function: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *more: Any,
    **options: Any,
) -> Any:
    if _depends(weight, bias):
        return NotImplemented
    kind = _LAYERS[function.__name__]
    apply = lambda x, weight, bias: function(x, weight, bias, *more, **options)  # noqa: E731
    return ops.layer(Layer(kind, apply, input, weight, bias, ops.module_of(weight)))


@_reads("matmul", "mm", "bmm", "mv")
def _matmul(ops: Operations, function: Any, input: Tensor, other: Tensor) -> Any:
    if _depends(input) and _depends(other):
        return ops.product(torch.matmul, input, other)
    if _depends(other):
        return ops.linear(lambda x: torch.matmul(input, x), other)
    if other.ndim != 2:
        return ops.linear(lambda x: torch.matmul(x, other), input)
    return _as_layer(ops, input, other, None)


def _as_layer(ops: Operations, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Any:
    """Read x @ matrix + bias as the linear layer that it is."""
    layer = Layer(nn.Linear, F.linear, x, matrix.mT, bias, ops.module_of(matrix))
    return ops.layer(layer)


@_reads("rmatmul")
def _matmul_from_right(ops: Operations, function: Any, input: Tensor, other: Tensor) -> Any:
    return _matmul(ops, torch.matmul, other, input)


@_reads("addmm", "baddbmm", "addbmm")
def _added_matmul(
    ops: Operations,
    function: Any,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Any:
    if function.__name__.startswith("addbmm"):
        return NotImplemented
    if beta == alpha == 1 and input.ndim == 1 and not _depends(input, mat2):
        return _as_layer(ops, mat1, mat2, input)
    return ops.written_out(lambda: beta * input + alpha * (mat1 @ mat2))


@_reads("addcmul")
def _added_product(
    ops: Operations, function: Any, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1
) -> Any:
    return ops.written_out(
        lambda: input + (tensor1 * tensor2 if value == 1 else value * tensor1 * tensor2)
    )


@_reads("einsum")
def _einsum(ops: Operations, function: Any, equation: Any, *operands: Any) -> Any:
    if not isinstance(equation, str):
        return NotImplemented
    parts = list(operands[0] if isinstance(operands[0], (tuple, list)) else operands)
    which = [i for i, one in enumerate(parts) if _depends(one)]

    def plain(*signals: Tensor) -> Tensor:
        filled = dict(zip(which, signals, strict=True))
        return torch.einsum(equation, *[filled.get(i, one) for i, one in enumerate(parts)])

    signals = [parts[i] for i in which]
    if len(signals) > 2:
        return NotImplemented
    return ops.linear(plain, *signals) if len(signals) == 1 else ops.product(plain, *signals)


@_reads(*_SUMS)
def _sum(ops: Operations, function: Any, input: Tensor, *more: Any, **options: Any) -> Any:
    if _depends(*more, *options.values()):
        return NotImplemented
    return ops.linear(lambda x: function(x, *more, **options), input)


@_reads("add", "radd", "iadd")
def _add(ops: Operations, function: Any, input: Any, other: Any, *, alpha: float = 1) -> Any:
    return ops.plus(input, other if alpha == 1 else ops.written_out(lambda: other * alpha))


@_reads("sub", "subtract", "isub")
def _subtract(ops: Operations, function: Any, input: Any, other: Any, *, alpha: float = 1) -> Any:
    return ops.plus(input, ops.written_out(lambda: other * -alpha))


@_reads("rsub")
def _subtract_from(
    ops: Operations, function: Any, input: Any, other: Any, *, alpha: float = 1
) -> Any:
    return ops.plus(other, ops.written_out(lambda: input * -alpha))


@_reads("neg", "negative")
def _negative(ops: Operations, function: Any, input: Tensor) -> Any:
    return ops.scaled(torch.neg(input.detach()), input, -1.0)


@_reads("mul", "multiply", "rmul", "imul")
def _multiply(ops: Operations, function: Any, input: Any, other: Any) -> Any:
    if _depends(input) and _depends(other):
        return ops.product(torch.mul, input, other)
    x, factor = (input, other) if _depends(input) else (other, input)
    return ops.scaled(x.detach() * factor, x, factor)


@_reads("div", "divide", "true_divide", "truediv", "itruediv", "idiv")
def _divide(
    ops: Operations, function: Any, input: Any, other: Any, *, rounding_mode: Any = None
) -> Any:
    if rounding_mode is not None:
        return NotImplemented
    if _depends(other):
        return ops.quotient(input, other)
    return ops.scaled(input.detach() / other, input, 1 / torch.as_tensor(other))


@_reads("rdiv", "rtruediv")
def _divide_into(ops: Operations, function: Any, input: Tensor, other: Any) -> Any:
    return ops.quotient(other, input)


@_reads("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(
    ops: Operations,
    function: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        return NotImplemented
    pool = getattr(F, function.__name__)
    sizes = kernel_size, stride or None, padding, dilation, ceil_mode
    return ops.winner(lambda z: pool(z, *sizes, return_indices=True), input)


@_reads("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(
    ops: Operations, function: Any, input: Tensor, output_size: Any, return_indices: bool = False
) -> Any:
    if return_indices:
        return NotImplemented
    pool = getattr(F, function.__name__)
    return ops.winner(lambda z: pool(z, output_size, return_indices=True), input)


@_reads("amax")
def _highest(
    ops: Operations, function: Any, input: Tensor, dim: Any = (), keepdim: bool = False
) -> Any:
    axes = (dim,) if isinstance(dim, int) else tuple(dim) or tuple(range(input.ndim))
    axes = tuple(axis % input.ndim for axis in axes)
    last = input.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))
    line = last.reshape(-1, 1, last.shape[-1])
    found = ops.winner(lambda z: F.max_pool1d(z, z.shape[-1], return_indices=True), line)
    if found is NotImplemented:
        return found
    shape = [1 if axis in axes else size for axis, size in enumerate(input.shape)]
    left = [size for axis, size in enumerate(input.shape) if axis not in axes]
    return found.reshape(shape if keepdim else left)


@_reads("softmax")
def _softmax(ops: Operations, function: Any, input: Tensor, dim: Any = None, *more: Any, **options: Any) -> Any:  # noqa: E501  # fmt: skip
    dtypes = [one for one in (*more, *options.values()) if isinstance(one, torch.dtype)]
    if dim is None or _depends(dim):
        return NotImplemented
    found = ops.softmax(input.to(dtypes[0]) if dtypes else input, dim)
    if isinstance(found, Tensor):
        ops.probabilities.add(found.grad_fn)
    return found


@_reads("batch_norm")
def _batch_norm(
    ops: Operations,
    function: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if training or running_mean is None or running_var is None or function is not F.batch_norm:
        return NotImplemented
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale

    def plain(x: Tensor) -> Tensor:
        return laid_plainly(function(x, running_mean, running_var, weight, bias, eps=eps))

    found = ops.batch_norm(plain, input, scale, shift)
    return plain(input) if found is NotImplemented else found


@_reads("layer_norm")
def _layer_norm(
    ops: Operations,
    function: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *cudnn: Any,
) -> Any:
    return _norm(ops, input, len(normalized_shape), eps, True, weight, bias)


@_reads("rms_norm")
def _rms_norm(
    ops: Operations,
    function: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _norm(ops, input, len(normalized_shape), eps, False, weight, None)


@_reads("group_norm")
def _group_norm(
    ops: Operations,
    function: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *cudnn: Any,
) -> Any:
    groups = input.reshape(len(input), num_groups, -1)
    found = ops.standardized(groups, (-1,), eps, True)
    return _affine(ops, found, input.shape, _per_channel(weight, input), _per_channel(bias, input))


@_reads("instance_norm")
def _instance_norm(
    ops: Operations,
    function: Any,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if function is not F.instance_norm:
        return NotImplemented
    if not use_input_stats:
        args = input, running_mean, running_var, weight, bias, False, momentum, eps
        return _batch_norm(ops, F.batch_norm, *args)
    found = ops.standardized(input, tuple(range(2, input.ndim)), eps, True)
    return _affine(ops, found, input.shape, _per_channel(weight, input), _per_channel(bias, input))


def _norm(
    ops: Operations, x: Tensor, n: int, eps: float, centered: bool, weight: Any, bias: Any
) -> Any:
    found = ops.standardized(x, tuple(range(-n, 0)), eps, centered)
    return _affine(ops, found, x.shape, weight, bias)


def _per_channel(numbers: Tensor | None, x: Tensor) -> Tensor | None:
    return None if numbers is None else numbers.reshape(-1, *[1] * (x.ndim - 2))


def _affine(ops: Operations, x: Any, shape: Any, weight: Any, bias: Any) -> Any:
    """Scale and shift what was standardized."""

    def affine() -> Tensor:
        out = x.reshape(shape)
        out = out if weight is None else out * weight
        return out if bias is None else out + bias

    return x if x is NotImplemented or _depends(weight, bias) else ops.written_out(affine)


@_reads("var", "std")
def _variance(
    ops: Operations,
    function: Any,
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Any:
    if dim is None or isinstance(dim, bool):  # of everything, all rows together
        return NotImplemented
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    lost = correction if correction is not None else 0 if unbiased is False else 1
    size = torch.Size([input.shape[axis] for axis in axes]).numel() - lost

    def spread() -> Tensor:
        squares = (input - input.mean(axes, keepdim=True)).square()
        found = squares.sum(axes, keepdim=keepdim) / size
        return found.sqrt() if function.__name__ == "std" else found

    return ops.written_out(spread)


@_reads("linalg_vector_norm", "vector_norm", "norm")
def _length(
    ops: Operations, function: Any, input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, **options: Any  # noqa: E501
) -> Any:  # fmt: skip
    p = options.pop("ord", p)
    euclidean = 2, "fro"  # codespell:ignore fro
    if p not in euclidean or dim is None or any(one is not None for one in options.values()):
        return NotImplemented
    return ops.written_out(lambda: input.square().sum(dim, keepdim=keepdim).sqrt())


@_reads("normalize")
def _normalize(
    ops: Operations,
    function: Any,
    input: Tensor,
    p: float = 2.0,
    dim: Any = 1,
    eps: float = 1e-12,
    out: Any = None,
) -> Any:
    if p != 2 or out is not None:
        return NotImplemented

    def normalize() -> Tensor:
        return input / input.square().sum(dim, keepdim=True).sqrt().clamp_min(eps)

    return ops.written_out(normalize)


@_reads("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def _beside(ops: Operations, function: Any, tensors: Any, *more: Any, **options: Any) -> Any:
    if all(_depends(one) for one in tensors):
        return NotImplemented
    which = [i for i, one in enumerate(tensors) if _depends(one)]

    def plain(*signals: Tensor) -> Tensor:
        filled = dict(zip(which, signals, strict=True))
        return function([filled.get(i, one) for i, one in enumerate(tensors)], *more, **options)

    return ops.moved(plain, *[tensors[i] for i in which])


@_reads("pad")
def _pad(ops: Operations, function: Any, input: Tensor, *more: Any, **options: Any) -> Any:
    return ops.moved(lambda x: F.pad(x, *more, **options), input)


@_reads("masked_fill")
def _masked_fill(ops: Operations, function: Any, input: Tensor, mask: Tensor, value: Any) -> Any:
    if _depends(mask, value):
        return NotImplemented
    return ops.moved(lambda x: x.masked_fill(mask, value), input)


@_reads("where")
def _where(ops: Operations, function: Any, condition: Tensor, input: Any, other: Any) -> Any:
    if function is not torch.where:  # the method: x.where(condition, other)
        condition, input = input, condition
    if _depends(input) and _depends(other):
        return ops.moved(lambda a, b: torch.where(condition, a, b), input, other)
    if _depends(input):
        return ops.moved(lambda x: torch.where(condition, x, other), input)
    return ops.moved(lambda x: torch.where(condition, input, x), other)


@_reads("clone", "contiguous")
def _copy(ops: Operations, function: Any, input: Tensor, **options: Any) -> Any:
    found = function(input, **options)
    ops.copied(input, found)
    return found


# ---- attention, written out ----------------------------------------------------------------------


@_reads("scaled_dot_product_attention")
def _attention(ops: Operations, function: Any, *args: Any, **options: Any) -> Any:
    return ops.written_out(scaled_dot_product, *args, **options)


def scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""Return $\mathrm{softmax}(Q K^\top s + M) V$, step by step.

    Args:
        query, key, value: (..., heads, T, d).
        attn_mask: which keys may be looked at (bool), or what is added to the products.
        dropout_p: ignored: a frozen network drops nothing.
        is_causal: hide all later keys.
        scale: s; None: 1 / sqrt(d).
        enable_gqa: several heads of queries share one of keys and values.

    Elsewhere: `torch.nn.functional.scaled_dot_product_attention`.

    >>> one = torch.ones(1, 1, 3, 2)
    >>> bool((scaled_dot_product(one, one, one) == one).all())
    True
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    products = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        products = _hidden(products, attn_mask, shown=True)
    return products.softmax(-1) @ value


def _hidden(products: Tensor, mask: Tensor, *, shown: bool) -> Tensor:
    """Hide keys: by a mask that is True where they are shown (or hidden), or that is added."""
    if mask.dtype == torch.bool:
        return products.masked_fill(~mask if shown else mask, -torch.inf)
    return products + mask


@_reads("multi_head_attention_forward")
def _multi_head_attention(ops: Operations, function: Any, *args: Any, **options: Any) -> Any:
    told = _MULTI_HEAD.bind(*args, **options)
    told.apply_defaults()
    given = told.arguments
    unusual = ("bias_k", "bias_v", "static_k", "static_v")
    if given["add_zero_attn"] or any(given[name] is not None for name in unusual):
        return NotImplemented
    return ops.written_out(_multi_head, given)


_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _multi_head(given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Compute what `F.multi_head_attention_forward` does: (T, N, width) or (T, width)."""
    alone = given["query"].ndim == 2
    inputs = [given[name] for name in ("query", "key", "value")]
    inputs = [one[None] if alone else one.transpose(0, 1) for one in inputs]
    query, key, value = _projected(given, inputs)  # (N, heads, T, d)
    products = query @ key.mT * query.shape[-1] ** -0.5
    for mask in _masks(given, products.shape):
        products = _hidden(products, mask, shown=False)
    weights = products.softmax(-1)
    out = (weights @ value).transpose(1, 2).flatten(2)
    out = F.linear(out, given["out_proj_weight"], given["out_proj_bias"])
    shown = None
    if given["need_weights"]:
        shown = weights.mean(1) if given["average_attn_weights"] else weights
        shown = shown[0] if alone else shown
    return out[0] if alone else out.transpose(0, 1), shown


def _projected(given: dict[str, Any], inputs: list[Tensor]) -> list[Tensor]:
    """Return queries, keys and values, cut into heads."""
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    bias, heads = given["in_proj_bias"], given["num_heads"]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return [
        F.linear(one, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for one, weight, bias in zip(inputs, weights, biases, strict=True)
    ]


def _masks(given: dict[str, Any], shape: torch.Size) -> Iterator[Tensor]:
    """Yield the masks, True where something is hidden, in the shape of (N, heads, T, S)."""
    if given["attn_mask"] is not None:
        mask = given["attn_mask"]
        yield mask.reshape(-1, shape[1], *shape[2:]) if mask.ndim == 3 else mask
    if given["key_padding_mask"] is not None:
        yield given["key_padding_mask"].reshape(-1, 1, 1, shape[3])
