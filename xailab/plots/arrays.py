"""What callers hand over (tensors, arrays, photos), turned into arrays that can be drawn."""

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xailab.core.rgb import to_rgb

Floats = NDArray[np.float64]

_USUAL = (1, 3, 4)  # numbers of channels by which the axis of the channels is known


def to_array(values: Any, name: str = "values") -> Floats:
    """Return a finite float64 array of a tensor, array, number or list.

    Raises:
        TypeError: the values are not numbers, or complex ones.
        ValueError: there are none, one of them is NaN, infinite or masked out.
    """
    raw = _raw(values, name)
    if raw.dtype.kind not in "biufO":
        hint = " complex numbers: draw their absolute values" if raw.dtype.kind == "c" else ""
        raise TypeError(f"{name}: expected numbers of one shape, got{hint} {values!r:.60}")
    try:
        array = raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers of one shape, got {values!r:.60}") from error
    if array.size == 0:
        raise ValueError(f"{name}: nothing to draw, its shape is {array.shape}")
    if np.ma.is_masked(array):
        raise ValueError(f"{name}: some values are masked out; fill them first")
    if not np.isfinite(array).all():
        broken = np.size(array) - np.isfinite(array).sum()
        raise ValueError(f"{name}: {broken} of {array.size} values are NaN or infinite")
    return np.asarray(array)


def _raw(values: Any, name: str) -> NDArray[Any]:
    """Return a tensor, array, number or list as an array of its own dtype."""
    if hasattr(values, "detach"):
        from xailab.core.outputs import as_array  # imported here: it brings torch

        return as_array(values)
    try:
        return np.asanyarray(values)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise TypeError(f"{name}: expected numbers of one shape, got {values!r:.60}") from error


def to_map(values: Any, name: str = "map", channel_axis: int | None = None) -> Floats:
    """Return one map as (H, W): a batch of one is unpacked, channels are summed.

    Three axes are (C, H, W) in a tensor; in an array where the first alone has 1, 3 or 4 entries,
    or the other two are equally long; and (H, W, 1) where the last has one.

    Args:
        values: (H, W), (C, H, W) or (H, W, 1), tensor or array, or one of them in a batch of one.
        name: how an error message calls it.
        channel_axis: 0 or -1, the end at which a map of three axes has its channels, however
            many; settles what cannot be told apart.

    Raises:
        TypeError: not numbers, or complex ones.
        ValueError: the batch holds several maps, or it cannot be told where the channels are.
    """
    array = to_array(values, name)
    if array.ndim == 4:
        if len(array) != 1:
            raise ValueError(
                f"{name}: expected one map, got a batch of {len(array)} with shape {array.shape}; "
                "draw one row, or use plots.compare"
            )
        array = array[0]
    if array.ndim == 3:
        end = _said_end(channel_axis)
        if end is None:
            end = _map_end(array.shape, hasattr(values, "detach"), name)
        array = array.sum(axis=end)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected (H, W), (C, H, W) or (1, C, H, W), got {array.shape}")
    return array


