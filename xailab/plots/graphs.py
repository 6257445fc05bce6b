"""Networks with their numbers, expression graphs and diagrams of boxes and arrows."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from xailab.plots.parts import (
    Position,
    draw_edges,
    draw_layer_names,
    draw_node,
    network_words,
    place_of,
    rows_of,
    weights_of,
)
from xailab.plots.pictures import INK, MUTED, Picture, new_figure, styled
from xailab.plots.words import lead

# Light tints of the color-blind-safe cycle: dark text stays readable on each.
_TINTS = ("#e8eef5", "#fde8d7", "#dff2ea", "#f7e6f0", "#fdf3d8", "#e9e9e9", "#dff1fb")
_Nodes = Mapping[Hashable, Position]


def network(
    sizes: Sequence[int],
    *,
    node_values: Sequence[Any] | None = None,
    edge_values: Sequence[Any] | None = None,
    node_names: Sequence[Sequence[str]] | None = None,
    layer_names: Sequence[str] | None = None,
    highlight: Iterable[tuple[int, int]] = (),
    title: str,
    alt: str | None = None,
) -> Picture:
    """Draw a dense network, layer by layer from left to right, with its numbers.

    Positive weights are solid red, negative ones dashed blue, and wider the larger they are;
    their numbers are written where a gap has at most 9 edges, and always in the words.

    Args:
        sizes: nodes per layer, at most 12 each.
        node_values: one row per layer of numbers or short texts, written in the nodes.
        edge_values: one matrix per gap; entry [i, j] belongs to the edge from node i of a layer
            to node j of the next, so its shape is (sizes[l], sizes[l + 1]).
        node_names: one row per layer of names, written under the nodes.
        layer_names: one name per layer, written above.
        highlight: (layer, node) pairs to mark with a thick border.
        title: the finding.
        alt: the text alternative; without it sizes, values and weights are listed.

    Raises:
        ValueError: a count or a shape does not fit `sizes`, or a layer is too large to draw.
    """
    values = rows_of(node_values, sizes, "node_values")
    names = rows_of(node_names, sizes, "node_names")
    weights = weights_of(edge_values, sizes)
    if layer_names is not None and len(layer_names) != len(sizes):
        raise ValueError(f"layer_names: expected {len(sizes)}, got {len(layer_names)}")
    with styled():
        step = 0.9 if values or names or weights else 0.6
        figure = new_figure(1.9 * len(sizes) + 0.4, step * max(sizes) + 0.8, title)
        ax = _canvas(figure)
        draw_edges(ax, sizes, weights)
        for layer, size in enumerate(sizes):
            for i in range(size):
                mark = (layer, i) in set(highlight)
                draw_node(ax, place_of(sizes, layer, i), _text(values, layer, i), mark)
                _draw_name(ax, place_of(sizes, layer, i), _text(names, layer, i))
        draw_layer_names(ax, sizes, layer_names)
        _fit(ax, sizes, bool(layer_names), node_names is not None)
    return Picture(figure, alt or lead(title) + network_words(sizes, values, weights))


def _text(rows: list[list[str]] | None, layer: int, i: int) -> str:
    return "" if rows is None else rows[layer][i]


def _draw_name(ax: Axes, at: Position, name: str) -> None:
    ax.text(at[0], at[1] - 0.36, name, ha="center", va="top", fontsize=9, color=MUTED)


def _fit(ax: Axes, sizes: Sequence[int], above: bool, below: bool) -> None:
    half = max(sizes) / 2
    ax.set_xlim(-0.5, 2.0 * (len(sizes) - 1) + 0.5)
    ax.set_ylim(-half - (0.1 if below else 0), half + (0.35 if above else 0))


def graph(
    edges: Iterable[Sequence[Any]],
    labels: Mapping[Any, str] | None = None,
    *,
    title: str,
    positions: Mapping[Any, Position] | str | None = None,
    groups: Mapping[Any, str] | None = None,
    highlight: Iterable[Any] = (),
    alt: str | None = None,
) -> Picture:
    """Draw boxes joined by arrows: an expression graph, a workflow, a map of ideas.

    Args:
        edges: (from, to) or (from, to, text on the arrow); nodes are any hashable things.
        labels: node -> text in its box (line breaks allowed); others show their own name.
        title: the finding.
        positions: node -> (column, row), rows downwards; None or "layered": columns from left to
            right so that every arrow points to the right.
        groups: node -> name of its group; groups get their tint and a legend.
        highlight: nodes to mark with a thick border.
        alt: the text alternative; without it every arrow is listed.

    Raises:
        ValueError: no edge, an edge of another length, a cycle in a layered drawing, or a node
            without a position.
    """
    arrows = [_arrow(edge) for edge in edges]
    nodes = list(dict.fromkeys(node for start, end, _ in arrows for node in (start, end)))
    if not arrows:
        raise ValueError("graph: nothing to draw, there is no edge")
    texts = {node: str((labels or {}).get(node, node)) for node in nodes}
    grid = _layered(arrows) if positions in (None, "layered") else _given(positions, nodes)
    with styled():
        figure, ax, places = _page(grid, texts, arrows, title)
        marked = set(highlight)
        boxes = {
            node: _draw_box(ax, places[node], texts[node], _tint(node, groups), node in marked)
            for node in nodes
        }
        for start, end, text in arrows:
            _draw_arrow(ax, boxes[start], boxes[end], text)
        _draw_groups(figure, groups)
    return Picture(figure, alt or lead(title) + _graph_words(arrows, texts))


def _arrow(edge: Sequence[Any]) -> tuple[Any, Any, str]:
    if len(edge) not in (2, 3):
        raise ValueError(f"graph: expected (from, to) or (from, to, text), got {edge!r}")
    return edge[0], edge[1], str(edge[2]) if len(edge) == 3 else ""


def _given(positions: Any, nodes: Sequence[Any]) -> dict[Any, Position]:
    if isinstance(positions, str):
        raise ValueError(f"graph: positions: expected 'layered' or a mapping, got {positions!r}")
    if missing := [node for node in nodes if node not in positions]:
        raise ValueError(f"graph: no position for {missing}")
    return {node: (float(positions[node][0]), float(positions[node][1])) for node in nodes}


def _layered(arrows: Sequence[tuple[Any, Any, str]]) -> dict[Any, Position]:
    """Put each node right of all its sources, and near the height of its sources' mean."""
    import networkx as nx

    directed = nx.DiGraph((start, end) for start, end, _ in arrows)
    if not nx.is_directed_acyclic_graph(directed):
        raise ValueError(
            f"graph: the arrows run in a circle, {nx.find_cycle(directed)}; give positions"
        )
    places: dict[Any, Position] = {}
    column = _columns(directed)
    for x in range(max(column.values()) + 1):
        layer = [node for node in directed if column[node] == x]
        wish = {n: np.mean([places[s][1] for s in directed.pred[n]] or [0.0]) for n in layer}
        for i, node in enumerate(sorted(layer, key=lambda n: wish[n])):
            places[node] = float(x), i - (len(layer) - 1) / 2
    return places


