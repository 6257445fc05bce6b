"""Path methods against paper, against the definition, and against captum where it is right."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from tests.toys import inputs, linear, toy
from xailab.attribution.paths import completeness_gap, expected_gradients, integrated_gradients
from xailab.core.company import trying
from xailab.core.quadrature import RULES
from xailab.data import load
from xailab.models import digit_cnn

X = torch.tensor([[2.0, 3.0]], dtype=torch.float64)


def product(x: Tensor) -> Tensor:
    return (x[:, 0] * x[:, 1])[:, None]


def saturated(x: Tensor) -> Tensor:
    """1 - ReLU(1 - x0): flat from 1 on, so the gradient at x0 = 2 is 0."""
    return 1 - torch.relu(1 - x[:, :1])


def by_definition(f: Callable[[Tensor], Tensor], x: Tensor, b: Tensor, n: int) -> Tensor:
    """Add up small steps, each with the gradient in its middle; written without the package."""
    total = torch.zeros_like(x)
    for k in range(n):
        at = (b + (k + 0.5) / n * (x - b)).requires_grad_()
        total += torch.autograd.grad(f(at).sum(), at)[0] * (x - b) / n
    return total


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    mnist = load("mnist5k")
    images = torch.as_tensor(np.asarray(mnist.images)[::250] / np.float32(255))[:, None]
    return digit_cnn(), images, torch.as_tensor(mnist.y[::250])


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_is_exact_for_every_rule(rule: str) -> None:
    net = linear([[3.0, -2.0]], [5.0])
    x, b = torch.tensor([[1.0, 4.0]]), torch.tensor([0.5, 1.0])
    got = integrated_gradients(net, x, 0, baseline=b, rule=rule, n_steps=3)
    torch.testing.assert_close(got, torch.tensor([[1.5, -6.0]]))  # weight times way


def test_a_product_by_hand() -> None:
    """d/dx0 = x1, so the integral is 2 * 3 * int alpha = 3 for each factor."""
    torch.testing.assert_close(integrated_gradients(product, X, 0), X.new_tensor([[3.0, 3.0]]))
    baseline = X.new_tensor([1.0, 0.0])  # x0 goes 1 -> 2, x1 goes 0 -> 3: 3 * int (1 + a) = 4.5
    got = integrated_gradients(product, X, 0, baseline=baseline)
    torch.testing.assert_close(got, X.new_tensor([[1.5, 4.5]]))


def test_sees_what_the_gradient_misses() -> None:
    """From 0 to 2 the slope is 1 on the first half: 2 * 1/2 = 1, the whole change."""
    got = integrated_gradients(saturated, X[:, :1], 0, rule="midpoint", n_steps=10)
    assert got.item() == pytest.approx(1)


def test_a_sum_that_is_there_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integrated_gradients(product, X, 0, baseline=1.0)
        expected_gradients(linear([[3.0, -2.0]]), X.float(), 0, background=torch.ones(4, 2))


def test_rounding_of_large_scores_is_no_reason_to_warn() -> None:
    """Near -10^7 float32 knows whole numbers only: the change of 0.4 is told as none."""

    def far(x: Tensor) -> Tensor:
        return (x * x).sum(1) / 3 - 1e7

    x = torch.tensor([[1.0, 0.5]])
    true = (x * x).sum() / 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = integrated_gradients(far, x, None)
    assert got.sum().item() == pytest.approx(true.item(), rel=1e-4)
    assert (far(x) - far(0 * x)).item() == 0  # what the warning would be about


def test_the_warning_says_by_how_much_the_sum_misses() -> None:
    """f = x * x, its second factor cut off: the slope is x, so of 4 - 0 only 2 is found."""
    with pytest.warns(UserWarning, match=r"by up to 2 \(100% of its size\)"):
        got = integrated_gradients(lambda x: x * x.detach(), X[:, :1], 0)
    assert got.item() == pytest.approx(2)


@pytest.mark.parametrize("method", [integrated_gradients, expected_gradients])
def test_bad_rows_are_refused_here_too(method: Callable[..., Tensor]) -> None:
    options = {"background": X} if method is expected_gradients else {}
    with pytest.raises(ValueError, match="NaN"):
        method(product, X * float("nan"), 0, **options)


def test_left_and_right_lean_to_their_side() -> None:
    """d/dx0 of the product grows along the path: left sums 0, 1/2, right 1/2, 1 of x1 = 3."""
    left = integrated_gradients(product, X, 0, rule="left", n_steps=2)
    right = integrated_gradients(product, X, 0, rule="right", n_steps=2)
    assert left.tolist() == [[1.5, 1.5]]
    assert right.tolist() == [[4.5, 4.5]]


def test_without_the_factor_it_is_the_mean_gradient() -> None:
    got = integrated_gradients(product, X, 0, multiply_by_inputs=False)
    torch.testing.assert_close(got, X.new_tensor([[1.5, 1.0]]))


def test_agrees_with_many_small_steps() -> None:
    model, x = toy(torch.float64).eval(), inputs(dtype=torch.float64)
    want = by_definition(lambda rows: model(rows)[:, 1], x, torch.full_like(x, 0.2), 300)
    got = integrated_gradients(model, x, 1, baseline=0.2, rule="midpoint", n_steps=300)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_equals_captum_where_the_weights_are_right(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x, y = digits
    peer = IntegratedGradients(model)
    for ours, theirs in [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")]:
        want = peer.attribute(x[:4], target=y[:4], n_steps=20, method=theirs)
        got = integrated_gradients(model, x[:4], y[:4], n_steps=20, rule=ours)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_captums_trapezoid_loses_one_part_in_n() -> None:
    """Its weights sum to (n - 1) / n, so a linear model's 3 * 1 comes out as 3 * 0.8."""
    net, x = linear([[3.0]]), torch.ones(1, 1)
    peer = IntegratedGradients(net).attribute(x, target=0, n_steps=5, method="riemann_trapezoid")
    assert peer.item() == pytest.approx(2.4)
    got = integrated_gradients(net, x, 0, n_steps=5, rule="trapezoid")
    assert got.item() == pytest.approx(3.0)


