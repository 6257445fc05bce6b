"""What the units inside a network do: what they compute, excite themselves for, and matter for.

A unit is one entry of dimension 1 of a layer's output: a neuron of a dense layer (N, K), a
channel of a convolution (N, K, h, w), which is one detector asked at h x w places. Lesson 04
teaches this file.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import Target, check_baseline, check_input, check_positive, split_target
from xailab.core.layers import capture, edited, output_of, units_of
from xailab.core.scores import graph, layer_gradient, outputs_of, scores_of, select
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
        Mapping name -> (N, K, ...), in the order asked for, detached, in evaluation mode.

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
        layer: dotted name of the layer; dimension 1 of its output counts the units.
        method: "conductance", "activation_x_gradient" or "ablation".
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of the layer's output, signed (negative: it speaks against the target), in
        units of the score.

    Raises:
        TypeError: `x` not a float tensor, `target` not an integer, `model` not an `nn.Module`.
        ValueError: NaN, no such layer or method, a layer without units, target out of range.

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
            finite or does not broadcast to `x`.

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
    alphas = torch.as_tensor(nodes, dtype=x.dtype, device=x.device)
    targets = split_target(target, len(x))
    with frozen(model), graph():
        rows = [
            _row_conductance(model, start, end - start, alphas, t, layer, batch_size)
            for start, end, t in zip(begin, x.detach(), targets, strict=True)
        ]
    return torch.stack(rows)


class TopInputs(NamedTuple):
    """The inputs that excite a unit most, strongest first.

    Attributes:
        rows: (k,) int64, their numbers in the data.
        activations: (k,), the unit's largest activation in each of them.
        places: (k, d) int64, where in the layer's output it is reached; d = 2 for (h, w) maps,
            0 for a dense layer.
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
        unit: number of the neuron or channel, from 0.
        k: how many inputs, at most N.
        batch_size: inputs evaluated at once; None measures.

    Returns:
        `TopInputs(rows, activations, places)`.

    Raises:
        TypeError: `data` not a float tensor, `unit` or `k` not an integer.
        ValueError: NaN, no such layer or unit, a layer without units, k < 1 or k > N.

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
    number = check_positive("unit", unit + 1 if type(unit) is int else unit) - 1

    def of_unit(rows: Tensor) -> Tensor:
        with capture(model, layer) as kept:
            outputs_of(model, rows)
        maps = units_of(kept, layer, len(rows))
        if number >= maps.shape[1]:
            raise ValueError(f"layer {layer!r} has units 0..{maps.shape[1] - 1}, got {unit}")
        return maps[:, number]

    with frozen(model), torch.no_grad():
        maps = batched(of_unit, data.detach(), batch_size=batch_size, owner=model)
    values, cells = maps.reshape(len(data), -1).max(1)
    rows = values.argsort(descending=True, stable=True)[:count]
    places = np.unravel_index(cells[rows].cpu().numpy(), maps.shape[1:]) if maps.ndim > 1 else ()
    stacked = np.stack(places, 1) if places else np.zeros((count, 0), dtype=np.int64)
    return TopInputs(rows, values[rows], torch.as_tensor(stacked, device=rows.device))


def cluster_units(activations: Tensor, n_clusters: int) -> Tensor:
    r"""Group the units of a layer that are active on the same inputs.

    $$d(u, v) = 1 - r_{uv}$$

    $r$ is the correlation of two units over all inputs (and all positions). Clusters are merged
    from the bottom up by their average distance; there is nothing random in it.

    Args:
        activations: (N, K), or (N, K, ...) with positions, each of which is one more sample.
        n_clusters: how many clusters; at most the number of units that vary.

    Returns:
        (K,) int64: the number of each unit's cluster, 0 for the largest; -1 for a unit that has
        the same activation everywhere, which has no correlation with anything.

    Raises:
        TypeError: `activations` not a float tensor, `n_clusters` not an integer.
        ValueError: NaN or infinity, no dimension of units, fewer than two samples, n_clusters
            < 1 or more than the units that vary.

    Reference: Eisen, Spellman, Brown, Botstein (1998), Cluster Analysis and Display of
        Genome-Wide Expression Patterns (average linkage on correlations).
    Elsewhere: scikit-learn `AgglomerativeClustering(metric="precomputed", linkage="average")`,
        which does the merging.

    >>> cluster_units(torch.tensor([[0.0, 0.0, 9.0, 5.0], [1.0, 2.0, 3.0, 5.0]]), 2)
    tensor([ 0,  0,  1, -1])
    """
    check_input(torch.nn.Identity(), activations)
    clusters = check_positive("n_clusters", n_clusters)
    samples = activations.detach().movedim(1, -1).flatten(0, -2).double().cpu()  # (M, K)
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