def _columns(directed: Any) -> dict[Any, int]:
    """Column of each node: one before its nearest target, so that inputs stand by their use."""
    import networkx as nx

    columns: dict[Any, int] = {}
    depth = nx.dag_longest_path_length(directed)
    for node in reversed(list(nx.topological_sort(directed))):
        columns[node] = min((columns[end] - 1 for end in directed.succ[node]), default=depth)
    first = min(columns.values())
    return {node: column - first for node, column in columns.items()}


def _page(
    places: _Nodes, texts: Mapping[Any, str], arrows: Sequence[Any], title: str
) -> tuple[Figure, Axes, _Nodes]:
    """Return a page that fits its boxes, and the places in inches from its upper left."""
    wide, tall = _box_sizes(texts)
    height = max(tall.values()) + 0.25
    gap = max(0.4, *(_width(text) + 0.35 for *_, text in arrows if text), 0.4)
    centers = _centers({node: x for node, (x, _) in places.items()}, wide, gap)
    top = min(y for _, y in places.values())
    inches = {n: (centers[n], -height * (y - top + 0.5)) for n, (_, y) in places.items()}
    width = max(centers[node] + wide[node] / 2 for node in places) + 0.1
    depth = max(-y for _, y in inches.values()) + height / 2
    figure = new_figure(max(4.0, width), depth + 0.45, title)
    ax = _canvas(figure)
    ax.set(xlim=(0, max(4.0, width)), ylim=(-depth, 0))
    return figure, ax, inches


