"""Saliency against hand-computed numbers and captum."""

from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.toys import inputs, linear, toy
from xailab.attribution.saliency import (
    deconvnet,
    guided_backprop,
    input_x_gradient,
    saliency,
    smoothgrad,
)
from xailab.models import digit_cnn


def two_layers() -> nn.Sequential:
    """x (2) -> h = relu([x1 + x2, x1 - x2, -x1]) -> 2 h1 - 3 h2 + 5 h3."""
    first = linear([[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0]])
    return nn.Sequential(first, nn.ReLU(), linear([[2.0, -3.0, 5.0]]))


X = torch.tensor([[3.0, 1.0]])  # h = relu([4, 2, -3]) = [4, 2, 0]; score 2


def test_saliency_by_hand() -> None:
    # 2 * [1, 1] - 3 * [1, -1]; the third unit is off
    assert saliency(two_layers(), X, 0).tolist() == [[-1.0, 5.0]]
    assert saliency(two_layers(), X, 0, absolute=True).tolist() == [[1.0, 5.0]]


def test_input_x_gradient_by_hand() -> None:
    # no bias, so the parts add up to the score: -3 + 5 = 2
    assert input_x_gradient(two_layers(), X, 0).tolist() == [[-3.0, 5.0]]


def test_guided_backprop_by_hand() -> None:
    # signals at the ReLUs: [2, -3, 5]; negative ones and switched-off units stop: [2, 0, 0]
    assert guided_backprop(two_layers(), X, 0).tolist() == [[2.0, 2.0]]


def test_deconvnet_by_hand() -> None:
    # only negative signals stop: [2, 0, 5] -> 2 * [1, 1] + 5 * [-1, 0]
    assert deconvnet(two_layers(), X, 0).tolist() == [[-3.0, 2.0]]


def test_relu6_stops_above_six() -> None:
    net = nn.Sequential(linear([[1.0]]), nn.ReLU6(), linear([[2.0]]))
    x = torch.tensor([[-1.0], [3.0], [7.0]])
    assert guided_backprop(net, x, 0).flatten().tolist() == [0.0, 2.0, 0.0]
    assert saliency(net, x, 0).flatten().tolist() == [0.0, 2.0, 0.0]


def test_gradient_is_sensitivity_not_contribution() -> None:
    net = linear([[3.0]], [100.0])
    assert saliency(net, torch.tensor([[0.0], [9.0]]), 0).flatten().tolist() == [3.0, 3.0]


def test_smoothgrad_is_the_mean_over_its_own_noise() -> None:
    model, x = toy(torch.float64), inputs(1, torch.float64)
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn((4, 3, 8, 8), generator=generator, dtype=torch.float64)
    copies = x + 0.3 * (x.max() - x.min()) * draws
    want = torch.stack([saliency(model, one[None], 2)[0] for one in copies]).mean(0)
    got = smoothgrad(model, x, 2, noise=0.3, n_samples=4, seed=5)
    torch.testing.assert_close(got[0], want, rtol=0, atol=1e-12)


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, x = toy(), inputs()
    torch.testing.assert_close(
        smoothgrad(model, x, 1, noise=0.0, n_samples=2), saliency(model, x, 1)
    )


def test_smoothgrad_of_the_square() -> None:
    # d/dx of x^2 is 2 x; over symmetric noise the mean stays 2 x
    def square(x: Tensor) -> Tensor:
        return (x**2).sum(1)

    x = torch.tensor([[0.0, 4.0]])
    got = smoothgrad(square, x, None, noise=0.1, n_samples=4000)
    torch.testing.assert_close(got, 2 * x, rtol=0, atol=0.06)  # sd of the mean: 2 * .4 / 63 = .013


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_smoothgrad_refuses_negative_noise(noise: float) -> None:
    with pytest.raises(ValueError, match="noise"):
        smoothgrad(toy(), inputs(), 0, noise=noise)


# ---- the peer ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return digit_cnn(), x, torch.tensor([1, 3, 3, 9])


