"""What callers hand over (tensors, arrays, photos), turned into arrays that can be drawn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def to_array(values: Any, name: str = "values") -> Floats:
    """Return a finite float64 array of a tensor, array, number or list.

    Raises:
        TypeError: the values are not numbers.
        ValueError: there are none, or one of them is NaN or infinite.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers of one shape, got {values!r:.60}") from error
    if array.size == 0:
        raise ValueError(f"{name}: nothing to draw, its shape is {array.shape}")
    if not np.isfinite(array).all():
        broken = np.size(array) - np.isfinite(array).sum()
        raise ValueError(f"{name}: {broken} of {array.size} values are NaN or infinite")
    return array


def to_map(values: Any, name: str = "map") -> Floats:
    """Return one map as (H, W): a batch of one is unpacked, channels are summed.

    Args:
        values: (H, W), (C, H, W) or (1, C, H, W), tensor or array.
        name: how an error message calls it.

    Raises:
        ValueError: the batch holds several maps, the channels come last, or there is no picture.
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
        if array.shape[-1] in (3, 4) and array.shape[0] > 4:
            raise ValueError(
                f"{name}: expected channels first, (C, H, W), but the shape {array.shape} looks "
                "like (H, W, C); transpose it or sum over the last axis"
            )
        array = array.sum(axis=0)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected (H, W), (C, H, W) or (1, C, H, W), got {array.shape}")
    return array


def to_image(image: Any, name: str = "over") -> Floats:
    """Return a photo as (H, W, 3) in 0..1.

    Args:
        image: PIL image; uint8 (H, W), (H, W, 3) or (H, W, 4); or float in 0..1 as (H, W),
            (1, H, W), (3, H, W), with or without a leading batch axis of one.
        name: how an error message calls it.

    Raises:
        ValueError: the shape is none of these, or floats lie outside 0..1.
    """
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    raw = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    array = to_array(raw, name) / (255 if raw.dtype == np.uint8 else 1)
    _check_range(array, name)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{name}: expected one picture, got an array of shape {raw.shape}")
    array = _channels_last(array, prefer_last=raw.dtype == np.uint8, name=name)
    rgb = array[..., :3] if array.shape[-1] > 1 else np.repeat(array, 3, axis=-1)
    return np.clip(rgb, 0, 1)


def _check_range(array: Floats, name: str) -> None:
    low, high = array.min(), array.max()
    if low < -1e-3 or high > 1 + 1e-3:  # tolerance: float noise of x + epsilon - epsilon
        raise ValueError(
            f"{name}: a float picture must lie in 0..1, this one runs from {low:.3g} to "
            f"{high:.3g}; give the photo itself, or undo the preprocessing"
        )


def _channels_last(array: Floats, *, prefer_last: bool, name: str) -> Floats:
    """Find the axis of the channels; where both ends would do, the dtype's custom decides."""
    last, first = array.shape[-1] in (1, 3, 4), array.shape[0] in (1, 3)
    if not (last or first):
        raise ValueError(f"{name}: expected 1 or 3 channels, got the shape {array.shape}")
    return array if last and (prefer_last or not first) else np.moveaxis(array, 0, -1)


def stretch(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Repeat a map's cells (nearest neighbor) until it has the given shape.

    >>> stretch(np.array([[1.0, 2.0]]), (1, 4))
    array([[1., 1., 2., 2.]])
    """
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]
