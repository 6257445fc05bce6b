"""Sentences that say what a picture shows, with its numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xailab.plots.arrays import Floats, check_proportions, stretch, to_array, to_image, to_map

WORDS = 60  # of a picture's sentence, at most
_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "center", "right")


def describe(
    map: Any,
    over: Any = None,
    name: str = "attribution",
    mask: Any = None,
    channel_axis: int | None = None,
) -> str:
    """Say in words what a heat map shows: range, peak, where the mass lies, both signs.

    Mass is the sum of the values of one sign. The place is named by thirds of the picture.

    Args:
        map: (H, W), (C, H, W) (channels are summed) or (1, C, H, W), tensor or array.
        over: the photo under the map, of its proportions; then the peak is given in its pixels too.
        name: what the numbers are.
        mask: (h, w), the true region; then the share of the positive mass inside it is said, and
            not where the mass lies.
        channel_axis: 0 or -1, where the map's channels are, when its shape does not tell.

    Returns:
        One or two sentences. Rows and columns count from 1 at the upper left.

    Raises:
        TypeError: not numbers, or complex ones.
        ValueError: NaN or infinite values, more than one map, channels that cannot be told apart,
            a photo or mask of other proportions, or a mask with nothing in it.

    >>> describe([[0, 0, 0, 8], [0, 0, 0, 0], [0, 2, 0, -1]], name="evidence")  # doctest: +ELLIPSIS
    'The value of evidence runs from -1 to 8: peak at row 1, column 4 of 3 x 4 (upper right); ...
    """
    values = to_map(map, channel_axis=channel_axis)
    size = f"{values.shape[0]} x {values.shape[1]}"
    if np.ptp(values) == 0:
        return f"Every value of {name} is {number(values[0, 0])} ({size}): it points nowhere."
    inside = [] if mask is None else [_inside(values, to_map(mask, "mask") > 0)]
    parts = [_peak(values, over), *(inside or _mass(values))]
    ends = f"from {number(values.min())} to {number(values.max())}"
    return f"The value of {name} runs {ends}: {'; '.join(parts)}."


def describe_several(
    maps: Sequence[Any], names: Sequence[str], mask: Any = None, channel_axis: int | None = None
) -> str:
    """Say of several heat maps their range, where they peak, and how far they spread.

    >>> describe_several([[[0, 0, 8], [0, 0, 0]], [[-4, 0, 1], [0, 0, 0]]], ["for cat", "for dog"])
    'for cat: 0 to 8, peak upper right, half of it in 17 %; for dog: -4 to 1, lowest upper left.'
    """
    return (
        "; ".join(
            f"{name}: {_briefly(to_map(one, channel_axis=channel_axis), mask)}"
            for one, name in zip(maps, names, strict=True)
        )
        + "."
    )


def shortened(text: str) -> str:
    """Return a text of at most `WORDS` words: whole clauses from its start, and how many more.

    >>> shortened("Few words."), shortened("; ".join(["the map rises"] * 30))[-37:]
    ('Few words.', 'ap rises; the map rises; and 11 more.')
    """
    clauses = re.split(r"(?<=[.;!?]) ", text)
    if len(text.split()) <= WORDS or len(clauses) == 1:
        return text
    kept: list[str] = []
    while len(" ".join([*kept, clauses[len(kept)]]).split()) <= WORDS - 3:
        kept.append(clauses[len(kept)])
    if not kept:
        return text
    return f"{' '.join(kept).rstrip('.;')}; and {len(clauses) - len(kept)} more."


def describe_bars(values: Any, names: Sequence[str]) -> str:
    """Say which bar is largest, which smallest, and how many are negative.

    >>> describe_bars([0.5, -0.2, 0.1], ["age", "sex", "income"])
    '3 bars: the largest is age (0.5), the smallest sex (-0.2); 1 of 3 is negative.'
    """
    heights = to_array(values)
    if len(heights) == 1:
        return f"One bar: {names[0]} ({number(heights[0])})."
    high, low = int(heights.argmax()), int(heights.argmin())
    negative = int((heights < 0).sum())
    signs = f"; {negative} of {len(heights)} {'is' if negative == 1 else 'are'} negative"
    return (
        f"{len(heights)} bars: the largest is {names[high]} ({number(heights[high])}), the "
        f"smallest {names[low]} ({number(heights[low])}){signs if negative else ''}."
    )


def describe_curves(x: Any, series: Mapping[str, Any], xlabel: str = "x") -> str:
    """Say for each curve where it starts and ends and where its extremes lie.

    >>> describe_curves([0, 1, 2], {"loss": [3, 1, 2]}, "step")
    'Along step from 0 to 2: loss goes from 3 to 2, lowest 1 at 1.'
    """
    grid = to_array(x, "x")
    curves = "; ".join(_curve_words(grid, to_array(y, name), name) for name, y in series.items())
    return f"Along {xlabel} from {number(grid[0])} to {number(grid[-1])}: {curves}."


def lead(title: str | None) -> str:
    """Close a title with a period and a blank, so that words can follow.

    >>> lead("It looks at the face"), lead("Why?"), lead(None)
    ('It looks at the face. ', 'Why? ', '')
    """
    if not title:
        return ""
    return f"{title} " if title.endswith((".", "!", "?")) else f"{title}. "


def number(value: float) -> str:
    """Write a number with three digits.

    >>> number(0.12345), number(-3.0), number(0.0)
    ('0.123', '-3', '0')
    """
    return f"{value + 0.0:.3g}"  # + 0.0: no "-0"


def percent(share: float) -> str:
    """Write a share of 0..1 in percent, never rounding something to nothing.

    >>> percent(0.123), percent(0.001), percent(0.999), percent(0)
    ('12 %', 'under 1 %', 'over 99 %', '0 %')
    """
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def place(row: float, column: float) -> str:
    """Name a position, given as fractions of height and width, by its third.

    >>> place(0.1, 0.9), place(0.5, 0.5), place(0.5, 0.1)
    ('upper right', 'center', 'middle left')
    """
    words = _ROWS[min(int(row * 3), 2)], _COLUMNS[min(int(column * 3), 2)]
    return "center" if words == ("middle", "center") else " ".join(words)


def _briefly(values: Floats, mask: Any) -> str:
    if np.ptp(values) == 0:
        return f"{number(values[0, 0])} everywhere"
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    where = place(*((i + 0.5) / side for i, side in zip(at, values.shape, strict=True)))
    parts = [
        f"{number(values.min())} to {number(values.max())}",
        f"{'peak' if values[at] > 0 else 'lowest'} {where}",
    ]
    if mask is not None:
        parts.append(_inside(values, to_map(mask, "mask") > 0).split(" of ")[0] + " inside")
    elif values[at] > 0:
        mass = np.sort(np.clip(values, 0, None), axis=None)[::-1].cumsum()
        cells = int(np.searchsorted(mass, mass[-1] / 2)) + 1
        parts.append(f"half of it in {percent(cells / values.size)}")
    return ", ".join(parts)


def _peak(values: Floats, over: Any) -> str:
    """Locate the value farthest from zero."""
    (height, width), at = values.shape, np.unravel_index(np.abs(values).argmax(), values.shape)
    where = (at[0] + 0.5) / height, (at[1] + 0.5) / width
    words = (
        f"{'peak' if values[at] > 0 else 'strongest value, negative,'} at row {at[0] + 1}, "
        f"column {at[1] + 1} of {height} x {width} ({place(*where)}"
    )
    if over is None:
        return words + ")"
    rows, columns, _ = to_image(over).shape
    check_proportions(values.shape, (rows, columns))
    return f"{words}, pixel {int(where[0] * rows)}, {int(where[1] * columns)} of the photo)"


def _mass(values: Floats) -> list[str]:
    """Say where the positive values are, and how much negative mass stands against them."""
    positive, negative = np.clip(values, 0, None), np.clip(-values, 0, None)
    if positive.sum() == 0:
        return ["no value is positive", _half(negative, "negative")]
    share = negative.sum() / np.abs(values).sum()
    if share == 0:
        return [_half(positive, "positive"), "nothing is negative"]
    against = f"{percent(share)} of the mass is negative, mainly {_densest(negative)[0]}"
    return [_half(positive, "positive"), against]


def _half(mass: Floats, sign: str) -> str:
    ordered = np.sort(mass, axis=None)[::-1]
    cells = int(np.searchsorted(ordered.cumsum(), ordered.sum() / 2)) + 1
    where, share = _densest(mass)
    return (
        f"half of the {sign} mass in {percent(cells / mass.size)} of the picture, mainly "
        f"{where} ({percent(share)} of it)"
    )


def _densest(mass: Floats) -> tuple[str, float]:
    """Return the ninth of the picture with the largest share of the mass, and that share."""
    row, column = (((np.arange(n) + 0.5) * 3 / n).astype(int) for n in mass.shape)
    ninth = 3 * row[:, None] + column
    shares = np.bincount(ninth.ravel(), mass.ravel(), minlength=9) / mass.sum()
    best = int(shares.argmax())
    return place((best // 3 + 0.5) / 3, (best % 3 + 0.5) / 3), float(shares[best])


def _inside(values: Floats, mask: Any) -> str:
    if not mask.any():
        raise ValueError("mask: no cell of the true region is set")
    check_proportions(mask.shape, values.shape, "mask", "map")
    fine = stretch(values, mask.shape) if mask.size > values.size else values
    mask = mask if fine.shape == mask.shape else stretch(mask, fine.shape)
    positive = np.clip(fine, 0, None)
    share = float(positive[mask].sum() / positive.sum()) if positive.any() else 0.0
    return (
        f"{percent(share)} of the positive mass lies inside the marked region, which covers "
        f"{percent(float(mask.mean()))} of the picture"
    )


def _curve_words(x: Floats, y: Floats, name: str) -> str:
    words = f"{name} goes from {number(y[0])} to {number(y[-1])}"
    for word, at in (("highest", int(y.argmax())), ("lowest", int(y.argmin()))):
        if y[at] not in (y[0], y[-1]):
            words += f", {word} {number(y[at])} at {number(x[at])}"
    return words
