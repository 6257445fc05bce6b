"""How far an attack may go, and what it has to say when it does not move.

Lesson `adversarial`'s attacks stand in `adversarial.py` and `adaptive.py`; what all of them check,
keep to and warn of is here: the radius, the clip, the mask, and rows whose gradient is 0.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xailab.core.checks import Model, Target, check_input, check_positive, split_target
from xailab.core.company import check_company
from xailab.core.scores import gradients_on
from xailab.core.state import frozen

Clip = tuple[Any, Any] | None

_ROWS = 250  # at once; not measured, since a gradient near 0 may change its sign with the chunk


class Limits(NamedTuple):
    """Rows to be attacked, and where they may go.

    Attributes:
        x: (N, ...) the rows in float32 or finer: in half precision small steps would be lost.
        free: the shape of x, 1 where numbers may move, else 0.
        low: the shape of x, the smallest value that x may have.
        high: the largest.
        climbed: (N,) bool, an attack notes here which rows had a gradient.
        dtype: in which the model is asked.
    """

    x: Tensor
    free: Tensor
    low: Tensor
    high: Tensor
    climbed: Tensor
    dtype: torch.dtype

    def chunk(self, rows: slice) -> "Limits":
        """Return the limits of some rows; `climbed` stays one account."""
        x, free, low, high = (part[rows] for part in self[:4])
        return Limits(x, free, low, high, self.climbed[rows], self.dtype)

    def clip(self, moved: Tensor) -> Tensor:
        """Return the rows with every number inside the clip."""
        return moved.clamp(self.low, self.high)

    def note(self, uphill: Tensor) -> Tensor:
        """Note which rows have a gradient to follow; return it."""
        self.climbed.logical_or_(uphill.flatten(1).any(1))
        return uphill


Attack = Callable[[Limits, Tensor | None], Tensor]


def check_limits(
    model: Model, x: Tensor, *, epsilon: float, clip: Clip = (0, 1), mask: Tensor | None = None
) -> Limits:
    """Check what every attack is given, and return it as `Limits`.

    Args:
        model: whose dtype and device x must have.
        x: (N, ...) floats inside `clip`.
        epsilon: the radius, from `check_radius`; warned of where rounding swallows it.
        clip: (low, high), numbers or tensors that broadcast to x; None: any value.
        mask: 1 or True where numbers may move; None: everywhere.

    Raises:
        TypeError: as `saliency` for x; a clip that holds no numbers; a mask that is no tensor.
        ValueError: as `saliency` for x; a clip that is no pair, whose low does not lie below its
            high, that does not broadcast to x, or outside which x lies; a mask that does not
            broadcast or holds something else than 0 and 1.
    """
    with gradients_on():  # copies made here may be part of a graph
        start = check_input(model, x).detach().clone()
        low, high = _bounds(clip, start)
        if (start < low).any() or (start > high).any():
            shown = clip if not any(map(np.ndim, clip or ())) else "these bounds"
            raise ValueError(
                f"x lies in {start.min().item():.4g}..{start.max().item():.4g}, which clip={shown} "
                "would change: pass the range of your inputs, or clip=None"
            )
        _warn_of_rounding(start, epsilon)
        wide, free = torch.promote_types(x.dtype, torch.float32), _free(mask, start)
        still = torch.zeros(len(start), dtype=torch.bool, device=x.device)
        return Limits(start.to(wide), free.to(wide), low.to(wide), high.to(wide), still, x.dtype)


def attack_by_chunks(
    attack: Attack, model: Model, room: Limits, target: Target, batch_size: int | None
) -> Tensor:
    """Attack all rows, some at a time, with the model frozen.

    Args:
        attack: attack(limits of some rows, their classes or None) -> the changed rows.
        model: is held still.
        room: of all rows.
        target: one class or one a row; None for a single-output model.
        batch_size: rows at once; None: 250.

    Raises:
        TypeError: a target or batch size that is no integer.
        ValueError: a target of another shape, a batch size below 1, rows that influence each other.
    """
    wanted = split_target(target, len(room.x))
    size = _ROWS if batch_size is None else check_positive("batch_size", batch_size)
    moved = []
    with frozen(model), gradients_on():
        for first in range(0, len(room.x), size):
            some = wanted[first : first + size]
            t = None if target is None else torch.tensor(some, device=room.x.device)
            moved.append(attack(room.chunk(slice(first, first + size)), t))
        # Last: whether there is a gradient at all matters more.
        check_company(model, room.x.to(room.dtype))
    return torch.cat(moved).detach().to(room.dtype)


def warn_of_flat_rows(room: Limits) -> None:
    """Say how many rows had no gradient to follow though they were free to move."""
    flat = int((~room.climbed & room.free.flatten(1).any(1)).sum())
    if flat:
        warnings.warn(
            f"the gradient is 0 in {flat} of {len(room.x)} rows: that they did not move says "
            "nothing about robustness",
            stacklevel=3,
        )


def check_radius(name: str, value: Any) -> float:
    """Return a length if it is a finite number of at least 0.

    Raises:
        TypeError: no number.
        ValueError: negative, NaN or infinite.

    >>> check_radius("epsilon", 0.1)
    0.1
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return float(value)


def as_column(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a row in a shape that broadcasts to x.

    >>> as_column(torch.ones(2), torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 1, 1, 1])
    """
    return values.reshape(-1, *[1] * (x.ndim - 1))


# ---- checks --------------------------------------------------------------------------------------


def _bounds(clip: Clip, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of every number."""
    pair = (-torch.inf, torch.inf) if clip is None else clip
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"clip must be None or (low, high), got {type(clip).__name__} {clip!r:.60}"
        )
    low, high = (_bound(one, x) for one in pair)
    if not (low < high).all():
        raise ValueError(f"clip must be (low, high) with low < high, got {clip!r:.60}")
    return low, high


def _bound(bound: Any, x: Tensor) -> Tensor:
    known = (int, float, np.number, np.ndarray, Tensor)
    if isinstance(bound, bool) or not isinstance(bound, known):
        raise TypeError(f"clip must hold numbers or tensors, got {type(bound).__name__}")
    value = torch.as_tensor(bound).detach().clone().to(x)
    if 0 < value.ndim < min(x.ndim - 1, 2) and value.numel() > 1:
        # (3,) would be laid along the width, and whoever has three channels means those.
        raise ValueError(
            f"clip of shape {tuple(value.shape)} could mean any axis of x {tuple(x.shape)}: "
            "one bound a channel has shape (C, 1, 1), one a column (1, W)"
        )
    return _expanded("clip", value, x)


def _free(mask: Tensor | None, x: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(x)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor, got {type(mask).__name__}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold 0 and 1 (or False and True) only")
    return _expanded("mask", mask.detach().clone().to(x), x)


def _expanded(name: str, value: Tensor, x: Tensor) -> Tensor:
    try:
        return value.expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"{name} of shape {tuple(value.shape)} does not broadcast to x {tuple(x.shape)}"
        ) from error


def _warn_of_rounding(x: Tensor, epsilon: float) -> None:
    """In half precision the numbers near 1 lie .001 or .008 apart: a smaller step is none."""
    wide = x.double()
    lost = ((wide + epsilon).to(x.dtype) == x) & ((wide - epsilon).to(x.dtype) == x)
    if epsilon > 0 and lost.any():
        share = lost.double().mean().item()
        warnings.warn(
            f"epsilon={epsilon:.3g} is lost in the rounding of {x.dtype} for {share:.1%} of the "
            "numbers of x: that they do not move says nothing about robustness",
            stacklevel=4,
        )
