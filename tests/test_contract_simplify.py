"""What the methods of simplify promise, tested on every one that is given a model.

A new method joins by its row in PROBES: `call(model, x)` hands back what the method gave. A model
that makes way for a smaller one must itself stay as it was.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Boom, tripped, unchanged
from tests.toys import Toy, inputs, toy
from xailab.simplify import compress, distill

TARGETS = torch.tensor([2, 0, 3])


class Probe(NamedTuple):
    """One method: whether it runs the model, takes rows, hands back a copy of the model."""

    function: Callable[..., Any]
    call: Callable[[Any, Tensor], Any]
    does: frozenset[str]


def probe(function: Callable[..., Any], does: str, call: Any = None, **options: Any) -> Probe:
    words = frozenset(does.split())

    def plainly(model: Any, x: Tensor) -> Any:
        return function(model, x, **options) if "x" in words else function(model, **options)

    return Probe(function, call or plainly, words)


def to_network(model: Toy, x: Tensor) -> Any:
    with torch.random.fork_rng():  # the layer draws its weights, which is the test's doing
        student = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).to(model.fc.weight.dtype)
    rows = x.detach(), TARGETS
    return distill.distill(student, model, rows, rows, epochs=2)


def to_soft_tree(model: Toy, x: Tensor) -> Any:
    tree = distill.SoftDecisionTree(192, 4, depth=2).to(model.fc.weight.dtype)
    rows = x.detach(), TARGETS
    return distill.distill_soft_tree(tree, model, rows, rows, epochs=2)


PROBES = {
    "distill": probe(distill.distill, "runs x", to_network),
    "distill_soft_tree": probe(distill.distill_soft_tree, "runs x", to_soft_tree),
    "distill_tree": probe(distill.distill_tree, "runs x"),
    "latency": probe(compress.latency, "runs x", n_repeats=2),
    "prune": probe(compress.prune, "copies", amount=0.5),
    "prune channels": probe(compress.prune, "copies", amount=0.5, structured=True),
    "remove_channels": probe(compress.remove_channels, "copies runs"),
    "quantize": probe(compress.quantize, "copies"),
    "quantize activations": probe(compress.quantize, "copies", activations=True),
    "low_rank": probe(compress.low_rank, "copies", energy=0.5),
    "sparsity": probe(compress.sparsity, ""),
    "size_on_disk": probe(compress.size_on_disk, ""),
}


def those_that(*words: str) -> list[Any]:
    return [pytest.param(p, id=name) for name, p in PROBES.items() if set(words) <= p.does]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", those_that())
def test_nothing_is_left_behind(method: Probe, dtype: torch.dtype) -> None:
    model, x = toy(dtype), inputs(dtype=dtype)
    with unchanged(model, x):
        method.call(model, x)


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("method", those_that("runs"))
def test_nothing_is_left_behind_on_error(method: Probe, error: type[BaseException]) -> None:
    model, x = tripped(toy(), error, 0), inputs()
    with unchanged(model, x), pytest.raises(error):
        method.call(model, x)


@pytest.mark.parametrize("method", those_that())
def test_x_that_wants_gradients_stays_as_it_is(method: Probe) -> None:
    model, x = toy(), inputs().requires_grad_()
    with unchanged(model, x):
        method.call(model, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", those_that("copies"))
def test_a_copy_runs_by_itself(method: Probe, dtype: torch.dtype) -> None:
    """Same flags, no gradients taken along, and nothing done to it reaches the model."""
    model, x = toy(dtype), inputs(dtype=dtype)
    copy = method.call(model, x)
    assert copy.norm.training is False
    assert copy.drop.training is True
    assert all(parameter.grad is None for parameter in copy.parameters())
    with unchanged(model, x):
        for value in copy.state_dict().values():
            value.fill_(1)
        answers = copy.eval()(x)
    assert (answers.shape, answers.dtype) == ((3, 4), dtype)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(0, 3, 8, 8), ValueError, "empty"),
        (torch.full((3, 3, 8, 8), float("nan")), ValueError, "NaN"),
        (torch.zeros(3, 3, 8, 8, dtype=torch.long), TypeError, "floating-point"),
        (torch.zeros(3, 3, 8, 8, dtype=torch.float64), TypeError, "float64"),
    ],
)
@pytest.mark.parametrize("method", those_that("runs", "x"))
def test_bad_x(method: Probe, x: Tensor, error: type[Exception], words: str) -> None:
    model = toy()
    with unchanged(model, torch.zeros(1)), pytest.raises(error, match=words):
        method.call(model, x)


@pytest.mark.parametrize(
    "function", [distill.distillation_loss, *dict.fromkeys(p.function for p in PROBES.values())]
)
def test_docstring_holds_what_a_reader_needs(function: Callable[..., Any]) -> None:
    for part in ("Args:", "Returns:", "Raises:", "Reference", "Elsewhere", ">>>", "$"):
        assert part in (function.__doc__ or ""), f"{function.__name__}: no {part}"
