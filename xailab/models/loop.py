"""Training: one loop for everything that learns here, and one check of model, rows and labels.

`training.fit` and every other function that trains hands its own loss to `train`. Everything that
trains or measures asks `check_rows` first.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from tqdm import trange

from xailab.core.batching import batched, quiet
from xailab.core.checks import InputError, Model, as_integer, check_input, check_positive
from xailab.core.company import check_company
from xailab.core.outputs import class_logits, classes_of, labels_of
from xailab.core.scores import gradients_on, outputs_of
from xailab.core.state import frozen

Pair = tuple[Tensor, Tensor]

# Words of torch's complaints about kinds of numbers; anything else is the model's own error.
_REFUSES = re.compile(r"dtype|scalar type|tensors to be on|not implemented for|out of range")


class History(NamedTuple):
    """What a training measured: one number an epoch in each list."""

    train_loss: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]


class Score(NamedTuple):
    """What `evaluate` measured: mean cross-entropy (nats) and share of right answers."""

    loss: float
    accuracy: float


class DivergedError(FloatingPointError, RuntimeError):
    """The loss or the answers are no finite numbers any more."""


# ---- the loop ------------------------------------------------------------------------------------


def train(
    model: nn.Module,
    n: int,
    loss_of: Callable[[Tensor], Tensor],
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int = 64,
    seed: int = 0,
    after_epoch: Callable[[int], Any] | None = None,
) -> list[float]:
    r"""Train: in every epoch visit n rows in a new order, and take one step for each batch.

    $$\theta \leftarrow \mathrm{step}\Big(\theta, \nabla_\theta L\big(B\big)\Big)
      \quad \text{for each batch } B$$

    Args:
        model: what learns; it ends in evaluation mode, also after an error.
        n: how many rows there are; `check_rows` looks at them.
        loss_of: turns row numbers (B,) into the mean loss of these rows, with its graph.
        optimizer: such as `adam(model, 5e-3)`.
        epochs: how often every row is visited.
        batch_size: rows a step; the last step of an epoch may have fewer (see `batches`).
        seed: decides the order of rows and what dropout drops; torch's own state stays.
        after_epoch: called with the epoch's number, 0 first, the model in evaluation mode.

    Returns:
        The mean loss of a row in every epoch, measured while the weights change.

    Raises:
        TypeError: counts that are not integers; a model or weights that cannot be trained.
        ValueError: no weight is free to change; one row for a batch norm; counts below 1.
        RuntimeError: the loss does not depend on the weights.
        FloatingPointError: the loss is no finite number any more.

    >>> net, x = nn.Linear(1, 1), torch.ones(4, 1)
    >>> loss_of = lambda rows: (net(x[rows]) - 3).square().mean()
    >>> losses = train(net, 4, loss_of, optimizer=adam(net, 0.1), epochs=100)
    >>> losses[0] > 1 > 0.01 > losses[-1]
    True
    """
    check_trainable(model)
    seed, losses = as_integer("seed", seed), []
    epochs, size = check_positive("epochs", epochs), check_positive("batch_size", batch_size)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), gradients_on():
        torch.manual_seed(seed)
        for epoch in trange(epochs, delay=2, disable=quiet(), unit=" epochs"):
            parts = batches(order(n, seed=seed, epoch=epoch), size)
            losses.append(run_epoch(model, loss_of, parts, optimizer=optimizer))
            if not np.isfinite(losses[-1]):
                raise DivergedError(f"the loss became {losses[-1]}: try a smaller learning rate")
            if after_epoch is not None:
                after_epoch(epoch)
    return losses


def run_epoch(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    parts: Sequence[Tensor],
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> float:
    """Take one step for each batch of row numbers; return the mean loss of a row.

    Args:
        model: in training mode meanwhile, in evaluation mode after it.
        loss_of: as in `train`.
        parts: the row numbers of each batch.
        optimizer: takes the steps.
        schedule: changes the learning rate after every step.

    Raises:
        ValueError: a batch of one row for a batch norm.
        RuntimeError: the loss does not depend on the weights.
    """
    _check_batches(model, parts)
    total = 0.0
    model.train()
    try:
        for rows in parts:
            loss = loss_of(rows)
            _check_loss(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            total += loss.item() * len(rows)
    finally:
        model.eval()
    return total / sum(map(len, parts))


def order(n: int, *, seed: int, epoch: int) -> Tensor:
    """Return the order (n,) in which an epoch visits n rows; it depends on seed and epoch alone.

    An order drawn from one running generator would depend on all epochs before it, and a training
    that is resumed in epoch 5 would see other batches than one that was never interrupted.

    >>> order(5, seed=0, epoch=1).tolist() == order(5, seed=0, epoch=1).tolist()
    True
    """
    generator = torch.Generator().manual_seed(10_000 * seed + epoch)
    return torch.randperm(n, generator=generator)


def batches(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut row numbers into batches; a last batch of one row is joined to the one before it.

    One row alone has no spread: a batch norm would refuse it, and its step would be the noisiest.

    >>> [part.tolist() for part in batches(torch.arange(5), 2)]
    [[0, 1], [2, 3, 4]]
    """
    parts = rows.split(size)
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        return (*parts[:-2], torch.cat(parts[-2:]))
    return parts


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Return Adam over all weights of a model.

    Raises:
        TypeError: `learning_rate` is no number.
        ValueError: it is not above 0, or not finite; no weight is free to change.
    """
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, (int, float, np.number)):
        raise TypeError(f"learning_rate must be a number, got {type(learning_rate).__name__}")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate}")
    check_trainable(model)
    return torch.optim.Adam(model.parameters(), float(learning_rate))


def class_loss(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the mean cross-entropy in nats; one logit is the binary one, labels 0 and 1.

    $$-\frac1N \sum_i \log \mathrm{softmax}(z_i)_{y_i}$$

    Args:
        outputs: (N, K), (N, 1) or (N,) logits.
        y: (N,) class numbers, as `check_rows` returns them.

    >>> class_loss(torch.zeros(1), torch.tensor([1]))
    tensor(0.6931)
    """
    return F.cross_entropy(class_logits(outputs), y)


