"""Explanations that hand the score back layer by layer, by rules in place of slopes.

Lesson 07 teaches this file. Every rule answers one question: a unit got so much from above, how is
that shared among those that fed it? The rules run as the backward pass of the network's operations;
what no rule is known for is refused, because the plain gradient would slip through unnoticed. What
a rule does not hand on (to a bias, a constant, the stabilizer) is counted, and the sum is checked.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xailab.attribution.deeplift import (
    check_module,
    deep_lift,
    deep_shap,
    in_single_precision,
)
from xailab.core.checks import Target, check_input
from xailab.core.company import check_company
from xailab.core.layers import capture, find_layer
from xailab.core.operations import HandedBack, Layer, Moved, Operations, pulled_back, untouched
from xailab.core.registry import method
from xailab.core.scores import gradients_on, target_of_rows
from xailab.core.state import frozen

__all__ = ["Balance", "Pool", "deep_lift", "deep_shap", "layer_relevance", "lrp", "relevance_balance"]  # noqa: E501  # fmt: skip

Rule = str | Mapping[Any, str]  # one for all layers, a composite's name, or layer type -> rule

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COMPOSITES: dict[str, dict[Any, str]] = {
    "epsilon_plus": dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED), "z_plus"),
    "epsilon_plus_flat": {
        "first": "flat",
        **dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED), "z_plus"),
    },
    "epsilon_gamma_box": {
        "first": "zbox",
        **dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED), "gamma"),
    },
}
_WINNERS = frozenset({"MaxPool", "MkldnnMaxPool", "AdaptiveMaxPool", "Max", "Amax"})


@method("gradient", "known", title="LRP")
def lrp(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: Rule = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    per_layer: Mapping[str, str] | None = None,
) -> Tensor:
    r"""Layer-wise relevance propagation: share the score out backwards, in proportion.

    $$R_i = \sum_j \frac{z_{ij}}{\sum_{i'} z_{i'j} + b_j} R_j, \qquad z_{ij} = x_i w_{ij}$$

    $R_j$ is what unit j got from above; at the top it is the score. The rules of linear and
    convolution layers differ in $z$:

    - "epsilon": the denominator is moved away from 0 by epsilon times its sign;
    - "gamma": $w + \gamma w^+$ in place of $w$ (the same for the bias), for inputs that are not
      negative;
    - "alpha_beta": positive and negative $z_{ij}$ are shared out apart, and weigh $\alpha$ and
      $-\beta$;
    - "z_plus": only the positive ones ($\alpha = 1$, $\beta = 0$);
    - "flat": $z_{ij} = 1$, every input that reaches the unit gets the same;
    - "zbox": $z_{ij} = x_i w_{ij} - l w_{ij}^+ - h w_{ij}^-$ for inputs between $l$ and $h$.

    A batch norm right behind such a layer is one layer with it, except under epsilon, where that
    is the same. Everything else has one rule:

    - averages, sums and other batch norms share in proportion (epsilon 0); so do two branches that
      are added, $R_a = R\,a / (a + b)$, with epsilon or 1e-6, whichever is smaller; a constant
      operand keeps its share;
    - activations let relevance pass, a maximum hands all to its winner;
    - of a product of two parts of the network (a gate, attention times values) each gets half, and
      shares it out in proportion; of a quotient the numerator gets all;
    - layer, group and RMS norm share in proportion, their standard deviation held constant;
    - softmax: $R_i = z_i (R_i - s_i \sum_j R_j)$; what this does not hand on is absorbed.

    Without constants every layer hands on exactly what it got, up to epsilon, as long as there is
    something of the wanted sign to share it among. `relevance_balance` tells what was absorbed;
    the sum of both is the score, or the network is refused. Half precision is computed in float32.

    Args:
        model: layers, norms, pooling, skips, gates and attention, as modules or as functions.
        x: (N, ...) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the outputs, -> (N,).
        rule: for all linear and convolution layers that `per_layer` does not name; or a mapping
            from their type (`nn.Conv2d`) to a rule, where "first" stands for the layers that read
            x itself and "epsilon" serves the types that are not named; or such a composite by
            name: "epsilon_plus" (z_plus for convolutions), "epsilon_plus_flat" (flat for the
            first), "epsilon_gamma_box" (gamma for convolutions, zbox for the first).
        epsilon: of the epsilon rule, at least 0.
        gamma: of the gamma rule, at least 0.
        alpha, beta: of the alpha-beta rule; alpha - beta must be 1.
        low, high: the range of the numbers of x, for the zbox rule: numbers, or tensors that
            broadcast to x.
        per_layer: dotted layer name -> rule.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError: as for `saliency`, or a model that is not an `nn.Module`.
        ValueError: as for `saliency`; an unknown rule or layer, parameters out of range, an
            operation that no rule is known for, probabilities, or relevance that got lost.

    Reference: Bach, Binder, Montavon, Klauschen, Müller, Samek (2015), On Pixel-Wise Explanations
        for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation; Montavon, Binder,
        Lapuschkin, Samek, Müller (2019), Layer-Wise Relevance Propagation: An Overview (gamma,
        flat); Montavon, Lapuschkin, Binder, Samek, Müller (2017), Explaining Nonlinear
        Classification Decisions with Deep Taylor Decomposition (zbox); Ali, Schnake, Eberle,
        Montavon, Müller, Wolf (2022), XAI for Transformers: Better Explanations through
        Conservative Propagation (layer norm); Achtibat et al. (2024), AttnLRP: Attention-Aware
        Layer-Wise Relevance Propagation for Transformers (softmax, products; their norms pass
        relevance as it is, ours share out what centering mixes).
    Elsewhere: captum `LRP`, zennit `EpsilonPlus` and others, LXT.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> lrp(net, torch.tensor([[2.0, 1.0]]), 0).round(decimals=4)
    tensor([[ 6., -2.]])
    """
    settings = epsilon, gamma, alpha, beta
    return _relevances(model, x, target, rule, per_layer, settings, (low, high)).relevance


class Balance(NamedTuple):
    """Where the score went.

    Attributes:
        relevance: as `lrp` returns it.
        score: (N,), what was shared out.
        absorbed: "layer: what" -> (N,), what never reached the input: kept by a "bias" or another
            "constant" (positions, a class token), taken by the "stabilizer", left by "softmax", or
            for want of anything to share it among ("nothing to share").
    """

    relevance: Tensor
    score: Tensor
    absorbed: dict[str, Tensor]

    @property
    def gap(self) -> Tensor:
        """The score less what arrived and what was absorbed, (N,): rounding, if all is well."""
        arrived = self.relevance.double().flatten(1).sum(1)
        return self.score.double() - arrived - sum(self.absorbed.values())


def relevance_balance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: Rule = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    per_layer: Mapping[str, str] | None = None,
) -> Balance:
    r"""Return what LRP hands to the input, and what each layer kept of the score.

    $$f_t(x) = \sum_i R_i + \sum_{\text{layers}} \text{absorbed}$$

    Args:
        model, x, target, rule, epsilon, gamma, alpha, beta, low, high, per_layer: as for `lrp`.

    Returns:
        Relevance, score and what was absorbed, row by row.

    Raises:
        TypeError, ValueError: as for `lrp`.

    >>> net = nn.Linear(1, 1)
    >>> _ = net.weight.data.fill_(3.0), net.bias.data.fill_(2.0)
    >>> found = relevance_balance(net, torch.tensor([[2.0]]), 0, epsilon=0.0)
    >>> found.relevance, found.score, {name: kept.item() for name, kept in found.absorbed.items()}
    (tensor([[6.]]), tensor([8.]), {'the model: bias': 2.0})
    """
    settings = epsilon, gamma, alpha, beta
    found = _relevances(model, x, target, rule, per_layer, settings, (low, high))
    return Balance(found.relevance, found.score, found.absorbed)


def layer_relevance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layers: list[str],
    rule: Rule = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    per_layer: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Return what LRP hands to the outputs of some layers: is anything lost on the way?

    Args:
        layers: dotted module names; all else as for `lrp`.

    Returns:
        Mapping name -> (N, ...), the shape of that layer's output, in units of the score.

    Raises:
        TypeError, ValueError: as for `lrp`; a layer that does not exist, or that is one with the
            batch norm behind it.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> found = layer_relevance(net, torch.ones(1, 2), 0, layers=["1"])
    >>> torch.allclose(found["1"].sum(), net(torch.ones(1, 2)), atol=1e-4)
    True
    """
    settings, names = (epsilon, gamma, alpha, beta), tuple(layers)
    return _relevances(model, x, target, rule, per_layer, settings, (low, high), names).layers


