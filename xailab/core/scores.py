"""One number per row, the score to be explained, and its gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.channels_last import channels_last
from xailab.core.checks import Model, Target, check_target, split_target
from xailab.core.company import batch_statistics_refused, check_company
from xailab.core.layers import capture, output_of
from xailab.core.outputs import answer_of, function_scores, number_of, scores_by
from xailab.core.state import frozen

_WRAP = (
    "explain one number of a class for each row, for instance `lambda x: model(x).mean((2, 3))` of "
    "a picture's pixels, `lambda x: model(x).logits[:, -1]` of a text's tokens; or let target be a "
    "function of the outputs, for instance `lambda out: out{}`"
)


def outputs_of(model: Model, x: Tensor) -> Tensor:
    """Return the model's outputs, (N,) or (N, K).

    Raises:
        ValueError: the model refuses the shape of `x`, or does not answer row by row.
        TypeError: it returns something else than a tensor of logits (see `logits_of`).
    """
    outputs = _answer(model, x)
    if outputs.ndim not in (1, 2) or outputs.shape[0] != x.shape[0]:
        more = outputs.ndim > 2 and outputs.shape[0] == x.shape[0]
        raise ValueError(
            f"the model must return (N,) or (N, K) with N = {x.shape[0]} rows, "
            f"it returned {tuple(outputs.shape)} for x of shape {tuple(x.shape)}"
            + (f": {_WRAP.format(number_of(outputs))}" if more else "")
        )
    return outputs


def _answer(model: Model, x: Tensor) -> Tensor:
    with batch_statistics_refused():
        return answer_of(model, x)


def select(outputs: Tensor, target: Target) -> Tensor:
    r"""Pick the score of the target, $s_i = f(x_i)_{t_i}$, with the errors of `check_target`.

    A target that is a function makes the scores of the outputs (see `function_scores`).

    >>> select(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0])
    tensor([2., 3.])
    """
    if callable(target):
        return function_scores(target, outputs, len(outputs))
    index = check_target(target, outputs)
    if outputs.ndim == 1:
        return outputs
    return outputs[:, 0] if index is None else outputs.gather(1, index[:, None])[:, 0]


def scores_of(model: Model, x: Tensor, target: Target) -> Tensor:
    """Return the target's score of every row, (N,), inside whatever graph `x` belongs to.

    A target that is a function is given the model's answer, of whatever shape, and makes one
    number a row of it (see `function_scores`).
    """
    if not callable(target):
        return select(outputs_of(model, x), target)
    with batch_statistics_refused():
        return scores_by(target, model, x)


def target_of_rows(target: Target, n: int) -> Callable[[Any], Target]:
    """Return a function that gives the target of some of n rows, by their numbers.

    Raises:
        TypeError, ValueError: as `check_target` for type and shape.

    >>> target_of_rows([4, 5, 6], 3)(torch.tensor([0, 0, 2]))
    tensor([4, 4, 6])
    """
    if target is None or callable(target):
        return lambda rows: target
    index = torch.tensor(split_target(target, n))
    return lambda rows: index[rows.cpu() if isinstance(rows, Tensor) else rows]


def input_gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r"""Return $\partial f(x_i)_{t_i} / \partial x_i$ for every row, the shape of `x`.

    Rows do not influence each other in evaluation mode, so the gradient of the summed scores
    holds every row's own gradient.

    Raises:
        ValueError: no gradient reaches x (see `gradients_of`), or rows influence each other.
    """
    with frozen(model), gradients_on():
        found = frozen_gradient(model, x, target)
        check_company(model, x, target=target)  # last: that there is a gradient matters more
        return found


def gradient_at(
    model: Model, x: Tensor, target: Target, layer: str | None
) -> tuple[Tensor, Tensor]:
    """Return what is explained, x or what a layer gives for it, and the score's gradient by it.

    Raises:
        TypeError, ValueError: as for `input_gradient`, `layer_gradient`.

    >>> gradient_at(lambda x: 3 * x, torch.ones(1, 1), 0, None)
    (tensor([[1.]]), tensor([[3.]]))
    """
    if layer is None:
        return x.detach(), input_gradient(model, x, target)
    with frozen(model), gradients_on():
        return layer_gradient(model, x.detach(), target, layer)  # type: ignore[arg-type]


def batched_gradients(
    model: Model, rows: Tensor, target: Target, *, batch_size: int | None = None
) -> Tensor:
    """Return `input_gradient` of many rows, chunk by chunk; `target` is one for all of them."""
    with frozen(model), gradients_on(), channels_last(model, len(rows)):
        found = batched(
            lambda chunk: frozen_gradient(model, chunk, target),
            rows,
            batch_size=batch_size,
            owner=model,
            gradients=True,
        )
        check_company(model, rows, target=target)
    return found


def summed_gradients(
    model: Model,
    x: Tensor,
    target: Target,
    n: int,
    variant: Callable[[Tensor, Tensor], Tensor],
    weigh: Callable[[Tensor, Tensor], Tensor | float],
    *,
    batch_size: int | None = None,
    slope: Callable[[Tensor, Tensor, Target], Tensor] | None = None,
) -> Tensor:
    r"""Return $\sum_{k=1}^n w_{ik} \odot \partial f(v_{ik})_{t_i} / \partial v_{ik}$ for every row.

    All variants of all rows are one list of work, so that chunks reach across rows, and nothing
    but the sums is kept.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        n: variants of each row.
        variant: (row numbers, variant numbers) -> those variants, (m, ...).
        weigh: (row numbers, variant numbers) -> their weights, which broadcast to (m, ...).
        batch_size: variants evaluated at once; None measures.
        slope: (row numbers, variants, their targets) -> gradients in the shape of the variants,
            where x is not what the model takes; whether rows influence each other has been seen.
            None: those of the model.

    Returns:
        The shape of `x`.
    """
    asked, own = target_of_rows(target, len(x)), slope is None
    slope = slope or (lambda rows, variants, t: frozen_gradient(model, variants, t))
    exact = torch.promote_types(x.dtype, torch.float32)  # a sum of halves would lose digits
    with gradients_on():  # not in the caller's inference mode, whose tensors cannot be added to
        total = torch.zeros(x.shape, dtype=exact, device=x.device)

    def add(chunk: range) -> Tensor:
        rows, numbers = _split(chunk, n, x.device)
        slopes = slope(rows, variant(rows, numbers), asked(rows))
        total.index_add_(0, rows, (weigh(rows, numbers) * slopes).to(exact))
        return rows

    with frozen(model), gradients_on(), channels_last(model, n * len(x)):
        batched(
            add,
            range(n * len(x)),
            batch_size=batch_size,
            owner=model,
            gradients=True,
            row_bytes=x[0].nbytes,
        )
        if own:
            check_company(model, x, of=n * len(x), target=target)
    return total.to(x.dtype)


def variant_scores(
    model: Model,
    x: Tensor,
    target: Target,
    n: int,
    variant: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int | None = None,
) -> Tensor:
    """Return the target's scores of n variants of every row, (N, n); see `summed_gradients`."""
    asked = target_of_rows(target, len(x))
    every = range(n * len(x))
    scores = batched_scores(
        model,
        lambda chunk: variant(*_split(chunk, n, x.device)),
        len(every),
        lambda chunk: asked(_split(chunk, n, x.device)[0]),
        like=x[0],
        batch_size=batch_size,
    )
    return scores.reshape(len(x), n)


