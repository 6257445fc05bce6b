"""Trying whether a row's answer depends on the other rows of its batch.

Every method here evaluates many rows at once and promises the answer of each row alone. A model
that takes a mean, a maximum or a softmax over the batch breaks that without an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.checks import Model, Target
from xailab.core.outputs import answer_of, scores_by

_TRYING: ContextVar[bool] = ContextVar("trying", default=False)
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}


def trying() -> bool:
    """Tell whether a pass is a trial of this file, which is no part of a method's cost."""
    return _TRYING.get()


def check_company(
    model: Model, rows: Tensor, *, of: int | None = None, target: Target = None
) -> None:
    """Refuse a model that answers a row otherwise in company: two extreme rows beside it.

    Two passes of the model, which is frozen already: the first row alone, and between rows that
    have another mean, maximum, minimum and scale. A single row is in no company.

    Args:
        model: maps (N, ...) to its outputs.
        rows: (n, ...), the first of which is tried.
        of: how many rows will be evaluated; None: n.
        target: what is asked of the model; where it is a function, what that gives is compared.

    Raises:
        ValueError: the answers differ by more than rounding does.

    >>> check_company(lambda x: x.sum(1), torch.ones(2, 3))
    """
    if (len(rows) if of is None else of) < 2:
        return
    row = rows[:1].detach()
    with trial():
        with batch_statistics_refused():
            alone = _first(model, row, target)
        try:
            beside = _first(model, torch.cat([row, 3 * row + 1, -3 * row - 1]), target)
        except Exception:  # such rows may be none that the model takes: then nothing is known
            return
        if alone.shape == beside.shape and _differ(alone, beside, _tolerance(model, alone)):
            nudged = _first(model, row * (1 + 8 * torch.finfo(row.dtype).eps), target)
            noise = (nudged - alone).abs().amax()  # a random model's own, or that of rounding
            if ((alone - beside).abs() > 100 * noise).any():
                raise ValueError(
                    "the model's rows influence each other: it answers the first row of x "
                    "otherwise when other rows stand in the same batch (a mean, a maximum, a norm "
                    "or a softmax over axis 0?), so that no row has an explanation of its own"
                )


@contextmanager
def batch_statistics_refused() -> Iterator[None]:
    """Say in place of torch that a model which needs several rows has no answer for one."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "the model's rows influence each other: it normalizes by the statistics of the batch, "
            "and a row alone has none"
        ) from error


def _first(model: Model, rows: Tensor, target: Target) -> Tensor:
    """Return the outputs of the first row, or its score by a function."""
    asked = scores_by(target, model, rows) if callable(target) else answer_of(model, rows)
    return asked[:1].detach()


def _tolerance(model: Model, answer: Tensor) -> float:
    """Return by how much of its largest number an answer may differ, by rounding alone.

    Layers that are quantized while they run round by the largest number of the batch.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    if any(type(one).__module__.startswith("torch.ao.nn.quantized") for one in modules):
        return 0.25
    return _TOLERANCE.get(answer.dtype, 1e-3)


def _differ(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Tell whether two answers differ by more than a share of the first one's largest number."""
    finite = torch.isfinite(one) & torch.isfinite(other)
    gap = torch.where(finite, (one - other).abs(), 0)
    return bool((gap > tolerance * (one.abs().amax() if one.numel() else 0)).any())


@contextmanager
def trial() -> Iterator[None]:
    """Run passes that only try something out: no gradients, and no part of a method's cost."""
    token: Any = _TRYING.set(True)
    try:
        with torch.no_grad():
            yield
    finally:
        _TRYING.reset(token)
