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
from xailab.simplify import distill

TARGETS = torch.tensor([2, 0, 3])


class Probe(NamedTuple):
    """One method; `runs` says whether it asks the model for answers."""

    function: Callable[..., Any]
    call: Callable[[Any, Tensor], Any]
    runs: bool = True


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
    "distill": Probe(distill.distill, to_network),
    "distill_soft_tree": Probe(distill.distill_soft_tree, to_soft_tree),
    "distill_tree": Probe(distill.distill_tree, lambda model, x: distill.distill_tree(model, x)),
}
EVERY = [pytest.param(p, id=name) for name, p in PROBES.items()]
RUNNING = [pytest.param(p, id=name) for name, p in PROBES.items() if p.runs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("probe", EVERY)
def test_nothing_is_left_behind(probe: Probe, dtype: torch.dtype) -> None:
    model, x = toy(dtype), inputs(dtype=dtype)
    with unchanged(model, x):
        probe.call(model, x)


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("probe", RUNNING)
def test_nothing_is_left_behind_on_error(probe: Probe, error: type[BaseException]) -> None:
    model, x = tripped(toy(), error, 0), inputs()
    with unchanged(model, x), pytest.raises(error):
        probe.call(model, x)


@pytest.mark.parametrize("probe", EVERY)
def test_x_that_wants_gradients_stays_as_it_is(probe: Probe) -> None:
    model, x = toy(), inputs().requires_grad_()
    with unchanged(model, x):
        probe.call(model, x)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(0, 3, 8, 8), ValueError, "empty"),
        (torch.full((3, 3, 8, 8), float("nan")), ValueError, "NaN"),
        (torch.zeros(3, 3, 8, 8, dtype=torch.long), TypeError, "floating-point"),
        (torch.zeros(3, 3, 8, 8, dtype=torch.float64), TypeError, "float64"),
    ],
)
@pytest.mark.parametrize("probe", RUNNING)
def test_bad_x(probe: Probe, x: Tensor, error: type[Exception], words: str) -> None:
    model = toy()
    with unchanged(model, torch.zeros(1)), pytest.raises(error, match=words):
        probe.call(model, x)


@pytest.mark.parametrize(
    "function", [distill.distillation_loss, *{p.function for p in PROBES.values()}]
)
def test_docstring_holds_what_a_reader_needs(function: Callable[..., Any]) -> None:
    for part in ("Args:", "Returns:", "Raises:", "Reference", "Elsewhere", ">>>", "$"):
        assert part in (function.__doc__ or ""), f"{function.__name__}: no {part}"
