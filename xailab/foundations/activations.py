"""What the units inside a network do: what they compute, excite themselves for, and matter for.

A unit is a neuron of a dense layer (N, K), or a channel of a convolution (N, K, h, w), which is one
detector asked at h x w places. Layers of tokens (N, T, K), and those whose channels come last, have
their units on another axis: which one is known from the layer (`core.layers.units_axis`), and a
layer of which it is not known is refused. Lesson `activations` teaches this file.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import (
    Target,
    as_integer,
    check_baseline,
    check_index,
    check_input,
    check_positive,
)
from xailab.core.company import check_company
from xailab.core.layers import capture, edited, output_of, units_axis, units_of
from xailab.core.outputs import logits_of
from xailab.core.scores import (
    gradients_on,
    layer_gradient,
    outputs_of,
    scores_of,
    select,
    target_of_rows,
)
from xailab.core.state import frozen


def layer_activations(
    model: nn.Module, x: Tensor, layers: str | Sequence[str], *, batch_size: int | None = None
) -> dict[str, Tensor]:
    r"""What layers hand over for every input: $A = h_l(x)$.

    Inputs pass through in chunks, so beside the answer itself memory stays flat.

    Args:
        model: the network.
        x: (N, ...) floats.
        layers: one dotted module name or several.
        batch_size: inputs evaluated at once; None measures.

    Returns:
        Mapping name -> (N, ...) as the layer gives it, in the order asked for, detached, in
        evaluation mode.

    Raises:
        TypeError: `x` not a float tensor, `model` not an `nn.Module`, a layer's output no tensor.
        ValueError: NaN, no layer, an unknown one, or one that does not run exactly once.

    Reference: Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks.
    Elsewhere: captum `LayerActivation`, torchvision `create_feature_extractor`.

    >>> net = nn.Sequential(nn.ReLU(), nn.Flatten())
    >>> layer_activations(net, torch.tensor([[-1.0, 2.0]]), "0")
    {'0': tensor([[0., 2.]])}
    """
    check_input(model, x)
    names: list[Any] = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    if not names:
        raise ValueError("layers is empty: name at least one layer")
    found: dict[Any, Tensor] = {}

    def keep(chunk: range) -> np.ndarray:
        rows = slice(chunk.start, chunk.stop)
        with capture(model, names) as kept:
            outputs_of(model, x[rows].detach())
        for name in names:
            activation = output_of(kept, name, len(chunk))
            if name not in found:
                found[name] = activation.new_empty(len(x), *activation.shape[1:])
            found[name][rows] = activation
        return np.asarray(chunk)

    with frozen(model), torch.no_grad():
        check_company(model, x)
        # Row numbers, not rows: answers go straight to their place, with no copy to join.
        batched(keep, range(len(x)), batch_size=batch_size, owner=model, row_bytes=x[0].nbytes)
    return {name: found[name] for name in names}


def neuron_importance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    method: str = "conductance",
    batch_size: int | None = None,
) -> Tensor:
    r"""How much each neuron of a layer adds to the score of the target.

    $$\text{activation\_x\_gradient: } A \odot \frac{\partial f_t}{\partial A}, \qquad
      \text{ablation: } f_t(x) - f_t(x \mid A_k = 0), \qquad
      \text{conductance: } \int \frac{\partial f_t}{\partial A}\, \mathrm{d}A$$

    Whatever the method, the sum over positions is the importance of the whole unit. Ablation
    sets all positions of one unit to zero at once (a neuron of a dense layer, a channel of a
    convolution), for one unit after the other, and shares the drop out evenly among the unit's
    positions. Units that are silent everywhere are not run: nothing changes without them.
    Conductance is `layer_conductance` from a baseline of 0 in 50 steps.

    Args:
        model: the network.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer.
        method: "conductance", "activation_x_gradient" or "ablation".
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of the layer's output, signed (negative: it speaks against the target), in
        units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` not an integer, `model` not an `nn.Module`.
        ValueError: NaN, no such layer or method, target out of range, no gradient that reaches the
            layer; for ablation a layer without units, or whose axis of units is not known.

    Reference: Dhamdhere, Sundararajan, Yan (2019), How Important Is a Neuron? (conductance);
        Shrikumar, Greenside, Kundaje (2017), Learning Important Features Through Propagating
        Activation Differences, section 2 (gradient times value); Morcos, Barrett, Rabinowitz,
        Botvinick (2018), On the Importance of Single Directions for Generalization (ablation).
    Elsewhere: captum `LayerGradientXActivation`, `LayerConductance`, `LayerFeatureAblation`.

    >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> neuron_importance(net, torch.tensor([[1.0, 2.0]]), 0, layer="0", method="ablation")
    tensor([[ 3., -2.]])
    """
    if method == "conductance":
        return layer_conductance(model, x, target, layer=layer, batch_size=batch_size)
    ways = {"activation_x_gradient": _activation_x_gradient, "ablation": _ablation}
    if method not in ways:
        known = ", ".join(map(repr, ["conductance", *ways]))
        raise ValueError(f"method must be one of {known}, got {method!r}")
    check_input(model, x)
    return ways[method](model, x.detach(), target, layer, batch_size)


def layer_conductance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    baseline: float | Tensor = 0.0,
    n_steps: int = 50,
    batch_size: int | None = None,
) -> Tensor:
    r"""How much of the score flows through each neuron while the input is faded in.

    $$C = \sum_{i=1}^{n} \frac{\partial f_t}{\partial A}(x_i) \odot
      \big(A(x_{i+1}) - A(x_i)\big), \qquad x_i = b + \alpha_i (x - b)$$

    The n + 1 points $\alpha_i$ are those of Gauss-Legendre quadrature on 0..1, as in captum.
    They lie close to both ends of the path but not on them, and each slope is taken at the
    beginning of its step, so the sum over all neurons is $f_t(x) - f_t(b)$ only in the limit of
    many steps.

    Args:
        model: the network.
        x: (N, ...) floats, where the path ends.
        target: class index, (N,) class indices, or None for a single-output model.
        layer: dotted name of the layer.
        baseline: where the path begins: a number, or a tensor that broadcasts to `x`.
        n_steps: steps on the path; one forward and backward pass each, and one more.
        batch_size: points evaluated at once; None measures.

    Returns:
        The shape of the layer's output, signed, in units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` or `n_steps` not an integer, `model` not an
            `nn.Module`, `baseline` neither a number nor a tensor of the dtype and device of `x`.
        ValueError: NaN, no such layer, target out of range, n_steps < 1, a baseline that is not
            finite or does not broadcast to `x`, no gradient that reaches the layer.

    Reference: Dhamdhere, Sundararajan, Yan (2019), How Important Is a Neuron?
    Elsewhere: captum `LayerConductance`.

    >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> found = layer_conductance(net, torch.tensor([[1.0, 2.0]]), 0, layer="0", n_steps=500)
    >>> found.round(decimals=3)
    tensor([[ 3., -2.]])
    """
    check_input(model, x)
    steps = check_positive("n_steps", n_steps)
    begin = check_baseline(baseline, x)
    nodes = (np.polynomial.legendre.leggauss(steps + 1)[0] + 1) / 2
    walk = _Walk(model, begin, x.detach(), torch.as_tensor(nodes), target, layer)
    with frozen(model), gradients_on():
        batched(
            walk.on,
            range(len(nodes) * len(x)),
            batch_size=batch_size,
            owner=model,
            gradients=True,
            row_bytes=x[0].nbytes,
        )
    return walk.sums()


class TopInputs(NamedTuple):
    """The inputs that excite a unit most, strongest first.

    Attributes:
        rows: (k,) int64, their numbers in the data.
        activations: (k,), the unit's largest activation in each of them.
        places: (k, d) int64, where in the layer's output it is reached; d = 2 for (h, w) maps,
            1 for tokens, 0 for a dense layer.
    """

    rows: Tensor
    activations: Tensor
    places: Tensor


def top_inputs(
    model: nn.Module,
    data: Tensor,
    *,
    layer: str,
    unit: int,
    k: int,
    batch_size: int | None = None,
) -> TopInputs:
    r"""Mine a data set for the inputs that excite one unit most.

    $$\operatorname*{arg\,top\text{-}k}_n \; \max_p A_{u,p}(x_n)$$

    $p$ runs over the positions of unit $u$: an input counts by its most exciting place. Of equal
    inputs the one with the lower number comes first.

    Args:
        model: the network.
        data: (N, ...) floats, as the model wants them.
        layer: dotted name of the layer.
        unit: number of the neuron or channel, from 0; any kind of integer.
        k: how many inputs, at most N.
        batch_size: inputs evaluated at once; None measures.

    Returns:
        `TopInputs(rows, activations, places)`.

    Raises:
        TypeError: `data` not a float tensor, `unit` or `k` not an integer.
        ValueError: NaN, no such layer or unit, a layer without units or whose axis of units is not
            known, k < 1 or k > N.

    Reference: Girshick, Donahue, Darrell, Malik (2014), Rich Feature Hierarchies for Accurate
        Object Detection and Semantic Segmentation, section 3.1.
    Elsewhere: "maximally activating images", "dataset examples" in Lucid and OpenAI Microscope.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten())
    >>> top_inputs(net, torch.tensor([[1.0], [5.0], [3.0]]), layer="0", unit=0, k=2).rows
    tensor([1, 2])
    """
    check_input(model, data)
    count = check_positive("k", k)
    if count > len(data):
        raise ValueError(f"k must be at most the {len(data)} inputs there are, got {k}")
    number = as_integer("unit", unit)
    axis_of = _axis_finder(model, layer, data)

    def of_unit(rows: Tensor) -> Tensor:
        with capture(model, layer) as kept:
            outputs_of(model, rows)
        maps = units_of(kept, layer, len(rows), axis_of(output_of(kept, layer, len(rows))))
        return maps[:, check_index(f"layer {layer!r}: unit", number, maps.shape[1])]

    with frozen(model), torch.no_grad():
        check_company(model, data)
        maps = batched(of_unit, data.detach(), batch_size=batch_size, owner=model)
    values, cells = maps.reshape(len(data), -1).max(1)
    rows = values.argsort(descending=True, stable=True)[:count]
    places = np.unravel_index(cells[rows].cpu().numpy(), maps.shape[1:]) if maps.ndim > 1 else ()
    stacked = np.stack(places, 1) if places else np.zeros((count, 0), dtype=np.int64)
    return TopInputs(rows, values[rows], torch.as_tensor(stacked, device=rows.device))


def cluster_units(activations: Tensor, n_clusters: int, *, axis: int = 1) -> Tensor:
    r"""Group the units of a layer that are active on the same inputs.

    $$d(u, v) = 1 - r_{uv}$$

    $r$ is the correlation of two units over all inputs (and all positions). Clusters are merged
    from the bottom up by their average distance; there is nothing random in it.

    Args:
        activations: (N, K), or (N, K, ...) with positions, each of which is one more sample.
        n_clusters: how many clusters; at most the number of units that vary.
        axis: which axis holds the units, 1 or another but the rows': 2 for tokens (N, T, K).

    Returns:
        (K,) int64: the number of each unit's cluster, 0 for the largest; -1 for a unit that has
        the same activation everywhere, which has no correlation with anything.

    Raises:
        TypeError: `activations` not a float tensor, `n_clusters` or `axis` not an integer.
        ValueError: NaN or infinity, no dimension of units, fewer than two samples, n_clusters
            < 1 or more than the units that vary, an axis that there is not.

    Reference: Eisen, Spellman, Brown, Botstein (1998), Cluster Analysis and Display of
        Genome-Wide Expression Patterns (average linkage on correlations).
    Elsewhere: scikit-learn `AgglomerativeClustering(metric="precomputed", linkage="average")`,
        which does the merging.

    >>> cluster_units(torch.tensor([[0.0, 0.0, 9.0, 5.0], [1.0, 2.0, 3.0, 5.0]]), 2)
    tensor([ 0,  0,  1, -1])
    """
    check_input(torch.nn.Identity(), activations)
    clusters = check_positive("n_clusters", n_clusters)
    place = 1 + check_index("axis", as_integer("axis", axis) - 1, activations.ndim - 1)
    samples = activations.detach().movedim(place, -1).flatten(0, -2).double().cpu()  # (M, K)
    live = (samples.amax(0) > samples.amin(0)).nonzero()[:, 0]
    if clusters > len(live):
        raise ValueError(f"{len(live)} of the units vary: they cannot form {clusters} clusters")
    labels = torch.full((samples.shape[1],), -1)
    labels[live] = _by_size(_merged(samples[:, live], clusters))
    return labels


def _merged(samples: Tensor, clusters: int) -> Tensor:
    """Return the cluster of every column of (M, K) samples, in any numbering."""
    if samples.shape[1] == 1:
        return torch.zeros(1, dtype=torch.int64)  # scikit-learn wants at least two
    samples = samples - samples.mean(0)
    samples = samples / samples.abs().amax(0)  # the squares of tiny or huge numbers would be lost
    distances = (1 - torch.corrcoef(samples.T)).clamp(min=0).fill_diagonal_(0)
    merging = AgglomerativeClustering(clusters, metric="precomputed", linkage="average")
    return torch.as_tensor(merging.fit_predict(distances.numpy()))


def _by_size(labels: Tensor) -> Tensor:
    """Number clusters anew, the largest 0; of equal ones that of the first unit comes first."""
    names, first = np.unique(labels.numpy(), return_index=True)
    sizes = torch.bincount(labels)
    order = sorted(names, key=lambda name: (-int(sizes[name]), first[list(names).index(name)]))
    ranks = torch.empty(len(order), dtype=torch.int64)
    ranks[torch.tensor(order)] = torch.arange(len(order))
    return ranks[labels]


def _axis_finder(model: nn.Module, layer: str, x: Tensor) -> Callable[[Tensor], int]:
    """Return what tells the axis of units of a layer's output; the model is asked at most once."""
    found: list[int] = []

    def axis_of(output: Tensor) -> int:
        if output.ndim < 3:
            return 1
        if not found:
            found.append(units_axis(model, layer, x))
        return found[0]

    return axis_of


