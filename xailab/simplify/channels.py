"""Channels that are all zero, taken out of a network for good.

Which inputs of the next layer belong to a channel is not read off the names of the layers between
but tried on rows: noise in the dead channels shows where they arrive, noise in the others shows
that nothing else arrives there. So tokens, flattening, pooling and permutations of any order are
all one case.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple
from warnings import catch_warnings

import torch
from torch import Tensor, fx, nn

from xailab.core.checks import check_input
from xailab.core.state import frozen
from xailab.simplify.layers import Layer, copied, is_plain

_SIDES = (*range(1, 41), 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 227, 240, 256, 299, 384, 512)
_TRIALS = 3  # kinds of shapes that must agree

Rows = Tensor | tuple[Tensor, ...]


def remove_channels(model: nn.Module, x: Rows | None = None) -> nn.Module:
    r"""Take out the channels that `prune(structured=True)` has zeroed: same answers, less work.

    $$W_{\ell} \in \mathbb{R}^{C' \times \cdot}, \quad W_{\ell + 1} \in \mathbb{R}^{\cdot \times
      C'}, \qquad C' = |\{c : (w_c, b_c) \ne 0\}|$$

    A channel goes where its layer hands it to one other layer and what lies between keeps it
    apart and keeps its zeros: activations, pooling, dropout, flattening, permutations, in any
    order of axes. That is tried on rows, and so is the smaller network: its answers must be
    those of the pruned one. Across a sum (a residual block), a norm that shifts it or mixes it
    with others, a softmax, or grouped channels it stays, zeroed.

    Args:
        model: a network without branches that depend on the data, in one dtype.
        x: (N, ...) rows as the network takes them, a tuple where it takes several; None: drawn,
            of shapes that fit the first layer, up to three that the network accepts.

    Returns:
        A smaller copy, equal in its answers up to rounding.

    Raises:
        TypeError: the model is no `nn.Module`, `x` no tensor, or of another dtype.
        ValueError: no linear or convolutional layer; weights that are computed or not finite; a
            forward pass that cannot be followed; no shape of rows is known: give `x`.
        RuntimeError: the smaller network answers differently.

    Reference: Li, Kadav, Durdanovic, Samet, Graf (2017), Pruning Filters for Efficient ConvNets.
    Elsewhere: Torch-Pruning `DependencyGraph`, for any architecture; torch itself only zeroes.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> net[0].weight.data[4:], net[0].bias.data[4:] = 0, 0
    >>> remove_channels(net)
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    smaller, layers = copied(model)
    given = None if x is None else [_checked(model, x)]
    with frozen(smaller), torch.no_grad():
        graph = _traced(smaller)
        routes = [one for one in _routes(graph, layers) if not _alive(one.first).all()]
        trials = _trials(smaller, graph, given) if routes else []
        for route, arriving in [(route, _arrivals(route, trials)) for route in routes]:
            if arriving is not None:
                _keep(route.first, 0, _alive(route.first))
                _keep(route.second, 1, ~arriving)
        for trial in trials:
            _compare(trial.answers, smaller(*trial.rows))
    for name, parameter in smaller.named_parameters():  # new ones were made in a frozen network
        parameter.requires_grad_(model.get_parameter(name).requires_grad)
    return smaller


def _checked(model: nn.Module, x: Rows) -> tuple[Tensor, ...]:
    """Return the rows as the arguments of the network."""
    rows = x if isinstance(x, tuple) else (x,)
    for one in rows:
        if not isinstance(one, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(one).__name__}")
        if one.is_floating_point():
            check_input(model, one)
    return rows


def _traced(model: nn.Module) -> fx.Graph:
    """Return what the forward pass does, step by step."""
    try:
        return fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, AttributeError, NameError) as error:
        raise ValueError(f"cannot follow the model's forward pass: {error}") from error


# ---- which layer hands its channels to which -----------------------------------------------------


class _Route(NamedTuple):
    """Two layers, and all steps between them, which read nothing but the first one's output."""

    first: Layer
    second: Layer
    start: fx.Node
    steps: list[fx.Node]
    end: fx.Node  # what the second layer takes


def _routes(graph: fx.Graph, layers: dict[str, Layer]) -> Iterator[_Route]:
    """Yield pairs of layers, the second of which is all that hears the first."""
    called = [node for node in graph.nodes if node.op == "call_module" and node.target in layers]
    calls = [layers[str(node.target)] for node in called]
    fit = {n for n in called if is_plain(one := layers[str(n.target)]) and calls.count(one) == 1}
    for node in fit:
        steps, hearers = _between(graph, node, called)
        last = hearers[0] if len(hearers) == 1 and hearers[0] in fit else None
        if last is not None and last.all_input_nodes and _closed(node, steps, last):
            first, second = layers[str(node.target)], layers[str(last.target)]
            yield _Route(first, second, node, steps, last.all_input_nodes[0])


