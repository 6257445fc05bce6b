"""Small networks that the tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Toy(nn.Module):
    """All that a method could upset: batch norm, dropout, modules in place, mixed flags, hooks.

    (N, 3, 8, 8) -> (N, 4). `trip` is called in every forward pass and may raise.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)
        self.relu2 = nn.ReLU6()
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(5, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.trip: Callable[[], Any] = lambda: None
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # a model may keep its own account: a method must put it back
        self.trip()
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        x = self.relu2(self.conv2(x))
        return self.fc(self.drop(self.gap(x).flatten(1)))


def toy(dtype: torch.dtype = torch.float32) -> Toy:
    """Return a toy in a state that is easy to spoil."""
    model = Toy().to(dtype)
    model.train()
    model.norm.eval()  # one frozen layer inside a network in training
    model.conv1.bias.requires_grad_(False)
    model.fc.weight.grad = torch.full_like(model.fc.weight, 7.0)
    model.conv2.register_forward_hook(lambda *_: None)
    return model


def inputs(n: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(
        n, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(dtype)


def small_cnn(bias: bool = False, pool: nn.Module | None = None) -> nn.Sequential:
    """Return a chain for (N, 2, 8, 8), float64, of three classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        pool or nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, bias=bias),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3, bias=bias),
    ).double()


def pictures(n: int = 3) -> Tensor:
    """Return inputs of it, not negative."""
    return torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def linear(weights: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    """Return a linear layer with these weights."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=bias is not None)
    layer.weight.data = torch.tensor(weights)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def spoiled(value: float) -> Tensor:
    """Inputs of which one number is another."""
    x = inputs()
    x[1, 2, 3, 4] = value
    return x


# What no method takes that asks `toy()` about three inputs: the value, the error, its words.
BAD_TARGETS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, r"0\.\.3.*-1"),
    (4, ValueError, r"0\.\.3.*4"),
    (torch.tensor([0, 1]), ValueError, r"\(3,\).*\(2,\)"),
    (1.0, TypeError, "float"),
    (torch.tensor([0.0, 1.0, 2.0]), TypeError, "float32"),
    (True, TypeError, "bool"),
    ("cat", TypeError, "str"),
]
BAD_INPUTS: list[tuple[Any, type[Exception], str]] = [
    (spoiled(float("nan")), ValueError, "1 values that are NaN or infinite"),
    (spoiled(float("inf")), ValueError, "NaN or infinite"),
    (torch.zeros(0, 3, 8, 8), ValueError, r"empty.*\(0, 3, 8, 8\)"),
    (torch.zeros(3), ValueError, r"batch first.*\(3,\)"),
    (torch.zeros(3, 5, 8, 8), ValueError, r"refuses x of shape \(\d+, 5, 8, 8\)"),
    (torch.zeros(3, 3, 8, 8, dtype=torch.int64), TypeError, "int64"),
    (torch.zeros(3, 3, 8, 8, dtype=torch.float64), TypeError, "float64.*float32"),
    (np.zeros((3, 3, 8, 8)), TypeError, "ndarray"),
]
