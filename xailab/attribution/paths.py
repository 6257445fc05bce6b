"""Explanations that walk from "nothing" to the input and add up the gradients on the way.

Lesson `integrated_gradients` teaches this file. Gradients at the input alone miss what has
saturated before; the sum along a path does not, and it adds up to the change of the score
(completeness).
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.checks import (
    Model,
    Target,
    check_baseline,
    check_index,
    check_input,
    check_positive,
)
from xailab.core.company import check_company, trial
from xailab.core.layers import capture, output_of
from xailab.core.parts import AtLayer, at_layer
from xailab.core.quadrature import quadrature
from xailab.core.registry import method
from xailab.core.scores import gradients_of, scores_of, summed_gradients
from xailab.core.state import frozen

_GAP = 0.1  # of the attribution's size: a sum that misses more is no approximation


@method(
    "gradient",
    promises="baseline",
    rows=lambda subject, options: options.get("n_steps", 50),
    keras="xailab.attribution.cam_keras:integrated_gradients",
)
def integrated_gradients(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    n_steps: int = 50,
    rule: str = "gauss-legendre",
    multiply_by_inputs: bool = True,
    layer: str | None = None,
    layer_baseline: float | Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Mean gradient on the straight path from the baseline $b$ to $x$, times the way gone.

    $$A = (x - b) \odot
      \int_0^1 \frac{\partial f_t}{\partial x}\big(b + \alpha (x - b)\big)\,d\alpha
      \approx (x - b) \odot \sum_{k=1}^{n} w_k
      \frac{\partial f_t}{\partial x}\big(b + \alpha_k (x - b)\big)$$

    Completeness: $\sum_i A_i = f_t(x) - f_t(b)$, up to the error of the sum over $n$ points
    (`completeness_gap` tells it).

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None, or a function, as for
            `saliency`.
        baseline: where the path begins, what counts as "nothing": a number, or a tensor that
            broadcasts to `x`.
        n_steps: points on the path.
        rule: where they lie and what they weigh: "gauss-legendre", "trapezoid", "midpoint",
            "left" or "right"; the weights of every rule sum to 1.
        multiply_by_inputs: False returns the mean gradient, without the factor $x - b$.
        layer: dotted name of a layer: what it gives in place of x. The path goes from
            $h_l(b)$ to $h_l(x)$, and all that reaches the score past the layer stays as for x.
            The sum is $f_t(x) - f_t(x \mid h_l = h_l(b))$: the change from b, where nothing
            passes the layer by.
        layer_baseline: where the path begins at the layer, in place of $h_l(b)$: a number, or a
            tensor that broadcasts to the layer's output.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x` (of the layer's output), in units of the score (without the factor: score
        per unit of that).

    Raises:
        TypeError: as for `saliency`, or a baseline that is no number or tensor.
        ValueError: as for `saliency`, a baseline that does not broadcast, an unknown rule,
            `n_steps` < 1; both kinds of baseline, or that of a layer without a layer.

    Reference: Sundararajan, Taly, Yan (2017), Axiomatic Attribution for Deep Networks.
    Elsewhere: captum `IntegratedGradients` (its trapezoid weights sum to (n - 1) / n),
        `LayerIntegratedGradients`; of one unit inside, `NeuronIntegratedGradients`, here
        `integrated_gradients(core.up_to(model, layer), x, unit)`.

    >>> product = lambda x: (x[:, 0] * x[:, 1])[:, None]
    >>> integrated_gradients(product, torch.tensor([[2.0, 3.0]]), 0)
    tensor([[3.0000, 3.0000]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    points, weights = quadrature(rule, n_steps, like=x)
    at = None if layer is None else at_layer(model, x, layer, target, batch_size=batch_size)
    if at is not None:
        start = _layer_start(at, start, layer_baseline)
        x = at.outputs
    elif layer_baseline is not None:
        raise ValueError("layer_baseline is where the path begins at a layer: name it by layer=")
    way = x - start

    def step(rows: Tensor, numbers: Tensor) -> Tensor:
        return start[rows] + _column(points[numbers].to(x), x) * way[rows]

    mean = summed_gradients(
        model,
        x,
        target,
        len(points),
        step,
        lambda rows, numbers: _column(weights[numbers].to(x), x),
        batch_size=batch_size,
        slope=None if at is None else at.slope,
    )
    _warn_of_gap(model if at is None else at.on(), x, target, way * mean, start)
    return way * mean if multiply_by_inputs else mean


def _layer_start(at: AtLayer, start: Tensor, given: float | Tensor | None) -> Tensor:
    """Return where the path begins at a layer: what it gives for the baseline, or what is given."""
    if given is None:
        return at.gives(start)
    if start.any():
        raise ValueError("say baseline= or layer_baseline=, not both: the path begins at one place")
    return check_baseline(given, at.outputs)


@method(
    "gradient",
    "background",
    promises="background",
    rows=lambda subject, options: options.get("n_samples", 100),
)
def expected_gradients(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    background: Tensor,
    n_samples: int = 100,
    seed: int = 0,
    layer: str | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Integrated gradients averaged over baselines drawn from a background.

    $$A = \frac{1}{n} \sum_{k=1}^{n} (x - b_k) \odot
      \frac{\partial f_t}{\partial x}\big(b_k + \alpha_k (x - b_k)\big), \qquad
      b_k \sim \text{background},\ \alpha_k \sim U\big(\tfrac{k-1}{n}, \tfrac{k}{n}\big)$$

    In expectation $\sum_i A_i = f_t(x) - \operatorname{mean}_b f_t(b)$. One $\alpha_k$ in each
    n-th of the path keeps the mean right and lowers the noise. Every row sees the same draws.

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, None, or a function, as for
            `saliency`.
        background: (B, ...) floats, the rows that baselines are drawn from.
        n_samples: draws for each row.
        seed: of the draws; the global random state is neither used nor changed.
        layer: dotted name of a layer: what it gives for x, and for the background, in their place.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x` (of the layer's output), in units of the score.

    Raises:
        TypeError: as for `saliency`, also of the background.
        ValueError: as for `saliency`, also of the background; rows of another shape than those
            of `x`; `n_samples` < 1.

    Reference: Erion, Janizek, Sturmfels, Lundberg, Lee (2021), Improving performance of deep
        learning models with axiomatic attribution priors and expected gradients.
    Elsewhere: captum `GradientShap`, shap `GradientExplainer`; both draw $\alpha$ freely.

    >>> net = torch.nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> expected_gradients(net, torch.ones(1, 2), 0, background=torch.zeros(1, 2)).round()
    tensor([[ 3., -2.]])
    """
    x = check_input(model, x).detach()
    rows, points = _draws(model, x, background, check_positive("n_samples", n_samples), seed)
    at = None if layer is None else at_layer(model, x, layer, target, batch_size=batch_size)
    if at is not None:
        x, rows = at.outputs, at.gives(rows, batch_size)
    points = _column(points.to(x), x)

    def way(row: Tensor, numbers: Tensor) -> Tensor:
        return x[row] - rows[numbers]

    return summed_gradients(
        model,
        x,
        target,
        len(rows),
        lambda row, numbers: rows[numbers] + points[numbers] * way(row, numbers),
        lambda row, numbers: way(row, numbers) / len(rows),
        batch_size=batch_size,
        slope=None if at is None else at.slope,
    )


