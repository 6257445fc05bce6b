"""What the methods of trust promise, tested on every one that is given a model.

A new method joins by its row in PROBES. What a row `takes` decides which promises are tested:
x, target, layer, batch_size (options of the call) and rows (one result a row of x).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Boom, tripped, unchanged
from tests.toys import BAD_INPUTS, BAD_TARGETS, inputs, toy
from xailab.attribution.saliency import saliency
from xailab.core import frozen
from xailab.trust import adversarial, faults, uncertainty

TARGETS = torch.tensor([2, 0, 3])


class Probe(NamedTuple):
    """One method: `call(model, x, **options)`, with `target` and `layer` among the options."""

    function: Callable[..., Any]
    call: Callable[..., Any]
    takes: frozenset[str]


def probe(function: Any, takes: str, call: Callable[..., Any]) -> Probe:
    return Probe(function, call, frozenset(takes.split()))


def attack(function: Any, **usual: Any) -> Probe:
    def call(model: Any, x: Any, *, target: Any = TARGETS, **more: Any) -> Tensor:
        return function(model, x, target, epsilon=0.1, **usual, **more)

    return probe(function, "x target batch_size rows", call)


def squeezing(model: Any, x: Any, **more: Any) -> Tensor:
    return adversarial.FeatureSqueezing(model).score(x, **more)


def mahalanobis(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Tensor:
    known = inputs(dtype=next(model.parameters()).dtype)
    return adversarial.Mahalanobis(model, layer, known, TARGETS).score(x, **more)


def isolation(model: Any, x: Any, *, layer: Any = "relu2", **more: Any) -> Tensor:
    known = inputs(dtype=next(model.parameters()).dtype)
    return adversarial.Isolation(model, layer, known, n_trees=5).score(x, **more)


def disagreement(model: Any, x: Any, **more: Any) -> Tensor:
    return adversarial.Disagreement([model, lambda x: 2 * model(x)]).score(x, **more)


def drawn_weights(model: Any, x: Any, **more: Any) -> Any:
    """The toy with a Bayesian layer behind it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        last = uncertainty.BayesLinear(4, 4, initial_std=0.5).to(next(model.parameters()).dtype)
    return uncertainty.mc_weights(nn.Sequential(model, last), x, n_samples=3, **more)


def laplace(model: Any, x: Any, **more: Any) -> Any:
    known = inputs(dtype=next(model.parameters()).dtype)
    fitted = uncertainty.laplace_last_layer(model, known, TARGETS, **more)
    return fitted.predict(x, n_samples=3, **more)


def spread(model: Any, x: Any, *, target: Any = TARGETS) -> Any:
    return uncertainty.explanation_uncertainty(model, x, target, explain=saliency, n_samples=3)


def under_fault(fault: Any, **usual: Any) -> Callable[..., Tensor]:
    """Ask the model inside the block: at the end of it, and by an error, all must be as it was."""

    def call(model: Any, x: Any, *, layer: Any = "conv1", **more: Any) -> Tensor:
        with fault(model, layer, n_faults=2, **usual, **more), frozen(model), torch.no_grad():
            return model(x)

    return call


def watched(model: Any, x: Any, *, layer: Any = "relu2") -> Any:
    known = inputs(4, next(model.parameters()).dtype)
    return faults.Monitor(model, layers=[layer]).fit(known, batch_size=2).observe(x)


STEPS = {"step_size": 0.05, "n_steps": 3}
SCORES = "x batch_size rows"
PROBES = {
    "fgsm": attack(adversarial.fgsm),
    "pgd": attack(adversarial.pgd, **STEPS),
    "pgd in l2": attack(adversarial.pgd, norm="l2", **STEPS),
    "square_attack": attack(adversarial.square_attack, n_queries=8),
    "feature squeezing": probe(adversarial.FeatureSqueezing, SCORES, squeezing),
    "mahalanobis": probe(adversarial.Mahalanobis, f"{SCORES} layer", mahalanobis),
    "isolation": probe(adversarial.Isolation, f"{SCORES} layer", isolation),
    "disagreement": probe(adversarial.Disagreement, SCORES, disagreement),
    "mc_dropout": probe(
        uncertainty.mc_dropout, SCORES, partial(uncertainty.mc_dropout, n_samples=3)
    ),
    "mc_weights": probe(uncertainty.mc_weights, SCORES, drawn_weights),
    "ensemble": probe(
        uncertainty.ensemble,
        SCORES,
        lambda model, x, **more: uncertainty.ensemble([model, model], x, **more),
    ),
    "laplace_last_layer": probe(uncertainty.laplace_last_layer, SCORES, laplace),
    # Of a weight, no layer that does not run: functions may use it too. Other bad layers are
    # tested in tests/trust/test_faults.py.
    "flip_bits": probe(faults.flip_bits, "", under_fault(faults.flip_bits, bit=30)),
    "flip_bits of activations": probe(
        faults.flip_bits, "layer", under_fault(faults.flip_bits, bit=22, where="activation")
    ),
    "stuck_at": probe(faults.stuck_at, "layer", under_fault(faults.stuck_at, value=0.5)),
    "stuck_at of weights": probe(
        faults.stuck_at, "", under_fault(faults.stuck_at, value=0.5, where="weight")
    ),
    "monitor": probe(faults.Monitor, "x layer", watched),
    "explanation_uncertainty": probe(uncertainty.explanation_uncertainty, "x target rows", spread),
}


def those_that_take(*words: str) -> list[Any]:
    return [pytest.param(p, id=name) for name, p in PROBES.items() if set(words) <= p.takes]


