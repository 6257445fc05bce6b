"""Arrays from every library: which axis is which, and what is refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from xailab.plots.arrays import check_proportions, stretch, to_array, to_image, to_map

DICE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 8, 9), 0),  # color
        ((1, 8, 3), 0),  # one channel: no picture has a height of 1
        ((8, 9, 1), 2),  # Keras
        ((64, 7, 7), 0),  # square, so the channels are the other axis
        ((2, 7, 7), 0),
    ],
)
def test_channels_of_an_array_are_found_and_summed(shape, axis):
    values = DICE.normal(size=shape)
    assert to_map(values) == pytest.approx(values.sum(axis))
    assert to_map(values[None]) == pytest.approx(values.sum(axis))


@pytest.mark.parametrize(
    "shape", [(3, 5, 3), (4, 4, 4), (2, 1, 2), (64, 7, 9), (3, 8, 1), (1, 5, 1)]
)
def test_tensors_have_their_channels_first(shape):
    values = torch.tensor(DICE.normal(size=shape))
    assert to_map(values) == pytest.approx(values.sum(0).numpy())


@pytest.mark.parametrize(
    "shape", [(3, 5, 3), (4, 4, 4), (7, 7, 64), (64, 7, 9), (8, 9, 3), (3, 8, 1), (1, 5, 1)]
)
def test_what_an_array_does_not_tell_is_said(shape):
    values = DICE.normal(size=shape)
    with pytest.raises(ValueError, match=r"cam: .*channel_axis=0 .*channel_axis=-1"):
        to_map(values, "cam")
    for axis in (0, -3, np.int64(0)):
        assert to_map(values, channel_axis=axis) == pytest.approx(values.sum(0))
    for axis in (-1, 2):
        assert to_map(values[None], channel_axis=axis) == pytest.approx(values.sum(2))


@pytest.mark.parametrize(
    ("axis", "error"), [(1, ValueError), (3, ValueError), (0.0, TypeError), (True, TypeError)]
)
def test_a_wrong_axis_is_named(axis, error):
    with pytest.raises(error, match="channel_axis"):
        to_map(np.ones((3, 5, 3)), channel_axis=axis)


@pytest.mark.parametrize("values", [[[1j, 0]], np.ones((2, 2), complex), torch.ones(2, 2) * 1j])
def test_complex_numbers_are_refused(values):
    with pytest.raises(TypeError, match=r"map: .*complex numbers"):
        to_map(values)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (["1.5"], TypeError, "expected numbers"),  # text that NumPy would read as a number
        (np.array(["2026-01-01"], "datetime64[D]"), TypeError, "expected numbers"),
        ([object()], TypeError, "expected numbers"),
        ([None, 1.0], ValueError, "1 of 2 values are NaN"),
        (np.ma.masked_less([1.0, 2.0], 1.5), ValueError, "masked out"),
    ],
)
def test_what_is_no_number(values, error, words):
    with pytest.raises(error, match=words):
        to_array(values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.bool])
def test_every_dtype(dtype):
    assert to_array(torch.ones(2, dtype=dtype)).tolist() == [1, 1]


@pytest.mark.parametrize("whole", [True, False])
def test_opacity_is_used_up_on_white(whole):
    red = [1.0, 0.0, 0.0, 0.2]  # with 0.8 of white
    clear = np.array([[[0.0, 0.0, 0.0, 0.0], red], [red, red]])
    image = np.round(255 * clear).astype(np.uint8) if whole else clear
    pink = [1, 0.8, 0.8]
    assert to_image(image) == pytest.approx(np.array([[[1, 1, 1], pink], [pink, pink]]))
    assert to_image(torch.tensor(clear).permute(2, 0, 1))[0, 1] == pytest.approx(pink)


def test_pillow_pictures_are_as_a_viewer_shows_them():
    assert to_image(Image.new("RGBA", (2, 1))).tolist() == [[[1, 1, 1]] * 2]
    assert to_image(Image.new("LA", (2, 1), (0, 255))).tolist() == [[[0, 0, 0]] * 2]
    with pytest.raises(ValueError, match="over has the mode 'F'"):
        to_image(Image.new("F", (2, 1)))


def test_layouts_of_photos():
    assert to_image(np.zeros((3, 5, 3), np.uint8)).shape == (3, 5, 3)  # bytes: channels last
    assert to_image(torch.zeros(3, 5, 3, dtype=torch.uint8)).shape == (5, 3, 3)
    assert to_image(torch.zeros(3, 5, 3)).shape == (5, 3, 3)
    assert to_image(np.zeros((3, 5, 3)), channel_axis=0).shape == (5, 3, 3)
    assert to_image(np.zeros((3, 5, 3)), channel_axis=-1).shape == (3, 5, 3)
    assert to_image(np.zeros((3, 6, 5), np.uint8)).shape == (6, 5, 3)
    assert to_image(np.array([[True, False]])).tolist() == [[[1] * 3, [0] * 3]]


@pytest.mark.parametrize(
    ("image", "axis", "words"),
    [
        (np.zeros((3, 5, 3)), None, r"\(3, 5, 3\) does not tell.*channel_axis=0"),
        (np.zeros((5, 6, 7)), None, r"1 or 3 channels, got the shape \(5, 6, 7\)"),
        (np.zeros((5, 6, 3)), 0, "1 or 3 channels"),
        (np.zeros((2, 5, 5, 3), np.uint8), None, "one picture"),
        (np.full((5, 5), 255.0), None, "must lie in 0..1"),
        (np.full((5, 5), 3), None, "must lie in 0..1"),
    ],
)
def test_what_is_no_photo(image, axis, words):
    with pytest.raises(ValueError, match=words):
        to_image(image, channel_axis=axis)


@pytest.mark.parametrize(
    ("cells", "photo"),
    [((7, 7), (224, 224)), ((10, 15), (300, 451)), ((1, 2), (30, 45)), ((2, 2), (20, 30))],
)
def test_square_cells_up_to_one_more_or_less(cells, photo):
    check_proportions(cells, photo)
    check_proportions(photo, cells)


@pytest.mark.parametrize(
    ("cells", "photo"),
    [((7, 7), (300, 451)), ((224, 224), (224, 240)), ((2, 2), (20, 80)), ((8, 4), (40, 80))],
)
def test_other_proportions_are_refused(cells, photo):
    for one, other in ((cells, photo), (photo, cells)):
        with pytest.raises(ValueError, match="other proportions"):
            check_proportions(one, other)


def test_stretch_repeats_cells():
    assert stretch(np.array([[1.0, 2.0, 3.0]]), (2, 5)).tolist() == [[1, 1, 2, 2, 3]] * 2
