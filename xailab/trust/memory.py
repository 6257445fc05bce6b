"""Where the numbers of a layer lie, and writing into them for a while.

A layer's `weight` is not always what is stored. `quantize` stores integer codes and steps, weight
norm a length and a direction, torch's pruning a mask: `weight` is computed from these when it is
asked for, or before each pass. What is written into such a copy changes nothing.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from xailab.core.layers import find_layer
from xailab.core.state import alone, frozen

Fault = Callable[[Tensor], Tensor]
Places = Callable[[int], Tensor]

# Hooks that compute a weight before each pass, out of parameters with these endings.
_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
_ENDINGS = ("_orig", "_v")


def layer_names(model: nn.Module, layers: Any) -> list[str]:
    """Return the names of layers, every one of which the model has.

    Raises:
        TypeError, ValueError: as `find_layer`; no list, or an empty one.

    >>> layer_names(nn.Sequential(nn.ReLU()), ("0",))
    ['0']
    """
    names = [] if isinstance(layers, str) or not isinstance(layers, Iterable) else list(layers)
    for name in names:
        find_layer(model, name)
    if not names:
        raise ValueError(f"layers must be a list of names, got {layers!r}")
    return names


class Stored(NamedTuple):
    """The parameter or buffer in which a layer's weight or bias lies, and its name there."""

    name: str
    tensor: Tensor


def stored(model: nn.Module, layer: str, where: str) -> Stored:
    """Find the numbers that a layer keeps in memory for its weight or bias.

    Of a computed weight these are what it is computed from and what has its shape: the integer
    codes of `quantize`, the `original` of a parametrization, `weight_v` of weight norm.

    Args:
        model: the network.
        layer: dotted name of the layer.
        where: "weight" or "bias".

    Raises:
        TypeError, ValueError: as `find_layer`.
        ValueError: the layer has no such numbers, they are not there yet (lazy, meta), they share
            cells (expanded), or it computes them from others of another shape; the message says
            what it holds.

    >>> stored(nn.Sequential(nn.Linear(2, 3)), "0", "bias").name
    'bias'
    """
    module = find_layer(model, layer)
    held = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    name = _name(module, where, held)
    if name is None:
        kind, names = f"layer {layer!r} ({type(module).__name__})", ", ".join(held) or "nothing"
        if getattr(module, where, None) is None:
            raise ValueError(f"{kind} has no {where}; it holds {names}")
        raise ValueError(
            f"{kind} computes its {where}, or holds it neither as a parameter nor as a buffer: a "
            f"fault written there would hit nothing. What it holds, in other shapes: {names}"
        )
    found = held[name]
    if is_lazy(found) or found.is_meta or found.layout != torch.strided or _overlaps(found):
        raise ValueError(
            f"{name!r} of layer {layer!r} cannot be written number by number: it is lazy, meta, "
            "sparse or expanded"
        )
    return Stored(name, found)


def _name(module: nn.Module, where: str, held: dict[str, Tensor]) -> str | None:
    """Return under which name a layer holds its weight or bias; None if it does not."""
    if where in held:
        return where
    with torch.no_grad():
        weight = getattr(module, where, None)
    if not isinstance(weight, Tensor):
        return None
    itself = [name for name, tensor in held.items() if tensor is weight]
    first = f"parametrizations.{where}.original"
    likely = (first, f"{first}0", f"{first}1", *(f"{where}{end}" for end in _ENDINGS))
    fits = [name for name in likely if name in held and held[name].shape == weight.shape]
    return next(iter([*itself, *fits]), None)


