"""DeepLIFT: explanations that share out the difference from a baseline, not the slope.

Lesson `integrated_gradients` teaches this file. The network runs twice. What every operation that
is not linear was given for the baseline is kept; for the row it then hands back multipliers, the
ratio of two differences, where autograd would take the slope. What no multiplier is known for is
refused.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.checks import Target, check_baseline, check_input, check_positive
from xailab.core.company import check_company
from xailab.core.operations import HandedBack, Operations, pulled_back
from xailab.core.registry import method
from xailab.core.scores import gradients_of, gradients_on, target_of_rows
from xailab.core.state import frozen

__all__ = ["deep_lift", "deep_shap"]

# Nodes of the graph that are linear: their slopes are their multipliers.
_LINEAR = frozenset(
    [
        "Addmm",
        "Mm",
        "Bmm",
        "Mv",
        "Convolution",
        "NativeBatchNorm",
        "CudnnBatchNorm",
        "Mean",
        "Sum",
        "AvgPool",
        "AdaptiveAvgPool",
        "MkldnnAdaptiveAvgPool",
        "Neg",
        "Add",
        "Sub",
        "Rsub",
        "Mul",
        "Div",
        "Where",
        "MaskedFill",
        "Pad",
        "ReflectionPad",
        "ReplicationPad",
        "UpsampleNearest",
        "UpsampleNearestExact",
        "UpsampleLinear",
        "UpsampleBilinear",
        "UpsampleBicubic",
        "UpsampleTrilinear",
        "Cumsum",
        "Col2Im",
        "Tril",
        "Triu",
        "GridSampler",
    ]
)


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
    largest now, the rest to the one that was largest in the baseline. A product changes by
    $\bar b\,\Delta a + \bar a\,\Delta b$, where the bars are means of the two runs; layer norm and
    softmax are taken apart into squares, roots, exponentials, sums and quotients $q = a / b$, which
    change by $(\Delta a - \bar q\,\Delta b) / \bar b$.
    $\sum_i A_i = f_t(x) - f_t(b)$, exactly, and refused where it is not. Half precision is
    computed in float32.

    Args:
        model: layers, norms, pooling, skips, gates and attention, as modules or as functions.
        x: (N, ...) floats.
        target: class index, (N,) class indices, None for a single-output model, or a function of
            the outputs, -> (N,).
        baseline: what counts as "nothing": a number, or a tensor that broadcasts to `x`.
        multiply_by_inputs: False returns the multipliers $m_x$ alone.

    Returns:
        The shape of `x`, in units of the score (multipliers: score per unit of `x`).

    Raises:
        TypeError: as for `saliency`, or a model that is not an `nn.Module`.
        ValueError: as for `saliency`, an operation that the rule does not know (recurrent layers,
            changes in place that cannot be followed), probabilities, or a sum that is not the
            change of the score, by more than rounding.

    Reference: Shrikumar, Greenside, Kundaje (2017), Learning Important Features Through
        Propagating Activation Differences. (Products, norms and softmax are not in the paper: the
        rules here are those that keep the sum.)
    Elsewhere: captum `DeepLift` (loses part of the change at max pooling), shap `DeepExplainer`.

    >>> net = nn.Sequential(nn.ReLU(), nn.Linear(1, 1, bias=False))
    >>> _ = net[1].weight.data.fill_(2.0)
    >>> deep_lift(net, torch.tensor([[3.0]]), 0, baseline=-1.0)
    tensor([[6.]])
    """
    x = check_input(check_module(model), x).detach()
    start = check_baseline(baseline, x)
    exact, (row, base) = in_single_precision(model, x, start)
    multipliers = _multipliers(exact, row, base, target)
    _check_rows(exact, row)
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
        target: as for `deep_lift`.
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
    x = check_input(check_module(model), x).detach()
    others = check_input(model, background).detach()
    if others.shape[1:] != x.shape[1:]:
        came, expected = tuple(others.shape), tuple(x.shape[1:])
        raise ValueError(f"background must have rows of shape {expected}, got {came}")
    size = 16 if batch_size is None else check_positive("batch_size", batch_size)
    exact, (rows, bases) = in_single_precision(model, x, others)
    asked, total = target_of_rows(target, len(x)), torch.zeros_like(rows)
    for pairs in torch.arange(len(x) * len(others), device=x.device).split(size):
        which = pairs // len(others)
        row, base = rows[which], bases[pairs % len(others)]
        multipliers = _multipliers(exact, row, base, asked(which))
        total.index_add_(0, which, (row - base) * multipliers / len(others))
    _check_rows(exact, rows)
    return total.to(x.dtype)


