"""One door above all methods, for comparing them fairly: same model, same input, same target."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xailab import plots
from xailab.attribution import register_all
from xailab.core.checks import Model, Target, check_baseline, check_input, split_target
from xailab.core.company import trying
from xailab.core.layers import last_maps
from xailab.core.registry import METHODS, Method, chosen, refuse_unknown
from xailab.core.scores import scores_of
from xailab.core.state import frozen

if TYPE_CHECKING:
    import pandas as pd

_USUAL = ("saliency", "input_x_gradient", "smoothgrad", "grad_cam")


def methods() -> list[str]:
    """Return the names of all attribution methods, sorted.

    >>> "grad_cam" in methods()
    True
    """
    register_all()
    return sorted(METHODS)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one method said, and what it cost.

    Attributes:
        name: the method.
        title: what the field calls it.
        attribution: (N, ...) Tensor, as the method returned it.
        seconds: wall time.
        rows: rows that went forward through the model.
        gap: per row, what the attribution's sum misses of f(x) - f(baseline), in units of the
            score; only path methods promise 0. None for maps that are no sum over input numbers,
            and for methods that average over a background instead.
    """

    name: str
    title: str
    attribution: Tensor
    seconds: float
    rows: int
    gap: Tensor | None


@dataclass(frozen=True, eq=False)
class Explanations:
    """What several methods said about the same prediction; get one by its name.

    `a + b` joins two of them, and refuses if they explain different things.
    """

    model: Model = field(repr=False)
    x: Tensor = field(repr=False)
    target: Any
    scores: Tensor
    items: tuple[Explanation, ...] = field(repr=False)
    _weights: str = field(repr=False, default="")

    def __getitem__(self, name: str) -> Tensor:
        for item in self.items:
            if item.name == name:
                return item.attribution
        raise KeyError(f"no method {name!r} here; there is {', '.join(self.names)}")

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        """The methods, in the order asked for."""
        return [item.name for item in self.items]

    def __add__(self, other: "Explanations") -> "Explanations":
        if self.model is not other.model or self._weights != other._weights:
            raise ValueError("these explain different models; a comparison would mean nothing")
        if self.x.shape != other.x.shape or not torch.equal(self.x, other.x):
            raise ValueError("these explain different inputs; a comparison would mean nothing")
        if self._targets() != other._targets() or not torch.equal(self.scores, other.scores):
            raise ValueError(f"these explain different targets: {self.target} and {other.target}")
        if twice := set(self.names) & set(other.names):
            raise ValueError(f"both hold {', '.join(sorted(twice))}")
        items = (*self.items, *other.items)
        return Explanations(self.model, self.x, self.target, self.scores, items, self._weights)

    def _targets(self) -> list[int]:
        """Return one class per row; a single output may be asked for as None or as 0."""
        return [target or 0 for target in split_target(self.target, len(self.x))]

    def table(self) -> "pd.DataFrame":
        """Return seconds, rows forwarded and the mean completeness gap of each method."""
        import pandas as pd

        gaps = [None if item.gap is None else item.gap.abs().mean().item() for item in self.items]
        columns = {
            "seconds": [item.seconds for item in self.items],
            "rows": [item.rows for item in self.items],
            "completeness gap": gaps,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="method"))

    def plot(self, over: Any = None, *, row: int = 0, title: str = "") -> plots.Picture:
        """Draw all maps of one row side by side, each on its own scale.

        Args:
            over: the photo that the model saw, to be laid under the maps.
            row: which row of `x`.
            title: what the picture shows; the default names the target and its score.
        """
        maps = [item.attribution[row] for item in self.items]
        title = title or self._headline(row)
        if self.x.ndim == 2:
            values = torch.cat(maps).tolist()
            columns = range(self.x.shape[1])
            names = [f"{item.title}: x[{i}]" for item in self.items for i in columns]
            return plots.bars(values, names, title=title)
        titles = [item.title for item in self.items]
        return plots.compare(maps, over=over, titles=titles, shared=False, title=title)

    def describe(self, row: int = 0) -> str:
        """Say in words what each method found for one row."""
        lines = [self._headline(row)]
        for item in self.items:
            one = item.attribution[row]
            words = (
                plots.describe_bars(one.tolist(), [f"x[{i}]" for i in range(len(one))])
                if one.ndim == 1
                else plots.describe(one, name=item.title)
            )
            lines.append(f"{item.name} ({item.seconds:.2f} s, {_rows(item.rows)}): {words}")
        return "\n".join(lines)

    def _headline(self, row: int) -> str:
        target = split_target(self.target, len(self.x))[row]
        output = "the output" if target is None else f"output {target}"
        return f"Evidence for {output}, which scores {self.scores[row].item():.2f}"