def test_adds_up_on_real_digits(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The gradient jumps where a ReLU or a maximum switches, which bounds every rule's accuracy."""
    model, x, y = digits
    with torch.no_grad():
        both = model(x) - model(torch.zeros_like(x))
    change = both.gather(1, y[:, None])[:, 0]

    def error(n_steps: int) -> Tensor:
        found = integrated_gradients(model, x, y, n_steps=n_steps)
        return (completeness_gap(model, x, y, found) / change).abs()

    assert error(50).median() < 1e-3
    assert error(50).max() < 1e-2
    assert error(200).max() < 2e-3


def test_gap_by_hand() -> None:
    net = linear([[3.0, -2.0]], [5.0])
    x = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    gap = completeness_gap(net, x, 0, torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    assert gap.tolist() == [2.0, 0.0]
    assert completeness_gap(net, x, 0, torch.zeros(2, 2), baseline=x).tolist() == [0.0, 0.0]


def test_gap_wants_a_row_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"2 rows.*\(1, 2\)"):
        completeness_gap(nn.Linear(2, 1), torch.zeros(2, 2), 0, torch.zeros(1, 2))


def test_expected_gradients_with_one_baseline_is_integrated_gradients() -> None:
    got = expected_gradients(product, X, 0, background=X.new_tensor([[1.0, 0.0]]), n_samples=8_000)
    torch.testing.assert_close(got, X.new_tensor([[1.5, 4.5]]), rtol=0, atol=1e-3)


def test_expected_gradients_is_the_mean_over_the_background() -> None:
    background = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    want = torch.stack([integrated_gradients(product, X, 0, baseline=b) for b in background])
    got = expected_gradients(product, X, 0, background=background, n_samples=8_000)
    torch.testing.assert_close(got, want.mean(0), rtol=0, atol=0.05)


def test_expected_gradients_sum_to_the_change_from_the_mean_score() -> None:
    background = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = expected_gradients(product, X, 0, background=background, n_samples=8_000)
    assert got.sum().item() == pytest.approx(6 - product(background).mean().item(), abs=0.02)


@pytest.mark.parametrize(
    ("background", "error", "words"),
    [
        (torch.zeros(4, 3), ValueError, r"rows of shape \(2,\), got \(4, 3\)"),
        (torch.zeros(0, 2), ValueError, "empty"),
        (torch.full((1, 2), float("nan")), ValueError, "NaN"),
        (np.zeros((1, 2)), TypeError, "ndarray"),
    ],
)
def test_bad_background(background: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        expected_gradients(nn.Linear(2, 1), torch.zeros(1, 2), 0, background=background)


def test_expected_gradients_takes_one_point_of_every_nth_of_the_path() -> None:
    """From 0 to 1 the row shown is the point of the path itself."""
    shown: list[float] = []

    def model(rows: Tensor) -> Tensor:
        shown.extend([] if trying() else rows[:, 0].tolist())
        return rows.sum(1)

    expected_gradients(model, torch.ones(1, 1), None, background=torch.zeros(1, 1), n_samples=40)
    points = sorted(shown)[-40:]
    assert all(k / 40 <= point <= (k + 1) / 40 for k, point in enumerate(points))


def test_a_gap_of_bad_rows_is_refused() -> None:
    bad = torch.tensor([[torch.nan, 1.0]])
    with pytest.raises(ValueError, match="NaN"):
        completeness_gap(linear([[1.0, 1.0]]), bad, 0, torch.zeros(1, 2))
