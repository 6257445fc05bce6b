"""Networks and graphs: every number and arrow is drawn, in its place, and said."""

import numpy as np
import pytest

from xailab import plots
from xailab.plots.graphs import _arrow, _layered

WEIGHTS = [np.array([[1.0, -2.0, 0.5], [0.0, 4.0, -1.0]]), np.array([[1.0], [2.0], [-3.0]])]


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def test_a_network_shows_its_numbers():
    picture = plots.network(
        [2, 3, 1],
        node_values=[[1, 2], [0.25, "7\ngrad 1", 0], [-9]],
        edge_values=WEIGHTS,
        node_names=[["x1", "x2"], ["a", "b", "c"], ["y"]],
        layer_names=["input", "hidden", "output"],
        title="t",
    )
    shown = texts(picture)
    for expected in ["1", "0.25", "7\ngrad 1", "-9", "-2", "4", "-3", "x1", "y", "hidden"]:
        assert expected in shown
    assert "Values of layer 2: 0.25, 7 grad 1, 0." in picture.alt
    assert picture.alt.endswith("one row a start node: 1, -2, 0.5; 0, 4, -1; and 3 more.")


def test_edges_tell_sign_by_line_and_size_by_width():
    picture = plots.network([2, 3, 1], edge_values=WEIGHTS, title="t")
    lines = picture.figure.axes[0].lines
    weights = [*WEIGHTS[0].ravel(), *WEIGHTS[1].ravel()]
    assert [line.get_linestyle() for line in lines] == ["--" if w < 0 else "-" for w in weights]
    order = np.argsort(np.abs(weights), kind="stable")
    assert (np.diff([lines[i].get_linewidth() for i in order]) >= 0).all()


def test_each_edge_joins_its_own_nodes():
    picture = plots.network([1, 2], edge_values=[[[1.0, -1.0]]], title="t")
    up, down = picture.figure.axes[0].lines
    assert up.get_ydata()[1] > down.get_ydata()[1]  # node 0 stands above node 1
    assert up.get_linestyle() == "-"


def test_the_numbers_of_many_edges_stay_in_the_words():
    picture = plots.network([4, 4], edge_values=[np.full((4, 4), 0.125)], title="t")
    assert texts(picture).count("0.125") == 0
    assert picture.alt.count("0.125") == 16


def test_highlighted_nodes_have_a_thick_border():
    picture = plots.network([1, 2], highlight=[(1, 0)], title="t")
    widths = [float(c.get_linewidths()[0]) for c in picture.figure.axes[0].collections]
    assert widths == [1.3, 3.0, 1.3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [2]}, "at least two layers"),
        ({"sizes": [784, 10]}, "draw a part of a larger network"),
        ({"sizes": [2, 0]}, "1 to 12 nodes"),
        ({"sizes": [2, 3], "edge_values": [np.ones((3, 2))]}, "transpose it"),
        ({"sizes": [2, 3], "node_values": [[1, 2]]}, r"node_values: expected rows of \[2, 3\]"),
        ({"sizes": [2, 3], "layer_names": ["a"]}, "layer_names: expected 2, got 1"),
    ],
)
def test_network_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.network(**arguments, title="t")


EDGES = [("a", "*"), ("b", "*"), ("*", "+"), ("c", "+"), ("+", "L")]


def test_layers_run_from_left_to_right_and_inputs_stand_by_their_use():
    places = _layered([_arrow(edge) for edge in EDGES])
    assert {node: x for node, (x, _) in places.items()} == {
        "a": 0, "b": 0, "*": 1, "c": 1, "+": 2, "L": 3,
    }  # fmt: skip
    assert len(set(places.values())) == len(places)


def test_every_arrow_starts_and_ends_at_its_boxes():
    picture = plots.graph([("a", "b", "w"), ("b", "c")], {"a": "first\nbox"}, title="t")
    boxes = {text.get_text(): text.get_position() for text in picture.figure.axes[0].texts}
    arrows = [text for text in picture.figure.axes[0].texts if hasattr(text, "arrow_patch")]
    ends = [(arrow.get_position(), arrow.xy) for arrow in arrows]
    assert ends == [(boxes["first\nbox"], boxes["b"]), (boxes["b"], boxes["c"])]
    assert "w" in boxes
    assert picture.alt == "t. Arrows: first box to b (w); b to c."


def test_arrows_are_seen():
    """An arrow clipped by a border its box does not have yet would leave the page empty."""
    with_arrow = plots.graph([("a", "b")], title="t").png()
    picture = plots.graph([("a", "b")], title="t")
    for text in picture.figure.axes[0].texts:
        if hasattr(text, "arrow_patch"):
            text.set_visible(False)
    assert picture.png() != with_arrow


def test_no_two_boxes_overlap():
    labels = {node: f"{node}\ndata -0.123\ngrad 12.3" for node in "ab*+cL"}
    picture = plots.graph(EDGES, labels, title="t")
    picture.figure.draw_without_rendering()
    boxes = [
        text.get_bbox_patch().get_window_extent()
        for text in picture.figure.axes[0].texts
        if text.get_bbox_patch() is not None
    ]
    assert len(boxes) == 6
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(a.overlaps(b) for a, b in pairs)


def test_given_positions_groups_and_highlight():
    picture = plots.graph(
        [(1, 2), (2, 1)],
        {1: "one", 2: "two"},
        positions={1: (0, 0), 2: (1, 1)},
        groups={1: "question"},
        highlight=[2],
        title="A circle is fine where positions are given",
    )
    one, two = picture.figure.axes[0].texts[:2]
    assert one.get_position()[0] < two.get_position()[0]
    assert one.get_position()[1] > two.get_position()[1]  # rows run downwards
    assert two.get_bbox_patch().get_linewidth() > one.get_bbox_patch().get_linewidth()
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["question"]


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [
        ([], {}, "there is no edge"),
        ([("a",)], {}, r"expected \(from, to\)"),
        ([("a", "b"), ("b", "a")], {}, "run in a circle"),
        ([("a", "b")], {"positions": {"a": (0, 0)}}, r"no position for \['b'\]"),
        ([("a", "b")], {"positions": "round"}, "expected 'layered'"),
    ],
)
def test_graph_refusals(edges, options, message):
    with pytest.raises(ValueError, match=message):
        plots.graph(edges, title="t", **options)


def test_every_number_stands_at_its_own_node_and_edge():
    picture = plots.network(
        [2, 1],
        node_values=[[1.5, -2.5], ["out"]],
        edge_values=[[[3.0], [-4.0]]],
        node_names=[["a", "b"], ["c"]],
        title="t",
    )
    places = {text.get_text(): text.get_position() for text in picture.figure.axes[0].texts}
    assert places["1.5"] == (0, 0.5)
    assert places["-2.5"] == (0, -0.5)
    assert places["out"] == (2, 0)
    for name, node in (("a", "1.5"), ("b", "-2.5"), ("c", "out")):
        assert places[name][0] == places[node][0]
        assert 0 < places[node][1] - places[name][1] < 0.5
    assert places["3"][1] > 0 > places["-4"][1]  # on the edge from above, and on that from below


def test_a_text_stands_in_the_middle_of_its_own_arrow():
    picture = plots.graph([("a", "b", "first"), ("b", "c", "second")], title="t")
    places = {
        text.get_text(): np.array(text.get_position()) for text in picture.figure.axes[0].texts
    }
    np.testing.assert_allclose(places["first"], (places["a"] + places["b"]) / 2)
    np.testing.assert_allclose(places["second"], (places["b"] + places["c"]) / 2)
