"""Asking a function that only answers: rows, pictures or texts in, numbers out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from xailab.core.batching import Rows, batched
from xailab.core.channels_last import channels_last
from xailab.core.checks import as_integer
from xailab.core.outputs import as_array
from xailab.core.state import frozen


def ask_in_chunks(
    predict: Callable[..., Any],
    read: Callable[[Any], np.ndarray],
    rows: Rows,
    *,
    batch_size: int | None,
    row_bytes: int | None = None,
) -> Any:
    """Ask a black box about many rows, chunk by chunk, holding still the networks that it uses.

    A function that runs a network in training mode would answer differently to each chunk, and
    write into the network's statistics; so it is asked as `frozen` would have it.

    Args:
        predict: the black box, whose speed is measured.
        read: a chunk of rows -> their answers, as arrays; it asks `predict`.
        rows: as for `batched`.
        batch_size: rows per call of `read`; None measures.
        row_bytes: as for `batched`.

    Raises:
        TypeError: `predict` is not callable.

    >>> double = lambda rows: 2 * rows
    >>> ask_in_chunks(double, lambda chunk: double(chunk), np.ones((3, 1)), batch_size=2).tolist()
    [[2.0], [2.0], [2.0]]
    """
    if not callable(predict):
        raise TypeError(f"predict must be a function, got {type(predict).__name__}")
    with frozen(predict), channels_last(predict, len(rows)):
        return batched(read, rows, batch_size=batch_size, owner=predict, row_bytes=row_bytes)


def numbers_of(answers: Any, n: int) -> np.ndarray:
    """Return what a black box answered to n rows as finite float64, (n,) or (n, K).

    Raises:
        TypeError: no numbers.
        ValueError: another shape, NaN or infinity.

    >>> numbers_of([True, False], 2)
    array([1., 0.])
    """
    wanted = f"predict must give ({n},) or ({n}, K)"
    try:
        raw = as_array(answers) if isinstance(answers, Tensor) else np.asarray(answers)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}, got rows that differ") from error
    if raw.ndim not in (1, 2) or len(raw) != n or not raw.size:
        raise ValueError(f"{wanted}, got {raw.shape}")
    if raw.dtype.kind not in "biuf":
        raise TypeError(f"predict must give numbers, got {raw.dtype}: {raw.flat[0]!r:.40}")
    if not np.isfinite(raw).all():
        raise ValueError("predict gave values that are NaN or infinite")
    return raw.astype(np.float64)


def chosen_of(answers: Any, n: int, target: int | None) -> np.ndarray:
    """Return the target's scores, (n,), out of what a black box answered to n rows.

    Raises:
        TypeError: as `numbers_of`; a target that is no integer.
        ValueError: as `numbers_of`; a target that is not there.

    >>> chosen_of([[1, 2], [3, 4]], 2, 1)
    array([2., 4.])
    """
    found, index = numbers_of(answers, n), None if target is None else as_integer("target", target)
    if found.ndim == 1 or (index is None and found.shape[1] == 1):
        if index is not None:
            raise ValueError("predict gives a single output: pass target=None")
        return found.reshape(n)
    if index is None or not 0 <= index < found.shape[1]:
        raise ValueError(f"target must lie in 0..{found.shape[1] - 1}, got {target}")
    return found[:, index]
