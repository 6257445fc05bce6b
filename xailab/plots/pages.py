"""Planes composed pixel by pixel, so that a live widget can redraw them many times a second."""

from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from xailab.plots.arrays import Floats, to_array
from xailab.plots.pictures import INK, Picture, new_figure, styled

LARGE = 288  # pixels of a plane, both ways
TOP = 18  # pixels above it, for its name
_DPI = 96
_EDGE = 0.985  # points farther out, in shares of half the plane, would be cut off


@cache
def color_table(name: str, low: float = 0.0, high: float = 1.0) -> Any:
    """Return a color map between two of its places in 256 steps, (256, 3) uint8."""
    table = colormaps[name](np.linspace(low, high, 256))[:, :3]
    return (table * 255).round().astype(np.uint8)


def colored(shares: Floats, table: Any, pixels: int) -> Image.Image:
    """Color numbers, 0 the start of the table and 1 its end; cells stay cells."""
    index = np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8)
    return Image.fromarray(table[index]).resize((pixels, pixels), Image.Resampling.NEAREST)


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int = 11) -> None:
    """Write a line whose upper left is at a pixel."""
    pen.text(at, text, fill=INK, font=_font(size))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def points_of(X: Any, y: Any) -> tuple[Floats, Floats]:
    """Return points (N, 2) and classes (N,).

    Raises:
        ValueError: shapes that do not fit, or NaN.
    """
    points, classes = to_array(X, "X"), to_array(y, "y")
    if classes.ndim != 1 or points.shape != (len(classes), 2):
        raise ValueError(f"expected X (N, 2) with N classes, got {points.shape}, {classes.shape}")
    return points, classes


def check_length(name: str, value: float) -> None:
    """Raise ValueError unless a length is positive."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def on_plane(points: Floats, extent: float, corner: tuple[int, int]) -> tuple[Any, Floats]:
    """Return which points lie on the plane, (N,), and the pixels (n, 2) of those that do."""
    scaled = points / extent
    inside = (np.abs(scaled) < _EDGE).all(axis=1)
    return inside, (scaled[inside] * (1, -1) + 1) / 2 * LARGE + corner


def page_picture(page: Image.Image, title: str, alt: str) -> Picture:
    """Return a composed page as a picture, pixel for pixel, under its title."""
    with styled():
        figure = new_figure(page.width / _DPI, page.height / _DPI + 0.35, title)
        ax = figure.subplots()
        ax.imshow(page, interpolation="nearest")
        ax.axis("off")
    return Picture(figure, alt)
