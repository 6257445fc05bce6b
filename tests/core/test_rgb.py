"""Every kind of picture comes out as a viewer shows it; known pixels, worked out by hand."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from xailab.core.rgb import to_rgb

RED = (200, 0, 0)
RAMP = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


def opened(image, kind="PNG", **options):
    """Write an image into a file and open it again."""
    image.save(file := io.BytesIO(), kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def pixel(image):
    shown = to_rgb(image)
    assert shown.dtype == np.uint8
    return shown[0, 0].tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "RGBa", "CMYK"])
def test_color_modes_are_exact(mode):
    image = Image.fromarray(RAMP).convert("RGBA").convert(mode) if mode == "RGBa" else None
    assert (to_rgb(image or Image.fromarray(RAMP).convert(mode)) == RAMP).all()


@pytest.mark.parametrize(("mode", "off"), [("YCbCr", 2), ("HSV", 2), ("LAB", 4)])
def test_other_color_spaces_up_to_their_rounding(mode, off):
    image = Image.fromarray(RAMP)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB"), "LAB"
        image = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab[0], 0, lab[1])
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert np.abs(to_rgb(image).astype(int) - RAMP).max() <= off


@pytest.mark.parametrize(
    ("mode", "value", "shown"),
    [("1", 1, 255), ("1", 0, 0), ("L", 90, 90), ("P", 0, 0), ("LA", (90, 255), 90)],
)
def test_gray_modes(mode, value, shown):
    assert pixel(Image.new(mode, (2, 3), value)) == [shown] * 3


def test_a_palette_shows_its_colors():
    image = Image.new("P", (1, 2), 1)
    image.putpalette([0, 0, 0, *RED])
    assert pixel(image) == list(RED)


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (Image.new("RGBA", (2, 2), (*RED, 0)), [255, 255, 255]),
        # 200 * 51/255 + 255 * 204/255 = 244; 0 + 204
        (Image.new("RGBA", (2, 2), (*RED, 51)), [244, 204, 204]),
        (Image.new("RGBA", (2, 2), (*RED, 51)).convert("RGBa"), [244, 204, 204]),
        (Image.new("LA", (2, 2), (0, 0)), [255, 255, 255]),
        (Image.new("LA", (2, 2), (100, 51)).convert("La"), [224, 224, 224]),
        (Image.new("PA", (2, 2), (0, 0)), [255, 255, 255]),
        (opened(Image.new("P", (2, 2), 0), transparency=0), [255, 255, 255]),
        (opened(Image.new("RGB", (2, 2), RED), transparency=RED), [255, 255, 255]),
        (opened(Image.new("L", (2, 2), 7), transparency=7), [255, 255, 255]),
        (opened(Image.new("1", (2, 2), 0), transparency=0), [255, 255, 255]),
        (opened(Image.fromarray(np.full((2, 2), 9, np.uint16)), transparency=9), [255, 255, 255]),
        (opened(Image.fromarray(np.full((2, 2), 9, np.uint16)), transparency=8), [0, 0, 0]),
        (np.full((2, 2, 4), (*RED, 51), np.uint8), [244, 204, 204]),
    ],
)
def test_what_is_transparent_shows_white(image, shown):
    assert np.abs(np.subtract(pixel(image), shown)).max() <= 1  # premultiplied colors are rounded


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind):
    deep = np.array([[0, 257, 128 * 257], [65535, 600, 384]], np.uint16)
    shown = np.array([[0, 1, 128], [255, 2, 1]])  # 600 / 257 = 2.33, 384 / 257 = 1.49
    image = opened(Image.fromarray(deep), kind)
    assert image.mode == "I;16"
    for same in (image, Image.fromarray(deep.astype(">u2")), deep, deep[..., None]):
        assert (to_rgb(same) == shown[..., None]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_mode_without_a_range_is_refused_by_name(mode):
    with pytest.raises(ValueError, match=f"photo has the mode '{mode}'.*0..255"):
        to_rgb(Image.new(mode, (2, 2)), "photo")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_phones_are_held_in_eight_ways(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:8, :8] = 255
    image = opened(Image.fromarray(wide), "PNG", exif=exif)
    shown = to_rgb(image)
    assert shown.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
    corners = [shown[0, 0, 0], shown[0, -1, 0], shown[-1, -1, 0], shown[-1, 0, 0]]
    assert np.argmax(corners) == [0, 1, 2, 3, 0, 1, 2, 3][orientation - 1]
    assert (shown == np.asarray(ImageOps.exif_transpose(image))).all()


def test_arrays():
    for same in (RAMP[..., 0], RAMP[..., :1]):
        assert (to_rgb(same) == RAMP[..., :1]).all()
    assert (to_rgb(RAMP) == RAMP).all()


def test_the_callers_picture_stays_as_it_is():
    given = RAMP.copy()
    to_rgb(given)[:] = 7
    to_rgb(given[..., 0])[:] = 7
    assert (given == RAMP).all()
    image = Image.new("RGBA", (2, 2), (*RED, 0))
    to_rgb(image)
    assert image.mode == "RGBA"


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        ("cat.jpg", TypeError, "photo must be a PIL image or a uint8 array, got str"),
        (np.zeros((2, 2)), TypeError, "got float64"),
        (np.zeros((2, 2), np.int32), TypeError, "got int32"),
        (np.zeros((2, 2), bool), TypeError, "got bool"),
        (np.zeros((2, 2, 2), np.uint8), ValueError, r"\(H, W, 3\), got \(2, 2, 2\)"),
        (np.zeros((0, 2, 3), np.uint8), ValueError, r"got \(0, 2, 3\)"),
        (np.zeros(2, np.uint8), ValueError, r"got \(2,\)"),
        (Image.new("L", (0, 3)), ValueError, "photo is empty: 0 x 3 pixels"),
    ],
)
def test_what_is_no_picture(image, error, words):
    with pytest.raises(error, match=words):
        to_rgb(image, "photo")


def test_a_damaged_file_is_named():
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file := io.BytesIO(), "JPEG")
    half = Image.open(io.BytesIO(file.getvalue()[:-1500]))
    with pytest.raises(ValueError, match=r"photo cannot be read: .*truncated"):
        to_rgb(half, "photo")
