"""Bars, curves and the scoreboard: readable without color, numbers written beside."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import (
    CYCLE,
    MUTED,
    NEGATIVE,
    POSITIVE,
    Picture,
    new_figure,
    styled,
)
from xailab.plots.words import describe_bars, describe_curves, lead, number

if TYPE_CHECKING:
    import pandas as pd

_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "X", "P")
_FEW = 25  # points; a curve with more gets a marker only here and there


def bars(
    values: Any,
    names: Sequence[str],
    *,
    title: str,
    alt: str | None = None,
    sort: bool = False,
    xlabel: str = "",
    errors: Any = None,
) -> Picture:
    """Draw horizontal bars with their numbers: red to the right of zero, blue to the left.

    Args:
        values: (K,) numbers.
        names: K names, the first on top.
        title: the finding.
        alt: the text alternative; without it largest, smallest and signs are named.
        sort: put the bar with the largest absolute value on top.
        xlabel: what is measured, with its unit.
        errors: (K,) half lengths of error bars.

    Raises:
        ValueError: NaN, no bar, or the counts of values, names and errors differ.
    """
    heights = to_array(values)
    names = [str(name) for name in names]
    spread = np.zeros_like(heights) if errors is None else to_array(errors, "errors")
    if heights.ndim != 1 or len(names) != len(heights) or spread.shape != heights.shape:
        raise ValueError(
            f"bars: expected as many names and errors as values, got values {heights.shape}, "
            f"{len(names)} names, errors {spread.shape}"
        )
    if sort:
        order = np.argsort(-np.abs(heights), kind="stable")
        heights, names, spread = heights[order], [names[i] for i in order], spread[order]
    with styled():
        figure = new_figure(6.4, 0.8 + 0.3 * len(names) + (0.3 if xlabel else 0), title)
        _draw_bars(figure.subplots(), heights, names, spread, xlabel)
    return Picture(figure, alt or lead(title) + describe_bars(heights, names))


def _draw_bars(
    ax: Axes, heights: Floats, names: Sequence[str], errors: Floats, xlabel: str
) -> None:
    rows = np.arange(len(heights))
    colors = [POSITIVE if height >= 0 else NEGATIVE for height in heights]
    ax.barh(
        rows,
        heights,
        xerr=errors if errors.any() else None,
        color=colors,
        height=0.7,
        ecolor=MUTED,
        capsize=3,
    )
    for row, height in enumerate(heights):
        side = 1 if height >= 0 else -1
        ax.annotate(
            number(height),
            (height + side * errors[row], row),
            xytext=(4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.margins(x=0.15)  # room for the numbers
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(xlabel)


def curve(
    x: Any,
    series: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    alt: str | None = None,
    log: bool = False,
) -> Picture:
    """Draw curves that differ in color, line and marker, each with its name at its end.

    Args:
        x: (K,) positions.
        series: name -> (K,) values.
        title: the finding.
        xlabel: what x is, with its unit.
        ylabel: what the values are, with their unit.
        alt: the text alternative; without it start, end and extremes of each curve are named.
        log: draw the values on a logarithmic scale.

    Raises:
        ValueError: NaN, no curve, a curve of another length than x, or log of values <= 0.
    """
    grid = to_array(x, "x")
    lines = {str(name): to_array(y, str(name)) for name, y in series.items()}
    _check_curves(grid, lines, log)
    with styled():
        figure = new_figure(6.4, 3.7, title)
        ax = figure.subplots()
        for i, y in enumerate(lines.values()):
            _draw_curve(ax, grid, y, i)
        ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        if (grid == grid.round()).all():  # epochs, layers: there is no half of one
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        _name_ends(ax, lines, log)
    return Picture(figure, alt or lead(title) + describe_curves(grid, lines, xlabel))


def _check_curves(x: Floats, lines: Mapping[str, Floats], log: bool) -> None:
    if not lines:
        raise ValueError("curve: nothing to draw, the series is empty")
    for name, y in lines.items():
        if x.ndim != 1 or y.shape != x.shape:
            raise ValueError(f"curve: {name!r} has the shape {y.shape}, x has {x.shape}")
        if log and y.min() <= 0:
            raise ValueError(f"curve: {name!r} reaches {y.min():.3g}; log=True needs values > 0")


def _draw_curve(ax: Axes, x: Floats, y: Floats, i: int) -> None:
    ax.plot(
        x,
        y,
        color=CYCLE[i % len(CYCLE)],
        linestyle=_LINES[i % len(_LINES)],
        marker=_MARKERS[i % len(_MARKERS)],
        markevery=1 if len(x) <= _FEW else len(x) // 8,
        markersize=5,
        linewidth=1.8,
    )


def _name_ends(ax: Axes, lines: Mapping[str, Floats], log: bool) -> None:
    """Write each curve's marker and name right of its end, moved apart where two ends meet."""
    low, high = np.log(ax.get_ylim()) if log else ax.get_ylim()
    ends = np.array([np.log(y[-1]) if log else y[-1] for y in lines.values()])
    heights = _apart((ends - low) / (high - low), gap=0.075)
    for i, (name, height) in enumerate(zip(lines, heights, strict=True)):
        color, marker = CYCLE[i % len(CYCLE)], _MARKERS[i % len(_MARKERS)]
        ax.plot(
            1.03,
            height,
            color=color,
            marker=marker,
            markersize=5,
            transform=ax.transAxes,
            clip_on=False,
        )
        ax.text(
            1.05,
            height,
            name,
            transform=ax.transAxes,
            va="center",
            color=color,
            fontweight="bold",
            fontsize=9.5,
        )