# ---- rules of linear and convolution layers ----------------------------------------------------


class Pool(NamedTuple):
    """One sum that relevance is shared out of.

    Attributes:
        factor: what the pool weighs.
        inputs: those that were added up; the relevance of each is input times slope.
        total: their weighted sum, a function of the inputs, inside the graph.
        epsilon: by how much the denominator is moved away from 0.
        constant: the part of the total that belongs to no input: a bias.
    """

    factor: float
    inputs: list[Tensor]
    total: Tensor
    epsilon: float = 0.0
    constant: Tensor | float = 0.0


Share = Callable[[Layer], list[Pool]]


def _shares(settings: tuple[float, ...], bounds: tuple[Any, Any]) -> dict[str, Share]:
    """Return every rule by its name."""
    epsilon, gamma, alpha, beta = settings
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
        "flat": _flat_share,
        "zbox": partial(_zbox_share, *bounds),
    }


def _epsilon_share(epsilon: float, layer: Layer) -> list[Pool]:
    total = layer.apply(layer.x, layer.weight, layer.bias)
    return [Pool(1.0, [layer.x], total, epsilon, layer.constant)]


def _gamma_share(gamma: float, layer: Layer) -> list[Pool]:
    def favored(numbers: Tensor) -> Tensor:
        return numbers + gamma * numbers.clamp(min=0)

    bias = None if layer.bias is None else favored(layer.bias)
    layer = layer._replace(weight=favored(layer.weight), bias=bias)
    return _epsilon_share(0.0, layer)


