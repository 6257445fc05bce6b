"""A confusion matrix in which the mistakes are seen, not the right answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import INK, MUTED, Picture, new_figure, styled
from xailab.plots.words import lead
from xailab.plots.words import number as rounded


def confusion(
    counts: Any,
    classes: Sequence[Any],
    *,
    title: str,
    alt: str | None = None,
) -> Picture:
    """Draw how often each class was taken for each class; mistakes in color, zeros left out.

    On a common scale, hundreds of right answers would make every mistake look white. So the color
    is for the mistakes alone, and the right answers stand in gray.

    Args:
        counts: (K, K), row = true class, column = answer.
        classes: K names.
        title: the finding.
        alt: the text alternative; without it the share of right answers, the most frequent mistakes
            and the class that is found least are named.

    Raises:
        ValueError: not square, not one name a class, negative or all zero.
    """
    table = to_array(counts)
    names = [str(name) for name in classes]
    if table.ndim != 2 or table.shape != (len(names), len(names)):
        raise ValueError(
            f"confusion: expected ({len(names)}, {len(names)}) for {len(names)} classes, "
            f"got {table.shape}"
        )
    if table.min() < 0 or not table.any():
        raise ValueError("confusion: expected counts of at least 0, not all 0")
    with styled():
        side = 1.4 + 0.42 * len(names)
        figure = new_figure(side + 0.4, side + 0.3, title)
        _draw(figure.subplots(), table, names)
    return Picture(figure, alt or lead(title) + _words(table, names))


def _draw(ax: Axes, table: Floats, names: Sequence[str]) -> None:
    mistakes = _mistakes(table)
    top = mistakes.max() or 1.0
    ax.imshow(mistakes, cmap="Oranges", vmin=0, vmax=top)
    for row, column in np.argwhere(table > 0):
        right = row == column
        light = mistakes[row, column] > 0.65 * top
        ax.text(
            column,
            row,
            _count(table[row, column]),
            ha="center",
            va="center",
            fontsize=9,
            color=MUTED if right else "white" if light else INK,
            fontweight="normal" if right else "bold",
        )
    ticks = range(len(names))
    long = max(len(name) for name in names) > 4
    ax.set_xticks(ticks, names, rotation=45 if long else 0, ha="right" if long else "center")
    ax.set_yticks(ticks, names)
    ax.set(xlabel="answer", ylabel="truth")
    ax.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#e5e5e5", linewidth=0.8)
    ax.tick_params(which="both", length=0)


def _count(value: float) -> str:
    """Write a count whole: 1000, not 1e+03; a share, as after normalizing, with three digits."""
    return f"{value:.0f}" if value == round(value) else rounded(value)


def _mistakes(table: Floats) -> Floats:
    return table * (1 - np.eye(len(table)))


def _words(table: Floats, names: Sequence[str]) -> str:
    """Name what a reader would look for: the total, the largest mistakes, the weakest class."""
    right, mistakes = np.trace(table), _mistakes(table)
    words = f"{_count(right)} of {_count(table.sum())} are right"
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [divmod(int(place), len(names)) for place in order if mistakes.flat[place] > 0]
    if not pairs:
        return f"{words}, none is mistaken."
    said = [f"{names[i]} taken for {names[j]} ({_count(mistakes[i, j])})" for i, j in pairs]
    present = table.sum(axis=1)
    recall = np.divide(np.diag(table), present, out=np.ones(len(table)), where=present > 0)
    weakest = int(recall.argmin())
    return (
        f"{words}. Most frequent: {', '.join(said)}. Least found: {names[weakest]}, "
        f"{_count(table[weakest, weakest])} of {_count(present[weakest])}."
    )
