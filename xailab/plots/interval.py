"""Measured numbers with what they may as well be: dots on confidence intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from xailab.plots.arrays import Floats
from xailab.plots.pictures import CYCLE, MUTED, Picture, new_figure, styled
from xailab.plots.words import lead, number

_MARKERS = ("o", "s", "^", "D", "v", "X", "P")
_ROW = 0.19  # inches from one dot to the next
_SPOKEN = 12  # dots; of more, only the ends are read out
_WITH_ENDS = 6  # values that are read out with the ends of their intervals


class _Spans(NamedTuple):
    """Dots (K,) and the ends (K,) of their intervals; NaN where there is none."""

    values: Floats
    low: Floats
    high: Floats


def intervals(
    series: Mapping[str, Iterable[Any]],
    names: Sequence[Any],
    *,
    title: str,
    xlabel: str = "",
    line: float | None = None,
    alt: str | None = None,
) -> Picture:
    """Draw dots with their intervals, which need not be symmetric; NaN leaves a place empty.

    Args:
        series: name -> (values, low, high), each (K,). Series differ in color and marker.
        names: K names of the rows, the first on top.
        title: the finding.
        xlabel: what is measured, with its unit.
        line: where to draw a vertical line, such as 0 for "no difference".
        alt: the text alternative; without it the values are listed, up to six with their ends.

    Raises:
        ValueError: no series, no row, counts that differ, a value outside its interval, or
            nothing but NaN.

    >>> rates = {"a": ([0.5, 0.2], [0.4, 0.1], [0.6, 0.4])}
    >>> intervals(rates, ["found", "missed"], title="Few rows").alt
    'Few rows. a: found 0.5 (0.4 to 0.6), missed 0.2 (0.1 to 0.4).'
    """
    rows = [str(name) for name in names]
    drawn = {str(name): _checked(str(name), spans, len(rows)) for name, spans in series.items()}
    if not any(np.isfinite(spans.values).any() for spans in drawn.values()):
        raise ValueError("intervals: nothing to draw, there is no value")
    with styled():
        height = 1.0 + len(rows) * (0.14 + _ROW * len(drawn)) + (0.3 if len(drawn) > 1 else 0)
        figure = new_figure(6.4, height, title)
        _draw(figure.subplots(), drawn, rows, xlabel, line)
    spoken = [" ".join(row.split()) for row in rows]  # a name may be broken into two lines
    few = len(drawn) * len(rows) <= _WITH_ENDS or len(rows) > _SPOKEN
    said = "; ".join(_words(name, spans, spoken, few) for name, spans in drawn.items())
    return Picture(figure, alt or f"{lead(title)}{said}.")


def _checked(name: str, spans: Iterable[Any], n: int) -> _Spans:
    found = _Spans(*(np.asarray(part, dtype=np.float64) for part in spans))
    if not n or any(part.shape != (n,) for part in found):
        shapes = [part.shape for part in found]
        raise ValueError(f"intervals: {name!r} needs values, low and high of {(n,)}, got {shapes}")
    # Ends are computed with other roundings than the values they may equal.
    outside = (found.values < found.low - 1e-9) | (found.values > found.high + 1e-9)
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(
            f"intervals: {name!r} has the value {found.values[at]:.3g} outside its interval "
            f"{found.low[at]:.3g} to {found.high[at]:.3g}"
        )
    return found


def _draw(
    ax: Axes, series: Mapping[str, _Spans], rows: Sequence[str], xlabel: str, line: float | None
) -> None:
    step = 0.75 / len(series)
    for i, (name, spans) in enumerate(series.items()):
        ax.errorbar(
            spans.values,
            np.arange(len(rows)) + step * (i - (len(series) - 1) / 2),
            xerr=np.maximum([spans.values - spans.low, spans.high - spans.values], 0),
            fmt=_MARKERS[i % len(_MARKERS)],
            color=CYCLE[i % len(CYCLE)],
            capsize=3,
            markersize=5,
            linewidth=1.4,
            label=name,
        )
    if line is not None:
        ax.axvline(line, color=MUTED, linewidth=1.2, zorder=1.5)  # above the grid, below the dots
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    ax.set_xlabel(xlabel)
    if len(series) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9)


def _words(name: str, spans: _Spans, rows: Sequence[str], ends: bool) -> str:
    dots = [
        f"{row} {number(value)}" + (f" ({number(low)} to {number(high)})" if ends else "")
        for row, value, low, high in zip(rows, *spans, strict=True)
        if np.isfinite(value)
    ]
    if not dots:
        return f"{name}: no value"
    if len(dots) > _SPOKEN:
        return f"{name}: {len(dots)} values, from {dots[0]} to {dots[-1]}"
    return f"{name}: {', '.join(dots)}"
