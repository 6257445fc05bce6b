"""The guard that leaves a model as it was."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# One for all models: what is guarded here (the random state, layers that two networks share) is
# not one model's own, and a second lock taken in another order would be a deadlock.
_LOCK = RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time change a model, and let its hooks be seen.

    Whatever changes a model for a while (flags, hooks, forward passes, weights) works in here:
    another thread waits. A network compiled by `torch.compile` runs uncompiled in the meantime,
    because its compiled code does not look at hooks that came later.

    >>> with alone(), alone():  # one thread may enter again
    ...     pass
    """
    with _LOCK, _uncompiled():
        yield


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled networks as they were written; nothing is loaded where nothing is compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def frozen(model: Callable[..., Any]) -> Iterator[None]:
    """Hold a model still while it is explained: evaluation mode, no parameter gradients.

    Dropout is off and batch norm uses its stored statistics, so that a row's explanation does
    not depend on its neighbours. On leaving, also by an error or an interrupt, every module's
    train/eval flag, every `requires_grad`, every buffer and the random state are as before.
    A model that is a plain function passes through; only the random state is guarded.
    Other threads wait (`alone`).

    Args:
        model: any callable; an `nn.Module` is guarded whole.

    Elsewhere: `model.eval()` and `torch.no_grad()`, which nobody turns back.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> with frozen(net):
    ...     print(net[1].training, net[0].weight.requires_grad)
    False False
    >>> net[1].training, net[0].weight.requires_grad
    (True, True)
    """
    with alone(), _same_randomness():
        if isinstance(model, nn.Module):
            with _still(model):
                yield
        else:
            yield


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Keep flags, `requires_grad` and buffers: their values and which tensors they are."""
    modules = list(model.modules())
    flags = [(module, module.training) for module in modules]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    held = [(module._buffers, dict(module._buffers)) for module in modules if module._buffers]
    values = [(buffer, buffer.detach().clone()) for buffer in _unsteady(modules)]
    try:
        for module in modules:
            _set_training(module, False)  # not .eval(): some modules do more when asked by that
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in flags:
            _set_training(module, flag)
        for parameter, needed in wanted:
            parameter.requires_grad_(needed)
        for buffers, before in held:
            _put_back(buffers, before)
        for buffer, value in values:
            if not torch.equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)


def _set_training(module: nn.Module, flag: bool) -> None:
    """Set a flag where it differs; torch's own setter takes its time."""
    if module.training != flag:
        module.training = flag


def _unsteady(modules: list[nn.Module]) -> Iterator[torch.Tensor]:
    """Yield the buffers that a forward pass may write in evaluation mode: not batch norm's."""
    for module in modules:
        if not isinstance(module, _BatchNorm):
            yield from (buffer for buffer in module._buffers.values() if buffer is not None)


def _put_back(buffers: dict[str, Any], before: dict[str, Any]) -> None:
    """Hold the same tensors under the same names as before."""
    for name in set(buffers.keys()) - set(before):
        del buffers[name]
    for name, buffer in before.items():
        buffers[name] = buffer


@contextmanager
def _same_randomness() -> Iterator[None]:
    """Put back the global random state of torch, NumPy and Python."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 - what a model may draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(states[0])  # noqa: NPY002
            random.setstate(states[1])