def explain(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> Explanations:
    """Explain one prediction by several methods under the same conditions.

    Args:
        model: maps (N, ...) to logits (N, K) or (N,).
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        methods: names out of `xailab.methods()`, functions `(model, x, target)`, or a mapping
            name -> function; None takes gradient, input x gradient, SmoothGrad, and Grad-CAM
            where the model has maps.
        options: keyword arguments such as `layer`, `seed`, `batch_size`; each goes to those
            methods that know it. `layer` is by default the last one with positions.

    Returns:
        The maps with their time, rows and completeness gap; `.plot()`, `.describe()`, `.table()`.

    Raises:
        TypeError: an option that none of the methods takes, or what the methods raise.
        ValueError: no such method, or what the methods raise.
        RuntimeError: a method changed the model or the input, so the next one would explain
            something else.

    >>> net = nn.Linear(2, 3)
    >>> found = explain(net, torch.ones(1, 2), 1, methods=["saliency", "smoothgrad"])
    >>> torch.allclose(found["saliency"], net.weight[1:2])
    True
    """
    register_all()
    check_input(model, x)
    with frozen(model), torch.no_grad():
        scores = scores_of(model, x, target)
        empty = scores_of(model, check_baseline(options.get("baseline", 0.0), x), target)
    layer = options.get("layer") or _layer(model, x)
    wanted = chosen(methods if methods is not None else _fitting(layer))
    refuse_unknown(options, wanted)
    weights, before = _fingerprint(model), x.detach().clone()
    items = []
    for method in wanted:
        known = {**options, "layer": layer} if layer else options
        items.append(_explained(method, model, x, target, known, scores - empty))
        if _fingerprint(model) != weights or not torch.equal(x, before):
            raise RuntimeError(
                f"{method.name} changed the model or the input: nothing after it can be compared"
            )
    return Explanations(model, before, target, scores, tuple(items), weights)


def _layer(model: Model, x: Tensor) -> str | None:
    return last_maps(model, x) if isinstance(model, nn.Module) else None


def _fitting(layer: str | None) -> list[str]:
    return [name for name in _USUAL if layer or "layer" not in METHODS[name].needs]


def _explained(
    method: Method,
    model: Model,
    x: Tensor,
    target: Target,
    options: Mapping[str, Any],
    change: Tensor,
) -> Explanation:
    """Run one method, counting time and rows; `change` is f(x) - f(baseline)."""
    with _counted(model) as counter:
        began = perf_counter()
        attribution = method.maps(model, x, target, options)
        seconds = perf_counter() - began
    gap = None
    if attribution.shape == x.shape and not method.needs & {"layer", "background"}:
        gap = attribution.flatten(1).sum(1) - change
    return Explanation(method.name, method.title, attribution, seconds, counter["rows"], gap)


@contextmanager
def _counted(model: Model) -> Iterator[dict[str, int]]:
    """Count the rows that go forward through the model (0 for a plain function)."""
    counter = {"rows": 0}
    if not isinstance(model, nn.Module):
        yield counter
        return

    def count(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        counter["rows"] += 0 if trying() else len(next(iter([*inputs, *named.values()])))

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counter
    finally:
        handle.remove()


def _fingerprint(model: Model) -> str:
    """Return a digest of all weights and buffers ("" for a plain function)."""
    if not isinstance(model, nn.Module):
        return ""
    digest = hashlib.blake2b()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
