"""The methods of simplify. A model that makes way for a smaller one must itself stay as it was."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.probes import TARGETS, probe
from tests.toys import Toy
from xailab.simplify import compress, distill


def alone(function: Any, **options: Any) -> Any:
    """Call a function that is given the model, and no rows."""
    return lambda model, x: function(model, **options)


def to_network(model: Toy, x: Tensor) -> Any:
    with torch.random.fork_rng():  # the layer draws its weights, which is the test's doing
        student = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).to(model.fc.weight.dtype)
    rows = x, TARGETS
    return distill.distill(student, model, rows, rows, epochs=2)


def to_soft_tree(model: Toy, x: Tensor) -> Any:
    tree = distill.SoftDecisionTree(192, 4, depth=2).to(model.fc.weight.dtype)
    rows = x, TARGETS
    return distill.distill_soft_tree(tree, model, rows, rows, epochs=2)


PROBES = {
    "distill": probe(distill.distill, "x runs", to_network),
    "distill_soft_tree": probe(distill.distill_soft_tree, "x runs", to_soft_tree),
    "distill_tree": probe(distill.distill_tree, "x runs"),
    "latency": probe(compress.latency, "x runs", partial(compress.latency, n_repeats=2)),
    "prune": probe(compress.prune, "copy", alone(compress.prune, amount=0.5)),
    "prune channels": probe(
        compress.prune, "copy", alone(compress.prune, amount=0.5, structured=True)
    ),
    "remove_channels": probe(
        compress.remove_channels, "copy runs", alone(compress.remove_channels)
    ),
    "quantize": probe(compress.quantize, "copy", alone(compress.quantize)),
    "quantize activations": probe(
        compress.quantize, "copy", alone(compress.quantize, activations=True)
    ),
    "low_rank": probe(compress.low_rank, "copy", alone(compress.low_rank, energy=0.5)),
    "sparsity": probe(compress.sparsity, "", alone(compress.sparsity)),
    "size_on_disk": probe(compress.size_on_disk, "", alone(compress.size_on_disk)),
}
