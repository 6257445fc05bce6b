"""Digits that the shipped networks have not seen in training, and what a network says of them."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from xailab.data import load


@cache
def digits() -> tuple[Tensor, Tensor]:
    """The 1,000 digits that the network was not trained on, in random order."""
    data = load("mnist5k")
    rows = np.random.default_rng(0).permutation(np.flatnonzero(~data.extra["train"]))
    return torch.tensor(data.images[rows, None] / 255).float(), torch.tensor(data.y[rows])


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Classes, -1 where a logit is not finite."""
    with torch.no_grad():
        logits = model(x)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)
