import numpy as np
import pytest

from xailab.data import load, marked_digits

DIGITS = marked_digits(seed=0)


def test_shapes_and_types():
    assert DIGITS.images.shape == DIGITS.truth.shape == (5000, 28, 28)
    assert DIGITS.images.dtype == np.float32
    assert (DIGITS.images.min(), DIGITS.images.max()) == (0, 1)
    assert (DIGITS.y.dtype, DIGITS.truth.dtype, DIGITS.marked.dtype) == (np.int64, bool, bool)


def test_same_seed_same_pixels_other_seed_other_marks():
    again, other = marked_digits(seed=0), marked_digits(seed=1)
    assert (again.images == DIGITS.images).all()
    assert (other.marked != DIGITS.marked).any()
    assert (other.split == DIGITS.split).all()  # held-out digits stay held out


def test_in_training_the_mark_goes_with_the_shortcut_alone():
    train = DIGITS.train
    assert len(train) == 4000
    assert set(train.y[train.marked]) == {8}
    assert train.marked[train.y == 8].mean() > 0.99


def test_in_the_test_part_the_mark_says_nothing():
    test = DIGITS.test
    assert len(test) == 1000
    assert np.bincount(test.y[test.marked]).tolist() == [50] * 10


def test_truth_is_a_white_square_in_the_corner_that_was_black_before():
    before = load("mnist5k").images[DIGITS.rows] / np.float32(255)
    assert (DIGITS.images[DIGITS.truth] == 1).all()
    assert (before[DIGITS.truth] == 0).all()
    assert (DIGITS.images[~DIGITS.truth] == before[~DIGITS.truth]).all()
    assert (DIGITS.truth.sum((1, 2)) == 16 * DIGITS.marked).all()
    assert not DIGITS.truth[:, 6:].any()
    assert not DIGITS.truth[:, :, 6:].any()


def test_the_mark_is_one_square_at_one_of_four_places():
    places = {tuple(np.argwhere(mask)[0]) for mask in DIGITS.truth[DIGITS.marked]}
    assert places == {(1, 1), (1, 2), (2, 1), (2, 2)}
    rows, columns = np.nonzero(DIGITS.truth[DIGITS.marked][0])
    assert np.ptp(rows) == np.ptp(columns) == 3


def test_share_and_shortcut():
    few = marked_digits(shortcut=3, share=0.25).train
    assert few.marked.sum() == 100
    assert set(few.y[few.marked]) == {3}
    assert not marked_digits(share=0).train.marked.any()


@pytest.mark.parametrize(("option", "value"), [("shortcut", 10), ("share", 1.5), ("share", -0.1)])
def test_bad_options(option, value):
    with pytest.raises(ValueError, match=rf"{option} is .*got {value}"):
        marked_digits(**{option: value})
