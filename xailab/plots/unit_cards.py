"""What units look for: patches that excite them, a unit's card, and the chain behind a decision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from xailab.plots.arrays import Floats, to_image, to_map
from xailab.plots.parts import (
    common_scale,
    draw_bar,
    draw_edges,
    draw_layer_names,
    draw_map,
    draw_node,
    map_colors,
    network_words,
    place_of,
    rows_of,
    weights_of,
)
from xailab.plots.pictures import CYCLE, MUTED, Picture, new_figure, styled
from xailab.plots.words import describe, lead

Bytes = NDArray[np.uint8]

_LINE = CYCLE[4]  # light blue: seen beside black, white and gray

_TILE = 24  # pixels that a tile has at least
_COLUMN, _ROW = 1.1, 1.4  # inches of one unit of length to the right and upwards
_THUMB = 0.68  # height of a picture in the drawing, where rows are 1 apart and columns 2


def patch(image: Any, place: Sequence[int], grid: Sequence[int], side: int) -> Bytes:
    """Cut out the square of a picture around the middle of one cell of a map laid over it.

    Args:
        image: PIL, uint8 (H, W, 3) or float (C, H, W) in 0..1.
        place: (row, column) of the cell.
        grid: (rows, columns) of the map.
        side: pixels; what lies outside the picture is filled with middle gray.

    Returns:
        (side, side, 3) uint8.

    Raises:
        ValueError: a place outside the grid, or side < 1.

    >>> patch(np.ones((1, 4, 4)), (0, 0), (4, 4), 3)[..., 0].tolist()
    [[128, 128, 128], [128, 255, 255], [128, 255, 255]]
    """
    pixels = to_image(image)
    cells = [(int(p), int(g)) for p, g in zip(place, grid, strict=True)]
    if len(cells) != 2 or side < 1 or not all(0 <= p < g for p, g in cells):
        raise ValueError(
            f"patch: expected a (row, column) inside {tuple(grid)} and side >= 1, got "
            f"{tuple(place)} and side {side}"
        )
    middles = [(p + 0.5) * size / g for (p, g), size in zip(cells, pixels.shape, strict=False)]
    top, left = (int(np.floor(middle - side / 2 + 0.5)) for middle in middles)
    padded = np.pad(pixels, ((side, side), (side, side), (0, 0)), constant_values=0.5)
    return _bytes(padded[top + side : top + 2 * side, left + side : left + 2 * side])


def _bytes(pixels: Floats) -> Bytes:
    """Return 0..1 as uint8: of a float picture of 3 x 3 x 3 nobody knows which axis is color."""
    return (pixels * 255).round().astype(np.uint8)


def tiles(patches: Sequence[Any], columns: int = 2) -> Bytes:
    """Lay pictures of one size side by side into one, row by row, with a blue line between.

    Small pictures are enlarged, pixel by pixel, so that the line stays thin.

    >>> tiles([np.zeros((1, 30, 30))] * 4).shape
    (61, 61, 3)
    """
    pictures = [to_image(one, f"patches[{i}]") for i, one in enumerate(patches)]
    larger = -(-_TILE // pictures[0].shape[0])
    pictures = [picture.repeat(larger, 0).repeat(larger, 1) for picture in pictures]
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), to_rgb(_LINE))
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    return _bytes(sheet)


def unit_card(
    map: Any,
    over: Any,
    examples: Sequence[Any],
    *,
    title: str,
    titles: Sequence[str] | None = None,
    label: str = "activation",
    alt: str | None = None,
) -> Picture:
    """Draw a unit: its map over a photo, and beside it what excites it most elsewhere.

    Args:
        map: (h, w), the unit's activations on this photo; signed maps are centered at zero.
        over: the photo, whole.
        examples: one to six pictures, strongest first.
        title: the finding.
        titles: one an example, short.
        label: what the map's numbers are.
        alt: the text alternative; without it the map is described and the titles are listed.

    Raises:
        ValueError: no example or more than six, or another number of titles.
    """
    values, photo = to_map(map), to_image(over, "over")
    pictures = [to_image(one, f"examples[{i}]") for i, one in enumerate(examples)]
    names = [""] * len(pictures) if titles is None else list(titles)
    if not 1 <= len(pictures) <= 6 or len(names) != len(pictures):
        raise ValueError(
            f"unit_card: expected 1 to 6 examples and as many titles, got {len(pictures)} and "
            f"{len(names)}"
        )
    listed = f"It is excited most by {', '.join(names)}. " if any(names) else ""
    with styled():
        figure = _card(values, photo, pictures, names, title, label)
    words = alt or lead(title) + listed + describe(values, photo, label)
    return Picture(figure, words, photo=True)


def _card(
    values: Floats,
    photo: Floats,
    pictures: Sequence[Floats],
    names: Sequence[str],
    title: str,
    label: str,
) -> Figure:
    figure = new_figure(8.2, 3.7, title)
    parts: Any = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    left, right = parts
    scale, extend = common_scale([values])
    colors = map_colors(signed=scale.vmin < 0, see_through=True)
    ax = left.subplots()
    ax.set_axis_off()
    draw_map(ax, values, photo, scale, colors)
    draw_bar(left, [ax], ScalarMappable(scale, colors), label, extend)
    rows = 1 if len(pictures) == 1 else 2
    axes = list(right.subplots(rows, -(-len(pictures) // rows), squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, picture, name in zip(axes, pictures, names, strict=False):
        ax.imshow(picture)
        ax.set_title(name, fontsize=9)
    return figure


def evidence(
    pictures: Sequence[Sequence[Any]],
    *,
    captions: Sequence[Sequence[str]],
    weights: Sequence[Any],
    layer_names: Sequence[str] | None = None,
    title: str,
    alt: str | None = None,
) -> Picture:
    """Draw the chain of units behind one decision: what excites each, and their weights.

    Positive weights are solid red, negative ones dashed blue, and wider the larger they are.

    Args:
        pictures: one row a layer, the first layer first; a picture a unit, or None for a plain
            circle with its caption inside (the score at the end).
        captions: one row a layer; a short text under each picture.
        weights: one matrix a gap; entry [i, j] leads from unit i of a layer to unit j of the next.
        layer_names: one name a layer, written above.
        title: the finding.
        alt: the text alternative; without it captions and weights are listed.

    Raises:
        ValueError: counts or shapes do not fit each other.
    """
    sizes = [len(row) for row in pictures]
    texts, matrices = rows_of(captions, sizes, "captions"), weights_of(weights, sizes)
    if layer_names is not None and len(layer_names) != len(sizes):
        raise ValueError(f"layer_names: expected {len(sizes)}, got {len(layer_names)}")
    with styled():
        high, wide = max(sizes) + 0.45, 2.0 * len(sizes) - 1
        figure = new_figure(_COLUMN * wide, _ROW * high + 0.4, title)
        ax = figure.subplots()
        ax.set_axis_off()
        draw_edges(ax, sizes, matrices)
        for layer, row in enumerate(pictures):
            for i, picture in enumerate(row):
                _draw_unit(ax, place_of(sizes, layer, i), picture, texts[layer][i] if texts else "")
        draw_layer_names(ax, sizes, layer_names)
        half = max(sizes) / 2
        ax.set(xlim=(-0.5, wide - 0.5), ylim=(-half - 0.25, half + 0.2), aspect="auto")
    words = alt or lead(title) + network_words(sizes, texts, matrices)
    return Picture(figure, words, photo=True)


def _draw_unit(ax: Axes, at: tuple[float, float], picture: Any, caption: str) -> None:
    """Draw what excites a unit with its caption below, or its caption in a circle."""
    if picture is None:
        draw_node(ax, at, caption, mark=True)
        return
    half = _THUMB / 2
    wide = half * _ROW / _COLUMN  # so that it comes out square
    box = (at[0] - wide, at[0] + wide, at[1] - half, at[1] + half)
    ax.imshow(to_image(picture), extent=box, interpolation="nearest", zorder=2, aspect="auto")
    frame = Rectangle((box[0], box[2]), 2 * wide, 2 * half, fill=False, edgecolor=_LINE, zorder=3)
    ax.add_patch(frame)  # a white patch would vanish on the white page
    ax.text(at[0], at[1] - half - 0.03, caption, ha="center", va="top", fontsize=8.5, color=MUTED)
