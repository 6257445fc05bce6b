"""Explanations that hand the score back layer by layer, by rules in place of slopes.

Lesson 07 teaches this file. Every rule answers one question: a unit got so much from above, how is
that shared among those that fed it? The rules run as the backward pass of replaced layers; what no
rule is known for is refused, because the plain gradient would slip through unnoticed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xailab.core.checks import Target, check_baseline, check_input, check_positive
from xailab.core.layers import capture, find_layer, replaced
from xailab.core.registry import method
from xailab.core.scores import (
    check_graph,
    gradients_of,
    gradients_on,
    nodes_of,
    outputs_of,
    select,
    target_of_rows,
)
from xailab.core.state import frozen

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.GELU)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_SUMS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# Names of nodes in the autograd graph: those that only move numbers, and those linear in them.
_MOVES = {"AccumulateGrad", "View", "UnsafeView", "ReshapeAlias", "Transpose", "T", "Permute"}
_MOVES |= {"Clone", "Alias", "Select", "Slice", "Split", "Squeeze", "Unsqueeze", "Cat", "Index"}
_MOVES |= {"Gather", "ConstantPadNd", "Copy", "AsStrided"}
_LINEAR = {"Addmm", "Mm", "Convolution", "NativeBatchNorm", "CudnnBatchNorm", "Mean", "Sum"}
_LINEAR |= {"AvgPool", "AdaptiveAvgPool", "MkldnnAdaptiveAvgPool", "Expand", "Neg", "Add", "Sub"}


@method("gradient", "known", title="DeepLIFT", promises="baseline")
def deep_lift(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    multiply_by_inputs: bool = True,
) -> Tensor:
    r"""DeepLIFT with the rescale rule: explain the difference from a baseline, not the slope.

    $$m_{\text{act}} = \frac{\phi(z) - \phi(z^b)}{z - z^b}, \qquad
      A = (x - b) \odot m_{x}$$

    The multipliers $m$ replace the slopes of the activations in the chain rule; for linear layers
    both are the same. Of a maximum, what is above the baseline's goes to the position that is
    largest now, the rest to the one that was largest in the baseline.
    $\sum_i A_i = f_t(x) - f_t(b)$, exactly, and refused where it is not. Half precision is
    computed in float32.

    Args:
        model: linear and convolution layers, batch norm, pooling and flattening, in any order
            and with skips; activations and maxima as modules.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        baseline: what counts as "nothing": a number, or a tensor that broadcasts to `x`.
        multiply_by_inputs: False returns the multipliers $m_x$ alone.

    Returns:
        The shape of `x`, in units of the score (multipliers: score per unit of `x`).

    Raises:
        TypeError: as for `saliency`, or a model that is not an `nn.Module`.
        ValueError: as for `saliency`, an operation that the rule does not know, or a sum that is
            not the change of the score, by more than rounding.

    Reference: Shrikumar, Greenside, Kundaje (2017), Learning Important Features Through
        Propagating Activation Differences.
    Elsewhere: captum `DeepLift` (loses part of the change at max pooling), shap `DeepExplainer`.

    >>> net = nn.Sequential(nn.ReLU(), nn.Linear(1, 1, bias=False))
    >>> _ = net[1].weight.data.fill_(2.0)
    >>> deep_lift(net, torch.tensor([[3.0]]), 0, baseline=-1.0)
    tensor([[6.]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    exact, (row, base) = _in_single_precision(model, x, start)
    multipliers = _multipliers(exact, row, base, target)
    found = (row - base) * multipliers if multiply_by_inputs else multipliers
    return found.to(x.dtype)


@method(
    "gradient",
    "known",
    "background",
    title="Deep SHAP",
    promises="background",
    rows=lambda subject, options: len(options["background"]),
)
def deep_shap(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    background: Tensor,
    batch_size: int | None = None,
) -> Tensor:
    r"""DeepLIFT averaged over the rows of a background.

    $$A = \operatorname{mean}_b \big((x - b) \odot m_x(x, b)\big), \qquad
      \sum_i A_i = f_t(x) - \operatorname{mean}_b f_t(b)$$

    An approximation of Shapley values: exact where the model is linear in what the activations
    see of each feature.

    Args:
        model: as for `deep_lift`.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        background: (B, ...) floats, each row one baseline.
        batch_size: pairs of rows evaluated at once; None: 16.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError, ValueError: as for `deep_lift`; a background that does not fit.

    Reference: Lundberg, Lee (2017), A Unified Approach to Interpreting Model Predictions.
    Elsewhere: captum `DeepLiftShap`, shap `DeepExplainer`.

    >>> net = nn.Linear(1, 1)
    >>> _ = net.weight.data.fill_(2.0)
    >>> deep_shap(net, torch.tensor([[3.0]]), 0, background=torch.tensor([[0.0], [1.0]]))
    tensor([[5.]])
    """
    x = check_input(model, x).detach()
    others = check_input(model, background).detach()
    if others.shape[1:] != x.shape[1:]:
        came, expected = tuple(others.shape), tuple(x.shape[1:])
        raise ValueError(f"background must have rows of shape {expected}, got {came}")
    size = 16 if batch_size is None else check_positive("batch_size", batch_size)
    exact, (rows, bases) = _in_single_precision(model, x, others)
    asked, total = target_of_rows(target, len(x)), torch.zeros_like(rows)
    for pairs in torch.arange(len(x) * len(others), device=x.device).split(size):
        which = pairs // len(others)
        row, base = rows[which], bases[pairs % len(others)]
        multipliers = _multipliers(exact, row, base, asked(which))
        total.index_add_(0, which, (row - base) * multipliers / len(others))
    return total.to(x.dtype)


@method("gradient", "known", title="LRP")
def lrp(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: str = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    per_layer: Mapping[str, str] | None = None,
) -> Tensor:
    r"""Layer-wise relevance propagation: share the score out backwards, in proportion.

    $$R_i = \sum_j \frac{z_{ij}}{\sum_{i'} z_{i'j} + b_j} R_j, \qquad z_{ij} = x_i w_{ij}$$

    $R_j$ is what unit j got from above; at the top it is the score. The rules differ in $z$:

    - "epsilon": the denominator is moved away from 0 by epsilon times its sign;
    - "gamma": $w + \gamma w^+$ in place of $w$ (the same for the bias), for inputs that are not
      negative;
    - "alpha_beta": positive and negative $z_{ij}$ are shared out apart, and weigh $\alpha$ and
      $-\beta$;
    - "z_plus": only the positive ones ($\alpha = 1$, $\beta = 0$).

    Averages and batch norm share in proportion (epsilon 0), a maximum hands all to its winner,
    activations let relevance pass. Without biases every layer hands on exactly what it got (but
    for epsilon), as long as there is something of the wanted sign to share it among; a bias keeps
    its share.

    Args:
        model: linear and convolution layers, batch norm, pooling and flattening, without skips;
            activations and maxima as modules.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        rule: for all linear and convolution layers that `per_layer` does not name.
        epsilon: of the epsilon rule, at least 0.
        gamma: of the gamma rule, at least 0.
        alpha, beta: of the alpha-beta rule; alpha - beta must be 1.
        per_layer: dotted layer name -> rule.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError: as for `saliency`, or a model that is not an `nn.Module`.
        ValueError: as for `saliency`; an unknown rule or layer, parameters out of range, or an
            operation that no rule is known for.

    Reference: Bach, Binder, Montavon, Klauschen, Müller, Samek (2015), On Pixel-Wise Explanations
        for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation; Montavon, Binder,
        Lapuschkin, Samek, Müller (2019), Layer-Wise Relevance Propagation: An Overview (gamma).
    Elsewhere: captum `LRP`, zennit `EpsilonPlus` and others.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> lrp(net, torch.tensor([[2.0, 1.0]]), 0).round(decimals=4)
    tensor([[ 6., -2.]])
    """
    shares = _shares(epsilon, gamma, alpha, beta)
    return _relevances(model, x, target, shares, rule, per_layer or {}, ())[0]


def layer_relevance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layers: list[str],
    rule: str = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    per_layer: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Return what LRP hands to the outputs of some layers: is anything lost on the way?

    Args:
        layers: dotted module names; all else as for `lrp`.

    Returns:
        Mapping name -> (N, ...), the shape of that layer's output, in units of the score.

    Raises:
        TypeError, ValueError: as for `lrp`; a layer that does not exist.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> found = layer_relevance(net, torch.ones(1, 2), 0, layers=["1"])
    >>> torch.allclose(found["1"].sum(), net(torch.ones(1, 2)), atol=1e-4)
    True
    """
    shares = _shares(epsilon, gamma, alpha, beta)
    found = _relevances(model, x, target, shares, rule, per_layer or {}, tuple(layers))
    return dict(zip(layers, found[1:], strict=True))


# ---- DeepLIFT ----------------------------------------------------------------------------------


def _multipliers(model: nn.Module, x: Tensor, start: Tensor, target: Target) -> Tensor:
    """Return the multipliers of every row of x against its own baseline, the shape of x."""
    rules: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    for module in _modules(model):
        if isinstance(module, _ACTIVATIONS):
            rules[module] = partial(_apply, _Rescale, _plain(module))
        elif isinstance(module, _MAXIMA):
            rules[module] = partial(_apply, _RescaleMaximum, _with_places(module))
    with frozen(model), gradients_on(), replaced(rules):
        both = torch.cat([x, start]).requires_grad_()  # row i and row i + N belong together
        outputs = outputs_of(model, both)
        scores = select(outputs[: len(x)], target)
        _refuse_unknown(scores, _LINEAR | {"_Rescale", "_RescaleMaximum"})
        multipliers = gradients_of(scores, both)[: len(x)]
        _refuse_gap((x - start) * multipliers, scores, select(outputs[len(x) :], target))
    return multipliers


def _refuse_gap(attribution: Tensor, scores: Tensor, empty: Tensor) -> None:
    """Raise where the sum is not the change of the score: a step was taken for linear that is not.

    No list of operations sees factors that depend on the input but are cut off from the graph.
    """
    change = (scores - empty).detach().double()
    parts = attribution.double().flatten(1)
    gap = (parts.sum(1) - change).abs()
    rounding = 1e-4 * parts.abs().sum(1) + 1e-5 * torch.maximum(scores.abs(), empty.abs())
    if (gap > 1e-3 * change.abs() + rounding.detach()).any():
        raise ValueError(
            f"the sum misses f(x) - f(baseline) by up to {gap.max().item():.3g} of "
            f"{change.abs().max().item():.3g}: some operation of this model is not linear although "
            "its gradient looks like it (a factor that was detached or compared, a norm over the "
            "input's own statistics), so that no rule is known for it"
        )


def _in_single_precision(model: nn.Module, *tensors: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """Return a copy of a half-precision model and its rows in float32: differences need digits."""
    if tensors[0].dtype not in (torch.float16, torch.bfloat16):
        return model, list(tensors)
    return deepcopy(model).float(), [one.float() for one in tensors]


class _Rescale(torch.autograd.Function):
    """An activation whose slope is taken between the two halves of the batch."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        out = function(z.clone())  # it may work in place
        ctx.save_for_backward(z, out)
        ctx.function = function
        return out

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        z, out = ctx.saved_tensors
        way, change = _difference(z), _difference(out)
        apart = _apart(*z.chunk(2))
        with torch.enable_grad():
            here = z[: len(way)].detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(here.clone()).sum(), here)
        multiplier = torch.where(apart, change / way, slope)
        return signal * multiplier.repeat(2, *[1] * (z.ndim - 1)), None


class _RescaleMaximum(torch.autograd.Function):
    """A max pooling that shares the change of its maximum between the two winners."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        out, winners = function(z)
        ctx.save_for_backward(z, out, winners)
        return out

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        z, out, winners = ctx.saved_tensors
        ours, base = (half.flatten(2) for half in z.chunk(2))  # (N, C, positions)
        (new, old), (now, before) = out.chunk(2), winners.chunk(2)
        highest = torch.maximum(new, old)
        found = torch.zeros_like(ours)
        for part, winner in ((highest - old, now), (new - highest, before)):
            at = [half.gather(2, winner.flatten(2)).reshape(winner.shape) for half in (ours, base)]
            # A winner that did not move has its slope: 1 if it wins now.
            still = torch.full_like(part, winner is now)
            share = torch.where(_apart(*at), part / (at[0] - at[1]), still)
            found.scatter_add_(2, winner.flatten(2), (signal[: len(new)] * share).flatten(2))
        return torch.cat(
            [found.reshape(len(new), *z.shape[1:]), torch.zeros_like(z[len(new) :])]
        ), None


def _difference(both: Tensor) -> Tensor:
    """Return the first half of the batch minus the second."""
    ours, baseline = both.chunk(2)
    return ours - baseline


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Tell which numbers differ by so much more than rounding that the difference may divide."""
    size = torch.maximum(one.abs(), other.abs())
    return (one - other).abs() > 100 * torch.finfo(one.dtype).eps * size


def _with_places(module: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the pooling as a function that also tells where the winners stand."""
    pool = F.max_pool2d if isinstance(module, nn.MaxPool2d) else F.max_pool1d
    sizes = module.kernel_size, module.stride, module.padding, module.dilation
    return lambda z: pool(z, *sizes, ceil_mode=module.ceil_mode, return_indices=True)


# ---- LRP ---------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """One sum that relevance is shared out of.

    Attributes:
        factor: what the pool weighs.
        inputs: those that were added up; the relevance of each is input times slope.
        total: their weighted sum, a function of the inputs, inside the graph.
        epsilon: by how much the denominator is moved away from 0.
    """

    factor: float
    inputs: list[Tensor]
    total: Tensor
    epsilon: float


Share = Callable[[nn.Module, Tensor], list[Pool]]


def _relevances(
    model: nn.Module,
    x: Tensor,
    target: Target,
    shares: Mapping[str, Share],
    rule: str,
    per_layer: Mapping[str, str],
    layers: tuple[str, ...],
) -> list[Tensor]:
    """Return the relevance of x and of the outputs of these layers."""
    x = check_input(model, x).detach()
    rules = _lrp_rules(model, shares, rule, per_layer)
    with frozen(model), gradients_on(), replaced(rules), capture(model, list(layers)) as kept:
        leaf = x.clone().requires_grad_()
        scores = select(outputs_of(model, leaf), target)
        _refuse_unknown(scores, {"_Share", "_Pass", "MaxPool"})
        check_graph(scores, leaf)
        wanted = [leaf, *(kept[name] for name in layers)]
        found = torch.autograd.grad(scores, wanted, scores.detach(), allow_unused=True)
    return [
        torch.zeros_like(one) if relevance is None else relevance.detach()
        for one, relevance in zip(wanted, found, strict=True)
    ]


def _lrp_rules(
    model: nn.Module, shares: Mapping[str, Share], rule: str, per_layer: Mapping[str, str]
) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Return what every module does in place of its own forward pass."""
    own = {}
    for name, chosen in per_layer.items():
        own[find_layer(model, name)] = chosen
        if not isinstance(find_layer(model, name), _SUMS):
            raise ValueError(f"layer {name!r} is no linear or convolution layer: it has no rule")
    for chosen in (rule, *per_layer.values()):
        if chosen not in shares:
            raise ValueError(f"a rule is one of {', '.join(shares)}; got {chosen!r}")
    rules: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    for module in _modules(model):
        if isinstance(module, _SUMS):
            rules[module] = partial(_apply, _Share, (module, shares[own.get(module, rule)]))
        elif isinstance(module, (*_AVERAGES, *_NORMS)):
            rules[module] = partial(_apply, _Share, (module, partial(_epsilon_share, 0.0)))
        elif isinstance(module, _ACTIVATIONS):
            rules[module] = partial(_apply, _Pass, _plain(module))
    return rules


def _shares(epsilon: float, gamma: float, alpha: float, beta: float) -> dict[str, Share]:
    """Return every rule by its name."""
    for name, value in (("epsilon", epsilon), ("gamma", gamma), ("beta", beta)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0, got {value}")
    if abs(alpha - beta - 1) > 1e-6:
        raise ValueError(f"alpha - beta must be 1, got alpha={alpha} and beta={beta}")
    return {
        "epsilon": partial(_epsilon_share, epsilon),
        "gamma": partial(_gamma_share, gamma),
        "alpha_beta": partial(_alpha_beta_share, alpha, beta),
        "z_plus": partial(_alpha_beta_share, 1.0, 0.0),
    }


def _epsilon_share(epsilon: float, module: nn.Module, x: Tensor) -> list[Pool]:
    return [Pool(1.0, [x], _plain(module)(x), epsilon)]


def _gamma_share(gamma: float, module: Any, x: Tensor) -> list[Pool]:
    def favored(numbers: Tensor) -> Tensor:
        return numbers + gamma * numbers.clamp(min=0)

    bias = None if module.bias is None else favored(module.bias)
    return [Pool(1.0, [x], _summed(module, x, favored(module.weight), bias), 0.0)]


def _alpha_beta_share(alpha: float, beta: float, module: Any, x: Tensor) -> list[Pool]:
    """Positive products come from equal signs, negative ones from different signs."""
    up, down = x.clamp(min=0), x.clamp(max=0)
    weight, bias = module.weight, module.bias
    pools = []
    for factor, low, high in ((alpha, 0.0, None), (-beta, None, 0.0)):
        same, other = weight.clamp(low, high), weight.clamp(high, low)
        part = None if bias is None else bias.clamp(low, high)
        total = _summed(module, up, same, part) + _summed(module, down, other, None)
        pools.append(Pool(factor, [up, down], total, 0.0))
    return pools


def _summed(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear or convolution layer with other numbers in it."""
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    return module._conv_forward(x, weight, bias)  # knows stride, padding, groups


class _Share(torch.autograd.Function):
    """A layer whose backward pass takes relevance and shares it out by a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: tuple[nn.Module, Share]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return _plain(layer[0])(x)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        module, share = ctx.layer
        (x,) = ctx.saved_tensors
        handed = torch.zeros_like(x)
        with torch.enable_grad():
            pools = share(module, x.detach().requires_grad_())
        for pool in pools:
            sign = torch.where(pool.total < 0, -1.0, 1.0).to(x.dtype)
            each = relevance / (pool.total + pool.epsilon * sign).detach()
            each = torch.where(pool.total == 0, 0.0, each)
            slopes = torch.autograd.grad(pool.total, pool.inputs, each, retain_graph=True)
            for one, slope in zip(pool.inputs, slopes, strict=True):
                handed += pool.factor * (one * slope).detach()
        return handed, None


class _Pass(torch.autograd.Function):
    """An activation that lets relevance through as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x.clone())  # it may work in place

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        return relevance, None


# ---- what both share ---------------------------------------------------------------------------


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    return model.modules()


def _plain(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of the module's class, which a replaced one hides."""
    return partial(type(module).forward, module)


def _apply(rule: type[torch.autograd.Function], setting: Any, x: Tensor) -> Tensor:
    return rule.apply(x, setting)


def _refuse_unknown(scores: Tensor, known: set[str]) -> None:
    """Raise if the recorded graph holds an operation that would let the plain gradient through.

    Moving numbers is always fine, scaling them by a constant where linear operations are.
    """
    for node in nodes_of(scores):
        name = re.sub(r".*::|([123]D)?(With\w+)?(Backward\d*)?$", "", node.name())
        operands = sum(parent is not None for parent, _ in node.next_functions)
        scaled = name in {"Mul", "Div"} and operands < 2 and "Add" in known
        of_the_batch = getattr(node, "_saved_training", False)  # a norm by its own statistics
        if of_the_batch or (name not in known | _MOVES and not scaled):
            modules = ", ".join(one.__name__ for one in (*_SUMS, *_ACTIVATIONS, *_MAXIMA))
            raise ValueError(
                f"no rule is known for the operation {node.name()} of this model: what it computes "
                f"must be done by modules ({modules}, averages, batch norm), up to the logits"
                + ("" if "Add" in known else ", and without skips")
            )
