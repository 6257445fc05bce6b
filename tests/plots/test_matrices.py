import numpy as np
import pandas as pd
import pytest

from xailab import plots
from xailab.plots.pictures import BYTES


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def test_the_words_name_the_mistakes_and_the_class_found_least():
    picture = plots.confusion([[8, 2, 0], [0, 5, 0], [1, 0, 4]], "abc", title="a is taken for b")
    assert picture.alt == (
        "a is taken for b. 17 of 20 are right. Most frequent: a taken for b (2), c taken for a "
        "(1). Least found: a, 8 of 10."
    )


def test_without_mistakes_it_says_so_and_a_class_that_is_absent_is_not_blamed():
    picture = plots.confusion(np.diag([3, 0]), ["cat", "dog"], title="All right")
    assert picture.alt == "All right. 3 of 3 are right, none is mistaken."
    picture = plots.confusion([[1, 1], [0, 0]], ["cat", "dog"], title="T")
    assert picture.alt.endswith("Least found: cat, 1 of 2.")


def test_color_is_for_mistakes_alone_and_zeros_are_not_written():
    picture = plots.confusion([[90, 2], [1, 80]], "ab", title="T")
    assert picture.figure.axes[0].images[0].get_array().tolist() == [[0, 2], [1, 0]]
    assert sorted(texts(picture)) == ["1", "2", "80", "90"]
    assert "0" not in texts(plots.confusion([[1, 0], [0, 1]], "ab", title="T"))


def test_ten_classes_make_a_small_file():
    counts = np.arange(100).reshape(10, 10)
    assert len(plots.confusion(counts, range(10), title="T").png()) < BYTES


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        (np.ones((2, 3)), r"\(2, 2\) for 2 classes, got \(2, 3\)"),
        (np.zeros((2, 2)), "not all 0"),
        ([[1, -1], [0, 1]], "at least 0"),
        ([[1, np.nan], [0, 1]], "NaN|nan|finite"),
    ],
)
def test_what_is_no_matrix_of_counts_is_refused(counts, match):
    with pytest.raises(ValueError, match=match):
        plots.confusion(counts, "ab", title="T")


def test_thousands_are_written_whole_and_shares_short():
    picture = plots.confusion([[1234, 0], [0.12345, 1]], "ab", title="T")
    assert texts(picture) == ["1234", "0.123", "1"]


def test_cells_hold_their_numbers_and_the_words_name_the_highest():
    table = pd.DataFrame({"conv1": [0.0, 0.25], "fc": [0.5, 0.001]}, index=["sign", "exponent 7"])
    picture = plots.cells(table, title="Two bits hurt", label="lost accuracy")
    assert texts(picture) == ["0.50", "0.25"]  # what rounds to zero is not written
    assert picture.figure.axes[0].images[0].get_array().tolist() == [[0, 0.5], [0.25, 0.001]]
    assert picture.alt == (
        "Two bits hurt. 2 rows, 2 columns; lost accuracy runs from 0.00 to 0.50. Highest row of "
        "each column: conv1: exponent 7 (0.25); fc: sign (0.50)."
    )


def test_cells_with_both_signs_are_centered_at_zero():
    picture = plots.cells(pd.DataFrame([[-3.0, 1.0]]), title="T", label="change", decimals=0)
    image = picture.figure.axes[0].images[0]
    assert image.get_clim() == (-3, 3)
    assert image.get_cmap().name == "RdBu_r"
    assert texts(picture) == ["-3", "1"]


def test_cells_take_what_rounds_to_zero_for_no_sign():
    picture = plots.cells(pd.DataFrame([[0.5, -0.004]]), title="T", label="loss")
    assert picture.figure.axes[0].images[0].get_clim() == (0, 0.5)
    assert "from 0.00 to 0.50" in picture.alt


@pytest.mark.parametrize("one", [0.9, 0.1])
def test_cells_are_read_on_their_color(one):
    picture = plots.cells(pd.DataFrame([[1.0, one]]), title="T", label="share")
    assert (picture.figure.axes[0].texts[1].get_color() == "white") == (one < 0.6)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (pd.DataFrame([[np.nan]]), "NaN|nan|finite"),
        (pd.DataFrame([]), "nothing to draw"),
        (pd.Series([1.0]), r"expected a table \(rows, columns\), got \(1,\)"),
    ],
)
def test_cells_refuse_what_is_no_table(table, match):
    with pytest.raises(ValueError, match=match):
        plots.cells(table, title="T", label="share")


def written(picture):
    """Return (row, column) -> number of every text in a table's cells."""
    texts_ = picture.figure.axes[0].texts
    return {text.get_position()[::-1]: text.get_text() for text in texts_}


def test_counts_stand_in_the_row_of_the_truth_and_the_column_of_the_answer():
    ax = (picture := plots.confusion([[8, 2], [1, 5]], ["cat", "dog"], title="T")).figure.axes[0]
    assert written(picture) == {(0, 0): "8", (0, 1): "2", (1, 0): "1", (1, 1): "5"}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "truth")
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 on top
    color = ax.images[0].cmap(ax.images[0].norm(np.array([0.0, 1.0, 2.0])))[:, 2]
    assert color[0] > color[1] > color[2]  # the more mistakes, the less blue in the orange


def test_cells_stand_under_their_names():
    table = pd.DataFrame({"p": [1.0, 2.0], "q": [3.0, 4.0]}, index=["one", "two"])
    picture = plots.cells(table, title="T", label="x", decimals=0)
    assert written(picture) == {(0, 0): "1", (0, 1): "3", (1, 0): "2", (1, 1): "4"}
    ax = picture.figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["p", "q"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
