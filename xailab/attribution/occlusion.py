"""Explanations that cover a part of the input and watch the score fall.

Lesson 10 teaches this file. Nothing but answers of the model is used, so it may be any function.
All results are score drops: f(x) - f(x without the part), positive where the part helped.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

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
    split_target,
)
from xailab.core.registry import method
from xailab.core.scores import batched_scores

Size = int | Sequence[int]


@method("window")
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
    drops, hits = torch.zeros_like(x), torch.zeros_like(x[0])
    found = _drops(model, x, target, check_baseline(baseline, x), windows, batch_size)
    for i, window_ in enumerate(windows):
        drops[(slice(None), *window_)] += found[:, i].reshape(-1, *[1] * (x.ndim - 1))
        hits[window_] += 1
    return drops / hits


@method(title="feature ablation")
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
        feature_mask: integers that broadcast to one row of `x`, as (1, ...) or without the first
            axis: numbers with one label are replaced together. None: each number by itself.
        baseline: what replaces: a number, or a tensor that broadcasts to `x`.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`; every number carries the drop of its whole group.

    Raises:
        TypeError: as for `saliency`; a mask that does not hold integers.
        ValueError: as for `saliency`; a mask that does not broadcast to a row.

    Reference: Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks.
    Elsewhere: captum `FeatureAblation`.

    >>> total = lambda x: x.sum(1)
    >>> groups = torch.tensor([0, 0, 1])
    >>> feature_ablation(total, torch.tensor([[1.0, 2.0, 4.0]]), None, feature_mask=groups)
    tensor([[3., 3., 4.]])
    """
    x = check_input(model, x).detach()
    labels = check_feature_mask(feature_mask, x)
    masks = [labels == label for label in labels.unique()]
    found = _drops(model, x, target, check_baseline(baseline, x), masks, batch_size)
    return found[:, labels.unique(return_inverse=True)[1]]


@method("masks", title="RISE")
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
    masks = _masks(check_positive("n_masks", n_masks), cells, x, p_keep, seed)
    maps = []
    for row, cover, t in zip(x, start, split_target(target, len(x)), strict=True):
        seen = partial(_seen, row, cover, masks)
        scores = batched_scores(model, seen, len(masks), t, like=row, batch_size=batch_size)
        maps.append(torch.tensordot(scores, masks, dims=1) / (len(masks) * p_keep))
    return torch.stack(maps).expand_as(x).clone()


Place = tuple[slice, ...] | Tensor  # a window, or True where a group is


def _covered(row: Tensor, cover: Tensor, places: Sequence[Place], chunk: range) -> Tensor:
    """Return copies of one row, each with one place covered."""
    copies = row.repeat(len(chunk), *[1] * row.ndim)
    for copy, number in zip(copies, chunk, strict=True):
        copy[places[number]] = cover[places[number]]
    return copies


def _seen(row: Tensor, cover: Tensor, masks: Tensor, chunk: range) -> Tensor:
    """Return one row seen through masks (n, 1, H, W) in 0..1."""
    some = masks[chunk.start : chunk.stop]
    return some * row + (1 - some) * cover


def _drops(
    model: Model,
    x: Tensor,
    target: Target,
    cover: Tensor,
    places: Sequence[Place],
    batch_size: int | None,
) -> Tensor:
    """Return (N, P): by how much covering each place lowers the score of each row."""
    drops = []
    for row, base, t in zip(x, cover, split_target(target, len(x)), strict=True):
        live = [i for i, place in enumerate(places) if (row[place] != base[place]).any()]
        whole: Place = torch.zeros_like(row, dtype=torch.bool)  # covers nothing
        rows = partial(_covered, row, base, [whole, *(places[i] for i in live)])
        scores = batched_scores(model, rows, len(live) + 1, t, like=row, batch_size=batch_size)
        drop = scores.new_zeros(len(places))
        drop[live] = scores[0] - scores[1:]
        drops.append(drop)
    return torch.stack(drops)


def check_feature_mask(feature_mask: Tensor | None, x: Tensor) -> Tensor:
    """Return the label of every number of one row of `x`; without a mask each has its own.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: it does not broadcast to a row.

    >>> check_feature_mask(None, torch.zeros(5, 2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    row = x[0]
    if feature_mask is None:
        return torch.arange(row.numel(), device=x.device).reshape(row.shape)
    if not isinstance(feature_mask, Tensor) or feature_mask.is_floating_point():
        came = getattr(feature_mask, "dtype", type(feature_mask).__name__)
        raise TypeError(f"feature_mask must be a tensor of integers, got {came}")
    one = (
        feature_mask[0] if feature_mask.ndim == x.ndim and len(feature_mask) == 1 else feature_mask
    )
    try:
        return one.expand_as(row)
    except RuntimeError as error:
        raise ValueError(
            f"feature_mask {tuple(feature_mask.shape)} does not broadcast to a row of x, "
            f"{tuple(row.shape)}"
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
