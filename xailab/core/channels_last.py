"""Convolutions whose weights lie channels last while many rows are evaluated: the CPU likes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.callable_module import make_callable
from xailab.core.layers import replaced
from xailab.core.state import networks_in

_FEW = 16  # fewer rows do not pay for the copies
_LAYOUT = torch.channels_last


@contextmanager
def channels_last(model: Any, n: int) -> Iterator[None]:
    """Let the plain convolutions of a model run on copies of their weights laid out channels last.

    The numbers are the same, only their order in memory differs, so that nothing has to be
    trusted: a layer whose weight is computed, or changes on the way, works as it always does.
    Measured on EfficientNet-Lite0: gradients of many rows take half the time.

    Args:
        model: an `nn.Module`, or a function; of one the networks that it uses (`networks_in`).
        n: how many rows there are to evaluate; below 16 nothing is done.
    """
    networks = networks_in(model) if n >= _FEW else []
    layers = {layer for network in networks for layer in network.modules() if _plain(layer)}
    with replaced({layer: _quick(layer) for layer in layers}):
        yield


def _plain(layer: nn.Module) -> bool:
    """Tell whether a layer is a float32 convolution that computes what its class says."""
    return (
        type(layer).forward is nn.Conv2d.forward
        and type(layer)._conv_forward is nn.Conv2d._conv_forward  # type: ignore[attr-defined]
        and "forward" not in vars(layer)
        and isinstance(layer._parameters.get("weight"), Tensor)
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    )


def _quick(layer: Any) -> Callable[[Tensor], Tensor]:
    weight = layer.weight
    copy = weight.detach().contiguous(memory_format=_LAYOUT)
    return partial(_forward, layer, weight, weight._version, copy)


def _forward(layer: Any, weight: Tensor, version: int, copy: Tensor, x: Tensor) -> Tensor:
    same = layer.weight is weight and weight._version == version
    # Of one row laid out so, torch's instance norm gives a wrong gradient (seen in 2.14).
    if not (same and x.ndim == 4 and len(x) > 1):
        return layer._conv_forward(x, layer.weight, layer.bias)
    return layer._conv_forward(x.contiguous(memory_format=_LAYOUT), copy, layer.bias)


make_callable(__name__)
