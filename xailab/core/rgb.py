"""A picture, whatever it came as, as a viewer shows it: three channels of bytes."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

Array = np.ndarray

_DEEP = 257  # 65535 / 255: what 16 bits are divided by
_NO_RANGE = ("I", "F")  # 32 bits: nothing says what is white
_PLAIN = {"La": "LA", "RGBa": "RGBA"}  # colors already multiplied by their opacity


def to_rgb(image: Any, name: str = "image") -> Array:
    """Return a picture as a viewer shows it: upright, in its own range, laid on white.

    Of a file with several frames the current one is taken. Color profiles are not applied.

    Args:
        image: a PIL image of any mode with a known range, or an array of uint8 or uint16:
            (H, W), (H, W, 1), (H, W, 3), or (H, W, 4) with the opacity last.
        name: what the caller calls it.

    Returns:
        (H, W, 3) uint8. Pillow's EXIF orientation is applied; 16 bits become 8; what is
        transparent shows white.

    Raises:
        TypeError: neither of the two, or an array of other numbers.
        ValueError: another shape, a mode whose range is not known (I and F), a damaged file.

    >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).tolist()
    [[[255, 255, 255]]]
    """
    if isinstance(image, Image.Image):
        return _of_pillow(image, name)
    if not isinstance(image, np.ndarray):
        came = type(image).__name__
        raise TypeError(f"{name} must be a PIL image or a uint8 array, got {came}")
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"{name} array must be uint8 with values 0..255, got {image.dtype}")
    channels = image.shape[2:] or (1,)
    if image.size == 0 or image.ndim not in (2, 3) or channels[0] not in (1, 3, 4):
        raise ValueError(f"{name} array must be (H, W, 3), got {image.shape}")
    return _on_white(_bytes(image).reshape(*image.shape[:2], -1))


def _of_pillow(image: Image.Image, name: str) -> Array:
    upright = _upright(image, name)
    if 0 in upright.size:
        raise ValueError(f"{name} is empty: {upright.width} x {upright.height} pixels")
    if upright.mode.startswith("I;16"):
        return _sixteen_bits(upright)
    if upright.mode in _NO_RANGE:
        raise ValueError(
            f"{name} has the mode {upright.mode!r}, whose range is not known: scale its numbers "
            "to 0..255 and give them as uint8"
        )
    plain = upright.convert(_PLAIN.get(upright.mode, upright.mode))
    clear = plain.has_transparency_data
    return _on_white(np.array(plain.convert("RGBA" if clear else "RGB")))


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Return the image turned as its EXIF data ask, its pixels read."""
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{name} cannot be read: {error}") from error


def _sixteen_bits(image: Image.Image) -> Array:
    """Return a gray picture of 16 bits; the one value that a PNG may call transparent is white."""
    values = np.asarray(image).astype(np.uint16)
    shown = _bytes(values)
    shown[values == image.info.get("transparency", -1)] = 255
    return np.repeat(shown[..., None], 3, axis=2)


def _bytes(values: Array) -> Array:
    """Return numbers of 8 or 16 bits as 8 bits."""
    return values if values.dtype == np.uint8 else np.rint(values / _DEEP).astype(np.uint8)


def _on_white(pixels: Array) -> Array:
    """Return (H, W, 3) of gray, RGB or RGBA pixels (H, W, C), the opacity used up."""
    if pixels.shape[2] < 4:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
    opacity = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * opacity + 255 * (255 - opacity)  # at most 255 * 255
    return ((mixed + 127) // 255).astype(np.uint8)
