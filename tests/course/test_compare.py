import numpy as np
import pytest
import torch

from xailab.course.compare import (
    Mistake,
    as_text,
    expect_choice,
    expect_close,
    expect_detached,
    expect_finite,
    expect_number,
    expect_shape,
    expect_share,
    expect_text,
    is_plural,
)

SIGNED = np.array([[1.0, -2.0], [3.0, 4.0]])


@pytest.mark.parametrize("got", [SIGNED, SIGNED.tolist(), torch.tensor(SIGNED, requires_grad=True)])
def test_the_right_numbers_pass_in_any_form(got):
    expect_close(got, SIGNED, "the result")


@pytest.mark.parametrize(
    ("got", "match"),
    [
        (None, "is None: does your code return"),
        (..., "is Ellipsis"),
        ("text", "should be numbers, but a str came: text"),
        (SIGNED[None], r"shape \(2, 2\), but has \(1, 2, 2\): an axis of length 1 is left over"),
        (SIGNED.sum(axis=0), r"but has \(2,\): an axis was summed or averaged away"),
        (np.full((2, 2), np.nan), "nan or inf"),
        (-SIGNED, "wrong sign"),
        (np.abs(SIGNED), "lost its signs"),
        (np.maximum(SIGNED, 0), "a ReLU too many"),
        (SIGNED * 2, "is 2 times what is expected"),
        (SIGNED / 4, "is 0.25 times what is expected"),
        (SIGNED.T * 1.0, "is not what is expected"),
        (SIGNED + 1e-3, "is not what is expected"),
    ],
)
def test_a_mistake_is_named(got, match):
    with pytest.raises(Mistake, match=match):
        expect_close(got, SIGNED, "the result")


def test_a_missing_relu_is_named():
    with pytest.raises(Mistake, match="is a ReLU missing"):
        expect_close(SIGNED, np.maximum(SIGNED, 0), "the map")


def test_what_was_expected_and_what_came_are_shown():
    with pytest.raises(Mistake, match=r"expected: \[1, 2\]\ncame:     \[1, 5\]"):
        expect_close([1, 5], [1, 2], "the result")


def test_a_mistake_known_for_the_exercise_comes_before_the_general_ones():
    known = {"you averaged over the classes (axis 1)": SIGNED.mean(axis=1)}
    with pytest.raises(Mistake, match=r"the mean: you averaged over the classes"):
        expect_close(SIGNED.mean(axis=1), SIGNED.mean(axis=0), "the mean", known=known)


def test_the_place_of_the_largest_difference_in_a_large_array_is_shown():
    want = np.zeros((10, 10))
    got = want.copy()
    got[3, 4], got[5, 6] = 1.0, 7.0
    with pytest.raises(Mistake, match=r"largest difference at \[5, 6\]: 0 expected, 7 came"):
        expect_close(got, want, "the map")


def test_swapped_axes_are_named():
    with pytest.raises(Mistake, match="two axes are swapped"):
        expect_shape(np.zeros((2, 3)), (3, 2), "the weights")


def test_a_missing_axis_of_one_is_named():
    with pytest.raises(Mistake, match="an axis of length 1 is missing"):
        expect_shape(np.zeros((2, 3)), (1, 2, 3), "the batch")


def test_finite_says_why():
    expect_finite([1.0], "the loss")
    with pytest.raises(Mistake, match=r"the loss holds nan or inf: \[inf\]. Subtract the maximum."):
        expect_finite([np.inf], "the loss", "Subtract the maximum.")


def test_a_tensor_in_the_graph_is_told():
    x = torch.ones(2, requires_grad=True)
    expect_detached(x.detach(), "the map")
    with pytest.raises(Mistake, match=r"the map still carries its graph: .*detach"):
        expect_detached(x * 2, "the map")


def test_guesses_have_a_form():
    expect_number(1, 0, 1)
    expect_choice("cat", ["cat", "dog"])
    for bad in (1.01, -0.1, np.nan, [0.5], "half"):
        with pytest.raises(Mistake, match="number"):
            expect_number(bad, 0, 1)
    with pytest.raises(Mistake, match="one of 'cat', 'dog', not 'cow'"):
        expect_choice("cow", ["cat", "dog"])


def test_free_text_is_a_text():
    expect_text("it is flat")
    with pytest.raises(Mistake, match="text in quotes; a float came"):
        expect_text(0.3)


def test_values_are_shown_short():
    assert as_text(np.arange(100.0)) == "[0, 1, ..., 98, 99] (shape (100,))"
    assert as_text("x" * 300) == "x" * 200 + "..."
    assert as_text({"a": 1}) == "{'a': 1}"
    assert as_text(True) == "True"
    assert as_text(None) == "None"


def test_a_share_may_be_neither_percent_nor_text():
    expect_share(0.5)
    for bad, words in ((50, "write 50% as 0.5"), ("0.5", "without quotes: 0.5"), (-0.1, "0 to 1")):
        with pytest.raises(Mistake, match=words):
            expect_share(bad)


@pytest.mark.parametrize(
    ("what", "plural"),
    [
        ("the coefficients", True), ("the shares of a game of three", True), ("the rows", True),
        ("3 of 8 weights pruned", True), ("pictures (3, 2, 2, 2) in the ball of 2", True),
        ("conv2: the logits of two pictures", True), ("frames of 0, 1, ..., 10 with size 4", True),
        ("the loss", False), ("the bias", False), ("the axis", False), ("alpha", False),
        ("the map of class 1", False),
        ("the slope at z = -1000 and 1000", False), ("sigmoid's backward", False),
        ("the relevance of the inputs", False), ("1.5 with each of the bits flipped", False),
        ("what you return", False), ("softmax of [[0, ln 3]]", False), ("the radius", False),
        ("tensor 3 of the clipped gradient", False), ("the mean slope over 9 copies", False),
        ("output_size(28, 5), stride 1 and no padding by default", False),
    ],
)  # fmt: skip
def test_a_message_agrees_in_number(what, plural):
    assert is_plural(what) == plural
    with pytest.raises(Mistake) as caught:
        expect_close([1.0], [5.0], what)
    verb = "are" if plural else "is"
    assert str(caught.value).startswith(f"{what} {verb} not what is expected.")


@pytest.mark.parametrize(
    ("compare", "one", "many"),
    [
        (
            lambda what: expect_close([-2.0, 1], [2.0, -1], what),
            "has the wrong sign",
            "have the wr",
        ),
        (
            lambda what: expect_close([2.0, 1], [2.0, -1], what),
            "has lost its s",
            "have lost their s",
        ),
        (lambda what: expect_close([4.0, 2], [2.0, 1], what), "is 2 times", "are 2 times"),
        (lambda what: expect_close(None, [2.0, 1], what), "is None", "are None"),
        (lambda what: expect_shape([1.0], (2,), what), "but has (1,)", "but have (1,)"),
        (lambda what: expect_finite([np.nan], what), "holds nan", "hold nan"),
        (
            lambda what: expect_detached(torch.ones(1, requires_grad=True), what),
            "still carries its graph: return it",
            "still carry their graph: return them",
        ),
    ],
)
def test_each_sentence_has_both_numbers(compare, one, many):
    for what, words in (("the map", one), ("the maps", many)):
        with pytest.raises(Mistake) as caught:
            compare(what)
        assert f"{what} {words}" in str(caught.value).replace("should have shape (2,), ", "")


def test_arrays_of_many_axes_have_no_blank_lines():
    assert "\n\n" not in as_text(np.ones((2, 2, 2, 2)))


def test_a_choice_may_be_written_in_capitals():
    expect_choice("Lower ", ["lower", "higher"])
