"""The guard that leaves a model as it was."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from threading import RLock
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

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
    Of a function the networks that it uses are held still (`networks_in`). Other threads wait
    (`alone`).

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
    with alone(), same_randomness(), ExitStack() as stack:
        for network in networks_in(model):
            stack.enter_context(_still(network))
        yield


def networks_in(model: Any) -> list[nn.Module]:
    """Return the networks that a model is made of: itself, or those that a function uses.

    Found are those that it closes over, names as a global, has as a default, an argument of
    `partial` or an attribute of the object that it is called on, alone or in a list or dict; also
    through functions of its own that it uses.

    >>> net = nn.Linear(2, 2)
    >>> networks_in(lambda x: net(x) * 2) == [net]
    True
    """
    found: dict[int, nn.Module] = {}
    waiting, seen = [model], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module):
            found[id(one)] = one
        else:
            waiting.extend(_used_by(one))
    return list(found.values())


def _used_by(one: Any) -> Iterator[Any]:
    """Yield what a function, or an object that can be called, works with."""
    if isinstance(one, (list, tuple)):
        yield from filter(callable, one)
    elif isinstance(one, dict):
        yield from filter(callable, one.values())
    elif isinstance(one, partial):
        yield from (one.func, *one.args, *one.keywords.values())
    elif isinstance(one, MethodType):
        yield from (one.__func__, one.__self__)
    elif isinstance(one, FunctionType):
        yield from _reached(one)
    elif hasattr(one, "__dict__") and not isinstance(one, (type, ModuleType)):
        yield from (part for part in vars(one).values() if isinstance(part, _HOLDERS))
        yield getattr(type(one), "__call__", None)  # noqa: B004 - its code may use a global


_HOLDERS = (nn.Module, FunctionType, MethodType, partial, list, tuple, dict)


def _reached(function: FunctionType) -> Iterator[Any]:
    """Yield what a function closes over, has as a default, or names as a global."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
        for name in code.co_names:
            used = function.__globals__.get(name)
            yield used
            if isinstance(used, ModuleType):
                yield from (vars(used).get(part) for part in code.co_names)


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Keep flags, `requires_grad` and buffers: their values and which tensors they are."""
    modules = list(model.modules())
    flags = [(module, module.training) for module in modules]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    held = [(module._buffers, dict(module._buffers)) for module in modules if module._buffers]
    values = [(buffer, buffer.detach().clone()) for buffer in _unsteady(modules)]
    hooks: list[Any] = []
    try:
        for module in modules:
            _set_training(module, False)  # not .eval(): some modules do more when asked by that
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        norms = [module for module in modules if isinstance(module, _NormBase)]
        hooks += [norm.register_forward_hook(lambda *call: laid_plainly(call[2])) for norm in norms]
        yield
    finally:
        for hook in hooks:
            hook.remove()
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


def laid_plainly(out: Any) -> Any:
    """Let the gradient that comes back to a norm of a single row lie in memory as it is counted.

    Torch (2.14, CPU) takes one whose channels come last, as behind `flatten(2).transpose(1, 2)`,
    for another order: each number goes to a wrong place, without a word.
    """
    if isinstance(out, torch.Tensor) and out.requires_grad and len(out) == 1:
        out.register_hook(torch.Tensor.contiguous)
    return out


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
def same_randomness() -> Iterator[None]:
    """Put back the global random state of torch, NumPy and Python."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 - what a model may draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(states[0])  # noqa: NPY002
            random.setstate(states[1])
