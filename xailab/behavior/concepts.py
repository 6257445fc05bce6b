"""What the units of a network stand for, and how that hangs together."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from xailab.behavior.surrogates import Rule
from xailab.core.batching import batched, quiet
from xailab.core.checks import check_index, check_input, check_positive, check_target
from xailab.core.files import write_atomically
from xailab.core.layers import capture, edited, units_axis, units_of
from xailab.core.outputs import as_array, class_logits, classes_of
from xailab.core.scores import outputs_of
from xailab.core.state import frozen


def knowledge_graph(
    model: nn.Module,
    x: Tensor,
    y: Tensor | np.ndarray | list[int],
    *,
    layer: str,
    rules: Sequence[Rule] = (),
    features: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    n_units: int = 2,
    n_rules: int = 1,
    batch_size: int | None = None,
) -> nx.DiGraph:
    r"""Join classes, key units and a student's rules by links that were measured on rows.

    Over the rows of class $c$, with $a_k$ the mean activation of unit $k$ and $r$ a rule:

    $$\text{unit} \xrightarrow{\text{raises}} \text{class}: \;
      \operatorname{mean}\big[ f_c(x) - f_c(x \mid A_k = 0) \big] \text{ over rows of } c \\
      \text{unit} \xrightarrow{\text{goes with}} \text{rule}: \; \operatorname{corr}(a_k, [r
      \text{ fires}]) \text{ over all rows} \\
      \text{rule} \xrightarrow{\text{concludes}} \text{class}: \;
      P(y = c \mid r \text{ fires}) \\
      \text{class } c \xrightarrow{\text{taken for}} \text{class } d: \;
      P(\text{model says } d \mid y = c)$$

    The first is an intervention: the unit was switched off. The second is an association only,
    and is kept where it is larger than what chance gives (two-sided, 5 % for all pairs
    together). A class has its `n_units` strongest units and its `n_rules` most used rules, a
    rule the `n_units` of these units that go with it most closely, and of the confusions only
    the most frequent one.

    Args:
        model: (N, ...) -> (N, K) scores; one logit $z$, (N, 1) or (N,), stands for two classes
            with scores $(0, z)$.
        x: (N, ...) floats, rows of every class that shall have links.
        y: (N,) class indices: labels, or what the model answers if that is to be explained.
        layer: dotted name of the layer whose units are meant, on whichever axis they lie.
        rules: a student's rules, `rules_of(tree, names)`, which conclude class indices.
        features: (N, F), what the rules compare; by default the rows of `x`, flattened.
        class_names: K names; "class 0", ... by default.
        n_units: units a class, and links a rule, at most.
        n_rules: rules a class, at most.
        batch_size: rows evaluated at once; None measures.

    Returns:
        A directed graph. Nodes have a `kind` ("class", "unit" or "rule"), rules also `text`,
        `coverage` (share of rows on which they fire) and `class`. Edges have a `relation` and a
        `weight`: score units, correlation, or shares.

    Raises:
        TypeError: `x` not a float tensor, `y` not integers, rules that are no `Rule`.
        ValueError: NaN in `x` or in what the model or the layer gives, no such layer, a layer
            without units or whose axes nothing tells apart, a label, a conclusion, a name or a
            number of names that does not fit the model's outputs.

    Reference: Morcos, Barrett, Rabinowitz, Botvinick (2018), On the Importance of Single
        Directions for Generalization (ablation); Hogan et al. (2021), Knowledge Graphs.
    Elsewhere: captum `LayerFeatureAblation` for the first kind of link; the graph is networkx's.

    >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.eye(2))
    >>> graph = knowledge_graph(net, torch.tensor([[3.0, 0.0], [0.0, 1.0]]), [0, 1], layer="0")
    >>> list(graph.edges(data="weight"))
    [('0: unit 0', 'class 0', 3.0), ('0: unit 1', 'class 1', 1.0)]
    """
    check_input(model, x)
    n_units, n_rules = check_positive("n_units", n_units), check_positive("n_rules", n_rules)
    rows, rules = x.detach(), _checked(rules)
    table = as_array(rows.flatten(1)) if features is None else features
    if len(table) != len(x):
        raise ValueError(f"features holds {len(table)} rows, x holds {len(x)}")
    fired = np.array([rule.fires(table) for rule in rules]).reshape(len(rules), len(x))
    with frozen(model), torch.no_grad():
        scores = _scores(model, rows, batch_size)
        labels, names = _labels(y, scores), _names(class_names, scores.shape[1], layer)
        axis = _axis(model, rows[:1], layer)
        activations = _activations(model, rows, layer, axis, batch_size)
        drops = _ablation_drops(model, rows, labels, layer, axis, scores, activations, batch_size)
    graph = nx.DiGraph(layer=layer, rows=len(x))
    graph.add_nodes_from(names, kind="class")
    _add_confusions(graph, as_array(classes_of(scores)), labels, names)
    _add_units(graph, drops, names, layer, n_units)
    _add_rules(graph, rules, fired, labels, names, n_rules)
    _add_associations(graph, fired, activations, n_units)
    return graph


def write_graphml(graph: nx.Graph, path: str | Path) -> Path:
    """Write a graph as GraphML, which Gephi, Cytoscape and yEd read; whole or not at all.

    Args:
        graph: nodes and edges whose attributes are texts and numbers.
        path: the file to write; missing folders are made.

    Returns:
        The path written.

    Raises:
        networkx.NetworkXError: an attribute that GraphML has no type for.
        OSError: the file cannot be written; what stood there before still does.

    Reference: Brandes, Eiglsperger, Herman, Himsolt, Marshall (2002), GraphML Progress Report.
    Elsewhere: networkx `write_graphml`, `read_graphml`.
    """
    content = BytesIO()
    nx.write_graphml(graph, content)
    return write_atomically(path, content.getvalue())


def _scores(model: nn.Module, rows: Tensor, batch_size: int | None) -> Tensor:
    """Return what the model answers, (N, K), K at least 2, in single precision or finer."""
    scores = batched(
        lambda chunk: outputs_of(model, chunk),
        rows,
        batch_size=batch_size,
        progress=False,
        owner=model,
    )
    if not scores.isfinite().all():
        bad = int((~scores.isfinite()).sum())
        raise ValueError(f"the model gives {bad} scores that are NaN or infinite")
    return class_logits(scores.to(torch.promote_types(scores.dtype, torch.float32)))


def _axis(model: nn.Module, row: Tensor, layer: str) -> int:
    """Return which axis of the layer's output holds its units."""
    with capture(model, layer) as kept:
        outputs_of(model, row)
    units_of(kept, layer, len(row))  # one number a row has none
    return units_axis(model, layer, row)