def neuron_conductance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: str,
    unit: int | tuple[int, ...],
    baseline: float | Tensor = 0.0,
    n_steps: int = 50,
    rule: str = "gauss-legendre",
    batch_size: int | None = None,
) -> Tensor:
    r"""How much of the score each input brings about through one unit inside the network.

    $$C_i = (x_i - b_i) \int_0^1 \frac{\partial f_t}{\partial h_u}
      \frac{\partial h_u}{\partial x_i}\big(b + \alpha (x - b)\big)\,d\alpha$$

    It is integrated gradients of which only what flows through the unit $h_u$ is counted. Over
    inputs it sums to the unit's own conductance; over all units of a layer that everything has to
    pass it is integrated gradients.

    Args:
        model: the network.
        x: (N, ...) floats.
        target: class index, (N,) class indices, None, or a function, as for `saliency`.
        layer: dotted name of the layer.
        unit: which number of a row of the layer's output (K,), or its place in (K, h, w).
        baseline: where the path begins: a number, or a tensor that broadcasts to `x`.
        n_steps, rule: as for `integrated_gradients`.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError, ValueError: as for `integrated_gradients`; a layer that does not exist or does
            not run exactly once, a unit that it does not have.

    Reference: Dhamdhere, Sundararajan, Yan (2019), How Important Is a Neuron?
    Elsewhere: captum `NeuronConductance`.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[10.0, 1.0]]))
    >>> neuron_conductance(net, torch.ones(1, 2), 0, layer="0", unit=0).round()
    tensor([[10., 20.]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    points, weights = quadrature(rule, n_steps, like=x)
    place = unit if isinstance(unit, tuple) else (unit,)

    def through(rows: Tensor, values: Tensor, t: Target) -> Tensor:
        leaf = values.detach().clone().requires_grad_()
        with capture(model, layer) as kept:
            scores = scores_of(model, leaf, t)
        output = output_of(kept, layer, len(leaf))
        above = gradients_of(scores, output, name=f"layer {layer!r}")
        number: Any = (slice(None), *_check_place(layer, place, output))
        return gradients_of(above[number] * output[number], leaf)

    way = x - start
    with frozen(model):
        check_company(model, x, of=2, target=target)
    return way * summed_gradients(
        model,
        x,
        target,
        len(points),
        lambda rows, numbers: start[rows] + _column(points[numbers], x) * way[rows],
        lambda rows, numbers: _column(weights[numbers], x),
        batch_size=batch_size,
        slope=through,
    )


def completeness_gap(
    model: Model,
    x: Tensor,
    target: Target,
    attribution: Tensor,
    *,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    r"""Tell how far an attribution is from adding up to the change of the score.

    $$\delta = \sum_i A_i - \big(f_t(x) - f_t(b)\big)$$

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        attribution: (N, ...), what a method gave for these rows.
        baseline: the one the method was given.

    Returns:
        (N,), in units of the score; 0 for a complete attribution.

    Raises:
        TypeError, ValueError: as for `integrated_gradients`; an attribution that has not one
            entry per row.

    Elsewhere: captum `return_convergence_delta=True`.

    >>> net = torch.nn.Linear(2, 1)
    >>> x = torch.ones(1, 2)
    >>> abs(completeness_gap(net, x, 0, integrated_gradients(net, x, 0)).item()) < 1e-6
    True
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    if attribution.shape[:1] != x.shape[:1]:
        came = tuple(attribution.shape)
        raise ValueError(f"attribution must have {len(x)} rows, as x has; its shape is {came}")
    with frozen(model), torch.no_grad():
        change = scores_of(model, x, target) - scores_of(model, start, target)
    return attribution.detach().flatten(1).sum(1) - change


