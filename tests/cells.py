"""One method asked about one kind of model: right, or refused with words that help."""

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import xailab
from tests.kinds import Kind, Options, kind
from tests.oracles import ORACLES, groups, score_of
from tests.test_own_networks import refused
from xailab.attribution import register_all
from xailab.core.registry import METHODS, Card

register_all()

RIGHT = "right"
# What cards and methods say no with, in short. A message that says none of this is no refusal.
REASONS = {
    "ids": "explain the vectors.*lime_text",
    "several inputs": r"one argument.*lambda x: model\(x, z",
    "several outputs at places": r"\(N, K\).*lambda x: model\(x\).mean\(\(2, 3\)\)",
    "tables only": "it explains a table, and x is .*: ask ",
    "pictures only": "it explains a picture( or a table)?, and x is .*: ask |be pictures",
    "texts only": "it explains a text, and x is .*: ask ",
    "not texts": "explains numbers; of a text ask token_attributions or lime_text",
    "own networks on words": "needs a network with encode and embed; lime_text",
    "trees only": "reads scikit-learn's fitted decision trees, forests and.*; kernel_shap",
    "linear models only": "reads a linear scikit-learn model; kernel_shap",
    "no gradients": "needs gradients.*occlusion, LIME or SHAP",
    "not for Keras": "no form for Keras; integrated_gradients",
    "a function has no layers": "works on the layers of an nn.Module: write",
    "channels last": r"channels first.*movedim\(1, -1\)",
    "no maps": "no layer is known to hold maps.*layer=.*reshape=",
    "not a CAM network": r"(CAM needs logits = linear\(average|class weights from).*use grad_cam",
    "no ReLU modules": r"no ReLU modules \(nn.ReLU.*saliency needs none",
    "function of a ReLU": "calls a ReLU as a function.*nn.ReLU",
    "no rule": "no rule is known for.*modules",
    "too many features": "more than can be enumerated.*group them",
    "groups must be said": r"have no position to group them by: say groups=.*shapley_values",
}
# How far an answer may be from the oracle's, as a share of the largest number: a sum over 100
# points is not an integral, and Keras computes in float32.
_SHARES = {"integrated_gradients": 0.03, "token_attributions": 0.03}
# Options that say how much is drawn; everything else is left as a user would leave it.
_DRAWN: dict[str, Options] = {
    "smoothgrad": {"n_samples": 3},
    "integrated_gradients": {"n_steps": 100},
    "expected_gradients": {"n_samples": 4},
    "rise": {"n_masks": 6, "grid": 3},
    "lime_tabular": {"n_samples": 100},
    "lime_image": {"n_samples": 120},
    "lime_text": {"n_samples": 100},
    "permutation_shap": {"n_permutations": 2},
}


class Cell(NamedTuple):
    """What became of it.

    Attributes:
        said: `RIGHT`, or one of `REASONS`.
        message: of the refusal.
        layer: through which it was explained.
    """

    said: str
    message: str = ""
    layer: str | None = None


@cache
def cell(name: str, method: str) -> Cell:
    """Ask a method about a kind, and compare its answer with that of the oracle.

    Raises:
        AssertionError: a wrong answer, or a refusal that does not say what to do.
        Exception: an error that xailab did not raise on purpose.
    """
    of, card = kind(name), METHODS[method]
    options = options_of(of, card)
    try:
        found = xailab.explain(of.model, of.x, of.target, methods=[method], **options)
    except Exception as error:
        return Cell(reason(error), str(error))
    check(of, card, options, found)
    return Cell(RIGHT, layer=next(iter(found)).layer)


def reason(error: Exception) -> str:
    """Return the short reason of a refusal, raising what is none."""
    if not refused(error):
        raise error
    said = [short for short, words in REASONS.items() if re.search(words, str(error), re.DOTALL)]
    assert said, f"it does not say what to do instead: {error}"
    return said[0]


def options_of(of: Kind, card: Card) -> Options:
    """Return what the method is told about this kind."""
    pictures = isinstance(of.x, (torch.Tensor, np.ndarray)) and of.x.ndim == 4
    drawn = {"n_samples": 60} if pictures and card.name == "kernel_shap" else _DRAWN.get(card.name)
    chunk = {"batch_size": 256} if "batch_size" in card.options and "Keras" not in of.name else {}
    known = {
        name: one
        for name, one in of.options.items()
        if name in {*card.options, "layer", "channel_axis"}
    }
    if pictures and card.name == "owen_values" and "feature_mask" not in known:
        known["feature_mask"] = quarters(of)  # so many coalitions of 64 squares take long
    return {**known, **chunk, **(drawn or {})}


def quarters(of: Kind) -> Tensor:
    """Number a picture's sixteen squares, in the axes of x."""
    label = groups(of, {}, 4)[:1]
    return label.movedim(0, -1) if of.last else label


def check(of: Kind, card: Card, options: Options, found: Any) -> None:
    """Compare an answer of `explain` with the oracle's, and its sum with what the card promises."""
    got, want = in_order(of, found[card.name]), ORACLES[card.name](of, options)
    assert got.shape == want.shape, (got.shape, want.shape)
    size = want.abs().max().item()
    assert size > 0, "an oracle that says 0 everywhere tells nothing"
    exact = isinstance(of.x, torch.Tensor) and of.x.dtype == torch.float64
    share = _SHARES.get(card.name, 1e-7 if exact else 1e-4)
    gap = (got - want).abs().max().item()
    assert gap <= share * size, f"{card.name} is off by {gap:.3g}, its largest number is {size:.3g}"
    gap_as_defined(of, card, options, next(iter(found)))


def gap_as_defined(of: Kind, card: Card, options: Options, one: Any) -> None:
    """Look whether the gap that is shown is that of the promised sum, and is none."""
    if one.gap is None:
        return
    if card.promises == "rows" and "background" not in options:  # training rows: in test_trees
        assert one.gap.abs().max() <= 1e-9
        return
    values = in_order(of, one.attribution)
    if isinstance(of.x, list):  # what a text's words sum to is what the oracle's sum to
        want = values.sum(1) - ORACLES[card.name](of, options).sum(1)
        assert (one.gap - want).abs().max() <= 0.03, (one.gap, want)
        assert one.gap.abs().max() <= 0.03 * max(1.0, values.abs().sum(1).max().item())
        return
    for row, gap in enumerate(one.gap.tolist()):
        score = score_of(of, of.targets[row])
        rows = card.promises in ("background", "rows")
        others = of.background if rows else torch.zeros_like(of.rows[:1])
        with torch.no_grad():
            change = (score(of.rows[row : row + 1]) - score(others).mean()).item()
        grouped = card.name in ("shapley_values", "owen_values")
        label = groups(of, options, 3) if grouped else None
        parts = values[row] if label is None else by_group(values[row], label)
        want = parts.sum().item() - change
        assert abs(gap - want) <= 1e-4 * max(1.0, abs(change)), (gap, want)
        if card.name not in ("expected_gradients",):  # its sum is one of draws
            assert abs(want) <= 0.03 * max(1.0, abs(change))


def by_group(values: Tensor, label: Tensor) -> Tensor:
    """Return the value of each group once."""
    return torch.stack([values[label == name].mean() for name in label.unique()])


def in_order(of: Kind, values: Tensor) -> Tensor:
    """Return an attribution as float64 with channels first."""
    values = torch.as_tensor(np.asarray(values.detach()), dtype=torch.float64)
    return values.movedim(-1, 1) if of.last else values
