"""Explanations that hand the score back layer by layer, by rules in place of slopes.

Lesson `integrated_gradients` teaches this file; the rules of single layers are in
`_relevance_rules`, those of all other operations in `_relevance_pass`. They run as the backward
pass of the network's operations; what no rule is known for is refused, because the plain gradient
would slip through unnoticed. What a rule does not hand on (to a bias, a constant, the stabilizer)
is counted, and the sum is checked.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xailab.attribution._relevance_pass import Relevance
from xailab.attribution._relevance_rules import Rule, Rules, bound_of
from xailab.attribution.deeplift import (
    check_module,
    deep_lift,
    deep_shap,
    in_single_precision,
)
from xailab.core.checks import Target, check_input
from xailab.core.company import check_company
from xailab.core.layers import capture
from xailab.core.registry import method
from xailab.core.scores import gradients_on, target_of_rows
from xailab.core.state import frozen

__all__ = ["Balance", "deep_lift", "deep_shap", "layer_relevance", "lrp", "relevance_balance"]

_WINNERS = frozenset(
    {"MaxPool", "MkldnnMaxPool", "AdaptiveMaxPool", "Max", "Amax", "Maximum", "Minimum"}
)


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
    - "gamma": products that have the sign of the sum weigh more, $w + \gamma w^+$ in place of $w$
      for a sum above 0 and $w + \gamma w^-$ for one below (of inputs below 0 the other way
      around; of the bias the same);
    - "alpha_beta": positive and negative $z_{ij}$ are shared out apart, and weigh $\alpha$ and
      $-\beta$;
    - "z_plus": only the positive ones ($\alpha = 1$, $\beta = 0$);
    - "flat": $z_{ij} = 1$, every input that reaches the unit gets the same;
    - "zbox": $z_{ij} = x_i w_{ij} - l w_{ij}^+ - h w_{ij}^-$ for inputs between $l$ and $h$.

    A batch norm right behind such a layer is one layer with it. Everything else has one rule:

    - averages, sums and other batch norms share in proportion (epsilon 0); so do two branches that
      are added, $R_a = R\,a / (a + b)$, with epsilon or 1e-6, whichever is smaller; a constant
      operand keeps its share;
    - activations let relevance pass, a maximum hands all to its winner;
    - of a product of two parts of the network (a gate, attention times values, an activation that
      is written out, z * relu6(z + 3)) each gets half, and shares it out in proportion; of a
      quotient the numerator gets all;
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
        flat); Andéol, Kawakami, Wada, Kanamori, Müller, Montavon (2021), Learning Domain Invariant
        Representations by Joint Wasserstein Distance Minimization (gamma of any sign); Montavon,
        Lapuschkin, Binder, Samek, Müller (2017), Explaining Nonlinear Classification Decisions
        with Deep Taylor Decomposition (zbox); Ali, Schnake, Eberle, Montavon, Müller, Wolf (2022),
        XAI for Transformers: Better Explanations through
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


# ---- handing back ------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What one pass gave, for `Balance` and for `layer_relevance`."""

    relevance: Tensor
    score: Tensor
    absorbed: dict[str, Tensor]
    layers: dict[str, Tensor]

    @property
    def gap(self) -> Tensor:
        return Balance(self.relevance, self.score, self.absorbed).gap

    @property
    def whole(self) -> bool:
        """Tell whether nothing is missing from the score."""
        return bool((self.gap.abs() <= 0.01 * self.score.abs()).all())


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
    low, high = (bound_of(one, rows[:1]) for one in bounds)
    rules = Rules.of(exact, rule, per_layer, settings, (low, high))
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
    model: nn.Module, x: Tensor, target: Target, rules: Rules, layers: tuple[str, ...]
) -> _Found:
    """Run the rows and hand their scores back."""
    leaf = x.clone().requires_grad_()
    run = Relevance(model, leaf, rules)
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
    named = dict(zip(layers, parts[1:], strict=True))
    return _Found(parts[0], scores.detach(), absorbed, named)


def _beside(rows: list[_Found]) -> _Found:
    """Put passes of one row each below each other."""
    names = dict.fromkeys(name for row in rows for name in row.absorbed)
    zero = torch.zeros_like(rows[0].score, dtype=torch.float64)
    return _Found(
        torch.cat([row.relevance for row in rows]),
        torch.cat([row.score for row in rows]),
        {name: torch.cat([row.absorbed.get(name, zero) for row in rows]) for name in names},
        {name: torch.cat([row.layers[name] for row in rows]) for name in rows[0].layers},
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
