"""What the methods of foundations promise, tested on every one that is given a model.

A new method joins by its row in PROBES. What a row `takes` decides which promises are tested:
x, target, layer, batch_size (options of the call) and rows (one result a row of x).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.snapshots import Boom, tripped, unchanged
from tests.toys import BAD_INPUTS, BAD_TARGETS, inputs, toy
from xailab.foundations import activations, feature_visualization, gradient_flow

TARGETS = torch.tensor([2, 0, 3])


class Probe(NamedTuple):
    """One method: `call(model, x, **options)`, with `target` and `layer` among the options."""

    call: Callable[..., Any]
    takes: frozenset[str]


def probe(call: Callable[..., Any], takes: str) -> Probe:
    return Probe(call, frozenset(takes.split()))


def importance(method: str) -> Callable[..., Tensor]:
    def call(
        model: Any, x: Any, *, target: Any = TARGETS, layer: Any = "relu2", **more: Any
    ) -> Any:
        options = {"layer": layer, "method": method, **more}
        return activations.neuron_importance(model, x, target, **options)

    return call


def conductance(
    model: Any, x: Any, *, target: Any = TARGETS, layer: Any = "relu2", **more: Any
) -> Any:
    return activations.layer_conductance(model, x, target, layer=layer, n_steps=5, **more)


def maximize(model: Any, x: Any, *, layer: Any = "norm", **more: Any) -> Tensor:
    size = {"shape": (3, 8, 8), "n_steps": 3}
    return feature_visualization.maximize(model, layer=layer, unit=1, **size, **more)


def deep_dream(model: Any, x: Any, *, layer: Any = "conv2", **more: Any) -> Tensor:
    return feature_visualization.deep_dream(model, x[:1], layer=layer, n_steps=2, **more)


def gradient_norms(model: Any, x: Any) -> dict[str, float]:
    return gradient_flow.gradient_norms(model, x, TARGETS, nn.functional.cross_entropy)


def activation_scales(model: Any, x: Any, *, layer: Any = "relu2") -> dict[str, float]:
    return gradient_flow.activation_scales(model, x, layers=[layer])


def block_ablation(model: Any, x: Any, *, layer: Any = "relu2") -> dict[str, float]:
    return gradient_flow.block_ablation(model, x, TARGETS, layers=[layer])


EVERYTHING = "x target layer batch_size rows"
PROBES = {
    "layer_activations": probe(
        lambda model, x, *, layer="relu2", **more: activations.layer_activations(
            model, x, [layer, "relu1"], **more
        ),
        "x layer batch_size rows",
    ),
    "importance by conductance": probe(importance("conductance"), EVERYTHING),
    "importance by activation x gradient": probe(importance("activation_x_gradient"), EVERYTHING),
    "importance by ablation": probe(importance("ablation"), EVERYTHING),
    "layer_conductance": probe(conductance, EVERYTHING),
    "top_inputs": probe(
        lambda model, x, *, layer="relu2", **more: activations.top_inputs(
            model, x, layer=layer, unit=1, k=2, **more
        ),
        "x layer batch_size",
    ),
    "maximize": probe(maximize, "layer"),
    "deep_dream": probe(deep_dream, "layer"),
    # These give numbers, not tensors, and the first two depend on the mode, as training does.
    "gradient_norms": probe(gradient_norms, ""),
    "activation_scales": probe(activation_scales, "layer"),
    "block_ablation": probe(block_ablation, "layer"),
}


def those_that_take(*words: str) -> list[Any]:
    return [pytest.param(p, id=name) for name, p in PROBES.items() if set(words) <= p.takes]


def tensors(result: Any) -> Iterator[Tensor]:
    """Every tensor in a result, whatever holds it."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, dict):
        yield from tensors(list(result.values()))
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
    found = list(tensors(method.call(toy(dtype), inputs(dtype=dtype))))
    assert any(result.dtype == dtype for result in found)
    for result in found:
        assert result.dtype in (dtype, torch.int64)
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
    for batch_size in (1, 2, 7, 1000):
        assert_same(method.call(model, x, batch_size=batch_size), want, atol=1e-12)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-2, ValueError), (2.5, TypeError)])
@pytest.mark.parametrize("method", those_that_take("batch_size"))
def test_bad_batch_size(method: Probe, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="batch_size"):
        method.call(toy(), inputs(), batch_size=value)


@pytest.mark.parametrize("method", those_that_take("x"))
def test_training_mode_makes_no_difference(method: Probe) -> None:
    x = inputs()
    assert_same(method.call(toy(), x), method.call(toy().eval(), x), atol=1e-6)


@pytest.mark.parametrize("method", those_that_take("x"))
def test_works_inside_no_grad_and_inference_mode(method: Probe) -> None:
    x, model = inputs(), toy()
    want = method.call(toy(), x)
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


@pytest.mark.parametrize("method", those_that_take("target"))
def test_single_output_takes_none(method: Probe) -> None:
    model, x = toy(), inputs()
    model.fc = nn.Linear(5, 1)
    assert_same(method.call(model, x, target=None), method.call(model, x, target=0), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "error", "words"), [*BAD_TARGETS, (None, ValueError, "4 outputs")]
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
    [
        ("rleu2", ValueError, "no layer 'rleu2'.*relu2"),
        ("", ValueError, "no layer"),
        (3, TypeError, "int"),
    ],
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


@pytest.mark.parametrize(
    "function",
    [
        activations.layer_activations,
        activations.neuron_importance,
        activations.layer_conductance,
        activations.top_inputs,
        activations.cluster_units,
    ],
)
def test_docstring_holds_what_a_reader_needs(function: Callable[..., Any]) -> None:
    for part in ("Args:", "Returns:", "Raises:", "Reference", "Elsewhere", ">>>", "$"):
        assert part in (function.__doc__ or ""), f"{function.__name__}: no {part}"
