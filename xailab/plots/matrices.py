"""Tables as pictures: numbers in colored cells; a confusion matrix whose mistakes are seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import INK, MUTED, Picture, new_figure, styled
from xailab.plots.words import lead
from xailab.plots.words import number as rounded

if TYPE_CHECKING:
    import pandas as pd


def cells(
    table: "pd.DataFrame",
    *,
    title: str,
    label: str,
    xlabel: str = "",
    ylabel: str = "",
    decimals: int = 2,
    alt: str | None = None,
) -> Picture:
    """Draw a table of numbers as colored cells with the numbers written in.

    Colors as in `heatmap`: one rising scale, or red and blue around zero if a written number is
    negative.

    Args:
        table: (R, C) finite numbers; its index and columns name the rows and columns.
        title: the finding.
        label: what the numbers are, with their unit; written at the color bar.
        xlabel: what the columns are.
        ylabel: what the rows are.
        decimals: digits after the point; what rounds to zero is left out.
        alt: the text alternative; without it the range, the largest cells and each column's
            largest are named.

    Raises:
        ValueError: not a table, nothing in it, or NaN.
    """
    values = to_array(table)
    if values.ndim != 2:
        raise ValueError(f"cells: expected a table (rows, columns), got {values.shape}")
    rows, columns = [[str(name) for name in axis] for axis in (table.index, table.columns)]
    long = max(map(len, columns)) > 7
    with styled():
        wide = 1.6 + 0.08 * max(map(len, rows)) + 0.72 * len(columns)
        figure = new_figure(wide, 0.9 + 0.3 * len(rows) + 0.5 * long, title)
        ax = figure.subplots()
        image = _color(ax, values, decimals)
        ax.set_xticks(
            range(len(columns)), columns, rotation=30 * long, ha="right" if long else "center"
        )
        ax.set_yticks(range(len(rows)), rows)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        figure.colorbar(image, ax=ax, label=label).outline.set_visible(False)
    return Picture(figure, alt or lead(title) + _highest(values, rows, columns, label, decimals))


def _color(ax: Axes, values: Floats, decimals: int) -> Any:
    """Fill the cells, and write the numbers so that they are read on their color."""
    top = float(np.abs(values).max()) or 1.0
    signed = np.round(values, decimals).min() < 0
    name, least = ("RdBu_r", -top) if signed else ("inferno", 0.0)
    image = ax.imshow(values, cmap=name, vmin=least, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if text := _short(value, decimals):
            share = abs(value) / top
            dark = share > 0.6 if signed else share < 0.6
            color = "white" if dark else INK
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    ax.tick_params(length=0)
    return image


def _short(value: float, decimals: int) -> str:
    """Write a number with so many decimals; nothing where that is zero."""
    text = f"{value:.{decimals}f}"
    return text if float(text) else ""


def _highest(
    values: Floats, rows: Sequence[str], columns: Sequence[str], label: str, decimals: int
) -> str:
    """Say how far the numbers go and which row is highest in each column."""
    values = np.round(values, decimals) + 0.0  # no "-0.00"
    best = values.argmax(axis=0)
    parts = [
        f"{column}: {rows[row]} ({values[row, i]:.{decimals}f})"
        for i, (column, row) in enumerate(zip(columns, best, strict=True))
    ]
    ends = f"from {values.min():.{decimals}f} to {values.max():.{decimals}f}"
    return (
        f"{len(rows)} rows, {len(columns)} columns; {label} runs {ends}. Highest row of each "
        f"column: {'; '.join(parts)}."
    )


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