def to_image(image: Any, name: str = "over", channel_axis: int | None = None) -> Floats:
    """Return a photo as (H, W, 3) in 0..1.

    Args:
        image: PIL image; uint8 or uint16 (H, W), (H, W, 3) or (H, W, 4), whose opacity is used up
            on white; or bool or float in 0..1 as (H, W), (1, H, W), (3, H, W), with or without a
            leading batch axis of one. The channels are at the end that alone has 1, 3 or 4
            entries; where both have, tensors have them first and arrays of bytes last.
        name: how an error message calls it.
        channel_axis: 0 or -1, the end at which the channels are; settles what cannot be told
            apart.

    Raises:
        TypeError: not numbers.
        ValueError: the shape is none of these, floats lie outside 0..1, it cannot be told where
            the channels are, or a PIL image whose range is not known.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image, name) / 255
    array, raw = to_array(image, name), _raw(image, name)
    whole = raw.dtype in (np.uint8, np.uint16)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3:
        tensor = hasattr(image, "detach")
        array = _channels_last(array, _said_end(channel_axis), tensor, whole, name)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name}: expected one picture, got an array of shape {raw.shape}")
    if whole:
        return to_rgb(array.astype(raw.dtype), name) / 255
    _check_range(array, name)
    return _on_white(array if array.ndim == 3 else array[..., None])


def _said_end(channel_axis: Any) -> int | None:
    """Return the end that the caller names, 0 or -1; None where nothing is said."""
    if channel_axis is None:
        return None
    from xailab.core.checks import as_integer  # imported here: it brings torch

    axis = as_integer("channel_axis", channel_axis)
    if axis not in (0, 2, -1, -3):
        raise ValueError(f"channel_axis must be 0 or -1, got {axis}")
    return 0 if axis in (0, -3) else -1


def _seen_end(shape: tuple[int, ...], tensor: bool) -> int | None:
    """Return the end that looks like channels, 0 or -1; None where both do, or neither.

    Tensors have them first, as everywhere in torch; arrays come from both worlds.
    """
    first, last = shape[0] in _USUAL, shape[-1] in _USUAL
    if first and (tensor or not last or shape[0] == 1 != shape[-1]):  # no picture is 1 high
        return 0
    return -1 if last and not first else None


def _map_end(shape: tuple[int, ...], tensor: bool, name: str) -> int:
    """Return where the channels of a map are: there may be any number of them."""
    end = _seen_end(shape, tensor)
    other = shape[0] not in _USUAL and shape[-1] not in _USUAL
    if other and (tensor or shape[1] == shape[2] != shape[0]):
        return 0
    if end is None or (end == -1 and shape[-1] != 1):  # (8, 9, 3) may be eight maps of 9 x 3
        raise ValueError(
            f"{name}: expected channels first, (C, H, W), and the shape {shape} does not tell "
            "where they are: say channel_axis=0 (first) or channel_axis=-1 (last)"
        )
    return end


def _channels_last(array: Floats, said: int | None, tensor: bool, whole: bool, name: str) -> Floats:
    """Return a picture of three axes with its 1, 3 or 4 channels at the end."""
    ends = [end for end in (0, -1) if array.shape[end] in _USUAL and said in (None, end)]
    if not ends:
        raise ValueError(f"{name}: expected 1 or 3 channels, got the shape {array.shape}")
    custom = -1 if whole and not tensor else _seen_end(array.shape, tensor)
    end = ends[0] if len(ends) == 1 else custom
    if end is None:
        raise ValueError(
            f"{name}: the shape {array.shape} does not tell where the channels are: say "
            "channel_axis=0 or channel_axis=-1, or give a PIL image"
        )
    return np.moveaxis(array, end, -1)


def _on_white(array: Floats) -> Floats:
    """Return (H, W, 3) of gray, RGB or RGBA floats (H, W, C), the opacity used up."""
    opacity = array[..., 3:] if array.shape[-1] == 4 else 1.0
    colors = np.broadcast_to(array[..., :3], (*array.shape[:2], 3))
    return np.clip(colors * opacity + 1 - opacity, 0, 1)


def _check_range(array: Floats, name: str) -> None:
    low, high = array.min(), array.max()
    if low < -1e-3 or high > 1 + 1e-3:  # tolerance: float noise of x + epsilon - epsilon
        raise ValueError(
            f"{name}: a float picture must lie in 0..1, this one runs from {low:.3g} to "
            f"{high:.3g}; give the photo itself, or undo the preprocessing"
        )


def check_proportions(
    cells: tuple[int, ...], over: tuple[int, ...], name: str = "map", other: str = "photo"
) -> None:
    """Refuse a map that cannot cover a photo with square cells, up to one cell each way.

    So the map of a central crop is not stretched over all of the photo. Either may be the finer.

    Raises:
        ValueError: the proportions differ.

    >>> check_proportions((7, 10), (224, 320))
    """
    fine, coarse = (over, cells) if over[0] * over[1] >= cells[0] * cells[1] else (cells, over)
    pairs = list(zip(fine[:2], coarse[:2], strict=True))
    least = max(pixels / (count + 1) for pixels, count in pairs)  # sides that a cell may have
    most = min(pixels / (count - 1) if count > 1 else inf for pixels, count in pairs)
    if least > most:
        raise ValueError(
            f"{name} and {other} have other proportions: {cells[0]} x {cells[1]} and "
            f"{over[0]} x {over[1]}; give the picture that the network saw (of a pretrained "
            "network, net.picture(x)), cropped or resized as its input was"
        )


def stretch(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Repeat a map's cells (nearest neighbor) until it has the given shape.

    >>> stretch(np.array([[1.0, 2.0]]), (1, 4))
    array([[1., 1., 2., 2.]])
    """
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]