def _apart(heights: Floats, gap: float) -> Floats:
    """Push heights in 0..1 apart, each pair by as much, until they lie about `gap` apart.

    >>> _apart(np.array([0.5, 0.5, 0.9]), 0.1).round(2).tolist()
    [0.45, 0.55, 0.9]
    """
    moved = np.clip(heights, 0, 1)
    order = np.argsort(moved, kind="stable")
    for _ in range(100):
        for below, above in pairwise(order):
            push = max(0.0, gap - (moved[above] - moved[below])) / 2
            moved[below], moved[above] = moved[below] - push, moved[above] + push
        moved = np.clip(moved, 0, 1)
    return moved


def scoreboard(
    table: "pd.DataFrame",
    *,
    title: str,
    alt: str | None = None,
    seconds: Any = None,
    xlabel: str = "score (higher is better)",
    chance: float | Mapping[Any, float] | None = None,
) -> Picture:
    """Draw a dot for each method and data set, best method on top, its time beside.

    Args:
        table: methods as index, data sets as columns, scores as values; NaN = not measured.
        title: the finding.
        alt: the text alternative; without it the best and the worst method are named.
        seconds: one time per method (Series, mapping, or a sequence in the table's order).
        xlabel: what is scored.
        chance: the score of guessing, drawn as a dotted line; one number, or data set -> number.

    Raises:
        ValueError: the table is empty, a method has no score, or a time is missing.
    """
    table = table.astype(float)
    if table.empty or table.isna().all(axis=1).any():
        raise ValueError("scoreboard: expected at least one score for every method")
    times = None if seconds is None else _times(seconds, list(table.index))
    means = table.mean(axis=1).sort_values(ascending=False, kind="stable")
    table = table.loc[means.index]
    with styled():
        figure = new_figure(6.8, 1.3 + 0.3 * len(table), title)
        ax = figure.subplots()
        _draw_scores(ax, table, chance)
        if times is not None:
            _write_times(ax, [times[method] for method in table.index])
        ax.set_xlabel(xlabel)
    return Picture(figure, alt or lead(title) + _scores_words(means, table))


def _draw_scores(
    ax: Axes, table: "pd.DataFrame", chance: float | Mapping[Any, float] | None
) -> None:
    rows = np.arange(len(table))
    ax.hlines(rows, table.min(axis=1), table.max(axis=1), color="#cccccc", linewidth=2, zorder=1)
    for i, name in enumerate(table.columns):
        ax.scatter(
            table[name],
            rows,
            s=50,
            marker=_MARKERS[i % len(_MARKERS)],
            color=CYCLE[i % len(CYCLE)],
            label=str(name),
        )
    _draw_chance(ax, table, chance)
    ax.set_yticks(rows, [str(name) for name in table.index])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#eeeeee")
    ax.set_axisbelow(True)
    ax.figure.legend(
        loc="outside lower center",
        ncols=2 if isinstance(chance, Mapping) else 4,
        frameon=False,
        fontsize=9,
    )


def _draw_chance(
    ax: Axes, table: "pd.DataFrame", chance: float | Mapping[Any, float] | None
) -> None:
    if isinstance(chance, Mapping):
        for i, name in enumerate(table.columns):
            label = f"chance on {name} ({number(chance[name])})"
            ax.axvline(chance[name], color=CYCLE[i % len(CYCLE)], linestyle=":", label=label)
    elif chance is not None:
        ax.axvline(chance, color=MUTED, linestyle=":", label=f"chance ({number(chance)})")


def _times(seconds: Any, methods: Sequence[Any]) -> dict[Any, float]:
    named = seconds if hasattr(seconds, "keys") else dict(zip(methods, seconds, strict=True))
    if missing := [method for method in methods if method not in named]:
        raise ValueError(f"scoreboard: no time for {missing}")
    return {method: float(named[method]) for method in methods}


def _write_times(ax: Axes, times: Sequence[float]) -> None:
    for row, seconds in enumerate(times):
        text = f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
        ax.annotate(
            text,
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    ax.annotate("time", (1.02, -0.75), xycoords=("axes fraction", "data"), fontsize=9, color=MUTED)


def _scores_words(means: "pd.Series", table: "pd.DataFrame") -> str:
    words = f"{len(table)} methods on {', '.join(str(name) for name in table.columns)}"
    best, worst = means.index[0], means.index[-1]
    return (
        f"{words}: the best mean score is {number(means.iloc[0])} ({best}), the lowest "
        f"{number(means.iloc[-1])} ({worst})."
    )
