"""The stepper's numbers are those of the worked example, and of the package."""

import re

import numpy as np
import pytest

from xailab.foundations.backprop import MLP, softmax_cross_entropy
from xailab.widgets.backprop import (
    backprop_stepper,
    backprop_steps,
    descent_picture,
    explorer,
    step_picture,
)

X = [1.0, 2.0]


@pytest.fixture
def net():
    """The 2-3-2 network of lesson `backprop`."""
    net = MLP([2, 3, 2])
    by_hand = [[[1, -1], [0.5, 0.5], [2, -0.5]], [0, 0.5, 0], [[2, 1, -1], [1, -1, 1]], [0, 2]]
    for parameter, value in zip(net.parameters(), by_hand, strict=True):
        parameter[...] = value
    return net


def lines_of(steps):
    return [line for step in steps for line in step.lines]


def test_the_paper_network_line_by_line(net):
    lines = lines_of(backprop_steps(net, X, 0))
    assert "z1[0] = 1*1 + (-1)*2 + 0 = -1" in lines
    assert "a1[0] = relu(-1) = 0" in lines
    assert "loss = -log p[0] = 0.693" in lines
    assert "delta2[0] = 0.5 - 1 = -0.5" in lines
    assert "signal[1] = 1*(-0.5) + (-1)*0.5 = -1" in lines
    assert "delta1[0] = (-0.5) * 0 = 0" in lines
    assert "dW1[1] = (-1) * [1, 2] = [-1, -2]" in lines
    assert "dx[0] = 1*0 + 0.5*(-1) + 2*1 = 1.5" in lines


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_deeper_networks_agree_with_the_package(activation):
    net = MLP([3, 4, 2, 3], activation, seed=2)
    x = np.array([0.5, -1.0, 2.0])
    steps = backprop_steps(net, x, 2)
    _, delta = softmax_cross_entropy(net.forward([x]), [2])
    dx = net.backward(delta)[0]
    shown = [float(line.rsplit("=", 1)[1]) for line in steps[-1].lines]
    assert shown == pytest.approx(dx, rel=5e-3)  # three digits on the screen
    edges = {step.formula[:3]: step.edges for step in steps if step.formula.startswith("dW")}
    for layer, dense in enumerate(net.dense):
        np.testing.assert_allclose(edges[f"dW{layer + 1}"][layer], dense.weight_grad.T)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_the_formula_of_the_hidden_delta_runs(activation):
    """What the screen says is code: run it and get the numbers on the screen."""
    net = MLP([2, 3, 2], activation, seed=3)
    (step,) = [s for s in backprop_steps(net, X, 1) if "slope" in s.name]
    z1 = net.layers[0].forward([X])[0]
    a1 = net.layers[1].forward(z1)
    _, delta = softmax_cross_entropy(net.forward([X]), [1])
    scope = {"W2": net.dense[1].weight, "delta2": delta[0], "z1": z1, "a1": a1}
    exec(step.formula, scope)
    shown = [float(line.rsplit("=", 1)[1]) for line in step.lines]
    assert shown == pytest.approx(scope["delta1"], rel=5e-3, abs=1e-9)


def test_the_network_is_left_alone(net):
    backprop_steps(net, X, 0)
    with pytest.raises(RuntimeError, match="call backward before gradients"):
        net.gradients()


def test_the_slider_changes_words_and_image(net):
    box = explorer(net, X, 0)
    slider, words, image = box.children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    assert "Step 1 of 11" in words.value
    slider.value = 9
    assert "Step 9 of 11" in words.value
    assert "delta1 = (W2.T @ delta2) * (z1 &gt; 0)" in words.value
    assert bytes(image.value) != first
    slider.value = 1
    assert bytes(image.value) == first


def test_the_picture_says_what_it_shows(net):
    picture = step_picture(net, X, 0)
    assert picture.alt.startswith("Step 11 of 11. The gradient reaches the input: dx = W1.T")
    assert "layer 1: 0 δ 0, 2 δ -1, 1 δ 1" in picture.alt
    assert len(picture.png()) < 60_000
    assert "layer 2: empty, empty." in step_picture(net, X, 0, step=1).alt


def test_outside_a_notebook_the_sentence_is_printed(net, capsys):
    backprop_stepper(net, X, 0)
    assert re.match(r"In words: Step 11 of 11\.", capsys.readouterr().out)
    backprop_stepper(net, X, 0, stand_in=9)
    assert re.match(r"In words: Step 9 of 11\. Times the slope", capsys.readouterr().out)


@pytest.mark.parametrize("step", [0, 12, -1])
def test_a_step_that_is_not_there(net, step):
    with pytest.raises(ValueError, match=rf"1..11, got {step}"):
        step_picture(net, X, 0, step)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1.0], 0, r"shape \(2,\), one example, got \(1,\)"),
        ([[1.0, 2.0]], 0, r"one example, got \(1, 2\)"),
        (X, 2, "0..1, got 2..2"),
        ([1.0, float("nan")], 0, "NaN"),
    ],
)
def test_bad_values_are_named(net, x, y, words):
    with pytest.raises(ValueError, match=words):
        backprop_steps(net, x, y)


def test_a_network_too_large_to_draw():
    with pytest.raises(ValueError, match="1 to 12 nodes"):
        step_picture(MLP([2, 13, 2]), X, 0)


def bowl(place):
    return float((place**2).sum())


def test_a_descent_is_drawn_where_it_goes_and_said():
    path = [[2.0, 1.0], [1.0, 0.5], [0.5, 0.0]]
    drawn = descent_picture(bowl, path, across=(-1, 3), up=(-1, 2), title="Down", names=("w", "v"))
    ax = drawn.figure.axes[0]
    assert np.array_equal(ax.lines[0].get_xydata(), path)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 3), (-1, 2))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("w", "v")
    assert "from (2, 1), loss 5, in 2 steps to (0.5, 0), loss 0.25." in drawn.alt
    assert len(drawn.alt.split()) <= 60


@pytest.mark.parametrize("path", [[[1.0, 2.0]], [1.0, 2.0], [[1.0, 2.0, 3.0]] * 2])
def test_a_descent_needs_a_path_in_a_plane(path):
    with pytest.raises(ValueError, match=r"path must have shape \(K, 2\)"):
        descent_picture(bowl, path, across=(0, 1), up=(0, 1), title="t", names=("w", "v"))