def _alpha_beta_share(alpha: float, beta: float, layer: Layer) -> list[Pool]:
    """Positive products come from equal signs, negative ones from different signs."""
    up, down = layer.x.clamp(min=0), layer.x.clamp(max=0)
    pools = []
    for factor, low, high in ((alpha, 0.0, None), (-beta, None, 0.0)):
        same, other = layer.weight.clamp(low, high), layer.weight.clamp(high, low)
        part = layer._replace(bias=None if layer.bias is None else layer.bias.clamp(low, high))
        total = layer.apply(up, same, part.bias) + layer.apply(down, other, None)
        pools.append(Pool(factor, [up, down], total, 0.0, part.constant))
    return pools[:1] if beta == 0 else pools


def _flat_share(layer: Layer) -> list[Pool]:
    """Every input as if it were 1, and every weight: the edge's padding feeds nothing."""
    ones = torch.ones_like(layer.x).requires_grad_()
    return [Pool(1.0, [ones], layer.apply(ones, torch.ones_like(layer.weight), None))]


def _zbox_share(low: Any, high: Any, layer: Layer) -> list[Pool]:
    """Every input less the bound that its weight drives it from; the bias is no part of it."""
    least, most = (one.expand_as(layer.x).clone().requires_grad_() for one in (low, high))
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    total = layer.apply(layer.x, layer.weight, None)
    total = total - layer.apply(least, up, None) - layer.apply(most, down, None)
    return [Pool(1.0, [layer.x, least, most], total)]


def _bound(value: float | Tensor | None, row: Tensor) -> Tensor | None:
    """Return a bound of the numbers of x as a tensor that broadcasts to a row, (1, ...)."""
    if value is None:
        return None
    bound = torch.as_tensor(value, dtype=row.dtype, device=row.device)
    try:
        bound.expand_as(row)
    except RuntimeError as error:
        came, shape = tuple(bound.shape), tuple(row.shape)
        raise ValueError(f"a bound of shape {came} does not broadcast to a row {shape}") from error
    return bound


