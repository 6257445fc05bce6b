"""The layers whose weights can be made fewer, and a copy of the network to do it in."""

from collections import Counter
from copy import deepcopy
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from xailab.models.bayesian import BayesianLayer

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}  # by the axes of their weights


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Return the linear and convolutional layers by name, each once.

    Raises:
        TypeError: the model is no `nn.Module`.
        ValueError: it has no such layer, or one whose numbers do not exist yet.

    >>> list(layers_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    ['0']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    layers = {name: one for name, one in model.named_modules() if isinstance(one, Layer)}
    if not layers:
        raise ValueError("the model has no linear and no convolutional layer")
    lazy = [name for name, one in layers.items() if any(map(is_lazy, one.parameters()))]
    if lazy:
        raise ValueError(f"layer {lazy[0]!r} has no weights yet: run the model once")
    return layers


def stored_layers(model: nn.Module) -> dict[str, Layer]:
    """Return the same, all of whose weights and biases are numbers that can be changed.

    Raises:
        TypeError, ValueError: as `layers_of`; a layer that computes its weight or bias from
            something else, where a change would be lost; one that draws it; a compiled network.
    """
    layers = layers_of(model)
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled by torch.compile: give model._orig_mod")
    for name, layer in layers.items():
        if isinstance(layer, BayesianLayer):
            raise ValueError(
                f"layer {name!r} has distributions for weights: this needs weights that are numbers"
            )
        for part in ("weight", "bias"):
            if part not in layer._parameters:
                raise ValueError(
                    f"layer {name!r} computes its {part} (quantized, masked, normalized): quantize "
                    "last, and make it a plain number first, torch's masks with prune.remove"
                )
    return layers


def copied(model: nn.Module) -> tuple[nn.Module, dict[str, Layer]]:
    """Return a copy without gradients, and its layers.

    Raises:
        TypeError, ValueError: as `stored_layers`; weights that are not finite; a model that
            torch cannot copy.
    """
    for name, layer in stored_layers(model).items():
        if not torch.isfinite(layer.weight).all():
            raise ValueError(f"the weights of layer {name!r} are not all finite")
    try:
        smaller = deepcopy(model)
    except RuntimeError as error:  # a tensor that is computed, in a layer of another kind
        raise ValueError(f"the model cannot be copied: {error}") from error
    smaller.zero_grad(set_to_none=True)
    return smaller, layers_of(smaller)


def is_plain(layer: Layer) -> bool:
    """Tell whether a layer does what its class says, channel by channel: no groups, no hooks.

    >>> is_plain(nn.Linear(2, 2)), is_plain(nn.Conv1d(2, 2, 1, groups=2))
    (True, False)
    """
    kinds: tuple[Any, ...] = (nn.Linear, *CONVOLUTIONS.values())
    own = any(type(layer).forward is kind.forward for kind in kinds)
    hooks = any(held for name, held in vars(layer).items() if name.endswith("_hooks"))
    return own and not hooks and "forward" not in vars(layer) and getattr(layer, "groups", 1) == 1


def tied(model: nn.Module) -> set[int]:
    """Return the `id` of every parameter that more than one module holds."""
    held = [p for module in model.modules() for p in module._parameters.values() if p is not None]
    return {number for number, times in Counter(map(id, held)).items() if times > 1}


def check_number(name: str, value: Any) -> float:
    """Return a number as a float.

    Raises:
        TypeError: something else than one number.

    >>> check_number("amount", 0.5)
    0.5
    """
    one = isinstance(value, Real) or (hasattr(value, "shape") and value.shape == ())
    if isinstance(value, bool) or not one:
        raise TypeError(f"{name} must be one number, got {type(value).__name__}")
    return float(value)
