"""The layer browser: any unit of any layer on any photo, and what excites it in the others.

Lesson `activations` uses this file. All activations come from one pass over the photos and are
kept; importances are computed when they are first asked for.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xailab import plots
from xailab.core.batching import batched
from xailab.core.checks import check_input
from xailab.core.scores import outputs_of
from xailab.core.state import frozen
from xailab.foundations.activations import layer_activations, neuron_importance
from xailab.models import Pretrained
from xailab.widgets.show import Shown, explorer_of, labeled, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

ORDERS = ("importance", "number")
_EXAMPLES = 4


def layer_browser(
    net: Pretrained, x: Tensor, names: Sequence[str], *, layers: Sequence[str]
) -> None:
    """Show a unit's map over a photo and its top inputs, with controls for photo, layer and unit.

    Units are sorted by importance for the class that the network gives the photo (activation x
    gradient), or by number. Tab walks from one control to the next, the arrow keys move it.
    Where widgets do not run, the most important unit of the last layer stands in.

    Args:
        net: a pretrained network.
        x: (N, 3, H, W), at least two photos as the network wants them.
        names: one a photo.
        layers: dotted names of layers with positions, from first to last.

    Raises:
        TypeError, ValueError: x is no batch of two photos or more, another number of names, no
            such layer, or one without positions.
    """
    maps = UnitMaps(net, x, names, layers)
    show(explorer(maps), maps.picture(0, layers[-1], maps.order(0, layers[-1], ORDERS[0])[0]))


class UnitMaps:
    """Activations of several photos by layer, importances of units, and how to draw them."""

    def __init__(
        self, net: Pretrained, x: Tensor, names: Sequence[str], layers: Sequence[str]
    ) -> None:
        """Compute all activations; arguments and errors as for `layer_browser`."""
        if len(check_input(net.model, x)) < 2 or len(names) != len(x):
            raise ValueError(
                f"expected two photos or more with a name each, got {len(x)} and {len(names)} names"
            )
        self.net, self.x, self.names, self.layers = net, x, list(names), list(layers)
        self.maps = layer_activations(net.model, x, self.layers)
        for name, maps in self.maps.items():
            if maps.ndim != 4:
                raise ValueError(
                    f"layer {name!r} gives {tuple(maps.shape)}, which has no positions"
                )
        with frozen(net.model), torch.no_grad():
            best = batched(lambda rows: outputs_of(net.model, rows).argmax(1), x, owner=net.model)
        self.classes, self.seen = best.tolist(), net.picture(x)
        self._importance: dict[tuple[int, str], Tensor] = {}

    def importance(self, photo: int, layer: str) -> Tensor:
        """Return activation x gradient of every unit for the photo's class, (K,), in logits."""
        if (photo, layer) not in self._importance:
            found = neuron_importance(
                self.net.model,
                self.x[photo : photo + 1],
                self.classes[photo],
                layer=layer,
                method="activation_x_gradient",
            )
            self._importance[photo, layer] = found.sum((2, 3))[0]
        return self._importance[photo, layer]

    def order(self, photo: int, layer: str, by: str) -> list[int]:
        """Return the units' numbers, the most important first, or as they are."""
        if by == "number":
            return list(range(self.maps[layer].shape[1]))
        return self.importance(photo, layer).argsort(descending=True, stable=True).tolist()

    def class_name(self, photo: int) -> str:
        """Return what the network calls a photo."""
        return self.net.classes[self.classes[photo]].partition(",")[0]

    def picture(self, photo: int, layer: str, unit: int) -> plots.Picture:
        """Draw a unit's map over a photo, beside the places that excite it in other photos."""
        maps = self.maps[layer][:, unit]  # (N, h, w)
        height, width = maps.shape[1:]
        peaks, cells = maps.flatten(1).max(1)
        ranked = peaks.argsort(descending=True, stable=True).tolist()
        top = [row for row in ranked if row != photo][:_EXAMPLES]
        added = self.importance(photo, layer)[unit].item()
        side = max(8, self.x.shape[-1] // 3)
        return plots.unit_card(
            maps[photo],
            self.seen[photo],
            [
                plots.patch(self.seen[i], divmod(int(cells[i]), width), (height, width), side)
                for i in top
            ],
            titles=[f"{self.names[i]} {peaks[i].item():.1f}" for i in top],
            title=f"{layer}, unit {unit} on {self.names[photo]}: {added:+.2f} logits "
            f"for {self.class_name(photo)}",
        )


def explorer(maps: UnitMaps) -> "VBox":
    """Return the browser as a widget.

    CSS classes: `xailab-layers` on the whole, `xailab-layers-photo`, `xailab-layers-layer`,
    `xailab-layers-order` and `xailab-layers-unit` on the controls.
    """
    controls = _controls(maps)
    layer, place = controls["layer"], controls["unit"]

    def draw(photo: int, layer: str, order: str, at: int) -> Shown:
        units = maps.order(photo, layer, order)
        picture = maps.picture(photo, layer, units[at - 1])
        where = f"Unit {at} of {len(units)} by {order}. {picture.alt}"
        return Shown(picture.png(), escape(where))

    def begin_again(moved: str) -> None:
        if moved != "unit":
            place.value = 1
            place.max = maps.maps[layer.value].shape[1]

    return explorer_of("layers", controls, draw, moved=begin_again)


def _controls(maps: UnitMaps) -> dict[str, Any]:
    """Return the four controls by name, in the order of `draw`'s arguments."""
    from ipywidgets import IntSlider

    photos = [(name, i) for i, name in enumerate(maps.names)]
    last = maps.layers[-1]
    orders = [(f"by {order}", order) for order in ORDERS]
    sorting = "How the units are sorted: by importance for the photo's class, or by number"
    units = labeled("Place", "Place of the unit in this order")
    return {
        "photo": slider("Photo", "Photo under the map", photos),
        "layer": slider("Layer", "Layer whose units are shown", maps.layers, last),
        "order": slider("Units", sorting, orders, tooltip=sorting),
        "unit": IntSlider(value=1, min=1, max=maps.maps[last].shape[1], **units),
    }