def tensors(result: Any) -> Iterator[Tensor]:
    """Every tensor in a result, whatever holds it."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (list, tuple)):
        for part in result:
            yield from tensors(part)


def assert_same(a: Any, b: Any, atol: float = 0) -> None:
    torch.testing.assert_close(list(tensors(a)), list(tensors(b)), rtol=0, atol=atol)


@pytest.mark.parametrize("method", those_that_take())
def test_nothing_is_left_behind(method: Probe) -> None:
    model, x = toy(), inputs()
    with unchanged(model, x):
        method.call(model, x)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("method", those_that_take())
def test_nothing_is_left_behind_on_error(
    method: Probe, error: type[BaseException], after: int
) -> None:
    model, x = tripped(toy(), error, after), inputs()
    raised = None
    with unchanged(model, x):
        try:
            method.call(model, x)
        except error as problem:
            raised = type(problem)
    if after == 0:  # later passes exist only in some methods
        assert raised is error, "the model's own error must come through as it is"


@pytest.mark.parametrize("method", those_that_take("x"))
def test_x_that_wants_gradients_stays_as_it_is(method: Probe) -> None:
    model, x = toy(), inputs().requires_grad_()
    with unchanged(model, x):
        method.call(model, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", those_that_take("x"))
def test_result_keeps_the_dtype_and_no_graph(method: Probe, dtype: torch.dtype) -> None:
    for result in tensors(method.call(toy(dtype), inputs(dtype=dtype))):
        assert result.dtype == dtype
        assert not result.requires_grad
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("method", those_that_take("x"))
def test_result_shares_no_memory_with_the_input(method: Probe) -> None:
    model, x = toy(), inputs()
    before = x.clone()
    for result in tensors(method.call(model, x)):
        result.fill_(99)
    assert torch.equal(x, before)


@pytest.mark.parametrize("method", those_that_take("rows"))
def test_batch_equals_row_by_row(method: Probe) -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    together = list(tensors(method.call(model, x)))
    for i in range(3):
        options = {"target": int(TARGETS[i])} if "target" in method.takes else {}
        alone = method.call(model, x[i : i + 1], **options)
        assert_same([result[i : i + 1] for result in together], alone, atol=1e-12)


@pytest.mark.parametrize("method", those_that_take("batch_size"))
def test_batch_size_does_not_change_the_answer(method: Probe) -> None:
    model, x = toy(torch.float64), inputs(dtype=torch.float64)
    want = method.call(model, x)
    for batch_size in (1, 2, 1000):
        assert_same(method.call(model, x, batch_size=batch_size), want, atol=1e-12)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-2, ValueError), (2.5, TypeError)])
@pytest.mark.parametrize("method", those_that_take("batch_size"))
def test_bad_batch_size(method: Probe, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="batch_size"):
        method.call(toy(), inputs(), batch_size=value)


@pytest.mark.parametrize("method", those_that_take("x"))
def test_works_in_any_mode(method: Probe) -> None:
    """Training or evaluation, no_grad or inference_mode: the answer is the same."""
    x, model = inputs(), toy()
    want = method.call(toy().eval(), x)
    assert_same(method.call(model, x), want, atol=1e-6)
    with torch.no_grad():
        assert_same(method.call(model, x), want, atol=1e-6)
    with torch.inference_mode():
        assert_same(method.call(model, inputs()), want, atol=1e-6)


@pytest.mark.parametrize("method", those_that_take("target"))
def test_kinds_of_targets_agree(method: Probe) -> None:
    model, x = toy(), inputs()
    want = method.call(model, x, target=2)
    for target in (np.int64(2), torch.tensor(2), torch.tensor([2, 2, 2]), np.array([2, 2, 2])):
        assert_same(method.call(model, x, target=target), want, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "error", "words"), [*BAD_TARGETS, (None, ValueError, "target=None")]
)
@pytest.mark.parametrize("method", those_that_take("target"))
def test_bad_target(method: Probe, target: Any, error: type[Exception], words: str) -> None:
    model, x = toy(), inputs()
    with unchanged(model, x), pytest.raises(error, match=words):
        method.call(model, x, target=target)


@pytest.mark.parametrize(("x", "error", "words"), BAD_INPUTS)
@pytest.mark.parametrize("method", those_that_take("x"))
def test_bad_input(method: Probe, x: Any, error: type[Exception], words: str) -> None:
    model = toy()
    with unchanged(model, inputs()), pytest.raises(error, match=words):
        method.call(model, x)


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [("rleu2", ValueError, "no layer 'rleu2'.*relu2"), (3, TypeError, "int")],
)
@pytest.mark.parametrize("method", those_that_take("layer"))
def test_bad_layer(method: Probe, layer: Any, error: type[Exception], words: str) -> None:
    model, x = toy(), inputs()
    with unchanged(model, x), pytest.raises(error, match=words):
        method.call(model, x, layer=layer)


@pytest.mark.parametrize("method", those_that_take("layer"))
def test_a_layer_that_does_not_run_is_named(method: Probe) -> None:
    model, x = toy(), inputs()
    model.spare = nn.ReLU()
    with unchanged(model, x), pytest.raises(ValueError, match=r"'spare' did not run"):
        method.call(model, x, layer="spare")


@pytest.mark.parametrize("method", those_that_take())
def test_docstring_holds_what_a_reader_needs(method: Probe) -> None:
    for part in ("Args:", "Raises:", "Reference", "Elsewhere", ">>>", "$"):
        assert part in (method.function.__doc__ or ""), f"{method.function.__name__}: no {part}"
