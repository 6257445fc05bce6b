"""Weights laid out channels last: the same numbers, whatever a layer does with its weight."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.snapshots import Snapshot
from xailab.core.channels_last import channels_last
from xailab.core.state import frozen

ROWS = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Scaled(nn.Conv2d):
    """A convolution with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Changing(nn.Sequential):
    """Writes new weights in every pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self[0].weight.copy_(torch.full_like(self[0].weight, float(x.mean())))
        return super().forward(x)


class Instances(nn.Module):
    """An instance norm called as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x)


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return [
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2), *end),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), *end),
        nn.Sequential(Scaled(3, 4, 3), *end),
        nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), *end),
        Changing(nn.Conv2d(3, 4, 3), *end),
        nn.Sequential(nn.Conv2d(3, 4, 3), *end).double(),
    ]


@pytest.mark.parametrize("number", range(6))
def test_answers_are_the_same_and_everything_is_put_back(number: int) -> None:
    model = networks()[number]
    rows = ROWS.to(next(model.parameters()).dtype)
    with frozen(model), torch.no_grad():
        want = model(rows)
        before = Snapshot(model, rows)
        with channels_last(model, 20):
            torch.testing.assert_close(model(rows), want, rtol=1e-4, atol=1e-5)
        if number != 4:
            before.check()
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_the_copy_is_used_for_many_rows_and_plain_layers_only() -> None:
    model = networks()[0]
    with channels_last(model, 16):
        assert "forward" in vars(model[0])
    with channels_last(model, 15):
        assert "forward" not in vars(model[0])
    for other in networks()[2:4]:
        with channels_last(other, 16):
            assert "forward" not in vars(other[0])
    with channels_last(torch.relu, 16):
        pass


def test_a_weight_that_changes_meanwhile_is_seen() -> None:
    model = networks()[0]
    with channels_last(model, 16), torch.no_grad():
        first = model(ROWS)
        model[0].weight.mul_(2)
        assert not torch.allclose(model(ROWS), first)


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_gradients_through_an_instance_norm(functional: bool, chunk: int) -> None:
    """torch's own are wrong for one row that lies channels last; chunks may end in one."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        Instances() if functional else nn.InstanceNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Flatten(),
        nn.Linear(256, 1),
    )

    def slopes(net: nn.Module, rows: Tensor) -> Tensor:
        leaf = rows.clone().requires_grad_()
        return torch.autograd.grad(net(leaf).sum(), leaf)[0]

    want = slopes(deepcopy(model).double(), ROWS.double()).float()
    with channels_last(model, len(ROWS)):
        found = torch.cat([slopes(model, rows) for rows in ROWS.split(chunk)])
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)


def test_the_networks_of_a_function_are_laid_out_too() -> None:
    model = networks()[0]
    with frozen(model), torch.no_grad(), channels_last(lambda rows: model(rows)[:, 0], 20):
        assert "forward" in vars(model[0])
        assert model[0](ROWS).is_contiguous(memory_format=torch.channels_last)
    assert "forward" not in vars(model[0])
