"""One number per row, the score to be explained, and its gradients."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import InputError, Model, Target, check_target
from xailab.core.folding import folding
from xailab.core.layers import capture, output_of
from xailab.core.state import frozen

# Words of torch's complaints about shapes; anything else is the model's own error and passes.
_SHAPE = re.compile(r"shape|size|dimension|channels|expected .*input|[0-9]D", re.IGNORECASE)


def outputs_of(model: Model, x: Tensor) -> Tensor:
    """Return the model's outputs, (N,) or (N, K).

    Raises:
        ValueError: the model refuses the shape of `x`, or does not answer row by row.
        TypeError: it returns something else than a tensor.
    """
    try:
        outputs = model(x.clone())  # a first layer that works in place must not change x
    except RuntimeError as error:
        if type(error) is RuntimeError and _SHAPE.search(str(error)):
            raise InputError(f"the model refuses x of shape {tuple(x.shape)}: {error}") from error
        raise
    if not isinstance(outputs, Tensor):
        raise TypeError(f"the model must return one tensor, it returned {type(outputs).__name__}")
    if outputs.ndim not in (1, 2) or outputs.shape[0] != x.shape[0]:
        raise ValueError(
            f"the model must return (N,) or (N, K) with N = {x.shape[0]} rows, "
            f"it returned {tuple(outputs.shape)} for x of shape {tuple(x.shape)}"
        )
    return outputs


def select(outputs: Tensor, target: Target) -> Tensor:
    r"""Pick the score of the target, $s_i = f(x_i)_{t_i}$, with the errors of `check_target`.

    >>> select(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0])
    tensor([2., 3.])
    """
    index = check_target(target, outputs)
    if outputs.ndim == 1:
        return outputs
    return outputs[:, 0] if index is None else outputs.gather(1, index[:, None])[:, 0]


def scores_of(model: Model, x: Tensor, target: Target) -> Tensor:
    """Return the target's score of every row, (N,), inside whatever graph `x` belongs to."""
    return select(outputs_of(model, x), target)


def input_gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r"""Return $\partial f(x_i)_{t_i} / \partial x_i$ for every row, the shape of `x`.

    Rows do not influence each other in evaluation mode, so the gradient of the summed scores
    holds every row's own gradient.
    """
    with frozen(model), graph():
        return _gradient(model, x, target)


def batched_gradients(
    model: Model, rows: Tensor, target: int | None, *, batch_size: int | None = None
) -> Tensor:
    """Return `input_gradient` of many rows with one target, chunk by chunk."""
    with frozen(model), graph(), folding(model, rows[:1], len(rows)):
        return batched(
            lambda chunk: _gradient(model, chunk, target),
            rows,
            batch_size=batch_size,
            owner=model,
            gradients=True,
        )


def batched_scores(
    model: Model,
    make: Callable[[range], Tensor],
    n: int,
    target: int | None,
    *,
    like: Tensor,
    batch_size: int | None = None,
) -> Tensor:
    """Return the target's scores, (n,), of rows that exist only while they are evaluated.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,).
        make: turns row numbers into rows.
        n: how many rows there are.
        target: class index, or None for a single-output model.
        like: one of the rows; its size decides how many fit a chunk.
        batch_size: rows evaluated at once; None measures.
    """
    with frozen(model), torch.no_grad(), folding(model, make(range(1)), n):
        return batched(
            lambda chunk: scores_of(model, make(chunk), target),
            range(n),
            batch_size=batch_size,
            owner=model,
            row_bytes=like.nbytes,
        )


def _gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    """Gradient of the score where the model is frozen and the graph is on already."""
    leaf = x.detach().clone().requires_grad_()
    return gradients_of(scores_of(model, leaf, target), leaf)


def gradients_of(scores: Tensor, inputs: Tensor) -> Tensor:
    """Return the detached gradient of the summed scores; zeros where they do not depend on it."""
    if not scores.requires_grad:
        return torch.zeros_like(inputs)
    (gradient,) = torch.autograd.grad(scores.sum(), inputs, allow_unused=True)
    return torch.zeros_like(inputs) if gradient is None else gradient.detach()


def layer_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str
) -> tuple[Tensor, Tensor]:
    r"""Return a layer's output $A$ and $\partial f_t / \partial A$, both detached.

    The model is frozen and the graph on already, as for `gradients_of`.
    """
    with capture(model, layer, leaf=True) as kept:
        scores = scores_of(model, x, target)
    output = output_of(kept, layer, len(x))
    return output.detach(), gradients_of(scores, output)


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
def graph() -> Iterator[None]:
    """Record gradients whatever the caller's mode is, `no_grad` and `inference_mode` included."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
