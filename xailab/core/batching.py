"""Evaluating many rows fast: in chunks of the size that this model likes best on this machine.

A perturbation method spends most of its time in the model's forward pass, and one row at a time
is slow (calls), and all rows at once is slow too (memory). The best chunk is found while working:
sizes 1, 2, 4, ... are timed on rows that have to be evaluated anyway.
"""

import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from xailab.core.checks import check_positive

Rows = Tensor | np.ndarray | Sequence[Any]

_CHUNK_BYTES = 32 * 2**20  # one chunk of inputs never grows beyond this
_best_sizes: WeakKeyDictionary[Any, dict[tuple[Any, ...], int]] = WeakKeyDictionary()


def batched(
    function: Callable[[Any], Any],
    rows: Rows,
    *,
    batch_size: int | None = None,
    progress: bool = True,
    owner: Any = None,
) -> Any:
    """Apply a function to rows chunk by chunk and join the answers.

    Args:
        function: maps m rows to m answers (Tensor or ndarray, first dimension m).
        rows: Tensor, ndarray, or anything with `len` and slices, which may make its rows only
            when they are asked for, so that memory stays flat. Rows of a Tensor or ndarray that
            occur more than once are evaluated once.
        batch_size: rows per call; None measures the best size, once per owner and row shape.
        progress: show a bar once two seconds have passed (`XAILAB_QUIET=1` never shows it).
        owner: the object whose speed is measured, usually the model; the function by default.

    Returns:
        The joined answers, in the order of `rows`.

    Raises:
        TypeError: `batch_size` is not an integer.
        ValueError: no rows, `batch_size` < 1, or a function that does not answer row by row.

    Elsewhere: captum's `perturbations_per_eval` / `internal_batch_size`, set by hand.

    >>> batched(lambda rows: rows.sum(1), torch.ones(5, 3), batch_size=2)
    tensor([3., 3., 3., 3., 3.])
    """
    if len(rows) == 0:
        raise ValueError("there are no rows to evaluate")
    unique, inverse = _merged(rows)
    sizes = _Sizes(batch_size, owner if owner is not None else function, unique)
    answers = _answers(function, unique, sizes, progress)
    joined = torch.cat(answers) if isinstance(answers[0], Tensor) else np.concatenate(answers)
    return joined if inverse is None else joined[inverse]


def quiet() -> bool:
    """Tell whether progress bars are unwanted: `XAILAB_QUIET=1`, as in the build of lessons."""
    return os.environ.get("XAILAB_QUIET") == "1"


def _answers(
    function: Callable[[Any], Any], rows: Rows, sizes: "_Sizes", progress: bool
) -> list[Any]:
    """Evaluate all chunks in order, letting every timing choose the next size."""
    answers: list[Any] = []
    start = 0
    with tqdm(
        total=len(rows), delay=2, leave=False, disable=quiet() or not progress, unit=" rows"
    ) as bar:
        while start < len(rows):
            chunk = rows[start : start + sizes.size]
            began = perf_counter()
            answer = function(chunk)
            sizes.learn(len(chunk), perf_counter() - began)
            if len(answer) != len(chunk):
                raise ValueError(f"{len(chunk)} rows went in, {len(answer)} answers came out")
            answers.append(answer)
            start += len(chunk)
            bar.update(len(chunk))
    return answers


class _Sizes:
    """The size of the next chunk: fixed, remembered, or doubled until doubling stops to pay."""

    def __init__(self, fixed: int | None, owner: Any, rows: Rows) -> None:
        row = rows[:1][0]
        key = (
            tuple(np.shape(row)),
            str(getattr(row, "dtype", "")),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        )
        self._known = _memory_of(owner)
        self._key = key
        self._limit = max(1, _CHUNK_BYTES // max(1, getattr(row, "nbytes", 8)))
        self._best_time, self._best_size, self._worse = float("inf"), 1, 0
        self._settled = fixed is not None or key in self._known
        self.size = (
            self._known.get(key, 1) if fixed is None else check_positive("batch_size", fixed)
        )

    def learn(self, rows: int, seconds: float) -> None:
        """Take one timing; stop when two doublings in a row brought less than 3 %."""
        if self._settled or rows < self.size:
            return
        if seconds / rows < 0.97 * self._best_time:
            self._best_time, self._best_size, self._worse = seconds / rows, rows, 0
        else:
            self._worse += 1
        self._settled = self._worse == 2 or 2 * self.size > self._limit
        self.size = self._best_size if self._settled else 2 * self.size
        if self._settled:
            self._known[self._key] = self.size


def _memory_of(owner: Any) -> dict[tuple[Any, ...], int]:
    """Return what is known of this owner's best sizes; forgotten together with the owner."""
    try:
        return _best_sizes.setdefault(owner, {})
    except TypeError:  # cannot be referred to weakly, or is not hashable
        return {}


def _merged(rows: Rows) -> tuple[Rows, Any]:
    """Return the rows without repetitions, and for every old row its place among the new.

    Only rows with equal signatures are compared, so that rows which are all different cost one
    pass over memory.
    """
    if not isinstance(rows, (Tensor, np.ndarray)):
        return rows, None
    array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows
    if array.dtype.kind not in "fiub":
        return rows, None
    _, first, inverse = np.unique(_signatures(array), return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, None
    repeated = [i for i, j in enumerate(inverse) if first[j] != i]
    if not all(np.array_equal(array[i], array[first[inverse[i]]]) for i in repeated):
        return rows, None  # two different rows share a signature: rare enough to give up
    return rows[first], inverse


def _signatures(array: np.ndarray) -> np.ndarray:
    """Return one integer per row that equal rows share: a random wrap-around sum of their bytes."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
    cells = flat if flat.shape[1] % 4 else flat.view(np.uint32)
    keys = np.random.default_rng(0).integers(1, 2**63, cells.shape[1], dtype=np.uint64)
    step = max(1, 2**20 // cells.shape[1])  # a few MB at a time
    return np.concatenate(
        [cells[i : i + step].astype(np.uint64) @ keys for i in range(0, len(cells), step)]
    )
