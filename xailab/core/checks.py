"""What every method asks of its input, and what it says when the answer is no."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Model = Callable[[Tensor], Tensor]
# A class number, one a row, None for the only output, or a function of the outputs, -> (N,).
Target = int | Tensor | np.ndarray | list[int] | Callable[[Tensor], Tensor] | None


class InputError(ValueError, RuntimeError):
    """A model refused the shape of `x`: torch's `RuntimeError`, and a `ValueError` as promised."""


def check_input(model: Model, x: Any) -> Tensor:
    """Return `x` if it is a non-empty, finite batch of floats on the model's dtype and device.

    Raises:
        TypeError: not a tensor, not floating point, or another dtype than the model's weights.
        ValueError: no batch dimension, an empty batch, NaN or infinity, another device, or a model
            whose rows influence each other.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"x must hold floating-point numbers, got {x.dtype}: make a picture x.float(); "
            "of token ids explain the vectors (the model as a function of inputs_embeds), or the "
            "text by lime_text"
        )
    if x.ndim < 2:
        raise ValueError(f"x must have the batch first, like (N, ...), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"x is empty: shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"x holds {bad} values that are NaN or infinite")
    _check_weights(model, x)
    check_norms(model)
    return x


def check_norms(model: Model) -> None:
    """Refuse layers that mix the rows of a batch in evaluation mode: no row has an answer alone.

    Raises:
        ValueError: a batch norm without running statistics: it takes those of the batch.

    >>> check_norms(nn.BatchNorm1d(2))
    """
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    for name, module in modules:
        if isinstance(module, _BatchNorm) and module.running_var is None:
            raise ValueError(
                f"layer {name!r} ({type(module).__name__}) keeps no running statistics and takes "
                "those of the batch, so that rows influence each other: build it with "
                "track_running_stats=True, or use GroupNorm"
            )


def _check_weights(model: Model, x: Tensor) -> None:
    """Compare dtype and device with the model's first floating-point parameter."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    weight = next((p for p in parameters if p.is_floating_point()), None)
    if weight is None:
        return
    if weight.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype}, but the model's weights are {weight.dtype}")
    if weight.device != x.device:
        raise ValueError(f"x is on {x.device}, but the model is on {weight.device}")


def check_target(target: Any, outputs: Tensor) -> Tensor | None:
    """Turn a target into one class index per row, or None for a single-output model.

    Args:
        target: int, (N,) integers, or None where the model has one output.
        outputs: (N,) or (N, K), what the model gave.

    Returns:
        (N,) int64 on the outputs' device; None when there is nothing to choose.

    Raises:
        TypeError: a target that is not an integer or integers.
        ValueError: out of range (negative ones too), wrong shape, None with several outputs, or
            a class asked of a model that has none.
    """
    n, k = outputs.shape[0], 1 if outputs.ndim == 1 else outputs.shape[1]
    if target is None:
        if k > 1:
            raise ValueError(
                f"target=None, but the model has {k} outputs: say which one (0..{k - 1})"
            )
        return None
    index = torch.tensor(split_target(target, n), device=outputs.device)
    if outputs.ndim == 1:
        raise ValueError("the model has a single output of shape (N,): pass target=None")
    wrong = (index < 0) | (index >= k)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        place = f" in row {row}" if len(set(index.tolist())) > 1 else ""
        one = ": its one output speaks for class 1, so pass target=None" if k == 1 else ""
        raise ValueError(f"target must lie in 0..{k - 1}, got {int(index[row])}{place}{one}")
    return index


def _integers(target: Any) -> Tensor:
    """Return the target as int64, refusing floats, bools and text."""
    if not isinstance(target, (Tensor, np.ndarray, np.generic, int, list, tuple)):
        raise TypeError(f"target must be an int or integers, got {type(target).__name__}")
    array = target.detach().cpu() if isinstance(target, Tensor) else np.asarray(target)
    kind = str(array.dtype)
    if "int" not in kind:
        held = "text or mixed values" if array.dtype == object or "U" in kind else kind
        raise TypeError(f"target must hold integers, got {held}")
    return torch.as_tensor(np.asarray(array).astype(np.int64))


def split_target(target: Target, n: int) -> list[int | None]:
    """Return one target per row; whether it is in range is seen when the model has answered.

    Raises:
        TypeError, ValueError: as `check_target` for type and shape.

    >>> split_target(3, 2), split_target(None, 1)
    ([3, 3], [None])
    """
    if target is None:
        return [None] * n
    index = _integers(target)
    if index.ndim > 1 or (index.ndim == 1 and len(index) != n):
        raise ValueError(f"target must be an int or have shape ({n},), got {tuple(index.shape)}")
    return index.expand(n).tolist()


def check_positive(name: str, value: Any) -> int:
    """Return a count (samples, steps, rows) if it is an integer of at least one.

    Raises:
        TypeError: not an integer.
        ValueError: smaller than one.

    >>> check_positive("n_samples", 25)
    25
    """
    number = as_integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def check_baseline(baseline: Any, x: Tensor) -> Tensor:
    """Return the baseline as a tensor of the shape of `x`: what counts as nothing.

    Args:
        baseline: a number, or a tensor that broadcasts to `x`.
        x: (N, ...) floats.

    Raises:
        TypeError: neither a number nor a tensor, or a tensor of another dtype or device.
        ValueError: NaN or infinite, or a shape that does not broadcast to `x`.

    >>> check_baseline(0.5, torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """
    if isinstance(baseline, bool) or not isinstance(baseline, (int, float, np.number, Tensor)):
        raise TypeError(f"baseline must be a number or a Tensor, got {type(baseline).__name__}")
    value = baseline if isinstance(baseline, Tensor) else x.new_tensor(float(baseline))
    if (value.dtype, value.device) != (x.dtype, x.device):
        raise TypeError(
            f"baseline is {value.dtype} on {value.device}, but x is {x.dtype} on {x.device}"
        )
    if not torch.isfinite(value).all():
        raise ValueError("baseline holds values that are NaN or infinite")
    try:
        return value.detach().expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"baseline of shape {tuple(value.shape)} does not broadcast to x {tuple(x.shape)}"
        ) from error


def check_index(name: str, value: Any, n: int) -> int:
    """Return the number of a unit, a class or a position, 0..n-1, whatever integer it came as.

    Raises:
        TypeError: not an integer: NumPy's integers, 0-d arrays and tensors are, bools are not.
        ValueError: out of range.

    >>> check_index("unit", np.int64(2), 4), check_index("unit", torch.tensor(0), 4)
    (2, 0)
    """
    index = as_integer(name, value)
    if not 0 <= index < n:
        raise ValueError(f"{name} must lie in 0..{n - 1}, got {index}")
    return index


def as_integer(name: str, value: Any) -> int:
    """Return an integer of any kind (Python, NumPy, 0-d array or tensor) as an int.

    Raises:
        TypeError: something else, a bool or a float among them.

    >>> as_integer("layer", np.uint8(1))
    1
    """
    kind = getattr(value, "dtype", type(value))
    if kind not in (bool, torch.bool, np.dtype(bool)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
