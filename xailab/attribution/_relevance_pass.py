"""One pass of LRP: the rules of all operations, and an account of what they do not hand on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xailab.attribution._relevance_rules import CONVOLUTIONS, Pool, Rules
from xailab.core.operations import HandedBack, Layer, Moved, Operations, pulled_back, untouched


class _Made(NamedTuple):
    """The output of a layer, and under the epsilon rule its pool."""

    out: Tensor
    layer: Layer
    pools: list[Pool]


class Relevance(Operations):
    """A forward pass whose backward pass hands relevance on.

    Args:
        model: the network, frozen.
        leaf: what it is run on, (N, ...).
        rules: of its linear and convolution layers.
    """

    def __init__(self, model: nn.Module, leaf: Tensor, rules: Rules) -> None:
        super().__init__(model)
        self.leaf, self.rules = leaf, rules
        self.absorbed: dict[str, Tensor] = {}
        self.used: set[Any] = set()  # modules that a rule was asked for, and "first"
        self.made: dict[int, _Made] = {}  # outputs of layers, for a norm behind them
        self.merged: dict[int, Tensor] = {}  # those of them that a norm took over

    def layer(self, layer: Layer) -> Tensor:
        """Share by the rule of this layer."""
        pools = self._pools_of(layer)
        if self._rule_of(layer) == "epsilon":  # its sum is what the layer computes: not once more
            found = pools(layer.x)
            inner = found[0].total.detach()
            out = self._shared(layer, inner, lambda: found)
        else:
            found = []
            inner = layer.apply(layer.x.detach(), layer.weight, layer.bias)
            out = self._shared(layer, inner, lambda: pools(inner))
        self.made[id(out)] = _Made(out, layer, found)
        return out

    def batch_norm(self, function: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Be one with the layer before, or share in proportion."""
        channels = x.shape[1], *[1] * (x.ndim - 2)
        made = self.made.get(id(x))
        if made is None or not (made.layer.kind in CONVOLUTIONS or x.ndim == 2):
            return self._in_proportion(function, x, shift.reshape(channels))
        self.merged[id(x)] = x
        layer = made.layer
        bias = shift if layer.bias is None else layer.bias * scale + shift
        if made.pools:
            with torch.enable_grad():
                total = function(made.pools[0].total)
            pool = made.pools[0]._replace(total=total, constant=bias.reshape(channels))
            return self._shared(layer, total.detach(), lambda: [pool])
        weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        pools, out = self._pools_of(layer._replace(weight=weight, bias=bias)), function(x.detach())
        return self._shared(layer, out, lambda: pools(out))

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
            self.made[id(after)] = self.made[id(before)]._replace(out=after)

    # ---- what they have in common

    def _rule_of(self, layer: Layer) -> str:
        self.used.add(layer.module)
        if "first" in self.rules.kinds and untouched(layer.x, self.leaf):
            self.used.add("first")
        return self.rules.rule_of(layer, self.leaf)

    def _pools_of(self, layer: Layer) -> Callable[[Tensor], list[Pool]]:
        """Return what makes the sums of a layer's rule, given its output."""
        share = self.rules.shares[self._rule_of(layer)]
        inside = layer._replace(x=layer.x.detach().requires_grad_())

        def pools(out: Tensor) -> list[Pool]:
            with torch.enable_grad():
                return share(inside, out)

        return pools

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
            parts = [part for pool in pools() for part in self._from(pool, relevance, place)]
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
