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

_CHUNK_BYTES = 8 * 2**20  # one chunk of inputs never grows beyond this,
_GRAPH_BYTES = 8 * 2**20  # or this where gradients are recorded: a graph keeps every layer's output
_best_sizes: WeakKeyDictionary[Any, dict[tuple[Any, ...], "_Sizes"]] = WeakKeyDictionary()


def batched(
    function: Callable[[Any], Any],
    rows: Rows,
    *,
    batch_size: int | None = None,
    progress: bool = True,
    owner: Any = None,
    gradients: bool = False,
    row_bytes: int | None = None,
) -> Any:
    """Apply a function to rows chunk by chunk and join the answers.

    Args:
        function: maps m rows to m answers (Tensor or ndarray, first dimension m).
        rows: Tensor, ndarray, or anything with `len` and slices, which may make its rows only
            when they are asked for, so that memory stays flat. Rows of a Tensor or ndarray that
            occur more than once are evaluated once.
        batch_size: rows per call; None measures the best size, once per owner and row shape.
            A number makes answers repeatable to the last digit, which chunks of another size
            may round differently.
        progress: show a bar once two seconds have passed (`XAILAB_QUIET=1` never shows it).
        owner: the object whose speed is measured, usually the model; the function by default.
        gradients: the function works backwards too, which takes more memory a row.
        row_bytes: what one row grows to inside the function; its own size by default.

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
    sizes = (
        _sizes_of(owner if owner is not None else function, unique, gradients, row_bytes)
        if batch_size is None
        else _Sizes(check_positive("batch_size", batch_size), fixed=True)
    )
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
            answer = _timed(function, rows[start : start + sizes.size], sizes)
            answers.append(answer)
            start += len(answer)
            bar.update(len(answer))
    return answers


def _timed(function: Callable[[Any], Any], chunk: Any, sizes: "_Sizes") -> Any:
    """Evaluate one chunk; it is let go on return, before the next one is made."""
    began = perf_counter()
    answer = function(chunk)
    sizes.learn(len(chunk), perf_counter() - began)
    count = len(answer) if np.ndim(answer) else "no"
    if count != len(chunk):
        raise ValueError(f"{len(chunk)} rows went in, {count} answers came out")
    return answer


class _Sizes:
    """The size of the next chunk: doubled until doubling stops to pay, and looked after then.

    It outlives a call: where one call has too few rows to settle, the next goes on from there. A
    timing taken while the machine did something else must not decide for ever, so a settled size
    that turns out much faster than it was measured is measured anew, and half and twice the size
    are tried now and then.
    """

    def __init__(self, size: int = 1, *, limit: int = 1, fixed: bool = False) -> None:
        self.size, self._limit, self._fixed, self._settled = size, limit, fixed, False
        self._best_time, self._best_size, self._worse = float("inf"), 0, 0
        self._chunks, self._patience, self._larger = 0, 1, False

    def learn(self, rows: int, seconds: float) -> None:
        """Take one timing."""
        if self._fixed:
            return
        if not self._settled:
            self._double(rows, seconds / rows)
        elif rows == self._best_size:
            self._look_after(seconds / rows)
        elif rows == self.size:
            self._compare(rows, seconds / rows)

    def _double(self, rows: int, time: float) -> None:
        """Stop when two larger chunks in a row brought less than 3 %.

        The rest of the rows is often a chunk of its own size; one that is hardly larger than the
        best so far tells nothing.
        """
        if 2 * rows < 3 * self._best_size:
            return
        if time < 0.97 * self._best_time:
            self._best_time, self._best_size, self._worse = time, rows, 0
        else:
            self._worse += 1
        self._settled = self._worse == 2 or 2 * rows > self._limit
        self.size = self._best_size if self._settled else 2 * rows

    def _look_after(self, time: float) -> None:
        """Measure anew what was measured on a busy machine; else try a neighbor when it is time."""
        if time < 0.6 * self._best_time:
            self.__init__(limit=self._limit)  # type: ignore[misc]
            return
        self._best_time = min(self._best_time, time)
        self._chunks += 1
        if self._chunks >= max(3, 32 // self._best_size) * self._patience:
            self._chunks = 0
            self.size = self._neighbor()

    def _compare(self, rows: int, time: float) -> None:
        """Move to a neighbor that is 10 % faster, and on in that direction; else ask less often."""
        if time < 0.9 * self._best_time:
            self._best_time, self._best_size = time, rows
            self.size = self._neighbor()
        else:
            self.size, self._larger = self._best_size, not self._larger
            self._patience = min(2 * self._patience, 16)

    def _neighbor(self) -> int:
        twice = min(2 * self._best_size, max(self._limit, 1))
        return twice if self._larger else max(1, self._best_size // 2)


def _sizes_of(owner: Any, rows: Rows, gradients: bool, row_bytes: int | None) -> _Sizes:
    """Return what is known of an owner's best size for such rows; forgotten with the owner."""
    row = rows[:1][0]
    key = (
        tuple(np.shape(row)),
        str(getattr(row, "dtype", "")),
        str(getattr(row, "device", "")),
        torch.get_num_threads(),
        gradients,
        row_bytes,
    )
    most = _GRAPH_BYTES if gradients else _CHUNK_BYTES
    limit = most // max(1, row_bytes or getattr(row, "nbytes", 8))
    try:
        known = _best_sizes.setdefault(owner, {})
    except TypeError:  # cannot be referred to weakly, or is not hashable
        known = {}
    return known.setdefault(key, _Sizes(limit=limit))


def _merged(rows: Rows) -> tuple[Rows, Any]:
    """Return the rows without repetitions, and for every old row its place among the new.

    Only rows with equal signatures are compared, so that rows which are all different cost one
    pass over memory.
    """
    cells = _cells(rows)
    if cells is None or getattr(rows, "requires_grad", False):  # a twin would take both gradients
        return rows, None
    _, first, inverse = np.unique(_signatures(cells), return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, None
    old = first[inverse]
    repeated = np.flatnonzero(old != np.arange(len(old)))
    if not all(np.array_equal(cells[i], cells[old[i]]) for i in repeated):
        return rows, None  # two different rows share a signature: rare enough to give up
    return rows[first], inverse  # type: ignore[call-overload]


def _cells(rows: Rows) -> np.ndarray | None:
    """Return the bits of numeric rows as (N, cells) unsigned integers, else None.

    Bits, not numbers: 0.0 and -0.0 differ, and a NaN equals itself.
    """
    if isinstance(rows, Tensor) and rows.numel() and rows.layout == torch.strided:
        real = torch.view_as_real(rows) if rows.is_complex() else rows
        # Not `.contiguous()`: it keeps the odd stride that a side of length 1 may have.
        copy = real.detach().clone(memory_format=torch.contiguous_format)
        flat = copy.flatten().view(torch.uint8).reshape(len(rows), -1).cpu().numpy()
    elif isinstance(rows, np.ndarray) and rows.size and rows.dtype.kind in "fiubc":
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    else:
        return None
    return flat if flat.shape[1] % 4 else flat.view(np.uint32)


def _signatures(cells: np.ndarray) -> np.ndarray:
    """Return one integer per row that equal rows share: a random wrap-around sum of its cells."""
    keys = np.random.default_rng(0).integers(1, 2**63, cells.shape[1], dtype=np.uint64)
    step = max(1, 2**20 // cells.shape[1])  # a few MB at a time
    return np.concatenate(
        [cells[i : i + step].astype(np.uint64) @ keys for i in range(0, len(cells), step)]
    )