def batched_scores(
    model: Model,
    make: Callable[[range], Tensor],
    n: int,
    target: Callable[[range], Target],
    *,
    like: Tensor,
    batch_size: int | None = None,
) -> Tensor:
    """Return the target's scores, (n,), of rows that exist only while they are evaluated.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,).
        make: turns row numbers into rows.
        n: how many rows there are.
        target: turns row numbers into their target.
        like: one of the rows; its size decides how many fit a chunk.
        batch_size: rows evaluated at once; None measures.
    """
    with frozen(model), torch.no_grad(), channels_last(model, n):
        scores = batched(
            lambda chunk: scores_of(model, make(chunk), target(chunk)),
            range(n),
            batch_size=batch_size,
            owner=model,
            row_bytes=like.nbytes,
        )
        check_company(model, make(range(1)), of=n, target=target(range(1)))
    return scores


def _split(chunk: range, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the row and the variant that each number of a flat list of work stands for."""
    numbers = torch.arange(chunk.start, chunk.stop, device=device)
    return numbers // n, numbers % n


def frozen_gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    """Return `input_gradient` where the model is frozen and the graph is on already.

    >>> frozen_gradient(lambda x: 3 * x, torch.ones(1, 1), 0)
    tensor([[3.]])
    """
    leaf = x.detach().clone().requires_grad_()
    return gradients_of(scores_of(model, leaf, target), leaf)


def gradients_of(scores: Tensor, inputs: Tensor, *, name: str = "the input") -> Tensor:
    """Return the detached gradient of the summed scores with respect to the inputs.

    Args:
        scores: (N,), made of the inputs inside the graph.
        inputs: what they are differentiated by.
        name: what the caller calls the inputs.

    Raises:
        ValueError: the graph does not reach from the scores to the inputs (`no_grad`, `detach`, a
            way through NumPy, integers, quantized layers). A gradient that exists and is 0 stays 0.

    >>> x = torch.ones(2, requires_grad=True)
    >>> gradients_of(3 * x, x)
    tensor([3., 3.])
    """
    gradient = None
    if scores.requires_grad:
        (gradient,) = torch.autograd.grad(scores.sum(), inputs, allow_unused=True)
    if gradient is None:
        raise ValueError(_NO_GRADIENT.format(name))
    return gradient.detach()


_NO_GRADIENT = (
    "no gradient reaches {}: on the way from it to the score the model, or a target that is a "
    "function, leaves autograd (no_grad, detach, NumPy, argmax or rounding to integers, quantized "
    "layers) or does not use it; methods that only ask for answers (occlusion, LIME, SHAP) work"
)


def check_graph(scores: Tensor, inputs: Tensor) -> None:
    """Refuse scores whose graph does not reach back to the input, for methods with own rules.

    Raises:
        ValueError: as for `gradients_of`.
    """
    reached = any(getattr(node, "variable", None) is inputs for node in nodes_of(scores))
    if not (scores.requires_grad and reached):
        raise ValueError(_NO_GRADIENT.format("the input"))


def layer_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str
) -> tuple[Tensor, Tensor]:
    r"""Return a layer's output $A$ and $\partial f_t / \partial A$, both detached.

    The model is frozen and the graph on already, as for `gradients_of`.
    """
    with capture(model, layer, leaf=True) as kept:
        scores = scores_of(model, x, target)
    output = output_of(kept, layer, len(x))
    gradient = gradients_of(scores, output, name=f"layer {layer!r}")
    check_company(model, x, target=target)
    return output.detach(), gradient


def nodes_of(scores: Tensor) -> Iterator[Any]:
    """Yield every node of the graph that autograd has recorded below these scores, once."""
    waiting, seen = [scores.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(parent for parent, _ in node.next_functions)


@contextmanager
def gradients_on() -> Iterator[None]:
    """Record gradients whatever the caller's mode is, `no_grad` and `inference_mode` included."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
