"""What several pictures are drawn with: maps on one scale, and nodes with their edges."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import INK, MUTED, NEGATIVE, POSITIVE
from xailab.plots.words import number

COLUMNS = 5  # panels beside each other
MANY_CELLS = 1000  # of a map; below this every single value may matter
_OUTLIERS = 99.5  # percentile at which the scale of a large map ends
_MAX_NODES = 12
_MAX_LABELS = 9  # edges of a gap; the numbers of more would cover each other

Position = tuple[float, float]

# ---- maps


def several(items: Any, name: str) -> Sequence[Any]:
    """Return the items, of which there must be one."""
    if len(items) == 0:
        raise ValueError(f"{name}: nothing to draw, the list is empty")
    return items


def check_count(items: Sequence[Any], expected: int, name: str) -> None:
    """Raise ValueError unless there is one item a panel."""
    if isinstance(items, str) or len(items) != expected:
        got = "one string" if isinstance(items, str) else len(items)
        raise ValueError(f"{name}: expected a list of {expected}, one a panel, got {got}")


def draw_bar(
    figure: Figure, axes: Sequence[Axes], colors: ScalarMappable, label: str, extend: str
) -> None:
    """Draw one color bar for all panels: as high as the last one, or beside several rows."""
    if len(axes) <= COLUMNS:
        box = (1.04, 0, {1: 0.035, 2: 0.05}.get(len(axes), 0.07), 1)
        bar = figure.colorbar(colors, cax=axes[-1].inset_axes(box), extend=extend)
    else:
        bar = figure.colorbar(colors, ax=list(axes), extend=extend, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)


def common_scale(maps: Sequence[Floats]) -> tuple[Any, str]:
    """Return the common scale, centered at zero if any value is negative, and its open ends."""
    limit = max(limit_of(values) for values in maps) or 1.0
    signed = min(values.min() for values in maps) < 0
    cut = max(np.abs(values).max() for values in maps) > limit
    ends = ("both" if signed else "max") if cut else "neither"
    return Normalize(-limit if signed else 0.0, limit), ends


def limit_of(values: Floats) -> float:
    """Return where the scale of a map ends: at its largest value, or below a few outliers."""
    largest = float(np.abs(values).max())
    if values.size <= MANY_CELLS:
        return largest
    return float(np.percentile(np.abs(values), _OUTLIERS)) or largest


def map_colors(*, signed: bool, see_through: bool) -> Colormap:
    """Return the color map; over a photo its alpha grows with the value, in the bar as well."""
    base = colormaps["RdBu_r" if signed else "inferno"]
    if not see_through:
        return base
    table = base(np.linspace(0, 1, 256))
    strength = np.abs(np.linspace(-1, 1, 256)) if signed else np.linspace(0, 1, 256)
    table[:, 3] = 0.85 * strength**0.5
    return ListedColormap(table)


def draw_map(
    ax: Axes, values: Floats, photo: Floats | None, scale: Normalize, colors: Colormap
) -> None:
    """Draw a map into its panel, over a gray photo if there is one."""
    height, width = (values if photo is None else photo).shape[:2]
    box = (0, width, height, 0)
    if photo is not None:
        # Grey, so that no hue competes with the map, and neither black nor white, on which the
        # pale colors near zero of a signed map would vanish.
        low, high = (0.4, 0.95) if (scale.vmin or 0) < 0 else (0.1, 0.9)
        grey = low + (high - low) * photo @ np.array([0.299, 0.587, 0.114])
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=box)
    ax.imshow(values, cmap=colors, norm=scale, extent=box, interpolation="nearest")


def outline(ax: Axes, mask: Floats) -> None:
    """Draw the border of the true region: white on black is seen on any picture."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    repeat = ceil(256 / max(mask.shape))  # contours cut corners; of small cells nobody sees it
    padded = np.pad(np.kron(mask > 0, np.ones((repeat, repeat))), 1)
    rows, columns = (size - 2 for size in padded.shape)
    x = (np.arange(columns + 2) - 0.5) * (right - left) / columns
    y = (np.arange(rows + 2) - 0.5) * (bottom - top) / rows
    for color, width in (("black", 3.5), ("white", 1.5)):
        ax.contour(x, y, padded, levels=[0.5], colors=color, linewidths=width)
    ax.set(xlim=(left, right), ylim=(bottom, top))


# ---- networks