def evaluate(model: Model, data: Pair) -> Score:
    """Measure a classifier in evaluation mode; nothing about it changes.

    Args:
        model: (N, ...) -> logits (N, K), or one logit, (N, 1) or (N,), for the classes 0 and 1.
        data: inputs (N, ...) and class numbers (N,), in a tensor, an array or a list.

    Raises:
        TypeError, ValueError: as `check_rows`.
        FloatingPointError: the model answers NaN.

    >>> logits, y = torch.tensor([[0.0, 100.0], [0.0, 100.0]]), torch.tensor([1, 0])
    >>> evaluate(nn.Identity(), (logits, y))
    Score(loss=50.0, accuracy=0.5)
    """
    x, y = check_rows(model, *as_pair("data", data), name="data")
    with frozen(model), torch.no_grad():
        outputs = batched(
            lambda rows: outputs_of(model, rows), x, batch_size=500, progress=False, owner=model
        )
    if outputs.isnan().any():
        raise DivergedError(f"the model answers NaN in {_first_row(outputs.isnan())}")
    exact = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return Score(class_loss(exact, y).item(), (classes_of(exact) == y).double().mean().item())


# ---- the check -----------------------------------------------------------------------------------


def as_pair(name: str, data: Any) -> tuple[Any, Any]:
    """Return a pair (x, y) as such: two rows of a tensor are none.

    Raises:
        TypeError: no tuple or list of two.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"{name} must be a pair (inputs, class numbers), got {type(data).__name__}")
    return data[0], data[1]


def check_rows(model: Model, x: Any, y: Any, *, name: str = "data") -> Pair:
    """Return rows and labels once model, rows and labels fit together.

    The model is asked about a few of the rows, in evaluation mode, to see that it can read them,
    and how many classes it knows.

    Args:
        model: (N, ...) -> logits (N, K), (N, 1) or (N,).
        x: (N, ...) floats in the dtype of the model's weights, or integers (numbers of words).
        y: (N,) class numbers: a tensor, an array, a list; whole floats and bools are taken.
        name: what the caller calls this pair.

    Returns:
        `x` outside of any graph, and `y` as int64 on its device.

    Raises:
        TypeError: x is no tensor, or of another dtype than the weights; labels that are no numbers.
        ValueError: no rows, NaN or infinity, not one class number a row, a class that the model
            does not have, rows that it cannot read, or that influence each other's answers.

    >>> check_rows(nn.Linear(2, 3), torch.zeros(2, 2), [0, 2.0])[1]
    tensor([0, 2])
    """
    x = _plain(x, name)
    if x.is_floating_point():
        check_input(model, x)
    few = x[_extremes(x)]
    try:
        with frozen(model), torch.no_grad():
            classes = class_logits(outputs_of(model, few)).shape[1]
            check_company(model, x)
    except (RuntimeError, IndexError) as error:
        if not _REFUSES.search(str(error)):
            raise
        raise InputError(
            f"{name}: the model cannot be run on x, {tuple(x.shape)} of {x.dtype}: {error}"
        ) from error
    return x, labels_of(y, len(x), classes, name=f"{name}: y").to(x.device)


def check_table(x: Any, y: Any, *, name: str = "data") -> Pair:
    """Check what can be seen without a model; see `check_rows`."""
    x = _plain(x, name)
    return x, labels_of(y, len(x), name=f"{name}: y").to(x.device)


def _plain(x: Any, name: str) -> Tensor:
    """Return rows outside of any graph, if they are numbers."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: x must be a torch.Tensor, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_quantized:
        raise TypeError(f"{name}: x must be a plain dense tensor, got {x.dtype}, {x.layout}")
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"{name}: x must hold at least one row, got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name}: x holds NaN or infinity in {_first_row(~torch.isfinite(x))}")
    # rows made in inference mode could not be part of a graph
    return x.detach().clone() if x.is_inference() else x.detach()


