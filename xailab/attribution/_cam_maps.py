"""What the class activation maps share: a layer's output as maps, weighed, stretched over x."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from xailab.core.checks import Target, check_input
from xailab.core.scores import gradients_on, layer_gradient
from xailab.core.state import frozen
from xailab.core.tokens import layout_of

Reshape = Callable[[Tensor], Tensor]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def maps_and_gradients(
    model: nn.Module, x: Tensor, target: Target, layer: str, reshape: Reshape | None
) -> tuple[Tensor, Tensor]:
    """Return the layer's maps $A$ and $\\partial f_t / \\partial A$, both (N, K, h, w)."""
    check_input(model, x)
    with frozen(model), gradients_on():
        found = layer_gradient(model, x.detach(), target, layer)
    maps, gradients = as_maps(model, x, layer, reshape, *found)
    check_read(layer, gradients, found[1])
    return maps, gradients


def check_read(layer: str, effects: Tensor, every: Tensor) -> None:
    """Refuse maps without any effect on the score where what is left out of them has one.

    Raises:
        ValueError: of a layer's tokens only those of no patch are read.
    """
    if every.any() and not effects.any():
        raise ValueError(
            f"the score does not depend on what layer {layer!r} says of any place, only on tokens "
            "of no place (a class token): take an earlier layer, before the last attention"
        )


def as_maps(
    model: nn.Module, x: Tensor, layer: str, reshape: Reshape | None, *outputs: Tensor
) -> list[Tensor]:
    """Return a layer's outputs as maps (N, K, h, w), refusing what says nothing about where."""
    came = tuple(outputs[0].shape)
    if len(came) < 3:
        raise ValueError(
            f"layer {layer!r} gives {came}, which has no positions: take an earlier one"
        )
    maps = [(reshape or layout_of(model, layer, x).maps)(one) for one in outputs]
    if maps[0].ndim != x.ndim or len(maps[0]) != len(x):
        raise ValueError(
            f"layer {layer!r} gives {came}, which reshape makes {tuple(maps[0].shape)}: no maps "
            f"over x {tuple(x.shape)}"
        )
    if maps[0][0, 0].numel() == 1 < x[0, 0].numel():
        raise ValueError(f"layer {layer!r} gives {came}, one position only: take an earlier one")
    return maps


def spread(weights: Tensor, maps: Tensor) -> Tensor:
    """Give (N, K) weights one dimension of length 1 per dimension of positions."""
    return weights.reshape(*weights.shape, *(1,) * (maps.ndim - 2))


def weighted(weights: Tensor, maps: Tensor) -> Tensor:
    """Return the weighted sum of maps over channels, (N, 1, h, w)."""
    return (spread(weights, maps) * maps).sum(1, keepdim=True)


def sized(heat: Tensor, x: Tensor, upsample: bool, interpolation: str) -> Tensor:
    """Return maps stretched to the size of `x`, if that is wanted."""
    return (stretched(heat, x, interpolation) if upsample else heat).detach()


def stretched(maps: Tensor, x: Tensor, interpolation: str) -> Tensor:
    """Interpolate (N, K, h, w) to the height and width of (N, C, H, W)."""
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(f"interpolation must be 'bilinear' or 'nearest', got {interpolation!r}")
    if maps.ndim != x.ndim:
        raise ValueError(f"maps {tuple(maps.shape)} cannot be laid over x {tuple(x.shape)}")
    if interpolation == "nearest":
        return F.interpolate(maps, size=x.shape[2:], mode="nearest")
    return F.interpolate(maps, size=x.shape[2:], mode=_MODES[x.ndim - 2], align_corners=False)