def _overlaps(tensor: Tensor) -> bool:
    """Tell whether several numbers share one cell, as after `expand`."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in sides)


@contextmanager
def broken_memory(
    model: nn.Module,
    layer: str,
    where: str,
    fault: Fault,
    places: Places,
    *,
    tell: bool = True,
    may_rest: bool = False,
) -> Iterator[bool]:
    """Let a fault change some of a layer's stored numbers inside the `with` block.

    The weight is read again to see that it is made of them. On leaving, they are bit for bit as
    they were.

    Args:
        model: the network.
        layer: dotted name of the layer.
        where: "weight" or "bias".
        fault: numbers -> the numbers that stand in their place.
        places: how many numbers there are -> which are hit, as flat numbers.
        tell: warn if the fault changes no value, and refuse one that does not arrive.
        may_rest: a fault that changes no value is as it should be.

    Yields:
        Whether the fault arrives in the weight; one that is stored as it is has no other way.

    Raises:
        TypeError, ValueError: as `stored`.
        ValueError: the weight does not depend on the numbers that it seems to be computed from,
            or, with `tell`, not on those that are hit.

    >>> net = nn.Sequential(nn.Linear(1, 1))
    >>> with broken_memory(net, "0", "bias", torch.zeros_like, torch.arange):
    ...     net[0].bias.item()
    0.0
    """
    module, (name, memory) = find_layer(model, layer), stored(model, layer, where)
    hit = places(memory.numel())
    computed = vars(module).get(where)  # what a hook has left there
    with alone():
        before = None if name == where else _read_before(module, layer, where, memory)
        kept = _cells(memory, hit)
        broken = fault(kept)
        try:
            _write(memory, hit, broken)
            arrived = before is None or changed(before, _read(module, where))
            if tell and changed(kept, broken):
                check_arrived(arrived, layer, where, name)
            elif tell and not may_rest:
                _warn(f"the fault changes no value of the {where} of layer {layer!r}")
            yield arrived
        finally:
            _write(memory, hit, kept)
            if computed is not None:
                vars(module)[where] = computed


def check_arrived(arrived: bool, layer: str, where: str, name: str) -> None:
    """Refuse faults in numbers that a weight is computed from, but not from these.

    Raises:
        ValueError: they did not arrive in the weight.

    >>> check_arrived(True, "fc", "weight", "weight_orig")
    """
    if not arrived:
        raise ValueError(
            f"layer {layer!r} computes its {where} from {name}, and no number hit there arrives in "
            "it: they are masked, unused or rounded away (make torch's masks permanent with "
            "prune.remove)"
        )


def changed(before: Tensor, after: Tensor) -> bool:
    """Tell whether any value is another one: 0 and -0 are one value, NaN is itself.

    >>> changed(torch.tensor([0.0, torch.nan]), torch.tensor([-0.0, torch.nan]))
    False
    """
    return not bool(((before == after) | ((before != before) & (after != after))).all())


def _warn(what: str) -> None:
    warnings.warn(f"{what}: it does no damage, which says nothing of others", stacklevel=2)


def warn_unless(any_changed: bool, layer: str) -> None:
    """Say so where a fault in what a layer hands on changed no value.

    >>> warn_unless(True, "relu1")
    """
    if not any_changed:
        _warn(f"the fault changed no value that layer {layer!r} handed on")


def _read(module: nn.Module, where: str) -> Tensor:
    """Return a copy of the weight or bias as a pass would find it."""
    with frozen(module), torch.no_grad():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, _HOOKS):
                hook(module, ())
        return getattr(module, where).detach().clone()


def _read_before(module: nn.Module, layer: str, where: str, memory: Tensor) -> Tensor:
    """Return a copy of a computed weight, once it has shown that it depends on its memory."""
    before, kept = _read(module, where), memory.detach().clone()
    every = torch.arange(memory.numel())
    try:
        _write(memory, every, kept.flatten().roll(1) + 1)
        if not changed(before, _read(module, where)):
            raise ValueError(
                f"the {where} of layer {layer!r} is computed, and not from the parameter of its "
                "shape (cached, or masked everywhere): a fault there would hit nothing"
            )
    finally:
        _write(memory, every, kept.flatten())
    return before


def _index(memory: Tensor, places: Tensor) -> tuple[Any, ...]:
    return torch.unravel_index(places.to(memory.device), memory.shape or (1,))


def _cells(memory: Tensor, places: Tensor) -> Tensor:
    """Return a copy of some numbers."""
    return torch.atleast_1d(memory.detach())[_index(memory, places)]


def _write(memory: Tensor, places: Tensor, values: Tensor) -> None:
    """Write numbers into a parameter or buffer, whatever mode it was made in."""
    with torch.inference_mode(memory.is_inference()):
        torch.atleast_1d(memory.detach())[_index(memory, places)] = values.to(memory)