def _row_conductance(
    model: nn.Module,
    start: Tensor,
    way: Tensor,
    alphas: Tensor,
    target: int | None,
    layer: str,
    batch_size: int | None,
) -> Tensor:
    """Add up slope times change along the path of one input, chunk by chunk."""
    total: Tensor | None = None
    last: tuple[Tensor, Tensor] | None = None  # the point before this chunk

    def walk(chunk: range) -> np.ndarray:
        nonlocal total, last
        steps = alphas[chunk.start : chunk.stop].reshape(-1, *[1] * way.ndim)
        here, slopes = layer_gradient(model, start + steps * way, target, layer)
        if last is not None:
            here, slopes = torch.cat([last[0], here]), torch.cat([last[1], slopes])
        part = (slopes[:-1] * here.diff(dim=0)).sum(0)
        total = part if total is None else total + part
        last = here[-1:], slopes[-1:]
        return np.asarray(chunk)

    batched(
        walk,
        range(len(alphas)),
        batch_size=batch_size,
        owner=model,
        gradients=True,
        row_bytes=way.nbytes,
    )
    assert total is not None  # batched ran at least one chunk
    return total


def _activation_x_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str, batch_size: int | None
) -> Tensor:
    """Return activation times gradient, the shape of the layer's output."""
    targets = split_target(target, len(x))

    def products(chunk: range) -> Tensor:
        rows = slice(chunk.start, chunk.stop)
        wanted: Any = None if target is None else targets[rows]
        activation, slopes = layer_gradient(model, x[rows], wanted, layer)
        return activation * slopes

    with frozen(model), graph():
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
    """Return each unit's drop, shared out among its positions."""
    drops = []
    with frozen(model), torch.no_grad():
        for row, t in zip(x, split_target(target, len(x)), strict=True):
            with capture(model, layer) as kept:
                score = scores_of(model, row[None], t)
            activation = units_of(kept, layer, 1)[0]
            live = activation.reshape(len(activation), -1).any(1).nonzero()[:, 0]
            drop = torch.zeros_like(activation)
            if len(live):
                lost = score - _scores_without(model, row, t, layer, score, live, batch_size)
                places = activation[0].numel()
                drop[live] = (lost / places).reshape(-1, *[1] * (activation.ndim - 1))
            drops.append(drop)
    return torch.stack(drops)


def _scores_without(
    model: nn.Module,
    row: Tensor,
    target: int | None,
    layer: str,
    score: Tensor,
    units: Tensor,
    batch_size: int | None,
) -> Tensor:
    """Return the score of one input with each of some units switched off, (len(units),)."""
    single = _may_multiply(model, row, target, layer, score)

    def switched_off(chunk: Tensor) -> Tensor:
        def switch(output: Tensor) -> Tensor:
            silenced = output.expand(len(chunk), *output.shape[1:]).clone()
            silenced[torch.arange(len(chunk)), chunk] = 0
            return silenced

        rows = row[None] if single else row.expand(len(chunk), *row.shape)
        with edited(model, layer, switch):
            return select(model(rows.clone()), target)

    return batched(switched_off, units, batch_size=batch_size, owner=model, row_bytes=row.nbytes)


def _may_multiply(
    model: nn.Module, row: Tensor, target: int | None, layer: str, score: Tensor
) -> bool:
    """Tell whether one row may become several at a layer, so that all below it runs only once.

    What follows must not care that the input had one row: tried, not assumed.
    """
    try:
        with edited(model, layer, lambda output: output.expand(2, *output.shape[1:])):
            got = select(model(row[None].clone()), target)
    except (RuntimeError, ValueError):
        return False
    return got.shape == (2,) and torch.allclose(got, score.expand(2), rtol=1e-4, atol=1e-5)
