"""Sentences with the right numbers in them, worked out by hand."""

import numpy as np
import pytest
import torch

from xailab.plots import describe, describe_bars, describe_curves


def test_a_map_worked_by_hand():
    # Positive mass 2 + 6 + 2 = 10; the 6 alone is more than half: 1 cell of 12.
    # Negative mass 2 of 12 in all: 17 %.
    words = describe([[0, 0, 0, 6], [2, 0, 0, 0], [0, 2, 0, -2]], name="evidence")
    assert words == (
        "The value of evidence runs from -2 to 6: peak at row 1, column 4 of 3 x 4 (upper "
        "right); half of the positive mass in 8 % of the picture, mainly upper right (60 % of "
        "it); 17 % of the mass is negative, mainly lower right."
    )


def test_exactly_half_needs_no_further_cell():
    assert "half of the positive mass in 25 % of" in describe([[5, 5], [0, 0]])
    assert "half of the positive mass in 50 % of" in describe([[4, 4], [3, 0]])


def test_the_strongest_value_may_be_negative():
    words = describe([[1, 0], [0, -3]])
    assert "strongest value, negative, at row 2, column 2" in words
    assert "75 % of the mass is negative, mainly lower right" in words


def test_one_sign_only():
    assert "nothing is negative" in describe([[1, 2], [0, 0]])
    words = describe([[-1, -8], [0, 0]])
    assert "no value is positive" in words
    assert "half of the negative mass in 25 % of the picture, mainly upper right (89 %" in words


def test_a_constant_map_points_nowhere():
    assert (
        describe(np.zeros((7, 7))) == "Every value of attribution is 0 (7 x 7): it points nowhere."
    )
    assert describe(np.full((2, 3), 0.5), name="cam").startswith(
        "Every value of cam is 0.5 (2 x 3)"
    )


def test_over_gives_the_peak_in_pixels_of_the_photo():
    # Center of cell (1, 2) of 2 x 2 on a photo of 100 x 200: row 25, column 150.
    words = describe([[0, 1], [0, 0]], over=np.zeros((100, 200, 3), np.uint8))
    assert "(upper right, pixel 25, 150 of the photo)" in words


def test_the_share_inside_a_mask():
    mask = [[1, 0], [0, 0]]
    words = describe([[3, 1], [0, -5]], mask=mask)
    assert "75 % of the positive mass lies inside the marked region, which covers 25 %" in words


@pytest.mark.parametrize("factor", [2, 14])
def test_a_mask_may_be_finer_than_the_map(factor):
    mask = np.kron([[1, 0], [0, 0]], np.ones((factor, factor)))
    assert "75 % of the positive mass lies inside" in describe([[3, 1], [0, 0]], mask=mask)


def test_a_mask_may_be_coarser_than_the_map():
    values = np.kron([[3.0, 1.0], [0.0, 0.0]], np.ones((5, 5)))
    assert "75 % of the positive mass lies inside" in describe(values, mask=[[1, 0], [0, 0]])


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="no cell of the true region"):
        describe([[1, 2]], mask=[[0, 0]])


def test_tensors_and_channels():
    x = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]]], requires_grad=True)  # (1, 2, 1, 2)
    assert describe(x).startswith(
        "The value of attribution runs from 0 to 3: peak at row 1, column 1 of 1 x 2"
    )
    assert "from 0 to 3" in describe(x.bfloat16())


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([[1, float("nan")]], ValueError, "1 of 2 values are NaN or infinite"),
        ([[1, float("inf")]], ValueError, "NaN or infinite"),
        (np.zeros((2, 3, 4, 4)), ValueError, "a batch of 2 with shape"),
        (np.zeros((8, 9, 3)), ValueError, r"channels first.*\(8, 9, 3\)"),
        (np.zeros(3), ValueError, r"expected \(H, W\).*got \(3,\)"),
        (np.zeros((0, 3)), ValueError, "nothing to draw"),
        ([["a"]], TypeError, "expected numbers"),
        ([[1, 2], [3]], TypeError, "expected numbers"),
    ],
)
def test_what_cannot_be_described(values, error, message):
    with pytest.raises(error, match=message):
        describe(values)


def test_bars():
    assert describe_bars([1], ["a"]) == "One bar: a (1)."
    words = describe_bars([1, -3, -2], ["a", "b", "c"])
    assert words == "3 bars: the largest is a (1), the smallest b (-3); 2 of 3 are negative."


def test_curves_name_their_inner_extremes():
    words = describe_curves([0, 5, 10], {"p": [1, 4, 2], "q": [0, 1, 2]}, "alpha")
    assert words == (
        "Along alpha from 0 to 10: p goes from 1 to 2, highest 4 at 5; q goes from 0 to 2."
    )