def check_module(model: Any) -> nn.Module:
    """Return the model if it is one whose operations can be followed.

    Raises:
        TypeError: no `nn.Module`, or one of TorchScript.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "the operations of a TorchScript module cannot be followed: hand over the nn.Module "
            "that it was made from"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    return model


def in_single_precision(model: nn.Module, *tensors: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """Return a copy of a half-precision model and its rows in float32: differences need digits."""
    if tensors[0].dtype not in (torch.float16, torch.bfloat16):
        return model, list(tensors)
    return deepcopy(model).float(), [one.float() for one in tensors]


def _check_rows(model: nn.Module, x: Tensor) -> None:
    with frozen(model), gradients_on():
        check_company(model, x)


def _multipliers(model: nn.Module, x: Tensor, start: Tensor, target: Target) -> Tensor:
    """Return the multipliers of every row of x against its own baseline, the shape of x."""
    rules = _Differences(model)
    with frozen(model), gradients_on():
        empty = rules.scores(start.clone().requires_grad_(), target, _LINEAR)
        rules.compare()
        leaf = x.clone().requires_grad_()
        scores = rules.scores(leaf, target, _LINEAR)
        multipliers = gradients_of(scores, leaf)
        _refuse_gap((x - start) * multipliers, scores, empty)
    return multipliers


def _refuse_gap(attribution: Tensor, scores: Tensor, empty: Tensor) -> None:
    """Raise where the sum is not the change of the score: a step was taken for linear that is not.

    No list of operations sees factors that depend on the input but are cut off from the graph.
    """
    scores, empty = scores.detach().double(), empty.detach().double()
    change, size = scores - empty, torch.maximum(scores.abs(), empty.abs())
    parts = attribution.double().flatten(1)
    gap = (parts.sum(1) - change).abs()
    rounding = 1e3 * torch.finfo(attribution.dtype).eps * parts.abs().sum(1)
    if not (gap <= 1e-3 * change.abs() + torch.minimum(rounding, 0.1 * size) + 1e-5 * size).all():
        raise ValueError(
            f"the sum misses f(x) - f(baseline) by up to {gap.max().item():.3g} of "
            f"{change.abs().max().item():.3g}: some operation of this model is not linear although "
            "its gradient looks like it (a factor that was detached or compared, a norm over the "
            "input's own statistics), so that no rule is known for it"
        )


class _Differences(Operations):
    """Two forward passes: the baselines', which is kept, and the rows', compared with it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.kept: list[list[Tensor]] = []
        self.roots: dict[int, tuple[Tensor, Tensor]] = {}  # results of 1 / sqrt, with the roots
        self.next: int | None = None  # while the baselines run

    def compare(self) -> None:
        """Let the rows run next."""
        self.next = 0

    def activation(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """The rescale rule, the slope where z did not move."""
        out, base = function(z.detach()), self._of_baseline(z)
        if base is None:
            return HandedBack.apply((out, None), z)

        def share(signal: Tensor) -> Tensor:
            (slope,) = pulled_back(function, torch.ones_like(out), z)
            change = out - function(base[0])
            way = z.detach() - base[0]
            return signal * torch.where(_apart(z.detach(), base[0]), change / way, slope)

        return HandedBack.apply((out, share), z)

    def curve(self, name: str, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """The same; 1 / sqrt(z) as a quotient: what it multiplies is divided by the root."""
        if name != "rsqrt":
            return self.activation(function, z)
        root = self.written_out(z.sqrt)
        out = self.quotient(1.0, root)
        self.roots[id(out)] = out, root
        return out

    def product(self, function: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
        r"""The change of a product: $\bar b\,\Delta a + \bar a\,\Delta b$, slopes in the middle."""
        for one, other in ((a, b), (b, a)):
            if function is torch.mul and id(other) in self.roots:
                return self.quotient(one, self.roots[id(other)][1])
        out, base = function(a.detach(), b.detach()), self._of_baseline(a, b)
        if base is None:
            return HandedBack.apply((out, None), a, b)

        def share(signal: Tensor) -> tuple[Tensor, ...]:
            middle = [(one.detach() + other) / 2 for one, other in zip((a, b), base, strict=True)]
            return pulled_back(function, signal, *middle)

        return HandedBack.apply((out, share), a, b)

    def quotient(self, a: Any, b: Tensor) -> Any:
        r"""The change of $q = a / b$: $(\Delta a - \bar q\,\Delta b) / \bar b$, from $a = q\,b$.

        The reciprocal of a b near 0, a norm of constant numbers, is never multiplied by.
        """
        top = a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype, device=b.device)
        signals = [one for one in (top, b) if one.requires_grad]
        out, base = top.detach() / b.detach(), self._of_baseline(top, b)
        if base is None:
            return HandedBack.apply((out, None), *signals)
        mean, below = (out + base[0] / base[1]) / 2, (b.detach() + base[1]) / 2

        def share(signal: Tensor) -> list[Tensor]:
            each = signal / below
            parts = [(top, each), (b, -mean * each)]
            return [part.sum_to_size(one.shape) for one, part in parts if one.requires_grad]

        return HandedBack.apply((out, share), *signals)

    def standardized(self, x: Tensor, axes: tuple[int, ...], eps: float, centered: bool) -> Tensor:
        """Differences, their squares, a mean, a root and a quotient."""

        def norm() -> Tensor:
            around = x - x.mean(axes, keepdim=True) if centered else x
            return around / (around.square().mean(axes, keepdim=True) + eps).sqrt()

        return self.written_out(norm)

    def softmax(self, z: Tensor, dim: int) -> Tensor:
        r"""Exponentials $e$, their sum $S$, and the quotient $s = e / S$.

        The exponentials are measured from the larger maximum of the two runs: none overflows.
        """
        out, base = z.detach().softmax(dim), self._of_baseline(z)
        if base is None:
            return HandedBack.apply((out, None), z)
        top = torch.maximum(z, base[0]).amax(dim, keepdim=True).detach()
        now, then = (z.detach() - top).exp(), (base[0] - top).exp()
        mean, below = (out + base[0].softmax(dim)) / 2, (now + then).sum(dim, keepdim=True) / 2

        def share(signal: Tensor) -> Tensor:
            each = (signal - (signal * mean).sum(dim, keepdim=True)) / below
            ratio = (now - then) / (z.detach() - base[0])
            return each * torch.where(_apart(z.detach(), base[0]), ratio, now)

        return HandedBack.apply((out, share), z)

    def winner(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
        """Share the change of a maximum between the two winners."""
        (out, now), base = function(z.detach()), self._of_baseline(z)
        if base is None:
            return HandedBack.apply((out, None), z)
        old, before = function(base[0])

        def share(signal: Tensor) -> Tensor:
            ours, theirs = z.detach().flatten(2), base[0].flatten(2)  # (N, C, positions)
            highest, found = torch.maximum(out, old).detach(), torch.zeros_like(ours)
            for part, place in ((highest - old, now), (out - highest, before)):
                at = [
                    one.gather(2, place.flatten(2)).reshape(place.shape) for one in (ours, theirs)
                ]
                # A winner that did not move has its slope: 1 if it wins now.
                still = torch.full_like(part, place is now)
                ratio = torch.where(_apart(*at), part / (at[0] - at[1]), still)
                found.scatter_add_(2, place.flatten(2), (signal * ratio).flatten(2))
            return found.reshape(z.shape)

        return HandedBack.apply((out, share), z)

    def _of_baseline(self, *operands: Tensor) -> list[Tensor] | None:
        """Return what this operation was given for the baselines; None while they run."""
        if self.next is None:
            self.kept.append([one.detach() for one in operands])
            return None
        base = self.kept[self.next] if self.next < len(self.kept) else []
        self.next += 1
        if [one.shape for one in base] != [one.shape for one in operands]:
            raise ValueError(
                "the model takes another way for x than for the baseline (a branch that depends on "
                "the numbers), so that no rule is known for their difference"
            )
        return base


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Tell which numbers differ by so much more than rounding that the difference may divide."""
    size = torch.maximum(one.abs(), other.abs())
    return (one - other).abs() > 100 * torch.finfo(one.dtype).eps * size
