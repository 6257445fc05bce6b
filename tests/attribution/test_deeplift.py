"""The rescale rule against paper, against the sum that it promises, against captum and shap."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import shap
import torch
from captum.attr import DeepLift, DeepLiftShap
from torch import Tensor, nn

from tests.networks import MAKERS, network, photo
from tests.toys import linear, pictures, small_cnn
from xailab.attribution.deeplift import deep_lift, deep_shap
from xailab.data import load
from xailab.models import digit_cnn, pretrained

AND = torch.tensor([[1.0, 1.0]])


def both_needed() -> nn.Sequential:
    """ReLU(x0 + x1 - 1): 0 from (0, 0) until the two add up to more than 1."""
    return nn.Sequential(linear([[1.0, 1.0]], [-1.0]), nn.ReLU())


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    mnist = load("mnist5k")
    images = torch.as_tensor(np.asarray(mnist.images)[::500] / np.float64(255))[:, None]
    return digit_cnn().double(), images, torch.as_tensor(mnist.y[::500])


def test_rescale_by_hand() -> None:
    """z goes from -1 to 1 and ReLU(z) from 0 to 1: multiplier 1/2, so each input gets 1/2.

    The gradient at (1, 1) is 1 for each: 2 in all, though the score only rose by 1.
    """
    assert deep_lift(both_needed(), AND, 0).tolist() == [[0.5, 0.5]]
    assert deep_lift(both_needed(), AND, 0, multiply_by_inputs=False).tolist() == [[0.5, 0.5]]


def test_a_unit_that_did_not_move_takes_its_slope() -> None:
    net = nn.Sequential(linear([[1.0, -1.0]]), nn.Sigmoid())
    got = deep_lift(net, AND, 0)  # z = 0 both times; sigmoid'(0) = 1/4
    torch.testing.assert_close(got, torch.tensor([[0.25, -0.25]]))


def test_a_maximum_shares_between_its_two_winners() -> None:
    """From (0, 3) to (5, 1) the maximum rises 3 -> 5, all of it above 3: the new winner's.

    The other way it falls 5 -> 3, because the old winner left: all of it is the old winner's.
    """
    net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    x, base = torch.tensor([[[5.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]])
    assert deep_lift(net, x, 0, baseline=base).tolist() == [[[2.0, 0.0]]]
    assert deep_lift(net, base, 0, baseline=x).tolist() == [[[-2.0, 0.0]]]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.MaxPool2d(3, 2, 1)])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_deep_lift_adds_up(pool: nn.Module, baseline: float) -> None:
    net, x = small_cnn(bias=True, pool=pool), pictures()
    change = net(x)[:, 1] - net(torch.full_like(x, baseline))[:, 1]
    got = deep_lift(net, x, 1, baseline=baseline)
    torch.testing.assert_close(got.sum((1, 2, 3)), change, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting forward")
@pytest.mark.parametrize("multiply", [True, False])
def test_deep_lift_equals_captums(multiply: bool) -> None:
    net, x = small_cnn(bias=True, pool=nn.AvgPool2d(2)), pictures()
    baseline = pictures().flip(0) / 2
    peer = DeepLift(net, multiply_by_inputs=multiply)
    got = deep_lift(net, x, 1, baseline=baseline, multiply_by_inputs=multiply)
    torch.testing.assert_close(got, peer.attribute(x, baseline, target=1), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Setting forward")
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1)])
def test_captum_loses_part_at_a_maximum_and_shap_does_not(pool: nn.Module) -> None:
    net, x, background = small_cnn(bias=True, pool=pool), pictures(), pictures(5).flip(0) / 2
    change = net(x)[:, 1] - net(background)[:, 1].mean()
    captums = DeepLiftShap(net).attribute(x, background, target=1)
    assert (captums.sum((1, 2, 3)) - change).abs().max() > 1e-3
    ours = deep_shap(net, x, 1, background=background)
    assert (ours.sum((1, 2, 3)) - change).abs().max() < 1e-12
    if pool.stride == pool.kernel_size:  # shap cannot unpool windows that overlap
        peer = shap.DeepExplainer(net.float(), background.float())
        want = torch.as_tensor(peer.shap_values(x.float())[..., 1])
        torch.testing.assert_close(ours, want.double(), rtol=0, atol=1e-6)


def test_adds_up_on_real_digits(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Black corners tie in every window, and still nothing is lost."""
    model, x, y = digits
    change = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    got = deep_lift(model, x, y).sum((1, 2, 3))
    torch.testing.assert_close(got, change.detach(), rtol=0, atol=1e-10)