def _column(numbers: Tensor, x: Tensor) -> Tensor:
    """Give one number a row as many axes as x has."""
    return numbers.reshape(-1, *[1] * (x.ndim - 1))


def _warn_of_gap(
    model: Model, x: Tensor, target: Target, attribution: Tensor, start: Tensor
) -> None:
    """Say so where the sum is far from the change of the score that it promises."""
    with frozen(model), trial():
        ends = scores_of(model, x, target), scores_of(model, start, target)
    parts = attribution.double().flatten(1)
    gap = (parts.sum(1) - (ends[0] - ends[1]).double()).abs()
    rounding = 100 * torch.finfo(x.dtype).eps * torch.maximum(*(one.abs() for one in ends)).double()
    size = torch.maximum(parts.abs().sum(1), gap).clamp(min=1e-300)
    share = torch.where(gap > rounding, gap / size, 0).max().item()
    if share > _GAP:
        warnings.warn(
            f"the attribution misses f(x) - f(baseline) by up to {gap.max().item():.3g} "
            f"({share:.0%} of its size): take more steps; if that does not help, the model's "
            "gradient is not that of what it computes (detach, rounding)",
            stacklevel=3,
        )


def _draws(model: Model, x: Tensor, background: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return n rows of the background, and n points of the path, (n,) in double precision."""
    if check_input(model, background).shape[1:] != x.shape[1:]:
        came, expected = tuple(background.shape), tuple(x.shape[1:])
        raise ValueError(f"background must have rows of shape {expected}, got {came}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(background), (n,), generator=generator)
    within = torch.rand(n, generator=generator, dtype=torch.float64)
    points = (torch.arange(n) + within) / n
    return background.detach()[chosen.to(x.device)], points


def _check_place(layer: str, place: tuple[int, ...], output: Tensor) -> tuple[int, ...]:
    """Return the place of a unit in a row of a layer's output, if there is such a place."""
    sides = tuple(output.shape[1:])
    if len(place) != len(sides):
        raise ValueError(f"layer {layer!r} gives {sides} a row: unit must say a place, got {place}")
    pairs = zip(place, sides, strict=True)
    return tuple(check_index(f"layer {layer!r}: unit", one, side) for one, side in pairs)
