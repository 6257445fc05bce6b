"""Explanations that cover a part of the input and watch the score fall.

Lesson `lime` teaches this file. Nothing but answers of the model is used, so it may be any
function. All results are score drops: f(x) - f(x without the part), positive where the part helped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xailab.core.callable_module import make_callable
from xailab.core.checks import (
    Model,
    Target,
    check_baseline,
    check_input,
    check_positive,
)
from xailab.core.registry import grid_of, method, stride_of, window_of
from xailab.core.scores import batched_scores, target_of_rows, variant_scores
from xailab.core.subjects import PICTURE, Subject

Size = int | Sequence[int]


def _count_windows(subject: Subject, options: Mapping[str, Any]) -> int:
    """Return how many rows occlusion runs for one row: itself and every window."""
    shape = subject.rows.shape[1:]
    sizes, steps = _window(options["window"], options.get("stride"), shape)
    return 1 + len(list(_windows(sizes, steps, shape)))


def count_features(subject: Subject, options: Mapping[str, Any]) -> int:
    """Return how many features, or groups of them, a row has."""
    x = torch.as_tensor(subject.x)
    return len(check_feature_mask(options.get("feature_mask"), x).unique())


@method("window", defaults={"window": window_of, "stride": stride_of}, rows=_count_windows)
def occlusion(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    window: Size,
    stride: Size | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Slide a window over the input, cover what is under it, and note how far the score falls.

    $$A_i = \frac{1}{|\{W \ni i\}|} \sum_{W \ni i} \big(f_t(x) - f_t(x_{W \leftarrow b})\big)$$

    A number under several windows gets the mean of their drops. At the far edges the last window
    is cut. Windows that cover nothing but baseline change nothing and are not run.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,); any function of tensors.
        x: (N, F), (N, C, L) or (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        window: its size: a number for every position axis, one number per position axis (h, w),
            or one per axis (C, h, w); channels are covered together unless it says how many.
        stride: steps between windows, in the same form; None: 1, the finest and the slowest.
        baseline: what covers: a number, or a tensor that broadcasts to `x`.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError: as for `saliency`; sizes that are not integers.
        ValueError: as for `saliency`; a size below 1, one larger than the input, a stride larger
            than its window (something would never be covered), or the wrong number of sizes.

    Reference: Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks.
    Elsewhere: captum `Occlusion(sliding_window_shapes, strides)`.

    >>> total = lambda x: x.sum(1)
    >>> occlusion(total, torch.tensor([[1.0, 2.0, 4.0]]), None, window=2, stride=1)
    tensor([[3.0000, 4.5000, 6.0000]])
    """
    x = check_input(model, x).detach()
    sizes, steps = _window(window, stride, x.shape[1:])
    windows = list(_windows(sizes, steps, x.shape[1:]))
    start = check_baseline(baseline, x)
    live = torch.stack([(x != start)[(slice(None), *one)].flatten(1).any(1) for one in windows], 1)
    inside = partial(_inside, x.shape[1:], windows)
    found = _drops(model, x, target, start, live, inside, batch_size)
    drops, hits = torch.zeros_like(x), torch.zeros_like(x[0])
    for i, one in enumerate(windows):
        drops[(slice(None), *one)] += found[:, i].reshape(-1, *[1] * (x.ndim - 1))
        hits[one] += 1
    return drops / hits