def _activations(
    model: nn.Module, rows: Tensor, layer: str, axis: int, batch_size: int | None
) -> np.ndarray:
    """Return the mean activation of every unit, (N, U)."""

    def means(chunk: Tensor) -> Tensor:
        with capture(model, layer) as kept:
            outputs_of(model, chunk)
        units = units_of(kept, layer, len(chunk), axis)
        return units.unsqueeze(-1).flatten(2).double().mean(2)

    found = as_array(batched(means, rows, batch_size=batch_size, owner=model))
    if not np.isfinite(found).all():
        raise ValueError(
            f"layer {layer!r} gives {int((~np.isfinite(found)).sum())} NaN or infinity"
        )
    return found


def _ablation_drops(
    model: nn.Module,
    rows: Tensor,
    labels: np.ndarray,
    layer: str,
    axis: int,
    scores: Tensor,
    activations: np.ndarray,
    batch_size: int | None,
) -> np.ndarray:
    """Return how much each class's score falls without each unit, (U, K).

    0 for absent classes, and where it falls by no more than rounding.
    """
    drops = np.zeros((activations.shape[1], scores.shape[1]))
    own = torch.as_tensor(labels, device=scores.device)[:, None]
    for unit in tqdm(range(len(drops)), delay=2, leave=False, disable=quiet(), unit=" units"):
        with edited(model, layer, partial(_without, unit=unit, axis=axis)):
            left = _scores(model, rows, batch_size)
        lost = as_array((scores - left).double().gather(1, own)[:, 0])
        for c in np.unique(labels):
            drops[unit, c] = lost[labels == c].mean()
    rounding = 4 * torch.finfo(rows.dtype).eps * scores.abs().max().item()
    return np.where(np.abs(drops) > rounding, drops, 0)


