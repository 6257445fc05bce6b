"""The rules of LRP for linear and convolution layers, and which layer has which.

Every rule answers one question: a unit got so much from above, how is that shared among those that
fed it? The answer is a sum, or two, of which each input is given what it put in.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xailab.attribution.deeplift import check_module
from xailab.core.layers import find_layer
from xailab.core.operations import Layer, untouched

Rule = str | Mapping[Any, str]  # one for all layers, a composite's name, or layer type -> rule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_EVERY = (*CONVOLUTIONS, *_TRANSPOSED)
COMPOSITES: dict[str, dict[Any, str]] = {
    "epsilon_plus": dict.fromkeys(_EVERY, "z_plus"),
    "epsilon_plus_flat": {"first": "flat", **dict.fromkeys(_EVERY, "z_plus")},
    "epsilon_gamma_box": {"first": "zbox", **dict.fromkeys(_EVERY, "gamma")},
}


class Pool(NamedTuple):
    """One sum that relevance is shared out of.

    Attributes:
        factor: what the pool weighs.
        inputs: those that were added up; the relevance of each is input times slope.
        total: their weighted sum, a function of the inputs, inside the graph.
        epsilon: by how much the denominator is moved away from 0.
        constant: the part of the total that belongs to no input: a bias.
    """

    factor: float | Tensor
    inputs: list[Tensor]
    total: Tensor
    epsilon: float = 0.0
    constant: Tensor | float = 0.0


Share = Callable[[Layer, Tensor], list[Pool]]  # a layer and its output


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


def _epsilon_share(epsilon: float, layer: Layer, out: Tensor) -> list[Pool]:
    total = layer.apply(layer.x, layer.weight, layer.bias)
    return [Pool(1.0, [layer.x], total, epsilon, layer.constant)]


def _gamma_share(gamma: float, layer: Layer, out: Tensor) -> list[Pool]:
    """Favor the products that have the sign of the sum: it cannot change by that."""

    def favored(numbers: Tensor, sign: int) -> Tensor:
        return numbers + gamma * sign * (sign * numbers).clamp(min=0)

    pools = []
    for sign, here in ((1, out >= 0), (-1, out < 0)):
        bias = None if layer.bias is None else favored(layer.bias, sign)
        same, other = favored(layer.weight, sign), favored(layer.weight, -sign)
        inputs, total = _of_both_signs(layer, same, other, bias)
        constant = layer._replace(bias=bias).constant
        pools.append(Pool(here.to(out.dtype), inputs, total, 0.0, constant))
    return pools


def _alpha_beta_share(alpha: float, beta: float, layer: Layer, out: Tensor) -> list[Pool]:
    """Positive products come from equal signs, negative ones from different signs."""
    pools = []
    for factor, low, high in ((alpha, 0.0, None), (-beta, None, 0.0)):
        if factor:
            bias = None if layer.bias is None else layer.bias.clamp(low, high)
            same, other = layer.weight.clamp(low, high), layer.weight.clamp(high, low)
            inputs, total = _of_both_signs(layer, same, other, bias)
            pools.append(Pool(factor, inputs, total, 0.0, layer._replace(bias=bias).constant))
    return pools


def _of_both_signs(
    layer: Layer, of_up: Tensor, of_down: Tensor, bias: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """Return the inputs above 0 and below, and their sum by weights of their own."""
    up, down = layer.x.clamp(min=0), layer.x.clamp(max=0)
    total = layer.apply(up, of_up, bias)
    if not (layer.x < 0).any():  # behind a ReLU: half the work
        return [up], total
    return [up, down], total + layer.apply(down, of_down, None)


def _flat_share(layer: Layer, out: Tensor) -> list[Pool]:
    """Every input as if it were 1, and every weight: the edge's padding feeds nothing."""
    ones = torch.ones_like(layer.x).requires_grad_()
    return [Pool(1.0, [ones], layer.apply(ones, torch.ones_like(layer.weight), None))]


def _zbox_share(low: Any, high: Any, layer: Layer, out: Tensor) -> list[Pool]:
    """Every input less the bound that its weight drives it from; the bias is no part of it."""
    least, most = (one.expand_as(layer.x).clone().requires_grad_() for one in (low, high))
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    total = layer.apply(layer.x, layer.weight, None)
    total = total - layer.apply(least, up, None) - layer.apply(most, down, None)
    return [Pool(1.0, [layer.x, least, most], total)]


def bound_of(value: float | Tensor | None, row: Tensor) -> Tensor | None:
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


class Rules(NamedTuple):
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
    ) -> "Rules":
        """Read what the caller says, with the errors that `lrp` promises."""
        check_module(model)
        shares = _shares(settings, bounds)
        kinds = COMPOSITES.get(rule, {}) if isinstance(rule, str) else rule
        rest = rule if isinstance(rule, str) and rule not in COMPOSITES else "epsilon"
        found = {find_layer(model, name): name for name in per_layer or {}}
        own = {module: (per_layer or {})[name] for module, name in found.items()}
        _check_names(shares, [rest, *kinds.values(), *own.values()], bounds)
        for kind in kinds:
            if kind not in ("first", nn.Linear, *CONVOLUTIONS, *_TRANSPOSED):
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