class _Rules(NamedTuple):
    """Which rule is whose.

    Attributes:
        shares: every rule by its name.
        kinds: type of a layer, or "first", -> name of its rule.
        rest: name of the rule of all others.
        own: module -> name of its rule.
        names: module -> the name by which the caller knows it.
        epsilon: for sums of branches and norms.
    """

    shares: dict[str, Share]
    kinds: Mapping[Any, str]
    rest: str
    own: dict[nn.Module, str]
    names: dict[nn.Module, str]
    epsilon: float

    @classmethod
    def of(
        cls,
        model: nn.Module,
        rule: Rule,
        per_layer: Mapping[str, str] | None,
        settings: tuple[float, ...],
        bounds: tuple[Any, Any],
    ) -> "_Rules":
        """Read what the caller says, with the errors that `lrp` promises."""
        check_module(model)
        shares = _shares(settings, bounds)
        kinds = COMPOSITES.get(rule, {}) if isinstance(rule, str) else rule
        rest = rule if isinstance(rule, str) and rule not in COMPOSITES else "epsilon"
        found = {find_layer(model, name): name for name in per_layer or {}}
        own = {module: (per_layer or {})[name] for module, name in found.items()}
        _check_names(shares, [rest, *kinds.values(), *own.values()], bounds)
        for kind in kinds:
            if kind not in ("first", nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED):
                raise ValueError(f'a type is nn.Linear, nn.Conv2d, ... or "first"; got {kind!r}')
        return cls(shares, kinds, rest, own, found, min(settings[0], 1e-6))

    def check_used(self, used: set[Any]) -> None:
        """Refuse rules for layers that did not run, or are none."""
        for module, name in self.names.items():
            if module not in used:
                raise ValueError(
                    f"layer {name!r} is no linear or convolution layer that ran: it has no rule"
                )
        if "first" in self.kinds and "first" not in used:
            raise ValueError(
                'no linear or convolution layer reads x itself, so that "first" names none: '
                "scale x before it is handed over, or say per_layer="
            )

    def rule_of(self, layer: Layer, leaf: Tensor) -> str:
        """Return the name of the rule of a layer that runs."""
        if layer.module in self.own:
            return self.own[layer.module]
        if "first" in self.kinds and untouched(layer.x, leaf):
            return self.kinds["first"]
        return self.kinds.get(layer.kind, self.rest)


def _check_names(shares: Mapping[str, Share], asked: list[str], bounds: tuple[Any, Any]) -> None:
    for name in asked:
        if name not in shares:
            known = f"{', '.join(shares)}, or a composite: {', '.join(COMPOSITES)}"
            raise ValueError(f"a rule is one of {known}; got {name!r}")
    if "zbox" in asked and any(one is None for one in bounds):
        raise ValueError("the zbox rule needs low= and high=, the range of the numbers of x")


# ---- rules of all other operations -------------------------------------------------------------


