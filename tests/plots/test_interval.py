"""Dots stand where the numbers are, their ends too, and the words list them."""

import numpy as np
import pytest

from xailab.plots import intervals

ONE = ([0.5, 0.2], [0.4, 0.15], [0.7, 0.5])
TWO = ([0.1, np.nan], [0.05, np.nan], [0.3, np.nan])


def test_dots_and_ends_are_drawn_where_they_are():
    (ax,) = intervals({"a": ONE}, ["x", "y"], title="t").figure.axes
    (bars,) = ax.containers
    dots, _, (lines,) = bars.lines
    assert dots.get_xdata().tolist() == [0.5, 0.2]
    ends = [segment[:, 0] for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [[0.4, 0.7], [0.15, 0.5]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    assert ax.get_legend() is None


def test_series_stand_apart_in_place_color_and_marker():
    (ax,) = intervals({"a": ONE, "b": TWO}, ["x", "y"], title="t", line=0).figure.axes
    first, second = (bars.lines[0] for bars in ax.containers)
    assert first.get_ydata()[0] < second.get_ydata()[0]
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_words_list_every_dot_and_leave_out_what_is_not_there():
    alt = intervals({"a": ONE, "b": TWO}, ["x", "y"], title="t").alt
    assert alt == "t. a: x 0.5 (0.4 to 0.7), y 0.2 (0.15 to 0.5); b: x 0.1 (0.05 to 0.3)."
    assert "a: x y 0.5 (" in intervals({"a": ONE}, ["x\ny", "z"], title="t").alt
    empty = np.full(2, np.nan)
    alt = intervals({"a": ONE, "b": [empty] * 3}, ["x", "y"], title="t").alt
    assert alt.endswith("; b: no value.")


def test_of_many_dots_the_ends_are_said():
    many = np.linspace(0, 1, 20)
    alt = intervals({"a": (many, many - 0.1, many + 0.1)}, range(20), title="t").alt
    assert alt == "t. a: 20 values, from 0 0 (-0.1 to 0.1) to 19 1 (0.9 to 1.1)."


@pytest.mark.parametrize(
    ("series", "names", "words"),
    [
        ({}, ["x"], "there is no value"),
        ({"a": ([], [], [])}, [], r"'a' needs values, low and high of \(0,\)"),
        ({"a": ONE}, ["x"], r"of \(1,\), got \[\(2,\), \(2,\), \(2,\)\]"),
        ({"a": ([0.5], [0.6], [0.7])}, ["x"], "value 0.5 outside its interval 0.6 to 0.7"),
        ({"a": ([np.nan],) * 3}, ["x"], "there is no value"),
    ],
)
def test_bad_input_is_named(series, names, words):
    with pytest.raises(ValueError, match=words):
        intervals(series, names, title="t")