def test_equal_captum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, target = digits
    pairs = [
        (saliency(model, x, target), captum.attr.Saliency(model).attribute(x, target, abs=False)),
        (
            saliency(model, x, target, absolute=True),
            captum.attr.Saliency(model).attribute(x, target),
        ),
        (
            input_x_gradient(model, x, target),
            captum.attr.InputXGradient(model).attribute(x, target),
        ),
        (guided_backprop(model, x, target), captum.attr.GuidedBackprop(model).attribute(x, target)),
        (deconvnet(model, x, target), captum.attr.Deconvolution(model).attribute(x, target)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-5)


# ---- functional ReLUs -------------------------------------------------------------------------


class Functional(nn.Module):
    """One ReLU module and one other way of cutting off what is below zero."""

    def __init__(self, cut: object) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.cut(self.relu(self.first(x)) - 0.1))  # type: ignore[operator]


@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
@pytest.mark.parametrize(
    "cut",
    [
        F.relu,
        torch.relu,
        Tensor.relu_,
        F.relu6,
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(0, 6),
        lambda x: F.threshold(x, 0, 0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
    ],
    ids=["F.relu", "torch.relu", "relu_", "relu6", "clamp min", "clamp", "threshold", "maximum"],
)
def test_one_functional_relu_is_refused(method: object, cut: object) -> None:
    with pytest.raises(ValueError, match=r"as a function.*nn\.ReLU"):
        method(Functional(cut), torch.rand(2, 2) + 1, 0)  # type: ignore[operator]


@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
@pytest.mark.parametrize(
    "mask",
    [lambda z: z > 0, lambda z: (z > 0).float(), lambda z: (z > 0).float().clone()],
    ids=["bools", "floats", "a copy"],
)
def test_a_relu_written_as_a_product_with_yes_and_no_is_refused(method: object, mask: Any) -> None:
    net = nn.Sequential(linear([[1.0], [-1.0]]), nn.ReLU())  # [2, 0] for 2: one passes, one not
    model = Product(net, mask)
    with pytest.raises(ValueError, match=r"as a function.*mask"):
        method(model, torch.tensor([[2.0]]), 0)  # type: ignore[operator]


class Product(nn.Module):
    """A network, and behind it a ReLU as the product with a mask."""

    def __init__(self, net: nn.Module, mask: Any) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x) - 1  # [1, -1] for 2
        return z * self.mask(z)


@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
def test_a_relu6_is_its_own_cap(method: object) -> None:
    """At 6.5 it gives 6; guided backprop lets nothing through there, deconvnet does not look."""
    net, x = nn.Sequential(nn.ReLU6()), torch.tensor([[6.5]])
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.item()))
    found = method(net, x, 0)  # type: ignore[operator]
    assert seen[0] == 6
    assert found.item() == (0 if method is guided_backprop else 1)


def test_other_functions_are_not_taken_for_relus() -> None:
    model = Functional(lambda x: F.normalize(torch.tanh(x), dim=1).clamp(min=-5))
    assert guided_backprop(model, torch.rand(2, 2), 0).shape == (2, 2)


def test_model_without_relus_is_refused() -> None:
    with pytest.raises(ValueError, match="no ReLU modules"):
        guided_backprop(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), torch.rand(1, 2), 0)
    with pytest.raises(TypeError, match=r"nn\.Module"):
        guided_backprop(lambda x: x, torch.rand(1, 2), 0)  # type: ignore[arg-type]


def test_a_relu_used_twice_is_guided_in_both_places() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(linear([[1.0], [-1.0]]), relu, linear([[-1.0, 2.0]]), relu, linear([[3.0]]))
    # x = -2: h = [0, 2], then 4: the score's signal 3 passes, [-3, 6] -> [0, 6], off the first
    assert guided_backprop(net, torch.tensor([[-2.0]]), 0).item() == -6.0


def test_the_slope_at_a_corner_is_zero() -> None:
    """PyTorch's slopes at 0 and at the cap of 6 are 0, with and without a guide."""
    net = nn.Sequential(nn.Identity(), nn.ReLU6(), linear([[1.0, 1.0, 1.0]]))
    x = torch.tensor([[0.0, 6.0, 3.0]])
    assert guided_backprop(net, x, 0).tolist() == [[0.0, 0.0, 1.0]]
    assert saliency(net, x, 0).tolist() == [[0.0, 0.0, 1.0]]