class _Walk:
    """Adds up slope times change along the paths of all rows, which are one list of points.

    Point k of the list is point k % n of row k // n. Chunks come in order; the last point of one
    begins the first step of the next.
    """

    def __init__(
        self,
        model: nn.Module,
        begin: Tensor,
        end: Tensor,
        alphas: Tensor,
        target: Target,
        layer: str,
    ) -> None:
        self.model, self.layer, self.asked = model, layer, target_of_rows(target, len(end))
        exact = torch.promote_types(end.dtype, torch.float32)
        self.begin, self.way = begin.to(exact), end.to(exact) - begin.to(exact)
        self.alphas = alphas.to(self.way)
        self.dtype, self.total = end.dtype, torch.zeros(0)
        self.last = torch.zeros(0), torch.zeros(0)  # output and slope at the point before

    def on(self, chunk: range) -> Tensor:
        """Go on with these points."""
        n = len(self.alphas)
        numbers = torch.arange(chunk.start, chunk.stop, device=self.way.device)
        rows = numbers // n
        steps = self.alphas[numbers % n].reshape(-1, *[1] * (self.way.ndim - 1))
        points = (self.begin[rows] + steps * self.way[rows]).to(self.dtype)
        here, slopes = layer_gradient(self.model, points, self.asked(rows), self.layer)
        if chunk.start == 0:
            exact = torch.promote_types(here.dtype, torch.float32)
            self.total = here.new_zeros(len(self.way), *here.shape[1:], dtype=exact)
            self.last = here[:1], slopes[:1]  # leads to the first point of a row: no step
        before = torch.cat([self.last[0], here])[:-1]
        slope = torch.cat([self.last[1], slopes])[:-1]
        parts = slope.to(self.total) * (here.to(self.total) - before.to(self.total))
        inside = numbers % n > 0
        self.total.index_add_(0, rows[inside], parts[inside])
        self.last = here[-1:], slopes[-1:]
        return numbers

    def sums(self) -> Tensor:
        """Return the conductance in the layer's shape and dtype."""
        return self.total.to(self.last[0].dtype)


