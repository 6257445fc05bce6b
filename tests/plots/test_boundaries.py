"""The composed picture: every map in its place, in its colors, and points where they lie."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from xailab import plots
from xailab.plots.boundaries import CELL, LARGE

LEFT, TOP, PITCH = 3 * (CELL + 4) + 12, 18, CELL + 4  # of three layers


def three_layers() -> list[np.ndarray]:
    """Unit 1 of layer 1 is negative on the left and positive on the right; the rest are 0."""
    layers = [np.zeros((2, 12, 12)) for _ in range(3)]
    layers[0][1, :, :6], layers[0][1, :, 6:] = -5.0, 5.0
    return layers


def halves() -> np.ndarray:
    """Class 1 above, class 0 below."""
    return np.repeat(np.array([1.0, -1.0]), 12)[:, None] * np.ones((1, 24))


def drawn(**changes: Any) -> Image.Image:
    given: dict[str, Any] = {"X": [[9.0, 9.0]], "y": [1], "extent": 2.0} | changes
    return plots.raster(halves(), three_layers(), **given)


def kind(color: tuple[int, ...]) -> str:
    red, _, blue = color[:3]
    return "red" if red > blue + 60 else "blue" if blue > red + 60 else "neither"


def test_size_and_decision() -> None:
    page = drawn()
    assert page.size == (LEFT + LARGE, TOP + LARGE)
    assert kind(page.getpixel((LEFT + 100, TOP + 50))) == "red"
    assert kind(page.getpixel((LEFT + 100, TOP + LARGE - 50))) == "blue"


def test_neurons_are_columns_by_layer() -> None:
    page = drawn()
    y = TOP + PITCH + CELL // 2  # the second unit
    assert kind(page.getpixel((5, y))) == "blue"
    assert kind(page.getpixel((CELL - 5, y))) == "red"
    assert kind(page.getpixel((PITCH + 5, y))) == "neither"  # layer 2 is 0 there


def test_a_neuron_that_is_zero_everywhere_is_crossed_out() -> None:
    page = drawn()
    middle = CELL // 2
    assert page.getpixel((middle, TOP + middle)) != (255, 255, 255)  # first unit, layer 1
    assert page.getpixel((middle, TOP + 4)) not in {(0, 0, 0)}
    column = [page.getpixel((middle, TOP + PITCH + i)) for i in range(2, CELL - 2)]
    assert len(set(column)) == 1  # the second one is not: one color down the middle


def test_a_small_signal_is_scaled_up() -> None:
    layers = three_layers()
    layers[0][1] *= 1e-9
    page = plots.raster(halves(), layers, [[9.0, 9.0]], [1], extent=2.0)
    assert page.tobytes() == drawn().tobytes()


def test_points_lie_where_they_are() -> None:
    # (1, 1) of -2..2 is three quarters to the right and a quarter down
    x, y = LEFT + LARGE * 3 // 4, TOP + LARGE // 4
    filled = drawn(X=[[1.0, 1.0]], y=[0])
    assert kind(filled.getpixel((x, y))) == "blue"
    assert kind(filled.getpixel((x, y - 8))) == "red"  # the background
    hollow = drawn(X=[[1.0, 1.0]], y=[0], held_out=[True])
    assert hollow.getpixel((x, y)) == (255, 255, 255)
    assert drawn(X=[[2.5, 0.0]], y=[0]).tobytes() == drawn().tobytes()  # outside


def test_the_decision_is_paler_than_the_points_on_it() -> None:
    x, y = LEFT + LARGE * 3 // 4, TOP + LARGE // 4
    page = drawn(X=[[1.0, 1.0]], y=[1])  # a red point where the decision is red
    point, ground = sum(page.getpixel((x, y))), sum(page.getpixel((x, y - 8)))
    assert ground > point + 200


def test_classes_differ_in_shape_too() -> None:
    x, y = LEFT + LARGE // 2, TOP + LARGE // 2
    corners = [drawn(X=[[0.0, 0.0]], y=[label]).getpixel((x - 3, y - 3)) for label in (0, 1)]
    assert corners[1] == (255, 255, 255)  # a square has a corner, a disk has none
    assert corners[0] != corners[1]


def test_boundary_is_the_same_picture_with_a_sentence() -> None:
    picture = plots.boundary(
        halves(), three_layers(), [[0.0, 0.0]], [1], extent=2.0, title="Split in the middle"
    )
    assert picture.alt == (
        "Split in the middle. 3 hidden layers with 2, 2, 2 units; class 1 gets 50 % of the plane."
    )
    assert picture.png().startswith(b"\x89PNG")
    shown = picture.figure.axes[0].images[0].get_array()
    assert (np.asarray(drawn(X=[[0.0, 0.0]])) == shown).all()


def test_no_hidden_layer_leaves_the_decision() -> None:
    page = plots.raster(halves(), [], [[0.0, 0.0]], [1], extent=1.0)
    assert page.size == (LARGE, TOP + LARGE)


def between(page: Image.Image, unit: int, layer: int, room: int = 52) -> tuple[int, ...]:
    """The color halfway between a unit and its neighbor in the next layer."""
    x = layer * (CELL + room) + CELL + room // 2
    return page.getpixel((x, TOP + unit * PITCH + CELL // 2))


def test_edges_are_colored_by_sign_on_one_scale() -> None:
    straight = [np.diag([2.0, -2.0]), np.diag([0.1, 1.0])]
    page = drawn(edges=straight)
    assert page.width == 2 * (CELL + 52) + CELL + 16 + LARGE
    assert [kind(between(page, unit, 0)) for unit in (0, 1)] == ["red", "blue"]
    assert between(page, 0, 1) == (255, 255, 255)  # 0.1 is under a seventh of 2
    assert kind(between(page, 1, 1)) == "red"


def test_a_strong_edge_is_wider_and_zeros_are_no_edges() -> None:
    def width(page: Image.Image, unit: int) -> int:
        x, y = CELL + 26, TOP + unit * PITCH + CELL // 2
        return sum(kind(page.getpixel((x, y + i))) == "red" for i in range(-4, 5))

    page = drawn(edges=[np.diag([1.0, 0.3]), np.zeros((2, 2))])
    assert width(page, 0) > width(page, 1) > 0
    none = drawn(edges=[np.zeros((2, 2))] * 2)
    assert between(none, 0, 0) == between(none, 1, 1) == (255, 255, 255)


def test_many_layers_get_little_room() -> None:
    layers, edges = [np.ones((1, 2, 2))] * 6, [np.ones((1, 1))] * 5
    page = plots.raster(halves(), layers, [[9.0, 9.0]], [1], extent=2.0, edges=edges)
    assert page.width == 5 * (CELL + 26) + CELL + 16 + LARGE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": [np.ones((2, 2))]}, r"expected edges \[\(2, 2\), \(2, 2\)\], got"),
        ({"edges": [np.ones((2, 3))] * 2}, "expected edges"),
        ({"decision": np.zeros(4)}, r"expected a decision .* got \(4,\)"),
        ({"layers": [np.zeros((3, 3))]}, r"maps \(units, s, s\)"),
        ({"extent": 0.0}, "extent must be positive"),
        ({"X": np.zeros((3, 2))}, r"expected X \(N, 2\)"),
        ({"held_out": [True, False]}, r"expected X \(N, 2\)"),
        ({"decision": np.full((2, 2), np.nan)}, "4 of 4 values are NaN"),
    ],
)
def test_bad_shapes_are_named(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "decision": halves(),
        "layers": three_layers(),
        "X": [[0.0, 0.0]],
        "y": [1],
        "extent": 1.0,
    }
    with pytest.raises(ValueError, match=words):
        plots.raster(**given | change)