def rows_of(rows: Any, sizes: Sequence[int], name: str) -> list[list[str]] | None:
    """Return one row of texts a layer; numbers are rounded. ValueError: other counts."""
    if rows is None:
        return None
    texts = [[_short(value) for value in row] for row in rows]
    if [len(row) for row in texts] != list(sizes):
        raise ValueError(f"{name}: expected rows of {list(sizes)}, got {[len(t) for t in texts]}")
    return texts


def _short(value: Any) -> str:
    return value if isinstance(value, str) else number(float(value))


def weights_of(matrices: Any, sizes: Sequence[int]) -> list[Floats] | None:
    """Return one matrix a gap. ValueError: layers or shapes that cannot be drawn."""
    if len(sizes) < 2 or not all(1 <= size <= _MAX_NODES for size in sizes):
        raise ValueError(
            f"sizes: expected at least two layers of 1 to {_MAX_NODES} nodes, got {list(sizes)}; "
            "draw a part of a larger network"
        )
    if matrices is None:
        return None
    arrays = [to_array(matrix, "edge_values") for matrix in matrices]
    expected = list(pairwise(sizes))
    if [array.shape for array in arrays] != expected:
        raise ValueError(
            f"edge_values: expected shapes {expected}, (from, to), got "
            f"{[array.shape for array in arrays]}; a torch weight is (to, from): transpose it"
        )
    return arrays


def place_of(sizes: Sequence[int], layer: int, i: int) -> Position:
    """Return where a node stands: layers 2 apart, nodes 1 apart."""
    return 2.0 * layer, (sizes[layer] - 1) / 2 - i


def draw_edges(ax: Axes, sizes: Sequence[int], weights: list[Floats] | None) -> None:
    """Draw the edges: red solid or blue dashed by sign, wide by size, few with numbers."""
    largest = max((np.abs(w).max() for w in weights), default=1.0) or 1.0 if weights else 1.0
    for layer in range(len(sizes) - 1):
        for i, j in np.ndindex(sizes[layer], sizes[layer + 1]):
            ends = place_of(sizes, layer, i), place_of(sizes, layer + 1, j)
            if weights is None:
                _draw_edge(ax, *ends, MUTED, 1.0, "-")
                continue
            weight = float(weights[layer][i, j])
            style = (POSITIVE, "-") if weight >= 0 else (NEGATIVE, "--")
            _draw_edge(ax, *ends, style[0], 0.8 + 2.2 * abs(weight) / largest, style[1])
            if weights[layer].size <= _MAX_LABELS:
                _draw_weight(ax, *ends, weight, style[0], j / max(1, sizes[layer + 1] - 1))


def _draw_edge(
    ax: Axes, start: Position, end: Position, color: str, width: float, line: str
) -> None:
    ax.plot(*zip(start, end, strict=True), color=color, linewidth=width, linestyle=line, zorder=1)


def _draw_weight(
    ax: Axes, start: Position, end: Position, weight: float, color: str, turn: float
) -> None:
    """Write the weight nearer to the start, a little farther along for each next edge."""
    share = 0.26 + 0.14 * turn
    x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    ax.text(x, y, number(weight), color=color, fontsize=9, ha="center", va="center", bbox=box)


def draw_node(ax: Axes, at: Position, text: str, mark: bool) -> None:
    """Draw a node with its text; a marked one with a thick border."""
    ax.scatter(
        *at,
        s=1500,
        facecolor="#fff4d6" if mark else "white",
        edgecolor=INK,
        linewidth=3 if mark else 1.3,
        zorder=2,
    )
    ax.text(*at, text, ha="center", va="center", fontsize=9.5, zorder=3)


def draw_layer_names(ax: Axes, sizes: Sequence[int], names: Sequence[str] | None) -> None:
    """Write the layers' names above them."""
    for layer, name in enumerate(names or ()):
        ax.text(2.0 * layer, max(sizes) / 2, name, ha="center", va="bottom", fontweight="bold")


def network_words(
    sizes: Sequence[int], values: list[list[str]] | None, weights: list[Floats] | None
) -> str:
    """Say what a drawn network shows: sizes, values and weights."""
    words = f"A network with layers of {', '.join(map(str, sizes))} nodes."
    for layer, row in enumerate(values or ()):
        words += f" Values of layer {layer + 1}: {', '.join(' '.join(v.split()) for v in row)}."
    for layer, matrix in enumerate(weights or ()):
        rows = "; ".join(", ".join(number(w) for w in row) for row in matrix)
        words += f" Weights from layer {layer + 1} to {layer + 2}, one row a start node: {rows}."
    return words
