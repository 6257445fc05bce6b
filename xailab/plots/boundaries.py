"""What a network makes of the plane: its decision, and the map of every neuron.

`raster` is for live widgets; `boundary` puts the same picture into a figure.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pages import (
    LARGE,
    TOP,
    check_length,
    color_table,
    colored,
    on_plane,
    page_picture,
    points_of,
    write,
)
from xailab.plots.pictures import MUTED, NEGATIVE, POSITIVE, Picture
from xailab.plots.words import lead, percent

CELL = 36  # pixels of one neuron's map
_GAP = 4
_EDGE = "#cccccc"
_ROOM, _LITTLE_ROOM, _FEW = 52, 26, 5  # pixels for lines between columns, if few or many
_FAINT = 1 / 7  # lines below this share of the strongest are left out
_PALE = 1.8  # scale of the decision: paler than the points on it, so that hollow ones look hollow


def raster(
    decision: Any,
    layers: Sequence[Any],
    X: Any,
    y: Any,
    *,
    extent: float,
    held_out: Any = None,
    edges: Sequence[Any] | None = None,
) -> Image.Image:
    """Compose the picture: a column of small maps for each layer, the decision with the points.

    Red is positive, blue negative, white zero. Every small map has its own scale; that of a
    neuron which is 0 everywhere is crossed out. Class 1 is drawn as red squares, class 0 as blue
    disks, held-out points hollow.

    Args:
        decision: (S, S), p(class 1) - p(class 0) over the plane, row 0 on top.
        layers: one (units, s, s) array per hidden layer.
        X: (N, 2) points, horizontal and vertical.
        y: (N,) classes, 0 or 1.
        extent: the plane runs from -extent to extent both ways.
        held_out: (N,) True for points that were not trained on.
        edges: a (units, units before) array for each hidden layer but the first, such as weights
            or their gradients: lines between the maps, red or blue by sign, as wide as the number
            is large, on one scale for all. Lines under a seventh of the strongest are left out.

    Raises:
        ValueError: NaN, shapes that do not fit, or an extent that is not positive.
    """
    plane, columns = _checked(decision, layers, extent)
    points, classes, hollow = _points(X, y, held_out)
    rows = max((len(maps) for maps in columns), default=0)
    lines = _lines(edges, columns)
    room = _ROOM if len(columns) <= _FEW else _LITTLE_ROOM
    pitch = CELL + (_GAP if edges is None else room)
    left = (len(columns) - 1) * pitch + CELL + 4 * _GAP if columns else 0
    height = TOP + max(LARGE, rows * (CELL + _GAP) - _GAP)
    page = Image.new("RGB", (left + LARGE, height), "white")
    pen = ImageDraw.Draw(page)
    for i, matrix in enumerate(lines):
        _draw_lines(pen, matrix, (i * pitch + CELL, (i + 1) * pitch))
    for i, maps in enumerate(columns):
        x = i * pitch
        write(pen, (x, 2), f"layer {i + 1}" if i == 0 else f"{i + 1}")
        for j, values in enumerate(maps):
            _draw_neuron(page, pen, values, (x, TOP + j * (CELL + _GAP)))
    write(pen, (left, 2), "decision and points")
    page.paste(_colored(plane, LARGE, _PALE), (left, TOP))
    inside, places = on_plane(points, extent, (left, TOP))
    _draw_points(pen, places, classes[inside], hollow[inside])
    return page


def boundary(
    decision: Any,
    layers: Sequence[Any],
    X: Any,
    y: Any,
    *,
    extent: float,
    held_out: Any = None,
    edges: Sequence[Any] | None = None,
    title: str,
    alt: str | None = None,
) -> Picture:
    """Draw a network's decision in the plane and its neurons' maps; arguments as for `raster`.

    Args:
        decision, layers, X, y, extent, held_out, edges: as for `raster`.
        title: the finding.
        alt: the text alternative; without it the share of the plane of each class is named.
    """
    page = raster(decision, layers, X, y, extent=extent, held_out=held_out, edges=edges)
    share = float((to_array(decision) > 0).mean())
    words = (
        f"{len(layers)} hidden layers with {', '.join(str(len(maps)) for maps in layers)} units; "
        f"class 1 gets {percent(share)} of the plane."
    )
    return page_picture(page, title, alt or lead(title) + words)


def _checked(decision: Any, layers: Sequence[Any], extent: float) -> tuple[Floats, list[Floats]]:
    plane = to_array(decision, "decision")
    columns = [to_array(maps, f"layers[{i}]") for i, maps in enumerate(layers)]
    if plane.ndim != 2 or any(maps.ndim != 3 for maps in columns):
        raise ValueError(
            f"expected a decision (S, S) and maps (units, s, s), got {plane.shape} and "
            f"{[maps.shape for maps in columns]}"
        )
    check_length("extent", extent)
    return plane, columns


def _lines(edges: Sequence[Any] | None, columns: Sequence[Floats]) -> list[Floats]:
    """Return the matrices of the lines, scaled so that the strongest of all is 1 or -1."""
    lines = [to_array(matrix, f"edges[{i}]") for i, matrix in enumerate(edges or [])]
    due = [(len(after), len(before)) for before, after in pairwise(columns)]
    if edges is not None and [matrix.shape for matrix in lines] != due:
        raise ValueError(f"expected edges {due}, got {[matrix.shape for matrix in lines]}")
    top = max((float(np.abs(matrix).max()) for matrix in lines if matrix.size), default=0.0)
    return [matrix / top if top else matrix for matrix in lines]


def _draw_lines(pen: ImageDraw.ImageDraw, matrix: Floats, ends: tuple[int, int]) -> None:
    """Draw lines from the units before to those after, weak ones first."""
    for j, i in sorted(np.ndindex(*matrix.shape), key=lambda at: abs(matrix[at])):
        share = float(matrix[j, i])
        if abs(share) >= _FAINT:
            heights = [TOP + unit * (CELL + _GAP) + CELL // 2 for unit in (i, j)]
            color = POSITIVE if share > 0 else NEGATIVE
            width = round(1 + 2 * abs(share))
            pen.line((ends[0], heights[0], ends[1], heights[1]), fill=color, width=width)


def _points(X: Any, y: Any, held_out: Any) -> tuple[Floats, Floats, Floats]:
    points, classes = points_of(X, y)
    hollow = np.zeros(len(points)) if held_out is None else to_array(held_out, "held_out")
    if hollow.shape != classes.shape:
        raise ValueError(
            f"expected X (N, 2) with N marks in held_out, got {points.shape} and {hollow.shape}"
        )
    return points, classes, hollow


def _colored(values: Floats, pixels: int, top: float) -> Image.Image:
    """Color a map between -top and top in blue, white, red; no darker than the points."""
    scaled = values / top if top > 0 else values
    return colored((1 + scaled) / 2, color_table("RdBu_r", 0.12, 0.88), pixels)


def _draw_neuron(
    page: Image.Image, pen: ImageDraw.ImageDraw, values: Floats, at: tuple[int, int]
) -> None:
    top = float(np.abs(values).max())
    page.paste(_colored(values, CELL, top), at)
    far = at[0] + CELL - 1, at[1] + CELL - 1
    pen.rectangle((*at, *far), outline=_EDGE)
    if top == 0:
        pen.line((*at, *far), fill=MUTED)
        pen.line((at[0], far[1], far[0], at[1]), fill=MUTED)


def _draw_points(pen: ImageDraw.ImageDraw, places: Floats, classes: Floats, hollow: Floats) -> None:
    for (x, y), label, empty in zip(places, classes, hollow, strict=True):
        color = POSITIVE if label > 0 else NEGATIVE
        draw = pen.rectangle if label > 0 else pen.ellipse
        fill, edge = ("white", color) if empty else (color, "white")
        draw((x - 3, y - 3, x + 3, y + 3), fill=fill, outline=edge)