def _box_sizes(texts: Mapping[Any, str]) -> tuple[dict[Any, float], dict[Any, float]]:
    lines = {node: text.split("\n") for node, text in texts.items()}
    wide = {node: max(map(_width, rows)) + 0.2 for node, rows in lines.items()}
    return wide, {node: 0.17 * len(rows) + 0.2 for node, rows in lines.items()}


def _width(text: str) -> float:
    """Inches of a line in the size of the boxes, about."""
    return 0.085 * len(text)


def _centers(
    columns: Mapping[Any, float], wide: Mapping[Any, float], gap: float
) -> dict[Any, float]:
    """Set whole columns one after the other, each as wide as its widest box."""
    known = sorted(set(columns.values()))
    widths = [max(wide[n] for n in columns if columns[n] == x) for x in known]
    starts = np.cumsum([0.1, *(width + gap for width in widths[:-1])])
    centers = dict(zip(known, starts + np.array(widths) / 2, strict=True))
    return {node: float(centers[x]) for node, x in columns.items()}


def _canvas(figure: Figure) -> Axes:
    ax = figure.subplots()
    ax.set_axis_off()
    return ax


def _tint(node: Any, groups: Mapping[Any, str] | None) -> str:
    if not groups or node not in groups:
        return "white" if groups else _TINTS[0]
    return _TINTS[list(dict.fromkeys(groups.values())).index(groups[node]) % len(_TINTS)]


def _draw_box(ax: Axes, at: Position, text: str, tint: str, mark: bool) -> Text:
    box = {
        "boxstyle": "round,pad=0.45",
        "facecolor": tint,
        "edgecolor": INK if mark else MUTED,
        "linewidth": 2.5 if mark else 1.0,
    }
    return ax.text(*at, text, ha="center", va="center", fontsize=9.5, bbox=box, zorder=2)


def _draw_arrow(ax: Axes, start: Text, end: Text, text: str) -> None:
    """Join two boxes; drawn after them, because only a drawn box knows its border."""
    ax.annotate(
        "",
        end.get_position(),
        start.get_position(),
        arrowprops={
            "arrowstyle": "-|>",
            "color": MUTED,
            "patchA": start.get_bbox_patch(),
            "patchB": end.get_bbox_patch(),
            "shrinkA": 1,
            "shrinkB": 1,
        },
        zorder=3,
    )
    if text:
        x, y = np.mean([start.get_position(), end.get_position()], axis=0)
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=4)


def _draw_groups(figure: Figure, groups: Mapping[Any, str] | None) -> None:
    if not groups:
        return
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(groups.values()))
    keys = [
        Patch(facecolor=_TINTS[i % len(_TINTS)], edgecolor=MUTED, label=name)
        for i, name in enumerate(names)
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _graph_words(arrows: Sequence[tuple[Any, Any, str]], texts: Mapping[Any, str]) -> str:
    flat = {node: " ".join(text.split()) for node, text in texts.items()}
    steps = [f"{flat[a]} to {flat[b]}" + (f" ({text})" if text else "") for a, b, text in arrows]
    return f"Arrows: {'; '.join(steps)}."
