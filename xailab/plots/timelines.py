"""Dates on a line that keeps their distances."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from xailab.plots.pictures import INK, MUTED, Picture, new_figure, styled

_ROW = 0.36  # inches from one text to the next


def timeline(events: Sequence[tuple[float, str]], *, title: str, alt: str | None = None) -> Picture:
    """Draw dated events: dots at their true distance on a line, texts evenly spaced beside it.

    Args:
        events: (year, text), in any order; time runs downwards.
        title: the finding.
        alt: the text alternative; without it every event is listed with its year.

    Raises:
        ValueError: fewer than two different years.

    >>> timeline([(2012, "AlexNet"), (1943, "A neuron on paper")], title="A long wait").alt
    'A long wait. 1943: A neuron on paper; 2012: AlexNet.'
    """
    ordered = sorted(events, key=lambda event: event[0])
    years = np.array([year for year, _ in ordered], dtype=float)
    if len(set(years)) < 2:
        raise ValueError(f"timeline: expected at least two different years, got {events!r}")
    with styled():
        figure = new_figure(6.4, _ROW * len(ordered) + 0.6, title)
        ax = figure.subplots()
        _draw_line(ax, years)
        dots = (years - years[0]) / (years[-1] - years[0])
        rows = np.linspace(0, 1, len(ordered))
        for dot, row, (year, text) in zip(dots, rows, ordered, strict=True):
            _draw_event(ax, dot, row, f"{year:g}", text)
    listed = "; ".join(f"{year:g}: {text}" for year, text in ordered)
    return Picture(figure, alt or f"{title}. {listed}.")


def _draw_line(ax: Axes, years: np.ndarray) -> None:
    ax.set(xlim=(-0.02, 1), ylim=(1.06, -0.06))
    ax.set_axis_off()
    ax.plot([0, 0], [0, 1], color=MUTED, linewidth=2, zorder=1, clip_on=False)


def _draw_event(ax: Axes, dot: float, row: float, year: str, text: str) -> None:
    """Join the dot on the line to its text, which stands on a row of its own."""
    ax.plot([0, 0.06, 0.075], [dot, row, row], color=MUTED, linewidth=0.8, zorder=1)
    ax.scatter(0, dot, s=46, color=INK, edgecolor="white", zorder=2, clip_on=False)
    ax.text(0.085, row, year, va="center", fontweight="bold")
    ax.text(0.165, row, text, va="center")