def test_skips_are_fine() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.relu = nn.Linear(2, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * (x + self.relu(self.inside(x)))

    torch.manual_seed(0)
    net, x = Skip(), torch.randn(4, 2)
    change = (net(x) - net(torch.zeros_like(x)))[:, 0]
    torch.testing.assert_close(deep_lift(net, x, 0).sum(1), change)


def test_constant_padding_is_fine() -> None:
    """As in networks that were built for another framework; an edge of 2 is no difference."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_cnn(bias=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(nn.functional.pad(x, (0, 2, 0, 2), value=2.0))

    torch.manual_seed(0)
    net, x = Padded(), pictures()
    change = (net(x) - net(torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(deep_lift(net, x, 1).sum((1, 2, 3)), change, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting forward")
def test_deep_shap_equals_captums() -> None:
    net, x = small_cnn(bias=True, pool=nn.AvgPool2d(2)), pictures()
    background = pictures(7).flip(0)
    want = DeepLiftShap(net).attribute(x, background, target=2)
    for batch_size in (None, 1, 3):
        got = deep_shap(net, x, 2, background=background, batch_size=batch_size)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_deep_shap_is_the_mean_over_baselines() -> None:
    """Baselines (0, 0) and (1, 0): the first gives 1/2 each, the second only x1 its 1."""
    background = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    got = deep_shap(both_needed(), AND, 0, background=background)
    assert got.tolist() == [[0.25, 0.75]]


def test_probabilities_are_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))
    with pytest.raises(ValueError, match=r"Softmax.*up to the logits"):
        deep_lift(net, AND, 0)


def test_a_winner_that_did_not_move_takes_its_slope() -> None:
    """5 wins both times: the maximum follows it one to one, and the loser not at all."""
    net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    x, base = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[0.0, 5.0]]])
    got = deep_lift(net, x, 0, baseline=base, multiply_by_inputs=False)
    assert got.tolist() == [[[0.0, 1.0]]]


class Stepped(nn.Module):
    """x (1 + [x > 0] / 10): no gradient tells of the step."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * (x > 0))


def test_a_sum_that_misses_a_tenth_of_the_change_is_refused() -> None:
    """From -1 (-1) to 1 (1.1) the score rises by 2.1; two steps of slope 1.1 make 2.2."""
    with pytest.raises(ValueError, match=r"misses f\(x\) - f\(baseline\) by up to 0.1 of 2.1:"):
        deep_lift(Stepped(), torch.ones(1, 1), 0, baseline=-1.0)


# ---- networks of all kinds ---------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_the_sum_is_the_change_in_networks_of_all_kinds(name: str) -> None:
    model, x = network(name), photo()
    with torch.no_grad():
        change = (model(x) - model(torch.full_like(x, 0.5)))[0, 3].item()
    got = deep_lift(model, x, 3, baseline=0.5)
    assert got.sum().item() == pytest.approx(change, rel=0.01)
    assert got.abs().sum() > abs(change)


def test_of_a_real_network_too() -> None:
    model, x = pretrained("efficientnet_lite0").model, 2 * photo() - 1
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[0, 285].item()
    assert deep_lift(model, x, 285).sum().item() == pytest.approx(change, rel=0.01)


@pytest.mark.filterwarnings("ignore:Setting forward")
def test_equals_captums_through_skips_and_norms() -> None:
    """captum hooks modules: it is right where each activation is one that it knows and runs once.

    It knows ReLU and no ReLU6, GELU or SiLU: there it takes the slope.
    """
    model = deepcopy(network("MobileNetV2 (torchvision)")).double()
    for module in list(model.modules()):
        for key, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, key, nn.ReLU())
    x = photo(2).double()
    want = DeepLift(model).attribute(x, target=1)
    share = 1e-5 * want.abs().max().item()  # captum takes the slope where less than 1e-10 changed
    torch.testing.assert_close(deep_lift(model, x, 1), want, rtol=0, atol=share)


class Normed(nn.Module):
    """A layer norm, a gate and attention of each row's tokens; (N, 3, 6) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.heads = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.gate, self.fc = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(x)
        z = x + self.heads(z, z, z, need_weights=False)[0]
        return self.fc((z * self.gate(z).sigmoid()).mean(1))


@pytest.mark.filterwarnings("ignore:Setting forward")
def test_captum_loses_the_sum_at_products_and_norms() -> None:
    model, x = Normed().double(), torch.randn(2, 3, 6, dtype=torch.float64)
    start = torch.ones_like(x) + 0.5 * torch.arange(6)
    change = (model(x) - model(start))[:, 1].detach()
    captums = DeepLift(model).attribute(x, start, target=1)
    assert ((captums.sum((1, 2)) - change) / change).abs().max() > 0.05
    ours = deep_lift(model, x, 1, baseline=start).sum((1, 2))
    torch.testing.assert_close(ours, change, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "x", "start", "want"),
    [
        # a product from (1, 2) to (3, 4): 2 * mean(2, 4) and 2 * mean(1, 3) of the change 10
        (lambda x: x[:, :1] * x[:, 1:], [[3.0, 4.0]], [[1.0, 2.0]], [[6.0, 4.0]]),
        # a quotient from 2 / 1 to 6 / 2: (4 - mean(2, 3) * 0) / 1.5 and -2.5 * 1 / 1.5
        (lambda x: x[:, :1] / x[:, 1:], [[6.0, 2.0]], [[2.0, 1.0]], [[4 / 1.5, -2.5 / 1.5]]),
        # a square from 1 to 3
        (lambda x: x**2, [[3.0]], [[1.0]], [[8.0]]),
    ],
)
def test_operations_by_hand(function: Any, x: Any, start: Any, want: Any) -> None:
    class Body(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    got = deep_lift(Body(), torch.tensor(x), 0, baseline=torch.tensor(start))
    torch.testing.assert_close(got, torch.tensor(want))