def _between(
    graph: fx.Graph, start: fx.Node, called: list[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the steps that a layer's output goes through, and the layers that end them."""
    reached, ends = {start}, []
    for node in graph.nodes:  # in order: whoever is read stands before
        if not reached.isdisjoint(node.all_input_nodes):
            if node in called:
                ends.append(node)
            else:
                reached.add(node)
    return [node for node in graph.nodes if node in reached and node is not start], ends


def _closed(start: fx.Node, steps: list[fx.Node], last: fx.Node) -> bool:
    """Tell whether the steps end in one layer, and none of them is the network's answer."""
    inside = {start, *steps}
    return (
        all(node.op != "output" for node in steps)
        and len(last.all_input_nodes) == 1
        and last.all_input_nodes[0] in inside
        and all(user in inside or user is last for node in inside for user in node.users)
    )


def _alive(layer: Layer) -> Tensor:
    """Return which output channels hold anything but zeros; a layer without any would not run."""
    alive = (layer.weight.detach() != 0).flatten(1).any(1)
    if layer.bias is not None:
        alive |= layer.bias.detach() != 0
    alive[0] |= not alive.any()
    return alive


def _keep(layer: Layer, axis: int, alive: Tensor) -> None:
    """Keep these output (axis 0) or input (axis 1) channels of a layer."""
    where = (slice(None),) * axis + (alive,)
    layer.weight = nn.Parameter(layer.weight.detach()[where])
    if axis == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[alive])
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"{('out', 'in')[axis]}_{kind}", int(alive.sum()))


# ---- where a channel arrives, tried on rows ------------------------------------------------------


class _Trial(fx.Interpreter):
    """One forward pass, every value of which is kept, so that parts of it can run again."""

    def __init__(self, model: nn.Module, graph: fx.Graph, rows: tuple[Tensor, ...]) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.rows = rows
        self.outputs: dict[fx.Node, Tensor] = {}
        self.run(*[one.clone() for one in rows])
        self.answers = model(*[one.clone() for one in rows])

    def run_node(self, n: fx.Node) -> Any:
        """Keep a layer's output as it is before a later step works in place on it."""
        value = super().run_node(n)
        if n.op == "call_module" and isinstance(value, Tensor):
            self.outputs[n] = value.clone()
        return value

    def again(self, route: _Route, output: Tensor) -> Tensor:
        """Return what the second layer takes when the first one gives this output."""
        env = dict(self.env)
        self.env[route.start] = output.clone()
        try:
            for node in route.steps:
                self.env[node] = super().run_node(node)
            return self.env[route.end]
        finally:
            self.env = env

    def foreign(self, route: _Route) -> bool:
        """Tell whether the steps read a tensor that comes from the rows by another way."""
        inside = {route.start, *route.steps}
        read = [node for step in route.steps for node in step.all_input_nodes]
        return any(
            isinstance(self.env[node], Tensor) and node.op != "get_attr"
            for node in read
            if node not in inside
        )


def _trials(
    model: nn.Module, graph: fx.Graph, given: list[tuple[Tensor, ...]] | None
) -> list[_Trial]:
    """Run the network on the given rows, or on drawn ones of the first shapes that it takes."""
    if given is not None:
        return [_given(model, graph, given[0])]
    running = (one for rows in _drawn(model, graph) if (one := _run(model, graph, rows)))
    trials = list(islice(running, _TRIALS))
    if not trials:
        raise ValueError(
            "no shape of rows was found that the model takes, so nothing can be tried: give some, "
            "remove_channels(model, x)"
        )
    return trials


def _given(model: nn.Module, graph: fx.Graph, rows: tuple[Tensor, ...]) -> _Trial:
    """Return a trial on the user's rows."""
    try:
        return _Trial(model, graph, rows)
    except RuntimeError as error:
        if "While executing" not in str(error):  # the model's own, not that of a step
            raise
        shapes = ", ".join(str(tuple(one.shape)) for one in rows)
        told = str(error).partition("\n")[0]
        raise ValueError(f"the model refuses x of shape {shapes}: {told}") from error


def _run(model: nn.Module, graph: fx.Graph, rows: Tensor) -> _Trial | None:
    """Return a trial, or None if the steps do not take rows of this shape."""
    try:
        fx.Interpreter(model, graph=graph).run(rows.clone())
    except Exception:  # the steps of a stranger's network, on rows of a wrong shape
        return None
    return _Trial(model, graph, (rows,))


def _drawn(model: nn.Module, graph: fx.Graph) -> Iterator[Tensor]:
    """Yield rows of ever larger shapes that fit the first layer of the network."""
    modules = dict(model.named_modules())
    called = (modules[str(node.target)] for node in graph.nodes if node.op == "call_module")
    first = next((one for one in called if isinstance(one, Layer | nn.Embedding)), None)
    random = torch.Generator().manual_seed(0)
    if isinstance(first, nn.Embedding):
        for side in _SIDES:
            yield torch.randint(first.num_embeddings, (2, side), generator=random)
    elif first is not None:
        for shape in _shapes(first):
            yield torch.randn(shape, generator=random).to(first.weight)


