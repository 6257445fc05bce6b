"""`explain`: several methods about the same prediction, for comparing them fairly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from xailab.attribution import register_all
from xailab.core.checks import Target, check_baseline
from xailab.core.company import trying
from xailab.core.registry import METHODS, Card, chosen, refuse_unknown
from xailab.core.subjects import Subject, subject
from xailab.explanations.result import Explanation, Explanations, fingerprint

_USUAL = {
    "torch": ("saliency", "input_x_gradient", "smoothgrad", "grad_cam"),
    "tensors": ("saliency", "input_x_gradient", "smoothgrad"),
    "keras": ("saliency", "integrated_gradients", "grad_cam"),
    "tokens": ("token_attributions", "lime_text"),
    "texts": ("lime_text",),
}
_USUAL_BLACK_BOX = {
    "table": ("tree_shap", "kernel_shap", "permutation_shap", "lime_tabular", "feature_ablation"),
    "picture": ("occlusion", "lime_image"),
}
_MANY = 12  # columns from which on all coalitions are too many for a first look


def methods() -> list[str]:
    """Return the names of all attribution methods, sorted.

    >>> "grad_cam" in methods()
    True
    """
    register_all()
    return sorted(METHODS)


def explain(
    model: Any,
    x: Any = None,
    target: Target = None,
    *,
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]] | None = None,
    feature_names: Sequence[str] | None = None,
    **options: Any,
) -> Explanations:
    """Explain one prediction by several methods under the same conditions.

    Args:
        model: an `nn.Module`, a function of tensors or arrays, a Keras model, a fitted scikit-learn
            estimator, a network on words or a function of texts; or a `Subject`, made by
            `xailab.core.subject`, which holds the rows too.
        x: (N, ...) rows in the form that the model takes, a DataFrame for tables, or texts.
        target: class index, (N,) class indices, None for a single-output model, or (PyTorch) a
            function of the outputs.
        methods: names out of `xailab.methods()`, functions `(model, x, target)`, or a mapping
            name -> function. None takes what is usual and possible: gradients and Grad-CAM for a
            network, SHAP and LIME for a black box on a table with a `background`.
        feature_names: what the columns of a table are called; those of a DataFrame by default.
        options: keyword arguments such as `layer`, `background`, `seed`, `batch_size`; each goes to
            those methods that know it. `channel_axis` says for all where x has its channels. What
            a method needs and is not told (a window, the squares of a grid, the last layer with
            positions) is drawn from the subject.

    Returns:
        The maps with their time, rows, layer and, where a method promises a sum, what it misses;
        `.plot()`, `.describe()`, `.table()`, `.to_frame()`, `.save(path)`.

    Raises:
        TypeError: an option that none of the methods takes, or what the methods raise.
        ValueError: no such method, one that this model or these rows do not allow (the message says
            what would), or what the methods raise.
        RuntimeError: a method changed the model or the input, so the next one would explain
            something else.

    >>> net = nn.Linear(2, 3)
    >>> found = explain(net, torch.ones(1, 2), 1, methods=["saliency", "smoothgrad"])
    >>> torch.allclose(found["saliency"], net.weight[1:2])
    True
    """
    register_all()
    of = _subject(model, x, feature_names, options)
    options.pop("channel_axis", None)  # the subject knows it
    scores = of.scores(target)
    wanted, skipped = _wanted(of, methods, options)
    refuse_unknown(options, wanted)
    weights, before = fingerprint(of.model), _copy(of.x)
    items = []
    for card in wanted:
        items.append(_explained(card, of, target, options, scores))
        if fingerprint(of.model) != weights or not _equal(of.x, before):
            raise RuntimeError(
                f"{card.name} changed the model or the input: nothing after it can be compared"
            )
    return Explanations(
        of.model, before, target, scores, tuple(items), of.names, skipped, of.channel_axis, weights
    )


def _subject(
    model: Any, x: Any, names: Sequence[str] | None, options: Mapping[str, Any]
) -> Subject:
    if isinstance(model, Subject):
        if x is not None or options.get("channel_axis") is not None:
            raise TypeError(
                "a Subject holds its rows already, and their axes: pass no x, no channel_axis"
            )
        return model
    background = options.get("background")
    axis = options.get("channel_axis")
    return subject(model, x, names=names, background=background, channel_axis=axis)


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x.copy()


def _equal(x: Any, before: Any) -> bool:
    if isinstance(x, Tensor):
        return torch.equal(x, before)
    return x == before if isinstance(x, (list, tuple)) else bool((x == before).all())


# ---- which methods -------------------------------------------------------------------------------


def _wanted(
    of: Subject, methods: Any, options: Mapping[str, Any]
) -> tuple[list[Card], dict[str, str]]:
    """Return the methods to run, and why some of the usual ones are left out."""
    if methods is not None:
        for card in (found := chosen(methods)):
            if reason := card.why_not(of, options):
                raise ValueError(f"{card.name}: {reason}")
        return found, {}
    usual = [METHODS[name] for name in _USUAL.get(of.framework, _USUAL_BLACK_BOX.get(of.kind, ()))]
    reasons = {card.name: card.why_not(of, options) for card in usual}
    if of.kind == "table" and of.framework in ("arrays", "sklearn"):
        exact = of.x.shape[1] <= _MANY
        reasons["permutation_shap" if exact else "kernel_shap"] = "the other estimate is enough"
    fit = [card for card in usual if not reasons[card.name]]
    if not fit:
        raise ValueError(f"no usual method fits: {reasons}; name some of xailab.methods()")
    return fit, {name: why for name, why in reasons.items() if why and name == "grad_cam"}


# ---- running one ---------------------------------------------------------------------------------


def _explained(
    card: Card, of: Subject, target: Target, options: Mapping[str, Any], scores: Tensor
) -> Explanation:
    """Run one method, counting time and rows."""
    known = card.options_for(of, options)
    with _counted(of.model) as counter:
        began = perf_counter()
        values, names, told = card.ask(of, target, known)
        seconds = perf_counter() - began
    gap = _gap(card, of, target, known, values, scores) if told is None else told
    return Explanation(
        card.name,
        card.title_for(known),
        values,
        seconds,
        counter["rows"],
        gap,
        known.get("layer"),
        card.units_for(of),
        names,
        _tokens(card, of, known),
    )


def _tokens(card: Card, of: Subject, options: Mapping[str, Any]) -> str:
    """Say how a method laid out the tokens of its layer, where it was not told."""
    told = options.get("reshape") is not None or options.get("layer") is None
    return "" if told or "layer" not in card.needs else of.laid_out(options["layer"])


def _gap(
    card: Card,
    of: Subject,
    target: Target,
    options: Mapping[str, Any],
    values: Tensor,
    scores: Tensor,
) -> Tensor | None:
    """Return what a promised sum misses of the change of the score; None where none is promised."""
    if not card.promises or options.get("multiply_by_inputs") is False or of.kind == "text":
        return None
    if card.promises == "background":
        squares = card.takes == "predict" and of.kind != "table"  # hidden by their darkest value
        if of.background is None or squares:
            return None
        empty = _of_background(of, target, of.background)
    elif of.differentiable:
        empty = of.scores(target, check_baseline(options.get("baseline", 0.0), of.x))
    else:
        return None
    return _sums(values, options.get("feature_mask")) - (scores - empty).to(values.dtype)


def _of_background(of: Subject, target: Target, rows: Any) -> Tensor:
    """Return the mean score of the background for every row's target, (N,)."""
    if target is None or callable(target):
        return of.scores(target, rows).mean()
    index = torch.as_tensor(target).expand(len(of.x)).tolist()
    means = {t: of.scores(t, rows).mean() for t in set(index)}
    return torch.stack([means[t] for t in index])


def _sums(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sum over the numbers of each row, each group of numbers counted once."""
    flat = values.flatten(1)
    if mask is None:
        return flat.sum(1)
    label = mask.expand(values.shape).flatten(1).unique(return_inverse=True)[1]
    counts = torch.zeros(len(flat), int(label.max()) + 1).scatter_add_(
        1, label, torch.ones_like(label, dtype=torch.float32)
    )
    return (flat / counts.gather(1, label).to(flat)).sum(1)


@contextmanager
def _counted(model: Any) -> Iterator[dict[str, int]]:
    """Count the rows that go forward through the model (0 for a plain function)."""
    counter = {"rows": 0}
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        yield counter
        return

    def count(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        counter["rows"] += 0 if trying() else len(next(iter([*inputs, *named.values()])))

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counter
    finally:
        handle.remove()