def _activation_x_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str, batch_size: int | None
) -> Tensor:
    """Return activation times gradient, the shape of the layer's output."""
    asked = target_of_rows(target, len(x))

    def products(chunk: range) -> Tensor:
        rows = torch.arange(chunk.start, chunk.stop)
        activation, slopes = layer_gradient(model, x[rows], asked(rows), layer)
        return activation * slopes

    with frozen(model), gradients_on():
        return batched(
            products,
            range(len(x)),  # numbers, since every row has its own target
            batch_size=batch_size,
            owner=model,
            gradients=True,
            row_bytes=x[0].nbytes,
        )


def _ablation(
    model: nn.Module, x: Tensor, target: Target, layer: str, batch_size: int | None
) -> Tensor:
    """Return each unit's drop, shared out among its positions; all units are one list of work."""
    asked = target_of_rows(target, len(x))
    with frozen(model), torch.no_grad():
        check_company(model, x)
        scores, output = _scored(model, x, asked, layer, batch_size)
        axis = _axis_finder(model, layer, x)(output)
        units = units_of({layer: output}, layer, len(x), axis)
        live = units.reshape(*units.shape[:2], -1).any(2).nonzero()  # (pairs, 2): row and unit
        drop = torch.zeros_like(units)
        if len(live):
            off = _Off(model, x, asked, layer, axis, scores)
            without = batched(off, live, batch_size=batch_size, owner=model, row_bytes=x[0].nbytes)
            lost = (scores[live[:, 0]] - without) / units[0, 0].numel()
            drop[live[:, 0], live[:, 1]] = lost.to(drop).reshape(-1, *[1] * (units.ndim - 2))
    return drop.movedim(1, axis)


