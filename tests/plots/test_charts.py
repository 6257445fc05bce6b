"""Bars, curves, scoreboard and tables: the numbers stand where they should, and in words."""

import numpy as np
import pandas as pd
import pytest

from xailab import plots
from xailab.plots.charts import _apart
from xailab.plots.pictures import NEGATIVE, POSITIVE


def texts(picture):
    ax = picture.figure.axes[0]
    return [text.get_text() for text in ax.texts]


def test_bars_are_colored_by_sign_and_carry_their_numbers():
    picture = plots.bars([0.5, -2, 0], ["a", "b", "c"], title="b is against")
    ax = picture.figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.5, -2, 0]
    ends = [NEGATIVE if bar.get_width() < 0 else POSITIVE for bar in ax.patches]
    assert ends == [POSITIVE, NEGATIVE, POSITIVE]
    assert texts(picture) == ["0.5", "-2", "0"]
    assert ax.yaxis_inverted()  # the first name on top
    assert picture.alt.startswith("b is against. 3 bars: the largest is a (0.5)")


def test_sorted_bars_keep_their_names_and_errors():
    picture = plots.bars([1, -3, 2], "abc", title="t", sort=True, errors=[0.1, 0.3, 0.2])
    ax = picture.figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    (spans,) = [c.get_segments() for c in ax.collections]
    assert [np.ptp(span[:, 0]) / 2 for span in spans] == pytest.approx([0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("values", "names", "errors"),
    [([1, 2], ["a"], None), ([1], ["a", "b"], None), ([1], ["a"], [1, 2]), ([[1]], ["a"], None)],
)
def test_bars_refuse_counts_that_differ(values, names, errors):
    with pytest.raises(ValueError, match="as many names and errors as values"):
        plots.bars(values, names, title="t", errors=errors)


def test_bars_refuse_nothing_and_nan():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.bars([], [], title="t")
    with pytest.raises(ValueError, match="NaN"):
        plots.bars([np.nan], ["a"], title="t")


def test_curves_differ_without_color_and_are_named_at_their_ends():
    series = {f"s{i}": np.arange(5) * i for i in range(7)}
    picture = plots.curve(range(5), series, title="t", xlabel="x", ylabel="y")
    lines = [line for line in picture.figure.axes[0].lines if len(line.get_xdata()) == 5]
    assert [list(line.get_ydata()) for line in lines] == [list(y) for y in series.values()]
    assert len({line.get_marker() for line in lines}) == 7
    assert len({line.get_color() for line in lines}) == 7
    assert texts(picture) == list(series)


def test_names_follow_the_order_of_the_ends():
    y = {"low": [1, 0], "high": [0, 1], "also low": [1, 0.001]}
    picture = plots.curve([0, 1], y, title="t", xlabel="x", ylabel="y")
    heights = {text.get_text(): text.get_position()[1] for text in picture.figure.axes[0].texts}
    assert heights["high"] > heights["also low"] > heights["low"]
    assert heights["also low"] - heights["low"] > 0.06


def test_names_are_pushed_apart_as_little_as_needed():
    assert _apart(np.array([0.2, 0.8]), 0.1).tolist() == [0.2, 0.8]
    crowd = _apart(np.zeros(5), 0.1)
    assert np.diff(crowd) == pytest.approx([0.1] * 4, abs=0.02)
    assert crowd.min() == 0


def test_log_curves():
    picture = plots.curve([0, 1], {"a": [1, 100]}, title="t", xlabel="x", ylabel="y", log=True)
    assert picture.figure.axes[0].get_yscale() == "log"
    with pytest.raises(ValueError, match="log=True needs values > 0"):
        plots.curve([0, 1], {"a": [1, 0]}, title="t", xlabel="x", ylabel="y", log=True)


@pytest.mark.parametrize(("step", "whole"), [(1, True), (0.5, False)])
def test_counts_have_no_ticks_between_them(step, whole):
    x = np.arange(4) * step
    picture = plots.curve(x, {"a": x}, title="t", xlabel="x", ylabel="y")
    ticks = picture.figure.axes[0].get_xticks()
    assert (ticks == ticks.round()).all() == whole


def test_curve_refusals():
    with pytest.raises(ValueError, match="series is empty"):
        plots.curve([0], {}, title="t", xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match=r"'a' has the shape \(3,\), x has \(2,\)"):
        plots.curve([0, 1], {"a": [1, 2, 3]}, title="t", xlabel="x", ylabel="y")


TABLE = pd.DataFrame({"A": [0.2, 1.0], "B": [0.4, np.nan]}, index=["random", "Grad-CAM"])


def test_the_scoreboard_puts_the_best_mean_on_top_with_its_time():
    picture = plots.scoreboard(TABLE, title="t", seconds=[0.5, 2], chance=0.25)
    ax = picture.figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Grad-CAM", "random"]
    assert texts(picture) == ["2 s", "500 ms", "time"]
    dots = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets())])
    assert [1.0, 0.0] in dots.tolist()
    assert [0.2, 1.0] in dots.tolist()
    assert "the best mean score is 1 (Grad-CAM), the lowest 0.3 (random)" in picture.alt


