"""The CAM browser: Grad-CAM of one picture at every layer and for several classes.

Lesson `cam` uses this file. All maps come from one forward pass and one backward pass a class, and
are kept, so that moving the slider only draws.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xailab import plots
from xailab.core.checks import check_input, check_target
from xailab.core.layers import capture
from xailab.core.scores import gradients_on, outputs_of
from xailab.core.state import frozen
from xailab.models import Pretrained
from xailab.widgets.show import explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

LAYERS = (*(f"blocks.{i}" for i in range(7)), "conv_head", "bn2")  # of EfficientNet-Lite0


def cam_browser(
    net: Pretrained, x: Tensor, classes: Sequence[int], *, layers: Sequence[str] = LAYERS
) -> None:
    """Show Grad-CAM with a slider for the layer and a menu for the class.

    Tab walks from one control to the next, the arrow keys move it. Where widgets do not run, the
    map of the last layer for the first class stands in.

    Args:
        net: a pretrained network.
        x: (1, 3, H, W), one picture as the network wants it: a photo or a mosaic.
        classes: class indices to choose from.
        layers: dotted names of layers with positions, from first to last.

    Raises:
        TypeError, ValueError: x is not one picture, there is no such layer or class.
    """
    maps = CamMaps(net, x, classes, layers)
    show(explorer(maps), maps.picture(layers[-1], classes[0]))


class CamMaps:
    """Signed Grad-CAM maps of one picture, by layer and class, and how to draw them."""

    def __init__(
        self, net: Pretrained, x: Tensor, classes: Sequence[int], layers: Sequence[str] = LAYERS
    ) -> None:
        """Compute all maps; arguments and errors as for `cam_browser`."""
        if len(check_input(net.model, x)) != 1:
            raise ValueError(f"one picture at a time, got {len(x)}")
        if not classes or not layers:
            raise ValueError("name at least one class and one layer")
        self.layers = list(layers)
        self.logits, self.heats = _all_maps(net.model, x, classes, self.layers)
        self.names = {t: net.classes[t].partition(",")[0] for t in classes}
        self.photo = net.picture(x)[0]

    def picture(self, layer: str, target: int, *, signed: bool = False) -> plots.Picture:
        """Draw one map in its own cells; `signed` keeps what speaks against the class."""
        heat = self.heats[layer, target]
        height, width = heat.shape
        logit = f"{self.logits[target]:.1f}"
        return plots.heatmap(
            heat if signed else heat.relu(),
            self.photo,
            title=f"{self.names[target]} (logit {logit}), {layer}: {height} x {width} cells",
            label="Grad-CAM (logits)",
        )


def _all_maps(
    model: nn.Module, x: Tensor, targets: Sequence[int], layers: list[str]
) -> tuple[dict[int, float], dict[tuple[str, int], Tensor]]:
    """Return the logit of every target, and the map (h, w) of every layer and target."""
    with frozen(model), gradients_on(), capture(model, layers) as kept:
        logits = outputs_of(model, x.detach().clone().requires_grad_())
        for target in targets:
            check_target(target, logits)
        heats: dict[tuple[str, int], Tensor] = {}
        for target in targets:
            heats |= _maps(logits[0, target], {name: kept[name] for name in layers}, target)
    return {target: logits[0, target].item() for target in targets}, heats


def _maps(score: Tensor, kept: Mapping[str, Tensor], target: int) -> dict[tuple[str, int], Tensor]:
    """Return Grad-CAM without ReLU of all layers, out of one backward pass."""
    for name, maps in kept.items():
        if maps.ndim != 4:
            raise ValueError(f"layer {name!r} gives {tuple(maps.shape)}, which has no positions")
    gradients = torch.autograd.grad(score, list(kept.values()), retain_graph=True)
    heats = {}
    for (name, maps), gradient in zip(kept.items(), gradients, strict=True):
        weights = gradient.mean((2, 3), keepdim=True)
        heats[name, target] = (weights * maps.detach()).sum(1)[0]
    return heats


def explorer(maps: CamMaps) -> "VBox":
    """Return the browser as a widget.

    CSS classes: `xailab-cam` on the whole, `xailab-cam-layer`, `xailab-cam-class` and
    `xailab-cam-signed` on the controls.
    """
    from ipywidgets import Checkbox, Layout

    live = {"continuous_update": True}
    classes = [(name, target) for target, name in maps.names.items()]
    last = maps.layers[-1]
    controls = {
        "layer": slider("Layer", "Layer whose maps are weighed", maps.layers, last, **live),
        "class": slider("Class", "Class whose score is explained", classes, **live),
        "signed": Checkbox(
            description="show what speaks against it, too", layout=Layout(width="32em")
        ),
    }
    return explorer_of(
        "cam", controls, lambda layer, target, signed: maps.picture(layer, target, signed=signed)
    )