class _Relevance(Operations):
    """A forward pass whose backward pass hands relevance on.

    Args:
        model: the network, frozen.
        leaf: what it is run on, (N, ...).
        rules: of its linear and convolution layers.
    """

    def __init__(self, model: nn.Module, leaf: Tensor, rules: _Rules) -> None:
        super().__init__(model)
        self.leaf, self.rules = leaf, rules
        self.absorbed: dict[str, Tensor] = {}
        self.used: set[Any] = set()  # modules that a rule was asked for, and "first"
        self.made: dict[int, tuple[Tensor, Layer]] = {}  # outputs of layers, for a norm behind them
        self.merged: dict[int, Tensor] = {}  # those of them that a norm took over

    def layer(self, layer: Layer) -> Tensor:
        """Share by the rule of this layer."""
        chosen = self._rule_of(layer)
        inside = layer._replace(x=layer.x.detach().requires_grad_())
        share = partial(self.rules.shares[chosen], inside)
        if chosen == "epsilon":  # its one sum is what the layer computes: not a second time
            with torch.enable_grad():
                (pool,) = share()
            out = self._shared(layer, pool.total.detach(), lambda: [pool])
        else:
            out = self._shared(
                layer, layer.apply(layer.x.detach(), layer.weight, layer.bias), share
            )
        self.made[id(out)] = out, layer
        return out

    def batch_norm(self, function: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Be one with the layer before, or share in proportion."""
        channels = x.shape[1], *[1] * (x.ndim - 2)
        layer = self.made[id(x)][1] if id(x) in self.made else None
        one = layer is not None and (layer.kind in _CONVOLUTIONS or x.ndim == 2)
        if layer is None or not one or self._rule_of(layer) == "epsilon":
            return self._in_proportion(function, x, shift.reshape(channels))
        self.merged[id(x)] = x
        weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        bias = shift if layer.bias is None else layer.bias * scale + shift
        inside = layer._replace(x=layer.x.detach().requires_grad_(), weight=weight, bias=bias)
        share = partial(self.rules.shares[self._rule_of(layer)], inside)
        return self._shared(layer, function(x.detach()), share)

    def linear(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Share in proportion."""
        return self._in_proportion(function, x, 0.0)

    def plus(self, a: Any, b: Any) -> Tensor:
        """Share in proportion; a constant keeps its part."""
        a_value, b_value = _value(a), _value(b)
        out, place = a_value + b_value, self.place

        def share(relevance: Tensor) -> list[Tensor]:
            each = self._each(relevance, out, self.rules.epsilon, place)
            parts = [(one, torch.where(each == 0, 0, each * _value(one))) for one in (a, b)]
            for one, part in parts:
                if not _is_signal(one):
                    self._keep(place, "constant", part)
            return [part.sum_to_size(one.shape) for one, part in parts if _is_signal(one)]

        return HandedBack.apply((out, share), *filter(_is_signal, (a, b)))

    def scaled(self, out: Tensor, x: Tensor, factor: Any) -> Tensor:
        """Let relevance pass; where the factor is 0 it stays."""
        place, none = self.place, torch.as_tensor(factor, device=x.device) == 0

        def share(relevance: Tensor) -> Tensor:
            if none.any():
                self._keep(place, "constant", torch.where(none, relevance, 0))
                relevance = torch.where(none, 0, relevance)
            return relevance.sum_to_size(x.shape)

        return HandedBack.apply((out, share), x)

    def product(self, function: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
        """Give half to each of the two, which shares it in proportion."""
        place = self.place
        with torch.enable_grad():
            inside = [one.detach().requires_grad_() for one in (a, b)]
            total = function(*inside)

        def share(relevance: Tensor) -> list[Tensor]:
            if function is torch.mul:  # each product has one part of each: nothing to divide by
                return [(relevance / 2).sum_to_size(one.shape) for one in (a, b)]
            each = self._each(relevance, total.detach(), self.rules.epsilon, place)
            slopes = torch.autograd.grad(total, inside, each / 2, retain_graph=True)
            return [one.detach() * slope for one, slope in zip(inside, slopes, strict=True)]

        return HandedBack.apply((total.detach(), share), a, b)

    def quotient(self, a: Any, b: Tensor) -> Tensor:
        """Hold the divisor constant."""
        out, below = _value(a) / b.detach(), b.detach()
        return self.scaled(out, a, 1 / below) if _is_signal(a) else out

    def activation(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """Let relevance pass as it is."""
        return HandedBack.apply((function(z.detach()), lambda relevance: relevance), z)

    def curve(self, name: str, function: Callable[[Tensor], Tensor], z: Tensor) -> Any:
        """Hold divisors constant, and let powers pass: products of z with itself."""
        if name in ("rsqrt", "reciprocal"):
            return function(z.detach())
        passes = name in ("square", "power", "sqrt", "abs", "absolute")
        return self.activation(function, z) if passes else NotImplemented

    def softmax(self, z: Tensor, dim: int) -> Tensor:
        """Hand on z (R - s sum R), nothing where a score is hidden."""
        out, place = z.detach().softmax(dim), self.place

        def share(relevance: Tensor) -> Tensor:
            changes = relevance - out * relevance.sum(dim, keepdim=True)
            handed = torch.where(out == 0, 0, z.detach() * changes)
            self._keep(place, "softmax", relevance)
            self._keep(place, "softmax", -handed)
            return handed

        return HandedBack.apply((out, share), z)

    def standardized(self, x: Tensor, axes: tuple[int, ...], eps: float, centered: bool) -> Tensor:
        """Share (x - mean) / deviation in proportion, the deviation a constant."""
        value, place = x.detach(), self.place
        around = value - value.mean(axes, keepdim=True) if centered else value
        inverse = (around.square().mean(axes, keepdim=True) + eps).rsqrt()
        out = around * inverse

        def share(relevance: Tensor) -> Tensor:
            each = self._each(relevance, out, self.rules.epsilon, place) * inverse
            return value * (each - each.mean(axes, keepdim=True) if centered else each)

        return HandedBack.apply((out, share), x)

    def moved(self, function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        """Let every part have its own; constants keep theirs."""
        place = self.place

        def share(relevance: Tensor) -> tuple[Tensor, ...]:
            handed = pulled_back(function, relevance, *operands)
            self._keep(place, "constant", relevance)
            for one in handed:
                self._keep(place, "constant", -one)
            return handed

        return Moved.apply((function(*map(_value, operands)), share), *operands)

    def copied(self, before: Tensor, after: Tensor) -> None:
        """A copy of a layer's output is that layer's output."""
        if id(before) in self.made:
            self.made[id(after)] = after, self.made[id(before)][1]

    # ---- what they have in common

    def _rule_of(self, layer: Layer) -> str:
        chosen = self.rules.rule_of(layer, self.leaf)
        self.used.add(layer.module)
        if "first" in self.rules.kinds and untouched(layer.x, self.leaf):
            self.used.add("first")
        return chosen

    def _in_proportion(
        self, function: Callable[[Tensor], Tensor], x: Tensor, constant: Tensor | float
    ) -> Tensor:
        place = self.place
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            pool = Pool(1.0, [inside], function(inside), 0.0, constant)
        share = lambda relevance: self._from(pool, relevance, place)  # noqa: E731
        return HandedBack.apply((pool.total.detach(), share), x)

    def _shared(self, layer: Layer, out: Tensor, pools: Callable[[], list[Pool]]) -> Tensor:
        place = self.names.get(layer.module, self.place)

        def share(relevance: Tensor) -> Tensor:
            with torch.enable_grad():
                found = pools()
            parts = [part for pool in found for part in self._from(pool, relevance, place)]
            return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

        return HandedBack.apply((out, share), layer.x)

    def _from(self, pool: Pool, relevance: Tensor, place: str) -> list[Tensor]:
        """Return what each input of a pool gets: input times slope times what one unit is worth."""
        each = self._each(pool.factor * relevance, pool.total.detach(), pool.epsilon, place)
        if isinstance(pool.constant, Tensor):
            self._keep(place, "bias", each * pool.constant)
        slopes = torch.autograd.grad(pool.total, pool.inputs, each, retain_graph=True)
        return [one.detach() * slope for one, slope in zip(pool.inputs, slopes, strict=True)]

    def _each(self, due: Tensor, total: Tensor, epsilon: float, place: str) -> Tensor:
        """Return relevance per unit of the total; of a total of 0 none can be shared."""
        shift = epsilon * torch.where(total < 0, -1.0, 1.0).to(total.dtype)
        each = torch.where(total == 0, 0, due / (total + shift))
        self._keep(place, "nothing to share", torch.where(total == 0, due, 0))
        if epsilon:
            self._keep(place, "stabilizer", each * shift)
        return each

    def _keep(self, place: str, what: str, part: Tensor) -> None:
        """Count what is not handed on, row by row; the rows come first, as far as is known."""
        rows = len(self.leaf)
        if part.ndim and len(part) % rows == 0:
            found = part.reshape(rows, -1).sum(1, dtype=torch.float64)
        else:
            found = torch.zeros(rows, dtype=torch.float64, device=part.device)
            found[0] = part.sum(dtype=torch.float64)
        name = f"{place or 'the model'}: {what}"
        self.absorbed[name] = self.absorbed.get(name, 0) + found


def _value(one: Any) -> Any:
    return one.detach() if isinstance(one, Tensor) else one


def _is_signal(one: Any) -> bool:
    """Tell whether an operand depends on the input: all weights are frozen."""
    return isinstance(one, Tensor) and one.requires_grad


# ---- handing back ------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What one pass gave, for `Balance` and for `layer_relevance`."""

    relevance: Tensor
    score: Tensor
    absorbed: dict[str, Tensor]
    layers: dict[str, Tensor]
    noise: Tensor  # (N,), how large a gap rounding may leave

    @property
    def gap(self) -> Tensor:
        return Balance(self.relevance, self.score, self.absorbed).gap

    @property
    def whole(self) -> bool:
        """Tell whether nothing is missing from the score."""
        return bool((self.gap.abs() <= 0.01 * self.score.abs() + self.noise).all())


def _relevances(
    model: nn.Module,
    x: Tensor,
    target: Target,
    rule: Rule,
    per_layer: Mapping[str, str] | None,
    settings: tuple[float, ...],
    bounds: tuple[Any, Any],
    layers: tuple[str, ...] = (),
) -> _Found:
    """Return what LRP hands back, and refuse what does not add up."""
    x = check_input(check_module(model), x).detach()
    exact, (rows,) = in_single_precision(model, x)
    low, high = (_bound(one, rows[:1]) for one in bounds)
    rules = _Rules.of(exact, rule, per_layer, settings, (low, high))
    with frozen(exact), gradients_on():
        found = _pass(exact, rows, target, rules, layers)
        if not found.whole and len(rows) > 1:  # rows may not come first everywhere in this network
            asked = target_of_rows(target, len(rows))
            each = torch.arange(len(rows)).split(1)
            found = _beside([_pass(exact, rows[i], asked(i), rules, layers) for i in each])
        _refuse_gap(found)
        check_company(exact, rows)
    return found._replace(
        relevance=found.relevance.to(x.dtype),
        layers={name: one.to(x.dtype) for name, one in found.layers.items()},
    )


def _pass(
    model: nn.Module, x: Tensor, target: Target, rules: _Rules, layers: tuple[str, ...]
) -> _Found:
    """Run the rows and hand their scores back."""
    leaf = x.clone().requires_grad_()
    run = _Relevance(model, leaf, rules)
    with capture(model, list(layers)) as kept:
        scores = run.scores(leaf, target, _WINNERS)
    rules.check_used(run.used)
    for name in layers:
        if name in kept and id(kept[name]) in run.merged:
            raise ValueError(
                f"layer {name!r} is one with the batch norm behind it under this rule: ask for "
                "the output of the norm"
            )
    wanted = [leaf, *(kept[name] for name in layers)]
    handed = torch.autograd.grad(scores, wanted, scores.detach(), allow_unused=True)
    parts = [
        torch.zeros_like(one) if part is None else part.detach()
        for one, part in zip(wanted, handed, strict=True)
    ]
    absorbed = {name: kept for name, kept in run.absorbed.items() if not (kept == 0).all()}
    size = parts[0].double().abs().flatten(1).sum(1) + sum(one.abs() for one in absorbed.values())
    noise = 100 * torch.finfo(x.dtype).eps * size
    return _Found(
        parts[0], scores.detach(), absorbed, dict(zip(layers, parts[1:], strict=True)), noise
    )


def _beside(rows: list[_Found]) -> _Found:
    """Put passes of one row each below each other."""
    names = dict.fromkeys(name for row in rows for name in row.absorbed)
    zero = torch.zeros_like(rows[0].noise)
    return _Found(
        torch.cat([row.relevance for row in rows]),
        torch.cat([row.score for row in rows]),
        {name: torch.cat([row.absorbed.get(name, zero) for row in rows]) for name in names},
        {name: torch.cat([row.layers[name] for row in rows]) for name in rows[0].layers},
        torch.cat([row.noise for row in rows]),
    )


def _refuse_gap(found: _Found) -> None:
    """Raise where relevance and what was absorbed are not the score."""
    if not found.whole:
        gap, score = found.gap.abs().max().item(), found.score.abs().max().item()
        raise ValueError(
            f"relevance got lost: what arrived and what was absorbed miss the score by {gap:.3g} "
            f"of {score:.3g} (numbers that cancel, too large for {found.relevance.dtype}?): take a "
            "larger epsilon, another rule, or the model and x in float64"
        )
