import numpy as np
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