def _shapes(layer: Layer) -> Iterator[tuple[int, ...]]:
    """Yield shapes of two rows for a first layer: channels first, then last, then flattened."""
    if isinstance(layer, nn.Linear):
        wide = layer.in_features
        yield (2, wide)
        yield from chain.from_iterable(((2, s, wide), (2, s, s, wide)) for s in _SIDES)
        for channels in (1, 3):
            yield (2, channels, *[round((wide / channels) ** 0.5)] * 2)
        return
    axes = layer.weight.ndim - 2
    sides = _SIDES if axes < 3 else _SIDES[:24]
    yield from ((2, layer.in_channels, *[s] * axes) for s in sides)
    yield from ((2, *[s] * axes, layer.in_channels) for s in sides)


def _arrivals(route: _Route, trials: list[_Trial]) -> Tensor | None:
    """Return which inputs of the second layer hold the dead channels; None: they must stay."""
    found: Tensor | None = None
    for trial in trials:
        try:
            here = None if trial.foreign(route) else _arriving(route, trial)
        except Exception:  # a step that asks for the number of channels, in whatever words
            return None
        if here is None or (found is not None and not torch.equal(here, found)):
            return None
        found = here
    return found


def _arriving(route: _Route, trial: _Trial) -> Tensor | None:
    """Answer the same for one trial."""
    output = trial.outputs[route.start]
    alive = _alive(route.first)
    if _channels(output, route.first)[:, ~alive].any():  # a hook gives them something to say
        return None
    arriving = torch.zeros(_inputs(route.second), dtype=torch.bool, device=alive.device)
    usual = trial.again(route, output)
    for noise in _noises(output):
        told = trial.again(route, _mixed(output, noise, ~alive, route.first))
        arriving |= (_channels(told, route.second) != _channels(usual, route.second)).any(0)
    for noise in (output, *_noises(output)):
        full = _mixed(output, noise, alive, route.first)
        told = _channels(trial.again(route, full), route.second)
        fewer = _channels(full, route.first)[:, alive]
        with catch_warnings(action="error"):  # a step that counts its channels and goes on
            few = trial.again(route, _unfolded(fewer, full, route.first))
        if (told[:, arriving] != 0).any() or not _alike(
            told[:, ~arriving], _channels(few, route.second)
        ):
            return None
    return arriving


def _noises(like: Tensor) -> Iterator[Tensor]:
    """Yield what a channel could say: numbers of both signs, larger ones, and no number."""
    random = torch.Generator().manual_seed(1)
    drawn = torch.randn(like.shape, generator=random).to(like)
    yield from (drawn, 30 * drawn, torch.full_like(like, torch.nan))


def _mixed(output: Tensor, noise: Tensor, where: Tensor, layer: Layer) -> Tensor:
    """Return a layer's output with noise in the channels marked, as they are in the others."""
    shape = [1] * output.ndim
    shape[_axis(layer)] = -1
    return torch.where(where.reshape(shape), noise, output)


def _axis(layer: Layer) -> int:
    """Return on which axis a layer reads and writes channels, counted from the end."""
    return -1 if isinstance(layer, nn.Linear) else 1 - layer.weight.ndim


def _inputs(layer: Layer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _channels(values: Tensor, layer: Layer) -> Tensor:
    """Return what a layer reads or writes as (everything else, channels)."""
    return values.movedim(_axis(layer), -1).flatten(0, -2)


def _unfolded(flat: Tensor, like: Tensor, layer: Layer) -> Tensor:
    """Undo `_channels`, with another number of channels."""
    shape = like.movedim(_axis(layer), -1).shape[:-1]
    return flat.reshape(*shape, -1).movedim(-1, _axis(layer)).contiguous()


# ---- is the smaller network the same? ------------------------------------------------------------


def _alike(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors agree up to the rounding of their dtype."""
    if a.shape != b.shape or not a.is_floating_point():
        return torch.equal(a, b)
    scale = a[a.isfinite()].abs().max().item() if a.isfinite().any() else 1.0
    tolerance = max(1e-5, 30 * torch.finfo(a.dtype).eps) * scale
    return torch.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True)


def _compare(before: Any, after: Any) -> None:
    """Refuse a smaller network that does not answer as the pruned one does."""
    want, told = _tensors(before), _tensors(after)
    if len(want) != len(told) or not all(map(_alike, want, told)):
        raise RuntimeError(
            "without its dead channels the model answers otherwise: something reads the number "
            "of channels that was not seen; nothing can be removed"
        )


def _tensors(answer: Any) -> list[Tensor]:
    """Return every tensor in what a network answered."""
    if isinstance(answer, (tuple, list)):
        return [one for part in answer for one in _tensors(part)]
    if isinstance(answer, dict):
        return _tensors(list(answer.values()))
    if isinstance(answer, Tensor):
        return [answer]
    return _tensors(vars(answer)) if hasattr(answer, "__dict__") else []  # a dataclass
