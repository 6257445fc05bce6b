"""One score per row, and its gradient."""

import pytest
import torch
from torch import nn

from tests.toys import inputs, linear, toy
from xailab.core.checks import InputError
from xailab.core.scores import (
    batched_gradients,
    gradients_of,
    gradients_on,
    input_gradient,
    outputs_of,
    scores_of,
    select,
    summed_gradients,
    variant_scores,
)

NET = linear([[1.0, 2.0], [-3.0, 5.0]])
X = torch.tensor([[1.0, 1.0], [2.0, 0.0]])  # outputs [[3, 2], [2, -6]]


def test_scores_by_hand():
    assert outputs_of(NET, X).tolist() == [[3.0, 2.0], [2.0, -6.0]]
    assert scores_of(NET, X, 1).tolist() == [2.0, -6.0]
    assert scores_of(NET, X, [1, 0]).tolist() == [2.0, 2.0]


def test_a_single_output_of_both_shapes():
    assert select(torch.tensor([[4.0], [5.0]]), None).tolist() == [4.0, 5.0]
    assert select(torch.tensor([4.0, 5.0]), None).tolist() == [4.0, 5.0]


def test_gradients_by_hand():
    assert input_gradient(NET, X, [1, 0]).tolist() == [[-3.0, 5.0], [1.0, 2.0]]
    assert batched_gradients(NET, X, 1, batch_size=1).tolist() == [[-3.0, 5.0], [-3.0, 5.0]]


def test_each_row_has_its_own_gradient():
    # f = x^3: 3 x^2
    got = input_gradient(lambda x: (x**3).sum(1), torch.tensor([[1.0], [2.0]]), None)
    assert got.tolist() == [[3.0], [12.0]]


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.ones(len(x), 2),
        lambda x: x.detach() * 2,
        lambda x: torch.as_tensor(x.detach().numpy() * 2),
        lambda x: torch.no_grad()(NET)(x),
        lambda x: NET(x).argmax(1, keepdim=True).float(),
        torch.ao.quantization.quantize_dynamic(nn.Sequential(linear([[1.0, 2.0]])), {nn.Linear}),
    ],
)
def test_a_gradient_that_does_not_reach_x_is_an_error(model):
    with pytest.raises(ValueError, match="no gradient reaches the input"):
        input_gradient(model, X, 0)
    with pytest.raises(ValueError, match="no gradient reaches the input"):
        batched_gradients(model, X, 0)


def test_a_gradient_that_is_zero_stays_zero():
    assert input_gradient(lambda x: x.round() * 0, X, 0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert input_gradient(lambda x: (x - 9).relu(), X, 0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_gradients_of_something_else_are_an_error():
    x, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient reaches layer 'a'"):
        gradients_of(other * 2, x, name="layer 'a'")
    assert not gradients_of(x * 2, x).requires_grad


def test_a_first_layer_in_place_does_not_change_x():
    x = torch.tensor([[-1.0, 2.0]])
    outputs_of(nn.ReLU(inplace=True), x)
    input_gradient(nn.ReLU(inplace=True), x, 0)
    assert x.tolist() == [[-1.0, 2.0]]


def test_parameters_get_no_gradients():
    model = toy()
    model.fc.weight.grad = None
    input_gradient(model, inputs(), 1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_graph_is_on_whatever_the_caller_does():
    with torch.inference_mode(), gradients_on():
        x = torch.ones(1, requires_grad=True)
        (x * 3).backward()
    assert x.grad.item() == 3.0
    with torch.no_grad(), gradients_on():
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("shape", [(1, 3), (2, 2, 2, 2, 2)])
def test_a_shape_that_the_model_refuses(shape):
    net = nn.Sequential(nn.Conv2d(1, 1, 1)) if len(shape) > 2 else NET
    with pytest.raises(InputError, match=r"refuses x of shape \(" + ", ".join(map(str, shape))):
        outputs_of(net, torch.ones(shape))
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, RuntimeError)


class Own(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error", [RuntimeError("out of order"), Own("wrong size"), KeyError("shape"), KeyboardInterrupt]
)
def test_the_models_own_errors_pass_as_they_are(error):
    def model(x):
        raise error

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - KeyboardInterrupt is none
        outputs_of(model, X)
    assert caught.type is (error if isinstance(error, type) else type(error))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((torch.ones(2, 1), torch.ones(2)), TypeError, "returned tuple with 2 tensors"),
        (None, TypeError, "returned NoneType"),
        (torch.ones(3, 2), ValueError, r"N = 2 rows, it returned \(3, 2\) for x .* \(2, 2\)"),
        (torch.ones(2, 2, 2), ValueError, r"\(2, 2, 2\)"),
        (torch.tensor(1.0), ValueError, r"returned \(\)"),
    ],
)
def test_outputs_that_are_none(answer, error, words):
    with pytest.raises(error, match=words):
        outputs_of(lambda x: answer, X)


# --- one list of work for all rows


def test_summed_gradients_by_definition():
    """f = x^3, variants a_k x, weights w_k: the sum of w_k 3 (a_k x)^2."""
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    a, w = torch.tensor([0.5, 1.0, 2.0]).double(), torch.tensor([1.0, 10.0, 100.0]).double()
    for batch_size in (None, 1, 2, 100):
        got = summed_gradients(
            lambda rows: (rows**3).sum(1),
            x,
            None,
            3,
            lambda rows, k: a[k, None] * x[rows],
            lambda rows, k: w[k, None],
            batch_size=batch_size,
        )
        want = [
            sum(wk * 3 * (ak * xi) ** 2 for ak, wk in zip(a, w, strict=True)) for xi in (1.0, 2.0)
        ]
        assert got.flatten().tolist() == pytest.approx([float(one) for one in want])


def test_every_row_has_its_own_target_in_a_list_of_work():
    got = variant_scores(NET, X, [1, 0], 2, lambda rows, k: X[rows] * (k[:, None] + 1))
    assert got.tolist() == [[2.0, 4.0], [2.0, 4.0]]  # outputs 1 of row 0, 0 of row 1; twice


def test_a_target_that_is_a_function():
    assert scores_of(NET, X, lambda out: out[:, 0] - out[:, 1]).tolist() == [1.0, 8.0]
    pixels = lambda x: x[:, None, :].repeat(1, 2, 1)  # noqa: E731 - (N, 2, 2), a dense answer
    assert scores_of(pixels, X, lambda out: out[:, 1].sum(1)).tolist() == [2.0, 2.0]


def test_half_sums_are_taken_in_single_precision():
    x = torch.ones(1, 1, dtype=torch.float16)
    got = summed_gradients(
        lambda rows: rows.sum(1), x, None, 4096, lambda i, k: x[i], lambda i, k: 1.0
    )
    assert got.dtype == torch.float16
    assert got.item() == 4096  # in half precision the sum stops at 2048
