"""Numbers over a plane: side by side on one scale, under the points that a model learnt from.

`surface_raster` is for live widgets; `surfaces` puts the same picture into a figure.
"""

from collections.abc import Mapping
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
from xailab.plots.pictures import Picture
from xailab.plots.words import lead, number

_GAP = 8
_SCALE = "viridis"
_LIGHT = "#9ecae1", "#fb6a4a"  # blue and red that can be seen on the dark end of the scale
_BAR = 14, 56  # width of the color bar, and of its place with the numbers


def surface_raster(
    values: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    extent: float,
    top: float | None = None,
    ring: float | None = None,
    label: str = "nats",
) -> Image.Image:
    """Compose the picture: one plane for each quantity, the points on it, one color bar.

    Class 1 is drawn as red squares, class 0 as blue crosses; points outside the plane are left
    out. They are small, so as not to hide the border between the classes.

    Args:
        values: readable name -> (S, S) numbers of at least 0; row 0 is the upper edge.
        X: (N, 2) points, horizontal and vertical.
        y: (N,) classes, 0 or 1.
        extent: the plane runs from -extent to extent both ways.
        top: where the color scale ends; None: at the largest value of all.
        ring: radius of a circle around the middle.
        label: the unit of the values.

    Raises:
        ValueError: nothing to draw, NaN, negative values, shapes that do not fit, an extent, top
            or ring that is not positive.
    """
    planes = {name: _checked(one, name) for name, one in values.items()}
    points, classes = points_of(X, y)
    if not planes:
        raise ValueError("nothing to draw, there are no values")
    for name, one in (("extent", extent), ("top", top), ("ring", ring)):
        if one is not None:
            check_length(name, one)
    end = top or max(float(one.max()) for one in planes.values()) or 1.0
    page = Image.new("RGB", (len(planes) * (LARGE + _GAP) + sum(_BAR), TOP + LARGE), "white")
    pen = ImageDraw.Draw(page)
    for i, (name, plane) in enumerate(planes.items()):
        corner = i * (LARGE + _GAP), TOP
        write(pen, (corner[0], 2), name, 12)
        page.paste(colored(plane / end, color_table(_SCALE), LARGE), corner)
        inside, places = on_plane(points, extent, corner)
        _draw_dots(pen, places, classes[inside])
        if ring is not None:
            _draw_ring(pen, corner, ring / extent)
    _draw_bar(page, pen, len(planes) * (LARGE + _GAP), end, label)
    return page


def surfaces(
    values: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    extent: float,
    title: str,
    top: float | None = None,
    ring: float | None = None,
    label: str = "nats",
    alt: str | None = None,
) -> Picture:
    """Draw quantities over a plane side by side, with the points in their places.

    Args:
        values, X, y, extent, top, ring, label: as for `surface_raster`.
        title: the finding.
        alt: the text alternative; without it mean and largest value of each are named.
    """
    raster = surface_raster(values, X, y, extent=extent, top=top, ring=ring, label=label)
    return page_picture(raster, title, alt or lead(title) + describe_surfaces(values, label))


def describe_surfaces(values: Mapping[str, Any], label: str = "nats") -> str:
    """Say how large each quantity is over the plane.

    >>> describe_surfaces({"noise": [[0.0, 1.0], [0.5, 0.5]]})
    'Over the plane, noise is 0.5 nats in the mean and 1 at most.'
    """
    planes = {name: to_array(plane, name) for name, plane in values.items()}
    parts = [
        f"{name} is {number(plane.mean())} {label} in the mean and {number(plane.max())} at most"
        for name, plane in planes.items()
    ]
    return f"Over the plane, {'; '.join(parts)}."


def _checked(values: Any, name: str) -> Floats:
    plane = to_array(values, name)
    if plane.ndim != 2 or plane.shape[0] != plane.shape[1]:
        raise ValueError(f"{name}: expected values (S, S), got {plane.shape}")
    if plane.min() < 0:
        raise ValueError(f"{name}: expected values of at least 0, got {plane.min():.3g}")
    return plane


def _draw_dots(pen: ImageDraw.ImageDraw, places: Floats, classes: Floats) -> None:
    for (x, y), label in zip(np.rint(places).astype(int).tolist(), classes, strict=True):
        if label > 0:
            pen.rectangle((x - 1, y - 1, x + 1, y + 1), fill=_LIGHT[1])
        else:
            pen.line((x - 2, y, x + 2, y), fill=_LIGHT[0])
            pen.line((x, y - 2, x, y + 2), fill=_LIGHT[0])


def _draw_ring(pen: ImageDraw.ImageDraw, corner: tuple[int, int], radius: float) -> None:
    """Draw a circle, given in shares of half the plane, as short arcs."""
    x, y = corner[0] + LARGE / 2, corner[1] + LARGE / 2
    r = min(radius, 0.995) * LARGE / 2
    for start in range(0, 360, 12):
        pen.arc((x - r, y - r, x + r, y + r), start, start + 7, fill="white", width=2)


def _draw_bar(
    page: Image.Image, pen: ImageDraw.ImageDraw, left: int, end: float, label: str
) -> None:
    shades = np.repeat(color_table(_SCALE)[::-1][:, None], _BAR[0], axis=1)
    page.paste(Image.fromarray(shades).resize((_BAR[0], LARGE)), (left, TOP))
    write(pen, (left, 2), label)
    for share, place in ((1, TOP), (0.5, TOP + LARGE // 2 - 6), (0, TOP + LARGE - 13)):
        write(pen, (left + _BAR[0] + 4, place), f"{share * end:.2g}")
