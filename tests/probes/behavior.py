"""The methods of behavior."""

from typing import Any

import torch

from tests.probes import TARGETS, probe
from xailab.behavior import concepts


def knowledge_graph(
    model: Any, x: Any, *, target: Any = TARGETS, layer: Any = "relu2", **more: Any
) -> Any:
    graph = concepts.knowledge_graph(model, x, target, layer=layer, **more)
    return torch.tensor([weight for _, _, weight in graph.edges(data="weight")])


PROBES = {
    "knowledge_graph": probe(
        concepts.knowledge_graph, "x target layer batch_size mode runs", knowledge_graph
    ),
}