def test_times_are_matched_by_name():
    picture = plots.scoreboard(TABLE, title="t", seconds={"Grad-CAM": 2, "random": 0.5})
    assert texts(picture)[:2] == ["2 s", "500 ms"]
    with pytest.raises(ValueError, match=r"no time for \['Grad-CAM'\]"):
        plots.scoreboard(TABLE, title="t", seconds={"random": 0.5})


def test_chance_may_differ_between_data_sets():
    picture = plots.scoreboard(TABLE, title="t", chance={"A": 0.25, "B": 0.06})
    lines = [line.get_xdata()[0] for line in picture.figure.axes[0].lines]
    assert lines == [0.25, 0.06]


def test_the_scoreboard_refuses_a_method_without_scores():
    with pytest.raises(ValueError, match="at least one score for every method"):
        plots.scoreboard(TABLE * np.nan, title="t")
    with pytest.raises(ValueError, match="at least one score"):
        plots.scoreboard(TABLE.iloc[:0], title="t")


def test_a_table_has_a_caption_and_headers_a_reader_can_follow():
    html = plots.table(TABLE, title="Scores < 1")._repr_html_()
    assert "<strong>Scores &lt; 1</strong></caption>" in html
    assert html.count('<th scope="col">') == 3
    assert html.count('<th scope="row"') == 2
    assert "<td>0.2</td><td>0.4</td>" in html


def test_table_refusals():
    with pytest.raises(ValueError, match="a title and at least one row"):
        plots.table([], ["a"], title="t")
    with pytest.raises(ValueError, match="expected 2 cells"):
        plots.table([(1,)], ["a", "b"], title="t")


def test_the_name_at_a_curves_end_has_the_curves_color_and_marker():
    picture = plots.curve([0, 1], {"low": [1, 0], "high": [0, 1]}, title="t", xlabel="", ylabel="")
    ax = picture.figure.axes[0]
    curves, ends = ax.lines[:2], ax.lines[2:]
    assert [curve.get_ydata().tolist() for curve in curves] == [[1, 0], [0, 1]]
    for curve, end, text in zip(curves, ends, ax.texts, strict=True):
        looks = (curve.get_color(), curve.get_marker())
        assert looks == (end.get_color(), end.get_marker())
        assert text.get_color() == curve.get_color()
        assert end.get_ydata()[0] == text.get_position()[1]
    assert [text.get_text() for text in ax.texts] == ["low", "high"]


def test_every_data_set_has_its_own_dots_and_every_time_its_row():
    table = pd.DataFrame({"A": [0.2, 1.0], "B": [0.4, 0.6]}, index=["random", "Grad-CAM"])
    picture = plots.scoreboard(table, title="t", seconds={"random": 0.5, "Grad-CAM": 2})
    ax = picture.figure.axes[0]
    dots = {
        c.get_label(): c.get_offsets().tolist() for c in ax.collections if c.get_label()[0] != "_"
    }
    assert dots == {"A": [[1.0, 0], [0.2, 1]], "B": [[0.6, 0], [0.4, 1]]}
    spans = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == [[0.6, 1.0], [0.2, 0.4]]
    assert {text.get_text(): text.xy[1] for text in ax.texts[:2]} == {"2 s": 0, "500 ms": 1}
