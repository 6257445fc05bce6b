"""What must be the same after a method has run: the model, x, and all random states."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.toys import Toy


class Snapshot:
    """All that must be the same afterwards."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x
        self.state = self._state()

    def _state(self) -> dict[str, Any]:
        modules = list(self.model.modules())
        return {
            "flags": [module.training for module in modules],
            "attributes": [sorted(module.__dict__) for module in modules],
            "hooks": [
                [sorted(value) for name, value in sorted(vars(module).items()) if "_hooks" in name]
                for module in modules
            ],
            "wants gradients": [p.requires_grad for p in self.model.parameters()],
            "gradients": [copy(p.grad) for p in self.model.parameters()],
            "weights": [copy(value) for value in self.model.state_dict().values()],
            "same tensors": [id(p) for p in (*self.model.parameters(), *self.model.buffers())],
            "x": (copy(self.x), self.x.requires_grad, copy(self.x.grad), self.x.grad_fn),
            "random": (
                copy(torch.get_rng_state()),
                np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global state is what is tested
                random.getstate(),
            ),
            "grad mode": torch.is_grad_enabled(),
        }

    def check(self) -> None:
        now = self._state()
        for name, before in self.state.items():
            assert same(before, now[name]), f"{name} changed"


@contextmanager
def unchanged(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Check at the end of the block, also when an error leaves it."""
    before = Snapshot(model, x)
    try:
        yield
    finally:
        before.check()


def copy(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


class Boom(Exception):
    """Something that no method expects."""


def tripped(model: Toy, error: type[BaseException], after: int) -> Toy:
    """Let the model raise in the forward pass after this many."""
    left = [after]

    def trip() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    model.trip = trip
    return model
