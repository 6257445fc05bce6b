"""Spectrograms, and maps over them, with seconds across and Hz upward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xailab.plots.arrays import Floats, to_map
from xailab.plots.parts import check_count, common_scale, limit_of, map_colors, outline, several
from xailab.plots.pictures import Picture, new_figure, styled
from xailab.plots.words import lead, number, percent

_Panel = tuple[str, Floats, Any]  # its name, the map, and the true place or None


def spectrograms(
    maps: Sequence[Any],
    *,
    seconds: float,
    hertz: float,
    titles: Sequence[str],
    title: str,
    label: str = "loudness",
    shared: bool = True,
    masks: Sequence[Any] | None = None,
    alt: str | None = None,
) -> Picture:
    """Draw spectrograms, or attributions of them, side by side: seconds across, Hz upward.

    Args:
        maps: each (F, T), (1, F, T) or (1, 1, F, T), low frequencies first.
        seconds: how long the sound is: the last frame ends there.
        hertz: how high it reaches: the last row ends there.
        titles: one a panel.
        title: the finding.
        label: what the numbers are, with their unit.
        shared: as in `compare`: one scale for all, or each map relative to its own top.
        masks: one (f, t) a panel, a true place to outline; None: no outlines.
        alt: the text alternative; without it one sentence a panel says where the peak is.

    Raises:
        ValueError: no map, NaN, or the number of titles or masks differs from that of maps.
    """
    values = [to_map(one, f"maps[{i}]") for i, one in enumerate(several(maps, "maps"))]
    check_count(titles, len(values), "titles")
    outlines: list[Any] = [
        to_map(mask, f"masks[{i}]") > 0 for i, mask in enumerate([] if masks is None else masks)
    ]
    if masks is not None:
        check_count(outlines, len(values), "masks")
    panels = list(zip(titles, values, outlines or [None] * len(values), strict=True))
    words = " ".join(
        f"{name}: {_words(v, seconds, hertz)}{_inside(v, mask)}." for name, v, mask in panels
    )
    if not shared:
        panels = [(name, v / (limit_of(v) or 1.0), mask) for name, v, mask in panels]
        label = "relative to each map's top"
    with styled():
        figure = _drawn(panels, (0, seconds, hertz, 0), title, label)
    return Picture(figure, alt or lead(title) + words)


def _drawn(panels: list[_Panel], box: tuple[float, ...], title: str, label: str) -> Figure:
    """Draw (name, map, true place) side by side, with one color bar."""
    figure = new_figure(min(3.1 * len(panels), 9) + 1.2, 3.1, title)
    axes = list(figure.subplots(1, len(panels), squeeze=False).flat)
    scale, extend = common_scale([values for _, values, _ in panels])
    colors = map_colors(signed=scale.vmin < 0, see_through=False)
    for ax, (name, values, mask) in zip(axes, panels, strict=True):
        image = ax.imshow(values, cmap=colors, norm=scale, extent=box, aspect="auto")
        image.set_interpolation("nearest")
        _finish(ax, mask, name)
    axes[0].set_ylabel("Hz")
    figure.colorbar(ScalarMappable(scale, colors), ax=axes, extend=extend, label=label)
    return figure


def _finish(ax: Axes, mask: Any, name: str) -> None:
    """Outline the true place while row 0 is at the top, as in pictures; then turn Hz upward."""
    if mask is not None:
        outline(ax, mask)
    ax.invert_yaxis()
    ax.set_title(name, fontsize=10)
    ax.set_xlabel("seconds")
    ax.xaxis.set_major_locator(MaxNLocator(4))  # none at the end: it would meet the next 0
    ax.label_outer()


def _words(values: Floats, seconds: float, hertz: float) -> str:
    """Say from where to where the values run and where the peak is."""
    if np.ptp(values) == 0:
        return f"{number(values[0, 0])} everywhere"
    row, frame = np.unravel_index(np.abs(values).argmax(), values.shape)
    x, y = (frame + 0.5) / values.shape[1] * seconds, (row + 0.5) / values.shape[0] * hertz
    peak = "peak" if values[row, frame] >= 0 else "strongest value, negative,"
    ends = f"from {number(values.min())} to {number(values.max())}"
    return f"{ends}, {peak} at {x:.2f} s and {y:.0f} Hz"


def _inside(values: Floats, mask: Any) -> str:
    """Say how much of the positive values lies in the marked place."""
    if mask is None:
        return ""
    positive = np.clip(values, 0, None)
    if positive.shape != mask.shape or not positive.any():
        return ""
    share = float(positive[mask].sum() / positive.sum())
    area = percent(float(mask.mean()))
    return f", {percent(share)} of what is positive in the outline ({area} of the area)"
