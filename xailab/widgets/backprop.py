"""The backprop stepper: one forward and one backward pass, stage by stage, with all numbers.

Lesson `backprop` uses this file. Formulas are written as the lesson's NumPy code, so that a line on
the screen is a line you can run.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xailab import plots
from xailab.foundations.backprop import MLP, Array, softmax_cross_entropy
from xailab.plots.pictures import new_figure, styled
from xailab.plots.words import lead, number
from xailab.widgets.show import Shown, explorer_of, labeled, show

if TYPE_CHECKING:
    from ipywidgets import VBox

_SLOPES = {"ReLU": "(z{l} > 0)", "Sigmoid": "a{l} * (1 - a{l})", "Tanh": "(1 - a{l}**2)"}


class Step(NamedTuple):
    """One stage of the two passes: what is computed, how, and what stands in the network then."""

    name: str
    formula: str
    lines: list[str]
    nodes: list[list[str]]
    edges: list[Array]
    highlight: list[tuple[int, int]]


def backprop_stepper(net: MLP, x: Sequence[float], y: int, *, stand_in: int | None = None) -> None:
    """Show a slider that walks through one forward and one backward pass of a small network.

    The arrow keys move the slider once it has the focus (Tab). Where widgets do not run, the
    picture of one step stands in. The network itself is not touched.

    Args:
        net: at most 12 units a layer; its loss is softmax cross-entropy.
        x: (inputs,), one example.
        y: its class, 0..outputs-1.
        stand_in: the step that stands in, as the slider counts, from 1; None: the last.

    Raises:
        TypeError, ValueError: x, y do not fit the network, there is no such step, or the network
            is too large to draw.
    """
    show(explorer(net, x, y), step_picture(net, x, y, stand_in))


def explorer(net: MLP, x: Sequence[float], y: int) -> "VBox":
    """Return the stepper as a widget; arguments as for `backprop_stepper`."""
    from ipywidgets import IntSlider

    steps = backprop_steps(net, x, y)
    look = labeled("Step", "Stage of the two passes") | {"continuous_update": True}

    def draw(at: int) -> Shown:
        place = steps[at - 1], at, len(steps)
        return Shown(_draw(*place).png(), _html(*place))

    slider = IntSlider(min=1, max=len(steps), **look)
    return explorer_of("stepper", {"step": slider}, draw, words_first=True)


def step_picture(net: MLP, x: Sequence[float], y: int, step: int | None = None) -> plots.Picture:
    """Return the picture of one step, counted from 1 (None: the last); else as the stepper."""
    steps = backprop_steps(net, x, y)
    at = len(steps) if step is None else step
    if not 1 <= at <= len(steps):
        raise ValueError(f"step must lie in 1..{len(steps)}, got {step}")
    return _draw(steps[at - 1], at, len(steps))


def descent_picture(
    height: Callable[[Array], float],
    path: Sequence[Sequence[float]],
    *,
    across: tuple[float, float],
    up: tuple[float, float],
    title: str,
    names: tuple[str, str],
) -> plots.Picture:
    """Draw a loss over two numbers as a map with contour lines, and the steps of a descent on it.

    Args:
        height: the loss of (2,), the number across and the number up.
        path: (K, 2) places, at least two; the first is the start.
        across, up: the smallest and the largest number to draw, each way.
        title: the finding.
        names: of the two numbers.

    Raises:
        ValueError: a path of another shape.
    """
    places = np.asarray(path, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) < 2:
        raise ValueError(f"path must have shape (K, 2) with K of at least 2, got {places.shape}")
    x, y = np.linspace(*across, 61), np.linspace(*up, 61)
    z = np.array([[height(np.array([a, b])) for a in x] for b in y])
    with styled():
        figure = new_figure(5.6, 4.0, title)
        ax = figure.subplots()
        shades = ax.contourf(x, y, z, levels=16, cmap="viridis")
        ax.contour(x, y, z, levels=16, colors="white", linewidths=0.4)
        ax.plot(*places.T, "o-", color="white", markeredgecolor="black", markersize=5)
        ax.annotate("start", places[0], (-6, -14), textcoords="offset points", color="white")
        ax.set(xlabel=names[0], ylabel=names[1], aspect="equal")  # right angles look right
        figure.colorbar(shades, ax=ax, label="loss")
    ends = [", ".join(number(v) for v in place) for place in (places[0], places[-1])]
    losses = [number(height(place)) for place in (places[0], places[-1])]
    said = (
        f"A map of the loss over {names[0]} and {names[1]}. The path goes from ({ends[0]}), loss "
        f"{losses[0]}, in {len(places) - 1} steps to ({ends[1]}), loss {losses[1]}."
    )
    return plots.Picture(figure, lead(title) + said)


def backprop_steps(net: MLP, x: Sequence[float], y: int) -> list[Step]:
    """Return every stage of a forward pass, a softmax cross-entropy, and a backward pass.

    Args and errors as for `backprop_stepper`.

    >>> steps = backprop_steps(MLP([2, 2]), [1.0, 2.0], 0)
    >>> [step.name for step in steps][:3]
    ['The input', 'Layer 1 adds up', 'Probabilities and loss']
    """
    return list(_Pass(copy.deepcopy(net), x, y).steps())


class _Pass:
    """The two passes over one example, and what the drawing shows of them so far."""

    def __init__(self, net: MLP, x: Sequence[float], y: int) -> None:
        row = np.asarray(x, dtype=np.float64)
        if row.shape != net.sizes[:1]:
            raise ValueError(f"x must have shape {net.sizes[:1]}, one example, got {row.shape}")
        logits = net.forward(row[None])
        self.loss, delta = softmax_cross_entropy(logits, [y])
        self.delta = delta[0]
        self.p = self.delta + np.eye(net.sizes[-1])[y]
        self.net, self.y, self.last = net, y, len(net.dense)
        self.inputs = [row]  # of each layer: x, a1, a2, ...
        self.upper = [[""] * n for n in net.sizes]
        self.lower = [[""] * n for n in net.sizes]

    def steps(self) -> Iterator[Step]:
        self._write(self.upper, 0, self.inputs[0])
        yield self._step("The input", "x", [f"x = {_list(self.inputs[0])}"], 0)
        for layer in range(1, self.last + 1):
            yield from self._forward(layer)
        yield self._output_delta()
        for layer in range(self.last, 0, -1):
            yield self._weight_gradient(layer)
            yield from self._send_down(layer)

    def _forward(self, layer: int) -> Iterator[Step]:
        dense, before = self.net.dense[layer - 1], _name("a", layer - 1)
        a = self.inputs[-1]
        z = dense.weight @ a + dense.bias
        lines = [
            f"z{layer}[{i}] = {_sum(row, a)} + {_term(bias)} = {number(z[i])}"
            for i, (row, bias) in enumerate(zip(dense.weight, dense.bias, strict=True))
        ]
        self._write(self.upper, layer, z, "z ")
        formula = f"z{layer} = W{layer} @ {before} + b{layer}"
        yield self._step(f"Layer {layer} adds up", formula, lines, layer)
        yield self._probabilities(z) if layer == self.last else self._activation(layer, z)

    def _activation(self, layer: int, z: Array) -> Step:
        activation = self.net.layers[2 * layer - 1]
        name = type(activation).__name__.lower()
        a = activation.forward(z)
        self.inputs.append(a)
        lines = [f"a{layer}[{i}] = {name}({number(z[i])}) = {number(a[i])}" for i in range(len(z))]
        self._write(self.upper, layer, a)
        return self._step(f"Layer {layer} answers", f"a{layer} = {name}(z{layer})", lines, layer)

    def _probabilities(self, z: Array) -> Step:
        below = " + ".join(f"e^{_term(v)}" for v in z)
        lines = [
            f"p[{i}] = e^{_term(z[i])} / ({below}) = {number(p)}" for i, p in enumerate(self.p)
        ]
        lines.append(f"loss = -log p[{self.y}] = {number(self.loss)}")
        self._write(self.upper, self.last, self.p, "p ")
        formula = f"p = softmax(z{self.last}); loss = -log(p[{self.y}])"
        return self._step("Probabilities and loss", formula, lines, self.last)

    def _output_delta(self) -> Step:
        truth = np.eye(len(self.p))[self.y]
        lines = [
            f"delta{self.last}[{i}] = {number(p)} - {number(t)} = {number(p - t)}"
            for i, (p, t) in enumerate(zip(self.p, truth, strict=True))
        ]
        self._write(self.lower, self.last, self.delta, "δ ")
        formula = f"delta{self.last} = p - onehot({self.y})"
        return self._step("The blame at the output", formula, lines, self.last)

    def _weight_gradient(self, layer: int) -> Step:
        a, before = self.inputs[layer - 1], _name("a", layer - 1)
        gradient = np.outer(self.delta, a)
        lines = [
            f"dW{layer}[{i}] = {_term(d)} * {_list(a)} = {_list(row)}"
            for i, (d, row) in enumerate(zip(self.delta, gradient, strict=True))
        ]
        formula = f"dW{layer} = np.outer(delta{layer}, {before}); db{layer} = delta{layer}"
        name = f"Gradients of layer {layer}, on its edges"
        edges = {layer - 1: gradient.T}
        return self._step(name, formula, [*lines, f"db{layer} = {_list(self.delta)}"], layer, edges)

    def _send_down(self, layer: int) -> Iterator[Step]:
        weight, sender = self.net.dense[layer - 1].weight, f"W{layer}.T @ delta{layer}"
        signal, target = weight.T @ self.delta, "dx" if layer == 1 else "signal"
        lines = [
            f"{target}[{j}] = {_sum(column, self.delta)} = {number(signal[j])}"
            for j, column in enumerate(weight.T)
        ]
        self._write(self.lower, layer - 1, signal, "∂ ")
        name = "The gradient reaches the input" if layer == 1 else "The blame goes down the edges"
        yield self._step(name, f"{target} = {sender}", lines, layer - 1)
        if layer > 1:
            yield self._hidden_delta(layer - 1, signal, sender)

    def _hidden_delta(self, layer: int, signal: Array, sender: str) -> Step:
        activation = self.net.layers[2 * layer - 1]
        slope = activation.backward(np.ones_like(signal))
        self.delta = signal * slope
        lines = [
            f"delta{layer}[{j}] = {_term(signal[j])} * {number(slope[j])} = {number(d)}"
            for j, d in enumerate(self.delta)
        ]
        self._write(self.lower, layer, self.delta, "δ ")
        formula = (
            f"delta{layer} = ({sender}) * {_SLOPES[type(activation).__name__].format(l=layer)}"
        )
        return self._step("Times the slope of the activation", formula, lines, layer)

    def _write(self, rows: list[list[str]], layer: int, values: Array, mark: str = "") -> None:
        rows[layer] = [mark + number(v) for v in values]

    def _step(
        self,
        name: str,
        formula: str,
        lines: list[str],
        layer: int,
        edges: dict[int, Array] | None = None,
    ) -> Step:
        """Freeze what is known now; the nodes of the layer at work are marked."""
        weights = [dense.weight.T for dense in self.net.dense]
        nodes = [
            [f"{u}\n{v}".strip() for u, v in zip(upper, lower, strict=True)]
            for upper, lower in zip(self.upper, self.lower, strict=True)
        ]
        shown = [(edges or {}).get(gap, weight) for gap, weight in enumerate(weights)]
        marked = [(layer, i) for i in range(self.net.sizes[layer])]
        return Step(name, formula, lines, nodes, shown, marked)


def _draw(step: Step, at: int, of: int) -> plots.Picture:
    sizes = [len(row) for row in step.nodes]
    names = ["input", *(f"layer {i}" for i in range(1, len(sizes)))]
    title = f"Step {at} of {of}. {step.name}"
    lines = "; ".join([step.formula, *step.lines])
    rows = zip(names, step.nodes, strict=True)
    nodes = "; ".join(f"{name}: {', '.join(map(_flat, row))}" for name, row in rows)
    return plots.network(
        sizes,
        node_values=step.nodes,
        edge_values=step.edges,
        layer_names=names,
        highlight=step.highlight,
        title=title,
        alt=f"{title}: {lines}. In the nodes: {nodes}.",
    )


def _html(step: Step, at: int, of: int) -> str:
    """Say the step in words."""
    return (
        f"<strong>Step {at} of {of}. {escape(step.name)}"
        f"</strong><br><code>{escape(step.formula)}</code>"
        f"<pre style='margin:.3em 0'>{escape(chr(10).join(step.lines))}</pre>"
    )


def _flat(text: str) -> str:
    return " ".join(text.split()) or "empty"


def _name(letter: str, layer: int) -> str:
    return f"{letter}{layer}" if layer else "x"


def _term(value: float) -> str:
    """A number that may stand after an operator: negative ones in brackets."""
    return f"({number(value)})" if value < 0 else number(value)


def _sum(weights: Array, values: Array) -> str:
    return " + ".join(f"{_term(w)}*{_term(v)}" for w, v in zip(weights, values, strict=True))


def _list(values: Array) -> str:
    return f"[{', '.join(number(v) for v in values)}]"
