"""Spectrograms: the right way up, in seconds and Hz, outlines in place, and a true sentence."""

import numpy as np
import pytest
import torch

from xailab import plots

SIZE = {"seconds": 2.0, "hertz": 400.0}


def low_and_late():
    """Four rows, eight frames; the largest value is in the lowest row, in the last frame."""
    values = np.zeros((4, 8))
    values[0, 7], values[2, 1] = 3.0, 1.0
    return values


def panels(picture):
    return [ax for ax in picture.figure.axes if ax.images]


def test_low_frequencies_are_at_the_bottom_and_the_axes_have_units():
    picture = plots.spectrograms([low_and_late()], **SIZE, titles=["a"], title="t")
    (ax,) = panels(picture)
    (image,) = ax.images
    assert tuple(image.get_extent()) == (0, 2, 400, 0)  # row 0 of the array lies at 0 Hz ...
    assert ax.get_ylim() == (0, 400)  # ... which is the bottom of the axis
    assert (ax.get_xlim(), ax.get_xlabel(), ax.get_ylabel()) == ((0, 2), "seconds", "Hz")
    np.testing.assert_array_equal(image.get_array(), low_and_late())


def test_the_sentence_tells_the_peak_in_seconds_and_hertz():
    mask = np.zeros((4, 8))
    mask[0, 4:] = 1
    picture = plots.spectrograms(
        [low_and_late(), -low_and_late()], **SIZE, titles=["A", "B"], title="Late", masks=[mask] * 2
    )
    assert picture.alt == (
        "Late. A: from 0 to 3, peak at 1.88 s and 50 Hz, 75 % of what is positive in the "
        "outline (12 % of the area). B: from -3 to 0, strongest value, negative, at 1.88 s and "
        "50 Hz."
    )


def test_every_panel_has_its_own_outline():
    masks = np.zeros((2, 4, 8))
    masks[0, 0, :4] = masks[1, 3, 4:] = 1
    picture = plots.spectrograms(
        [low_and_late()] * 2, **SIZE, titles=["a", "b"], title="t", masks=masks
    )
    boxes = [ax.collections[-1].get_paths()[0].get_extents() for ax in panels(picture)]
    assert boxes[0].bounds == pytest.approx((0, 0, 1, 100), abs=8)
    assert boxes[1].bounds == pytest.approx((1, 300, 1, 100), abs=8)
    assert [ax.get_ylim() for ax in panels(picture)] == [(0, 400)] * 2


def test_one_scale_for_all_or_one_each():
    maps = [torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[[4.0, 0.0]]]])]
    together = plots.spectrograms(maps, **SIZE, titles=["a", "b"], title="t")
    assert {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in panels(together)} == {
        (-4, 4)
    }
    apart = plots.spectrograms(maps, **SIZE, titles=["a", "b"], title="t", shared=False)
    assert [float(abs(ax.images[0].get_array()).max()) for ax in panels(apart)] == [1, 1]
    assert "from -2 to 1" in apart.alt  # the sentence keeps the real numbers


def test_an_empty_map_has_no_peak():
    picture = plots.spectrograms([np.zeros((2, 2))], **SIZE, titles=["a"], title="t")
    assert picture.alt == "t. a: 0 everywhere."


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"maps": []}, "nothing to draw"),
        ({"titles": ["a", "b"]}, "titles: expected a list of 1"),
        ({"masks": []}, "masks: expected a list of 1"),
        ({"maps": [[[np.nan, 1.0]]]}, "NaN"),
    ],
)
def test_what_is_refused(changed, match):
    with pytest.raises(ValueError, match=match):
        plots.spectrograms(
            **{"maps": [low_and_late()], "titles": ["a"], "title": "t", **SIZE, **changed}
        )


def test_every_panel_shows_its_own_map_under_its_own_title():
    maps = [np.full((2, 3), 1.0), np.full((2, 3), 4.0)]
    picture = plots.spectrograms(maps, **SIZE, titles=["quiet", "loud"], title="t")
    shown = {ax.get_title(): ax.images[0] for ax in panels(picture)}
    assert {name: image.get_array().max() for name, image in shown.items()} == {
        "quiet": 1,
        "loud": 4,
    }
    dark, bright = (shown[name].to_rgba(shown[name].get_array())[0, 0] for name in shown)
    assert dark[:3].sum() < bright[:3].sum()  # the louder, the brighter, on one scale
