"""Histograms that change with time, one behind the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import CYCLE, MUTED, Picture, new_figure, styled
from xailab.plots.words import lead, number

_OVERLAP = 1.6  # how far a row reaches into the one behind it


def ridge(
    histograms: Sequence[tuple[Any, Any, Any]],
    *,
    title: str,
    xlabel: str,
    step: str = "step",
    alt: str | None = None,
) -> Picture:
    """Draw histograms one behind the other, the first at the back, on one axis.

    Each is drawn as a density (count divided by the width of the bucket), so that histograms with
    other buckets compare, and scaled to the same height, since one spike would flatten the rest.

    Args:
        histograms: (step, edges, counts) each: K + 1 rising edges and K counts.
        title: the finding.
        xlabel: what the values are, with their unit.
        step: what the step counts, for example "epoch".
        alt: the text alternative; without it the middle 90 % of first and last are named.

    Raises:
        ValueError: none at all, NaN, edges that do not rise, counts that do not fit or are all 0.
    """
    if len(histograms) == 0:
        raise ValueError("ridge: nothing to draw, there is no histogram")
    steps = [each[0] for each in histograms]
    shapes = [_checked(each[1], each[2]) for each in histograms]
    with styled():
        figure = new_figure(6.4, 1.5 + 0.36 * len(shapes), title)
        _draw(figure.subplots(), steps, shapes, step)
        figure.axes[0].set_xlabel(xlabel)
    return Picture(figure, alt or lead(title) + _words(steps, shapes, step))


def _checked(edges: Any, counts: Any) -> tuple[Floats, Floats]:
    edges, counts = to_array(edges, "edges"), to_array(counts, "counts")
    if counts.ndim != 1 or edges.shape != (len(counts) + 1,) or (np.diff(edges) <= 0).any():
        raise ValueError(
            f"ridge: expected K + 1 rising edges and K counts, got {edges.shape} and {counts.shape}"
        )
    if counts.min() < 0 or not counts.any():
        raise ValueError("ridge: expected counts of at least 0, not all 0")
    return edges, counts


def _draw(
    ax: Axes, steps: Sequence[Any], shapes: Sequence[tuple[Floats, Floats]], step: str
) -> None:
    for row, (edges, counts) in enumerate(shapes):
        density = counts / np.diff(edges)
        height = _OVERLAP * density / density.max()
        base = len(shapes) - 1 - row
        ax.stairs(base + height, edges, baseline=base, fill=True, color="#9cc9e6", zorder=2 * row)
        ax.stairs(base + height, edges, baseline=base, color=CYCLE[0], zorder=2 * row + 1)
    ax.set_yticks(range(len(shapes)), [str(one) for one in reversed(steps)])
    ax.set_ylabel(step)
    ax.set_ylim(-0.1, len(shapes) - 1 + _OVERLAP + 0.1)
    ax.axvline(0, color=MUTED, linewidth=0.8, linestyle=":", zorder=2 * len(shapes))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _words(steps: Sequence[Any], shapes: Sequence[tuple[Floats, Floats]], step: str) -> str:
    first, last = _middle(*shapes[0]), _middle(*shapes[-1])
    words = f"{len(shapes)} histograms. In {step} {steps[0]}, 90 % of the values lie from {first}"
    if len(shapes) == 1:
        return f"{words}."
    return f"{words}; in {step} {steps[-1]}, from {last}."


def _middle(edges: Floats, counts: Floats) -> str:
    """Return from where to where the middle 90 % of the counts lie, values even in a bucket."""
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    low, high = np.interp([0.05, 0.95], below, edges)
    return f"{number(low)} to {number(high)}"
