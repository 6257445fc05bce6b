"""Heat maps over pictures, side by side on one scale, and plain pictures."""

import re
from collections.abc import Sequence
from math import ceil, sqrt
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from xailab.plots.arrays import Floats, check_proportions, to_image, to_map
from xailab.plots.parts import (
    COLUMNS,
    check_count,
    common_scale,
    draw_bar,
    draw_map,
    limit_of,
    map_colors,
    outline,
    several,
)
from xailab.plots.pictures import Picture, new_figure, styled
from xailab.plots.words import describe, describe_several, lead

_AREA = 14  # square inches of all panels: what 60 kB of photo can fill


def heatmap(
    map: Any,
    over: Any = None,
    *,
    title: str,
    alt: str | None = None,
    label: str = "attribution",
    mask: Any = None,
    channel_axis: int | None = None,
) -> Picture:
    """Draw one map, over a photo if there is one, with its color bar.

    Signed maps are drawn red (for) and blue (against), centered at zero; maps without negative
    values in one rising scale. Cells stay cells: nothing is smoothed. Of a map above 1,000 cells
    the 0.5 % farthest from zero share the last color, so that one pixel cannot black out the rest.

    Args:
        map: (H, W), (C, H, W) (channels are summed), (1, C, H, W), or Keras' (1, H, W, 1), tensor
            or array.
        over: photo under it: PIL, uint8 (H, W, 3), float (C, H, W) in 0..1, of the map's
            proportions: the map is stretched over the whole photo, so give what the network saw.
        title: the finding.
        alt: the text alternative; without it `describe` writes one.
        label: what the numbers are, with their unit; written at the color bar.
        mask: (h, w), a true region to outline, in the proportions of the photo or the map.
        channel_axis: 0 or -1, where the map's channels are, when its shape does not tell.

    Raises:
        TypeError: not numbers, or complex ones.
        ValueError: NaN, several maps in one, channels that cannot be told apart, a photo whose
            shape or range cannot be drawn, or a photo or mask of other proportions.
    """
    values = to_map(map, channel_axis=channel_axis)
    sentence = alt or lead(title) + describe(values, over, label, mask)
    with styled():
        return Picture(_grid([values], [over], None, title, label, mask), sentence)


def compare(
    maps: Sequence[Any],
    *,
    over: Any = None,
    titles: Sequence[str],
    shared: bool = True,
    title: str | None = None,
    alt: str | None = None,
    label: str = "attribution",
    mask: Any = None,
    channel_axis: int | None = None,
) -> Picture:
    """Draw several maps side by side on one scale with one color bar.

    Args:
        maps: the maps, each as in `heatmap`.
        over: one photo for all, or a list or tuple with one photo a map.
        titles: one a map.
        shared: True: equal colors mean equal numbers. False: each map has its own scale, for
            methods whose units differ; the color bar says so.
        title: the finding.
        alt: the text alternative; without it one sentence a map.
        label: what the numbers are, with their unit.
        mask: (h, w), a true region to outline in every panel.
        channel_axis: 0 or -1, where the maps' channels are, when their shapes do not tell.

    Raises:
        TypeError: as for `heatmap`.
        ValueError: as for `heatmap`; no map, or the number of titles or photos differs from the
            number of maps.
    """
    values = [
        to_map(one, f"maps[{i}]", channel_axis) for i, one in enumerate(several(maps, "maps"))
    ]
    check_count(titles, len(values), "titles")
    photos = list(over) if isinstance(over, list | tuple) else [over] * len(values)
    check_count(photos, len(values), "photos in over")
    words = describe_several(values, titles, mask)
    if not shared:
        values = [v / (limit_of(v) or 1.0) for v in values]
        label = "relative to\neach map's top"
    sentence = alt or lead(title) + words
    with styled():
        return Picture(_grid(values, photos, titles, title, label, mask), sentence)


def images(
    images: Sequence[Any],
    *,
    titles: Sequence[str],
    title: str | None = None,
    alt: str | None = None,
    channel_axis: int | None = None,
) -> Picture:
    """Draw pictures side by side.

    Args:
        images: PIL images, uint8 (H, W, 3) or float (C, H, W) in 0..1.
        titles: one a picture.
        title: the finding.
        alt: the text alternative; without it the titles are listed.
        channel_axis: 0 or -1, where the channels are, when the shapes do not tell.

    Raises:
        What `heatmap` raises of a photo; ValueError for no picture or other than one title each.
    """
    given = enumerate(several(images, "images"))
    pictures = [to_image(one, f"images[{i}]", channel_axis) for i, one in given]
    check_count(titles, len(pictures), "titles")
    with styled():
        figure, axes = _panels(len(pictures), pictures[0].shape[:2], title, titles)
        for ax, image in zip(axes, pictures, strict=True):
            ax.imshow(image)
    count = f"{len(pictures)} pictures: " if len(pictures) > 1 else ""
    sentence = alt or f"{lead(title)}{count}{', '.join(titles)}."
    return Picture(figure, sentence, photo=True)


def _grid(
    maps: Sequence[Floats],
    photos: Sequence[Any],
    titles: Sequence[str] | None,
    title: str | None,
    label: str,
    mask: Any,
) -> Figure:
    backgrounds = [None if photo is None else to_image(photo) for photo in photos]
    region = None if mask is None else to_map(mask, "mask")
    for values, photo in zip(maps, backgrounds, strict=True):
        if photo is not None:
            check_proportions(values.shape, photo.shape)
        if region is not None:
            check_proportions(region.shape, (values if photo is None else photo).shape, "mask")
    first = maps[0] if backgrounds[0] is None else backgrounds[0]
    figure, axes = _panels(len(maps), first.shape[:2], title, titles, bar=True)
    scale, extend = common_scale(maps)
    colors = map_colors(signed=scale.vmin < 0, see_through=any(b is not None for b in backgrounds))
    for ax, values, photo in zip(axes, maps, backgrounds, strict=True):
        draw_map(ax, values, photo, scale, colors)
        if region is not None:
            outline(ax, region)
    draw_bar(figure, axes, ScalarMappable(scale, colors), label, extend)
    return figure


def _in_lines(text: str, width: int) -> str:
    """Break at spaces; a dotted name that is too long for a line behind a dot or an underscore."""
    pieces = [
        piece
        for word in text.split()
        for piece in (re.split(r"(?<=[._])", word + " ") if len(word) > width else [word + " "])
    ]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(fill(line.rstrip(), width) for line in lines)


def _panels(
    count: int,
    shape: tuple[int, ...],
    title: str | None,
    titles: Sequence[str] | None,
    bar: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with empty panels of the picture's proportions."""
    rows = ceil(count / COLUMNS)
    columns = ceil(count / rows)
    ratio = min(max(shape[0] / shape[1], 0.1), 1.6)
    width = min(4.2, 8.2 / columns, sqrt(_AREA / (count * ratio)))
    height = width * ratio
    figure = new_figure(
        columns * width + (0.9 if bar else 0),
        rows * (height + (0.3 if titles else 0.05)) + (0.4 if title else 0),
        title,
    )
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    named = [*(titles or []), *[""] * len(axes)][: len(axes)]
    for ax, text in zip(axes, named, strict=True):
        ax.set_axis_off()
        # A given height spares matplotlib the search for ticks in the way: half the drawing time.
        ax.set_title(_in_lines(text, max(8, int(width * 12))), fontsize=10, y=1.0)
    return figure, axes[:count]