@method(
    title="feature ablation",
    defaults={"feature_mask": grid_of(7)},
    rows=lambda subject, options: 1 + count_features(subject, options),
)
def feature_ablation(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    feature_mask: Tensor | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Replace one feature, or one group of numbers, at a time and note how far the score falls.

    $$A_i = f_t(x) - f_t(x_{G \leftarrow b}), \qquad i \in G$$

    Args:
        model: maps (N, ...) to scores (N, K) or (N,); any function of tensors.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        feature_mask: integers that broadcast to `x`, or to one row of it: numbers with one label
            are replaced together; with one mask for each row, each row has groups of its own.
            None: each number by itself.
        baseline: what replaces: a number, or a tensor that broadcasts to `x`.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`; every number carries the drop of its whole group.

    Raises:
        TypeError: as for `saliency`; a mask that does not hold integers.
        ValueError: as for `saliency`; a mask that does not broadcast.

    Reference: Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks.
    Elsewhere: captum `FeatureAblation`.

    >>> total = lambda x: x.sum(1)
    >>> groups = torch.tensor([0, 0, 1])
    >>> feature_ablation(total, torch.tensor([[1.0, 2.0, 4.0]]), None, feature_mask=groups)
    tensor([[3., 3., 4.]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    names, labels = check_feature_mask(feature_mask, x).unique(return_inverse=True)
    labels = labels.expand(x.shape)
    changed = torch.zeros(len(x), len(names), device=x.device)
    changed.scatter_add_(1, labels.flatten(1), (x != start).flatten(1).float())

    def members(rows: Tensor, numbers: Tensor) -> Tensor:
        return labels[rows] == numbers.reshape(-1, *[1] * (x.ndim - 1))

    found = _drops(model, x, target, start, changed > 0, members, batch_size)
    return found.gather(1, labels.flatten(1)).reshape(x.shape)


@method(
    "masks",
    title="RISE",
    kinds=PICTURE,
    defaults={"n_masks": lambda subject: 300, "grid": lambda subject: 7},
    rows=lambda subject, options: options["n_masks"],
)
def rise(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    n_masks: int,
    grid: Size,
    p_keep: float = 0.5,
    baseline: float | Tensor = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Show the model random parts of the picture; a place counts by the scores it was shown in.

    $$A_\lambda = \frac{1}{n\, p} \sum_{k=1}^{n} f_t\big(m_k \odot x + (1 - m_k) \odot b\big)\,
      m_k(\lambda)$$

    A mask $m_k$ is a coarse grid of cells, each kept with probability $p$, enlarged bilinearly
    and moved by up to one cell. Every row sees the same masks.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,); any function of tensors.
        x: (N, C, H, W) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        n_masks: how many masks; thousands for a steady map.
        grid: cells down and across: one number, or (rows, columns).
        p_keep: $p$, the share that stays visible, between 0 and 1.
        baseline: what covers: a number, or a tensor that broadcasts to `x`.
        seed: of the masks; the global random state is neither used nor changed.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`, the same map in every channel, in units of the score: near the mean
        masked score everywhere, above it where the picture matters.

    Raises:
        TypeError: as for `saliency`; counts that are not integers.
        ValueError: as for `saliency`; `x` without (H, W), a count below 1, `p_keep` outside (0, 1).

    Reference: Petsiuk, Das, Saenko (2018), RISE: Randomized Input Sampling for Explanation of
        Black-box Models.
    Elsewhere: the authors' code `RISE`; alibi and captum have none.

    >>> rise(lambda x: x.sum((1, 2, 3)), torch.ones(1, 1, 4, 4), None, n_masks=8, grid=2).shape
    torch.Size([1, 1, 4, 4])
    """
    x = check_input(model, x).detach()
    if x.ndim != 4:
        raise ValueError(f"x must be pictures (N, C, H, W), got {tuple(x.shape)}")
    if not 0 < p_keep < 1:
        raise ValueError(f"p_keep must lie between 0 and 1, got {p_keep}")
    cells = _sizes("grid", grid, 2)
    start = check_baseline(baseline, x)
    n = check_positive("n_masks", n_masks)
    masks = _masks(n, cells, x, p_keep, seed)

    def seen(rows: Tensor, numbers: Tensor) -> Tensor:
        return masks[numbers] * x[rows] + (1 - masks[numbers]) * start[rows]

    scores = variant_scores(model, x, target, n, seen, batch_size=batch_size)
    maps = torch.tensordot(scores, masks, dims=1) / (n * p_keep)  # (N, 1, H, W)
    return maps.expand_as(x).clone()


Inside = Callable[[Tensor, Tensor], Tensor]  # (rows, places) -> which numbers of each are covered


def _drops(
    model: Model,
    x: Tensor,
    target: Target,
    cover: Tensor,
    live: Tensor,
    inside: Inside,
    batch_size: int | None,
) -> Tensor:
    """Return (N, P): by how much covering each place lowers the score of each row.

    Rows and places make one list of work: first every row as it is, then every place whose
    covering changes anything (`live`, (N, P)).
    """
    n = len(x)
    which, place = live.nonzero(as_tuple=True)
    rows = torch.cat([torch.arange(n, device=x.device), which])
    asked = target_of_rows(target, n)

    def covered(chunk: range) -> Tensor:
        copies = x[rows[chunk.start : chunk.stop]]
        rest = slice(max(chunk.start, n), chunk.stop)  # those with something to cover
        if rest.start < rest.stop:
            some, numbers = rows[rest], place[rest.start - n : rest.stop - n]
            copies[rest.start - chunk.start :] = torch.where(
                inside(some, numbers), cover[some], x[some]
            )
        return copies

    scores = batched_scores(
        model,
        covered,
        len(rows),
        lambda chunk: asked(rows[chunk.start : chunk.stop]),
        like=x[0],
        batch_size=batch_size,
    )
    drops = scores.new_zeros(live.shape)
    drops[which, place] = scores[which] - scores[n:]
    return drops


def _inside(
    shape: torch.Size, windows: Sequence[tuple[slice, ...]], rows: Tensor, numbers: Tensor
) -> Tensor:
    """Tell which numbers of a row lie in each of these windows."""
    inside = torch.zeros(len(rows), *shape, dtype=torch.bool, device=rows.device)
    for one, number in zip(inside, numbers.tolist(), strict=True):
        one[windows[number]] = True
    return inside


def check_feature_mask(feature_mask: Tensor | None, x: Tensor) -> Tensor:
    """Return the label of every number of `x`, (1, ...) or (N, ...); without a mask each its own.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: it broadcasts neither to `x` nor to a row of it.

    >>> check_feature_mask(None, torch.zeros(5, 2, 2))
    tensor([[[0, 1],
             [2, 3]]])
    """
    if feature_mask is None:
        return torch.arange(x[0].numel(), device=x.device).reshape(1, *x.shape[1:])
    kind = getattr(feature_mask, "dtype", type(feature_mask).__name__)
    if not isinstance(feature_mask, Tensor) or "int" not in str(kind):
        raise TypeError(f"feature_mask must be a tensor of integers, got {kind}")
    rows = len(x) if feature_mask.ndim == x.ndim and len(feature_mask) > 1 else 1
    try:
        return feature_mask.to(x.device).expand(rows, *x.shape[1:])
    except RuntimeError as error:
        raise ValueError(
            f"feature_mask {tuple(feature_mask.shape)} does not broadcast to a row of x, "
            f"{tuple(x.shape[1:])}, nor to all of x, {tuple(x.shape)}"
        ) from error


def _window(
    window: Size, stride: Size | None, shape: torch.Size
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return sizes and steps for every axis of a row; channels count as one unless named."""
    axes = max(1, len(shape) - 1)  # those with positions
    sizes = _every_axis("window", window, shape, axes, shape[0])
    steps = _every_axis("stride", 1 if stride is None else stride, shape, axes, sizes[0])
    if any(size > length for size, length in zip(sizes, shape, strict=True)):
        raise ValueError(f"window {sizes} is larger than a row of x, {tuple(shape)}")
    if any(step > size for step, size in zip(steps, sizes, strict=True)):
        raise ValueError(f"stride {steps} is larger than the window {sizes}: it would leave gaps")
    return sizes, steps


def _every_axis(
    name: str, size: Size, shape: torch.Size, axes: int, channels: int
) -> tuple[int, ...]:
    full = isinstance(size, (tuple, list)) and len(size) == len(shape)
    given = _sizes(name, size, len(shape) if full else axes)
    return given if len(given) == len(shape) else (channels, *given)


def _sizes(name: str, size: Size, axes: int) -> tuple[int, ...]:
    """Return one positive integer per axis; a single number serves all."""
    given = tuple(size) if isinstance(size, (tuple, list)) else (size,) * axes
    if len(given) != axes:
        raise ValueError(f"{name} must be one number or {axes} of them, got {size}")
    return tuple(check_positive(name, one) for one in given)


def _windows(
    sizes: tuple[int, ...], steps: tuple[int, ...], shape: torch.Size
) -> Iterator[tuple[slice, ...]]:
    """Yield every position of the window; the last one along an axis reaches the edge."""
    starts = [
        range(0, length - size + step, step)
        for size, step, length in zip(sizes, steps, shape, strict=True)
    ]
    for corner in product(*starts):
        yield tuple(slice(at, at + size) for at, size in zip(corner, sizes, strict=True))


def _masks(n: int, cells: tuple[int, ...], x: Tensor, p_keep: float, seed: int) -> Tensor:
    """Return n masks (n, 1, H, W) in 0..1: coarse grids, enlarged and moved."""
    generator = torch.Generator().manual_seed(seed)
    height, width = x.shape[2:]
    down, right = -(-height // cells[0]), -(-width // cells[1])  # size of a cell
    kept = (torch.rand(n, 1, *cells, generator=generator) < p_keep).to(x.dtype)
    large = [(cells[0] + 1) * down, (cells[1] + 1) * right]
    masks = []
    for mask in kept:
        top = int(torch.randint(down, (), generator=generator))
        left = int(torch.randint(right, (), generator=generator))
        whole = F.interpolate(mask[None], large, mode="bilinear", align_corners=False)[0]
        masks.append(whole[:, top : top + height, left : left + width])
    return torch.stack(masks).to(x.device)


make_callable(__name__)
