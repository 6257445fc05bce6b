"""What the tests of shipped networks share: held-out digits, and what a card states."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xailab.data import load
from xailab.models import card


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The 1,000 digits that no shipped network was trained on."""
    data = load("mnist5k")
    test = ~data.extra["train"]
    images = np.asarray(data.images)[test] / np.float32(255)
    return torch.as_tensor(images)[:, None], torch.as_tensor(data.y[test])


@pytest.fixture(scope="session")
def percent_right() -> Callable[[nn.Module, Tensor, Tensor], float]:
    @torch.no_grad()
    def measure(net: nn.Module, x: Tensor, y: Tensor) -> float:
        return 100 * (net(x).argmax(1) == y).double().mean().item()

    return measure


@pytest.fixture(scope="session")
def stated() -> Callable[[str], list[float]]:
    def percentages(name: str) -> list[float]:
        """Return the percentages that a card gives under the word Measured."""
        measured = card(name).split("**Measured.**")[1].split("**Use.**")[0]
        return [float(number) for number in re.findall(r"([\d.]+) %", measured)]

    return percentages
