"""Steps that meet, dots that lie where they belong, words whose sign needs no color."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from xailab import plots
from xailab.models.texts import SpecialToken
from xailab.plots.pictures import NEGATIVE, POSITIVE


def bars_of(picture):
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in picture.figure.axes[0].patches]


def test_steps_meet_and_end_at_the_score():
    picture = plots.waterfall([1.0, -3.0, 0.5], ["a", "b", "c"], base=2.0, title="t")
    assert bars_of(picture) == [(2.0, -1.0), (-1.0, 0.0), (0.0, 0.5)]
    assert [label.get_text() for label in picture.figure.axes[0].get_yticklabels()] == list("bac")
    assert picture.alt == "t. From 2 to 0.5: b -3, a +1, c +0.5."


def test_small_steps_are_taken_together():
    picture = plots.waterfall([4.0, 0.1, 0.2, 0.3], list("abcd"), base=0.0, title="t", most=2)
    assert "d +0.3, 2 others +0.3" in picture.alt
    assert bars_of(picture)[-1] == pytest.approx((4.3, 4.6))
    one_left = plots.waterfall([4.0, 0.1, 0.2], list("abc"), base=0.0, title="t", most=2)
    assert "others" not in one_left.alt  # a single one keeps its name


@pytest.mark.parametrize(
    ("values", "names", "most"),
    [([1.0], ["a", "b"], 9), ([], [], 9), ([[1.0]], ["a"], 9), ([1.0], ["a"], 0)],
)
def test_waterfall_refuses(values, names, most):
    with pytest.raises(ValueError, match=r"waterfall: expected|nothing to draw"):
        plots.waterfall(values, names, base=0.0, title="t", most=most)


def arrows_of(picture):
    """Return (tail, tip) of every arrow, in the order drawn."""
    return [
        (shape.get_xy()[5, 0], shape.get_xy()[2, 0]) for shape in picture.figure.axes[0].patches
    ]


def labels_of(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def test_arrows_of_both_directions_meet_at_the_score():
    picture = plots.force([1.0, -3.0, 0.5, 0.0], list("abcd"), base=2.0, title="t")
    assert arrows_of(picture) == [(-0.5, 0.5), (-1.0, -0.5), (3.5, 0.5)]
    assert labels_of(picture) == ["a +1", "c +0.5", "b -3", "base 2", "score 0.5"]
    assert picture.alt == "t. From 2 to 0.5: pushed up by a +1, c +0.5; pushed down by b -3."


def test_small_arrows_are_taken_together_and_none_is_said():
    picture = plots.force([4.0, 0.1, 0.2, -0.5], list("abcd"), base=0.0, title="t", most=2)
    assert "pushed up by a +4, 2 others +0.3; pushed down by d -0.5." in picture.alt
    still = plots.force([0.0], ["a"], base=1.0, title="t")
    assert still.alt == "t. From 1 to 1: nothing pushes."


def test_labels_of_many_arrows_do_not_meet_each_other_or_a_line():
    """Eight short arrows on each side: their labels stand on lines of their own."""
    values = [0.1 * (-1) ** i for i in range(16)]
    names = [f"a rather long name {i}" for i in range(16)]
    picture = plots.force(values, names, base=0.0, title="t", most=16)
    picture.figure.draw_without_rendering()
    (ax,) = picture.figure.axes
    boxes = [text.get_window_extent() for text in ax.texts[:16]]
    lines = [line.get_window_extent() for line in ax.lines[:16]]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.overlaps(line) for box in boxes for line in lines)
    inside = picture.figure.bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


def test_force_refuses():
    with pytest.raises(ValueError, match="force: expected"):
        plots.force([1.0], ["a", "b"], base=0.0, title="t")


def test_steps_stand_in_their_order_beside_the_means():
    picture = plots.arrivals(
        [4.0, -1.0],
        ["b", "a"],
        [1.0, -2.0, 0.0],
        [1.5, 2.5, 0.0],
        list("abc"),
        base=1.0,
        orders=2,
        title="t",
    )
    left, right = picture.figure.axes
    assert bars_of(picture) == [(1.0, 5.0), (5.0, 4.0)]
    assert [label.get_text() for label in left.get_yticklabels()] == ["1. b", "2. a"]
    assert [bar.get_width() for bar in right.patches] == [1.0, -2.0, 0.0]
    assert right.lines[0].get_xdata().tolist() == [1.5, 2.5, 0.0]
    assert picture.alt == (
        "t. From 1: b +4, then a -1; together 4. Mean over 2 of the orders: a +1 (exact +1.5), "
        "b -2 (exact +2.5), c +0 (exact +0)."
    )


def test_nobody_is_in():
    picture = plots.arrivals([], [], [0.0], [1.0], ["a"], base=3.0, orders=1, title="t")
    assert "Nobody is in: 3." in picture.alt
    assert not picture.figure.axes[0].patches


@pytest.mark.parametrize(("steps", "means"), [([1.0], [0.0]), ([], [0.0, 1.0])])
def test_arrivals_refuses(steps, means):
    with pytest.raises(ValueError, match="arrivals: expected"):
        plots.arrivals(steps, [], means, [1.0], ["a"], base=0.0, orders=1, title="t")


def test_dots_lie_at_their_shares_and_the_largest_feature_on_top():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(30, 3))
    shares = data * [1.0, -5.0, 0.0]
    picture = plots.beeswarm(shares, data, ["up", "down", "none"], title="t")
    dots = [np.asarray(c.get_offsets()) for c in picture.figure.axes[0].collections]
    np.testing.assert_allclose(dots[0][:, 0], shares[:, 1])
    np.testing.assert_allclose(dots[1][:, 0], shares[:, 0])
    assert np.abs(dots[1][:, 1] - 1).max() < 0.4  # within its own line
    assert "down: mean size" in picture.alt
    assert "high values lower the score; up: " in picture.alt
    assert "high values raise the score; none: mean size 0." in picture.alt


def test_colors_follow_ranks_not_outliers():
    data = np.array([[0.0], [1.0], [1e9]])
    picture = plots.beeswarm(data, data, ["a"], title="t")
    np.testing.assert_allclose(picture.figure.axes[0].collections[0].get_array(), [0, 0.5, 1])


def test_beeswarm_refuses():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        plots.beeswarm(np.zeros((2, 3)), np.zeros((2, 2)), list("abc"), title="t")


def test_words_carry_number_sign_and_no_markup_of_their_own():
    shown = plots.tokens(["<b>", "bad", "film"], [0.5, -1.0, 0.0], title="Two & one")
    html = shown._repr_html_()
    assert re.search(r"&lt;b&gt;<rt[^>]*>\+0\.5</rt>", html)
    assert re.search(r"bad<rt[^>]*>-1</rt>", html)
    assert "dotted" in html.split("bad")[0].split("<ruby")[-1]
    assert "solid" in html.split("&lt;b&gt;")[0].split("<ruby")[-1]
    assert "border" not in html.split("film")[0].split("<ruby")[-1]
    assert "Two &amp; one" in html
    assert repr(shown) == "Two & one\n<b>(+0.5) bad(-1) film(+0)"


def test_words_have_a_key_and_tokens_beside_the_text_a_frame():
    words = [SpecialToken("[CLS]"), "bad"]
    shown = plots.tokens(words, [0.25, -1.234], title="t")
    html = shown._repr_html_()
    assert shown.beside == (True, False)
    assert "dashed" in html.split("[CLS]")[0].split("<ruby")[-1]
    assert "dashed" not in html.split(">bad<")[0].split("<ruby")[-1]
    assert "deepest color: ±1.23; gray, framed: tokens" in html
    plain = plots.tokens(["a"], [2.0], title="t")._repr_html_()
    assert "deepest color: ±2<" in plain


@pytest.mark.parametrize(
    ("words", "weights", "title"), [([], [], "t"), (["a"], [1, 2], "t"), (["a"], [1], " ")]
)
def test_tokens_refuse(words, weights, title):
    with pytest.raises(ValueError, match=r"tokens: expected|nothing to draw"):
        plots.tokens(words, weights, title=title)


def test_dots_are_colored_by_the_features_value_not_by_the_share():
    own = np.array([[3.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    shares = np.array([[0.1, 9.0], [0.2, 8.0], [0.3, -7.0]])
    picture = plots.beeswarm(shares, own, ["a", "b"], title="t")
    b, a = picture.figure.axes[0].collections[:2]  # the feature with the larger shares first
    np.testing.assert_allclose(np.asarray(a.get_offsets())[:, 0], shares[:, 0])
    assert a.get_array().tolist() == [1, 0, 0.5]
    assert b.get_array().tolist() == [1, 0, 1]  # two values: the lowest and the highest color
    assert a.get_clim() == b.get_clim() == (0, 1)
    assert a.cmap(0.0)[2] < 0.6 < a.cmap(1.0)[0]  # dark is low, bright is high


def test_one_value_alone_is_drawn_as_low():
    picture = plots.beeswarm([[1.0], [2.0]], [[5.0], [5.0]], ["a"], title="t")
    assert picture.figure.axes[0].collections[0].get_array().tolist() == [0, 0]


def test_steps_are_red_upwards_and_blue_downwards():
    red, blue = to_rgba(POSITIVE), to_rgba(NEGATIVE)
    fall = plots.waterfall([1.0, -3.0], ["up", "down"], base=0.0, title="t")
    names = [label.get_text() for label in fall.figure.axes[0].get_yticklabels()]
    colors = {
        bar.get_y() + bar.get_height() / 2: bar.get_facecolor()
        for bar in fall.figure.axes[0].patches
    }
    assert [name.split()[0] for name in names[:2]] == ["down", "up"]
    assert [colors[row] for row in sorted(colors)][:2] == [blue, red]
    came = plots.arrivals(
        [4.0, -1.0], ["b", "a"], [1.0, -2.0], [1.0, -2.0], ["a", "b"], base=0.0, orders=1, title="t"
    )
    left, right = came.figure.axes
    assert [bar.get_facecolor() for bar in left.patches] == [red, blue]
    assert [bar.get_facecolor()[:3] for bar in right.patches] == [red[:3], blue[:3]]


def test_arrows_are_red_upwards_and_have_their_own_labels():
    picture = plots.force([1.0, -3.0], ["up", "down"], base=2.0, title="t")
    ax = picture.figure.axes[0]
    assert [arrow.get_facecolor() for arrow in ax.patches] == [to_rgba(POSITIVE), to_rgba(NEGATIVE)]
    pointed = {text.get_text(): text.xy[0] for text in ax.texts if hasattr(text, "xy")}
    middles = [(tail + tip) / 2 for tail, tip in arrows_of(picture)]
    assert pointed == {"up +1": middles[0], "down -3": middles[1]}


def test_the_larger_the_weight_the_deeper_the_color():
    html = plots.tokens(["a", "b", "c"], [0.5, -2.0, 0.0], title="t")._repr_html_()
    colors = re.findall(r"rgba\(([^)]+)\)", html)
    assert colors == ["178,24,43,0.12", "33,102,172,0.50", "33,102,172,0.00"]
