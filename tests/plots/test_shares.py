"""Steps that meet, dots that lie where they belong, words whose sign needs no color."""

import numpy as np
import pytest

from xailab import plots


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
    assert "&lt;b&gt;<rt>+0.5</rt>" in html
    assert "bad<rt>-1</rt>" in html
    assert "dotted" in html.split("bad")[0].split("<ruby")[-1]
    assert "solid" in html.split("&lt;b&gt;")[0].split("<ruby")[-1]
    assert "border" not in html.split("film")[0].split("<ruby")[-1]
    assert "Two &amp; one" in html
    assert repr(shown) == "Two & one\n<b>(+0.5) bad(-1) film(+0)"


@pytest.mark.parametrize(
    ("words", "weights", "title"), [([], [], "t"), (["a"], [1, 2], "t"), (["a"], [1], " ")]
)
def test_tokens_refuse(words, weights, title):
    with pytest.raises(ValueError, match=r"tokens: expected|nothing to draw"):
        plots.tokens(words, weights, title=title)