def _scored(
    model: nn.Module, x: Tensor, asked: Callable[[Any], Target], layer: str, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the score of every row, (N,), and what the layer gives for it, (N, ...)."""
    outputs = []

    def score(chunk: range) -> Tensor:
        rows = torch.arange(chunk.start, chunk.stop)
        with capture(model, layer) as kept:
            scores = scores_of(model, x[rows], asked(rows))
        outputs.append(output_of(kept, layer, len(rows)))
        return scores

    found = batched(score, range(len(x)), batch_size=batch_size, owner=model, row_bytes=x[0].nbytes)
    return found, torch.cat(outputs)


class _Off:
    """Returns the scores of pairs (row, unit), each row with its unit switched off, (pairs,).

    A row becomes as many as it has units in the chunk only at the layer, so that all below it
    runs once. What follows must not care that the input had fewer rows: tried, not assumed.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        asked: Callable[[Any], Target],
        layer: str,
        axis: int,
        scores: Tensor,
    ) -> None:
        self.model, self.x, self.asked, self.layer, self.axis = model, x, asked, layer, axis
        self.multiplies = self._may_multiply(scores)

    def __call__(self, pairs: Tensor) -> Tensor:
        """Switch off one unit for each pair."""
        rows, units = pairs.T
        below, copies = rows.unique(return_inverse=True)
        if not self.multiplies:
            below, copies = rows, torch.arange(len(rows), device=rows.device)

        def switch(output: Tensor) -> Tensor:
            silenced = output[copies]
            silenced.movedim(self.axis, 1)[torch.arange(len(rows)), units] = 0
            return silenced

        return self._scores(below, rows, switch)

    def _scores(self, below: Tensor, rows: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
        with edited(self.model, self.layer, edit):
            outputs = logits_of(self.model(self.x[below].clone()))
        target = self.asked(rows)
        return target(outputs) if callable(target) else select(outputs, target)

    def _may_multiply(self, scores: Tensor) -> bool:
        below = torch.arange(min(2, len(self.x)), device=self.x.device)
        rows = torch.cat([below, below[:1]])  # one row more than the input has
        try:
            got = self._scores(below, rows, lambda output: output[rows])
        except (RuntimeError, ValueError, IndexError):
            return False
        return got.shape == rows.shape and torch.allclose(got, scores[rows], rtol=1e-4, atol=1e-5)
