import numpy as np
import pytest

from xailab import plots
from xailab.plots.pictures import BYTES

EVEN = (0, [0.0, 1.0, 2.0], [1, 1])


def test_the_words_tell_where_the_middle_lies_first_and_last():
    """20 even values from 0 to 2: a twentieth lies below 0.1, and one above 1.9."""
    picture = plots.ridge([EVEN, (5, [0.0, 10.0], [7])], title="It spreads", xlabel="x", step="day")
    assert picture.alt == (
        "It spreads. 2 histograms. In day 0, 90 % of the values lie from 0.1 to 1.9; in day 5, "
        "from 0.5 to 9.5."
    )
    assert plots.ridge([EVEN], title="T", xlabel="x").alt.endswith("from 0.1 to 1.9.")


def test_a_wide_bucket_is_drawn_as_low_as_its_density():
    """4 values in a bucket 4 wide are as dense as 1 in a bucket 1 wide."""
    picture = plots.ridge([(0, [0, 1, 5, 6], [1, 4, 2])], title="T", xlabel="x")
    tops = picture.figure.axes[0].patches[0].get_data().values
    np.testing.assert_allclose(tops, [0.8, 0.8, 1.6])


def test_the_first_stands_at_the_back_and_is_labeled():
    ax = plots.ridge([EVEN, EVEN, EVEN], title="T", xlabel="x").figure.axes[0]
    assert [patch.get_data().baseline for patch in ax.patches] == [2, 2, 1, 1, 0, 0]
    order = [patch.get_zorder() for patch in ax.patches]
    assert order == sorted(order)


def test_thirty_histograms_make_a_small_file():
    rng = np.random.default_rng(0)
    rows = [(i, np.linspace(-3, 3, 65), rng.integers(1, 99, 64)) for i in range(30)]
    assert len(plots.ridge(rows, title="T", xlabel="x").png()) < BYTES


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "nothing to draw"),
        ([(0, [0, 1], [1, 2])], r"K \+ 1 rising edges"),
        ([(0, [0, 0, 1], [1, 2])], "rising"),
        ([(0, [0, 1, 2], [0, 0])], "not all 0"),
        ([(0, [0, 1, 2], [-1, 2])], "at least 0"),
    ],
)
def test_what_is_no_histogram_is_refused(rows, match):
    with pytest.raises(ValueError, match=match):
        plots.ridge(rows, title="T", xlabel="x")


def test_every_row_shows_its_own_counts_at_its_own_label():
    rows = [(1, [0, 1, 2], [4, 1]), (7, [2, 3, 4], [1, 2])]
    (ax,) = plots.ridge(rows, title="t", xlabel="x").figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    filled = [one.get_data() for one in ax.patches[::2]]
    for (step, edges, counts), data in zip(rows, filled, strict=True):
        base = labels.index(str(step))
        np.testing.assert_allclose(data.edges, edges)
        np.testing.assert_allclose((data.values - base) / 1.6, np.array(counts) / max(counts))
        np.testing.assert_allclose(data.baseline, base)
