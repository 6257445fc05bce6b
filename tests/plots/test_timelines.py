"""A timeline keeps distances, and says every event in words."""

import pytest

from xailab.plots import timeline

EVENTS = [(2012, "AlexNet"), (1943, "neuron on paper"), (1986, "backprop")]


def dots(picture):
    """Heights of the dots, top to bottom."""
    (ax,) = picture.figure.axes
    return [float(dot.get_offsets()[0, 1]) for dot in ax.collections]


def test_dots_keep_the_distances_between_years():
    assert dots(timeline(EVENTS, title="t")) == pytest.approx([0, 43 / 69, 1])


def test_texts_are_evenly_spaced_in_order_of_years():
    (ax,) = timeline(EVENTS, title="t").figure.axes
    texts = [text for text in ax.texts if not text.get_text().isdigit()]
    assert [text.get_text() for text in texts] == ["neuron on paper", "backprop", "AlexNet"]
    assert [text.get_position()[1] for text in texts] == [0, 0.5, 1]


def test_events_of_one_year_keep_their_order():
    events = [(2017, "SHAP"), (2017, "Grad-CAM"), (2016, "LIME")]
    assert timeline(events, title="t").alt == "t. 2016: LIME; 2017: SHAP; 2017: Grad-CAM."


@pytest.mark.parametrize("events", [[], [(2017, "SHAP")], [(2017, "a"), (2017, "b")]])
def test_one_moment_is_no_line(events):
    with pytest.raises(ValueError, match="two different years"):
        timeline(events, title="t")


def test_each_dot_is_joined_to_its_year_and_text():
    (ax,) = timeline(EVENTS, title="t").figure.axes
    joins = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 3]
    assert [join[0] for join in joins] == pytest.approx([0, 43 / 69, 1])
    rows = [join[2] for join in joins]
    written = {row: [t.get_text() for t in ax.texts if t.get_position()[1] == row] for row in rows}
    assert list(written.values()) == [
        ["1943", "neuron on paper"],
        ["1986", "backprop"],
        ["2012", "AlexNet"],
    ]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the earliest on top
