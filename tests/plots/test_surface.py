"""Numbers over a plane: colors and dots where they belong, and words that are true."""

import numpy as np
import pytest
from matplotlib import colormaps

from xailab import plots
from xailab.plots.boundaries import LARGE
from xailab.plots.pages import TOP
from xailab.plots.surface import surface_raster

STEPS = np.array([[0.0, 0.5], [1.0, 0.25]])
POINTS, CLASSES = np.array([[1.0, 1.0], [-1.0, -1.0], [9.0, 0.0]]), np.array([1, 0, 1])


def pixels(**options):
    values = options.pop("values", {"noise": STEPS, "ignorance": STEPS / 2})
    return np.asarray(surface_raster(values, POINTS, CLASSES, extent=2, **options))


def shade(value):
    return (np.array(colormaps["viridis"](value)[:3]) * 255).round()


def test_every_quarter_has_its_shade_on_one_scale():
    page, quarter = pixels(), LARGE // 8
    for column, values in enumerate((STEPS, STEPS / 2)):
        for row in range(2):
            for place in range(2):
                y = TOP + row * LARGE // 2 + quarter
                x = column * (LARGE + 8) + place * LARGE // 2 + quarter
                np.testing.assert_allclose(page[y, x], shade(values[row, place]), atol=4)


def test_a_given_top_makes_pictures_comparable():
    corner = slice(TOP + 10, TOP + 20), slice(10 + LARGE // 2, 20 + LARGE // 2)
    np.testing.assert_allclose(pixels(top=2.0)[corner].mean((0, 1)), shade(0.25), atol=4)
    np.testing.assert_allclose(pixels()[corner].mean((0, 1)), shade(0.5), atol=4)


def test_dots_stand_where_the_points_are_and_those_outside_are_left_out():
    page = pixels().astype(int)
    x, y = 3 * LARGE // 4, TOP + LARGE // 4  # the point (1, 1): right and up
    assert page[y, x, 0] > 200 > page[y, x, 2]  # red
    x, y = LARGE // 4, TOP + 3 * LARGE // 4
    assert page[y, x, 2] > 200 > page[y, x, 0]  # blue
    reds = (abs(page[:, :LARGE] - page[TOP + LARGE // 4, 3 * LARGE // 4]).sum(-1) == 0).sum()
    assert reds == 9


def test_a_ring_has_its_radius():
    plain, ringed = pixels(), pixels(ring=1.0)
    rows, columns = np.nonzero((plain != ringed).any(-1)[:, :LARGE])
    distance = np.hypot(rows - TOP - LARGE / 2, columns - LARGE / 2)
    assert abs(distance - LARGE / 4).max() < 3
    assert len(rows) > 100


def test_the_words_have_the_numbers():
    picture = plots.surfaces({"noise": STEPS}, POINTS, CLASSES, extent=2, title="Much noise")
    assert picture.alt == (
        "Much noise. Over the plane, noise is 0.438 nats in the mean and 1 at most."
    )
    assert len(picture.png()) < 60_000


def test_all_zero_is_drawn_too():
    pixels(values={"nothing": np.zeros((2, 2))})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": {}}, "nothing to draw"),
        ({"values": {"a": np.ones((2, 3))}}, r"a: expected values \(S, S\), got \(2, 3\)"),
        ({"values": {"a": -STEPS}}, "a: expected values of at least 0, got -1"),
        ({"values": {"a": STEPS * np.nan}}, "NaN"),
        ({"X": POINTS[:2]}, r"\(2, 2\), \(3,\)"),
        ({"extent": 0}, "extent must be positive, got 0"),
        ({"top": -1.0}, "top must be positive"),
        ({"ring": 0}, "ring must be positive"),
    ],
)
def test_bad_input_is_named(changes, words):
    usual = {"values": {"noise": STEPS}, "X": POINTS, "y": CLASSES, "extent": 2, **changes}
    with pytest.raises(ValueError, match=words):
        surface_raster(usual.pop("values"), usual.pop("X"), usual.pop("y"), **usual)