def _without(output: Tensor, *, unit: int, axis: int) -> Tensor:
    silenced = output.clone()
    silenced.select(axis, unit).zero_()
    return silenced


def _add_confusions(
    graph: nx.DiGraph, answers: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """Join each class to the one it is most often taken for, if it ever is."""
    for c in np.unique(labels):
        shares = np.bincount(answers[labels == c], minlength=len(names)) / (labels == c).sum()
        shares[c] = 0
        if shares.any():
            other = int(shares.argmax())
            weight = shares[other].item()
            graph.add_edge(names[c], names[other], relation="taken for", weight=weight)


def _add_units(
    graph: nx.DiGraph, drops: np.ndarray, names: Sequence[str], layer: str, n_units: int
) -> None:
    """Join to each class the units it would miss most."""
    for c, name in enumerate(names):
        for unit in np.argsort(-drops[:, c], kind="stable")[:n_units]:
            if drops[unit, c] > 0:
                node = f"{layer}: unit {unit}"
                graph.add_node(node, kind="unit", unit=int(unit))
                graph.add_edge(node, name, relation="raises", weight=drops[unit, c].item())


def _add_rules(
    graph: nx.DiGraph,
    rules: Sequence[Rule],
    fired: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    n_rules: int,
) -> None:
    """Join to each class the rules that fire on most rows, with coverage and precision."""
    room = dict.fromkeys(range(len(names)), n_rules)
    for i in np.argsort(-fired.sum(1), kind="stable"):
        c, rows = _class_of(rules[i], len(names)), fired[i]
        if rows.any() and room[c]:
            room[c] -= 1
            told = {"text": str(rules[i]), "coverage": rows.mean().item(), "class": names[c]}
            graph.add_node(f"rule {i}", kind="rule", rule=int(i), **told)
            precision = (labels[rows] == c).mean().item()
            graph.add_edge(f"rule {i}", names[c], relation="concludes", weight=precision)


def _add_associations(
    graph: nx.DiGraph, fired: np.ndarray, activations: np.ndarray, n_units: int
) -> None:
    """Join each rule to the key units whose activation goes with its firing."""
    units = [(node, unit) for node, unit in graph.nodes(data="unit") if unit is not None]
    rules = [(node, rule) for node, rule in graph.nodes(data="rule") if rule is not None]
    for rule, i in rules:
        together = [_correlation(activations[:, unit], fired[i]) for _, unit in units]
        noise = _chance_correlation(len(activations), len(units) * len(rules))
        for place in np.argsort(-np.abs(together), kind="stable")[:n_units]:
            if abs(together[place]) > noise:
                ends = units[place][0], rule
                graph.add_edge(*ends, relation="goes with", weight=together[place])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where one of the two never changes."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _chance_correlation(n: int, pairs: int) -> float:
    """Return the correlation that one of so many unrelated pairs exceeds 1 time in 20.

    Fisher's z of n rows varies by 1 / sqrt(n - 3); Bonferroni shares the 5 % among the pairs.
    """
    if n < 4:
        return 1.0
    from scipy.stats import norm  # imported here: only rules need it

    return float(np.tanh(norm.isf(0.025 / pairs) / np.sqrt(n - 3)))


def _labels(y: Any, scores: Tensor) -> np.ndarray:
    try:
        return as_array(cast(Tensor, check_target(y, scores)))
    except (TypeError, ValueError) as error:
        raise type(error)(f"y, the classes of the rows: {error}") from error


def _names(class_names: Sequence[str] | None, n_classes: int, layer: str) -> list[str]:
    names = [f"class {c}" for c in range(n_classes)] if class_names is None else [*class_names]
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise ValueError(f"class_names must be {n_classes} different names, got {names}")
    taken = [one for one in names if str(one).startswith(("rule ", f"{layer}: unit "))]
    if taken:
        raise ValueError(f"class_names must not be named as rules and units are, got {taken}")
    return names


def _checked(rules: Sequence[Rule]) -> list[Rule]:
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"rules must be those of rules_of, got {type(rule).__name__}")
    return list(rules)


def _class_of(rule: Rule, n_classes: int) -> int:
    try:
        return check_index("conclusion", rule.conclusion, n_classes)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"rules must conclude classes 0..{n_classes - 1}, got {rule.conclusion!r} in: {rule}"
        ) from error
