"""The guard that leaves a model as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def frozen(model: Callable[..., Any]) -> Iterator[None]:
    """Hold a model still while it is explained: evaluation mode, no parameter gradients.

    Dropout is off and batch norm uses its stored statistics, so that a row's explanation does
    not depend on its neighbours. On leaving, also by an error or an interrupt, every module's
    train/eval flag, every `requires_grad`, every buffer and the random state are as before.
    A model that is a plain function passes through; only the random state is guarded.

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
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [(module, module.training) for module in modules]
    parameters = model.parameters() if isinstance(model, nn.Module) else []
    wanted = [(parameter, parameter.requires_grad) for parameter in parameters]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            for module in modules:
                module.training = False
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, training in flags:
                module.training = training
            for parameter, needed in wanted:
                parameter.requires_grad_(needed)
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    with torch.no_grad():
                        buffer.copy_(value)
