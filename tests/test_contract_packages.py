"""What every method that is given a model promises, tested on each row of `tests/probes`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.probes import TARGETS, Probe, behavior, foundations, simplify, trust
from tests.snapshots import Boom, tripped, unchanged
from tests.toys import BAD_INPUTS, BAD_TARGETS, inputs, toy

PACKAGES = {"foundations": foundations, "behavior": behavior, "simplify": simplify, "trust": trust}
ROWS = {
    f"{one}: {name}": row for one, rows in PACKAGES.items() for name, row in rows.PROBES.items()
}


def those_that_take(*words: str) -> list[Any]:
    return [pytest.param(row, id=name) for name, row in ROWS.items() if set(words) <= row.takes]


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", those_that_take())
def test_nothing_is_left_behind(method: Probe, dtype: torch.dtype) -> None:
    model, x = toy(dtype), inputs(dtype=dtype)
    with unchanged(model, x):
        method.call(model, x)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("method", those_that_take("runs"))
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
@pytest.mark.parametrize("method", those_that_take("tensors"))
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


@pytest.mark.parametrize("method", those_that_take("mode"))
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


@pytest.mark.parametrize("method", those_that_take("none"))
def test_single_output_takes_none(method: Probe) -> None:
    model, x = toy(), inputs()
    model.fc = nn.Linear(5, 1)
    assert_same(method.call(model, x, target=None), method.call(model, x, target=0), atol=1e-6)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", those_that_take("copy"))
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


@pytest.mark.parametrize("function", dict.fromkeys(row.function for row in ROWS.values()))
def test_docstring_holds_what_a_reader_needs(function: Any) -> None:
    for part in ("Args:", "Raises:", "Reference", "Elsewhere", ">>>", "$"):
        assert part in (function.__doc__ or ""), f"{function.__name__}: no {part}"