def check_trainable(model: Any) -> None:
    """Refuse a model whose weights cannot be trained.

    Raises:
        TypeError: no `nn.Module`; weights in half precision, in which small steps are lost.
        ValueError: no weight is free to change; weights that do not exist yet, or that were made
            in inference mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module to be trained, got {type(model).__name__}")
    if any(is_lazy(each) for each in model.parameters()):
        raise ValueError("the model has lazy layers without weights: call it once on some rows")
    weights = [each for each in model.parameters() if each.requires_grad]
    if not weights:
        raise ValueError("the model has no weights to train: all are frozen (requires_grad=False)")
    if any(each.is_inference() for each in weights):
        raise ValueError("the model was made in inference_mode, its weights cannot be trained")
    small = next((w.dtype for w in weights if w.is_floating_point() and w.itemsize < 4), None)
    if small is not None:
        raise TypeError(f"train in float32 or float64, not in {small}: model.float(), then convert")


def _check_batches(model: nn.Module, parts: Sequence[Tensor]) -> None:
    """One row has no spread: where a batch norm learns, every batch needs two."""
    norms = [name for name, each in model.named_modules() if isinstance(each, _BatchNorm)]
    if norms and min(map(len, parts)) < 2:
        raise ValueError(
            f"the batch norm {norms[0]!r} cannot learn from a batch of one row: give more rows, "
            "or a larger batch_size"
        )


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.ndim:
        raise TypeError(f"the loss must be one number in a tensor without axes, got {loss!r:.80}")
    if not loss.requires_grad:
        raise RuntimeError(
            "no gradient reaches the weights: the model's forward pass runs under no_grad, or "
            "detaches its answer"
        )


def _extremes(x: Tensor) -> Tensor:
    """Return the numbers of a few rows: two, and those with the smallest and largest number.

    A table of words has as many rows as there are words: a number beyond it is the largest.
    """
    chosen = {0, min(1, len(x) - 1)}
    if not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool):
        per_row = x.numel() // len(x)
        chosen |= {int(x.argmin()) // per_row, int(x.argmax()) // per_row}
    return torch.tensor(sorted(chosen), device=x.device)


def _first_row(where: Tensor) -> str:
    """Say in how many rows something is so, and which is the first."""
    rows = where.flatten(1).any(1) if where.ndim > 1 else where
    return f"{int(rows.sum())} of {len(rows)} rows, the first is row {int(rows.nonzero()[0])}"
