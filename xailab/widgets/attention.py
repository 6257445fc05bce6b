"""The head browser: any token, in any head of any layer, and what it looks at.

Lesson `attention` uses this file. Nothing is computed while the sliders move: the weights are
given.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from xailab import plots
from xailab.widgets.show import Shown, explorer_of, labeled, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

    from xailab.plots.shap import Tokens

_NAMED = 3  # how many tokens the sentence under the text names
_SLACK = 1e-2  # by how much a row may miss 1, as after half precision


def head_browser(
    maps: Sequence[Tensor], tokens: Sequence[str], *, layer: int = 0, head: int = 0, token: int = 0
) -> None:
    """Show a text with what one token looks at, with sliders for layer, head and token.

    The number above each word is its weight in the chosen row of attention; nothing depends on
    color. Tab walks from one slider to the next, the arrow keys move it. Where widgets do not
    run, a picture of the first position stands in.

    Args:
        maps: for each layer, from the input upwards, the weights of one text, (1, heads, T, T) or
            (heads, T, T): what `attention_maps` returns.
        tokens: the T tokens.
        layer: layer shown first, counted from 0, as heads and tokens are.
        head: head shown first.
        token: number of the token shown first.

    Raises:
        TypeError: maps that are no tensors.
        ValueError: no map, several texts, other numbers of tokens, rows that do not sum to 1, or
            a first position that is not there.

    >>> import torch
    >>> look_left = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> head_browser([look_left], ["to", "be"], token=1)
    In words: Layer 0, head 0: 'be' (token 1) looks at 'to' (token 0) 1, 'be' (token 1) 0.
    """
    rows = HeadRows(maps, tokens)
    start = rows.check(layer, head, token)
    show(explorer(rows, start), rows.picture(*start))


class HeadRows:
    """The weights of one text by layer, head and token, and how to show a row of them."""

    def __init__(self, maps: Sequence[Tensor], tokens: Sequence[str]) -> None:
        """Check and keep the weights; arguments and errors as for `head_browser`."""
        if not len(maps) or not all(isinstance(weights, Tensor) for weights in maps):
            raise TypeError("maps must be tensors (1, heads, T, T), one for each layer")
        shapes = [tuple(weights.shape) for weights in maps]
        self.tokens = [str(token) for token in tokens]
        length = len(self.tokens)
        for shape in shapes:
            if (
                len(shape) not in (3, 4)
                or shape[-2:] != (length, length)
                or shape[:-3] not in [(), (1,)]
            ):
                raise ValueError(
                    f"expected maps (1, heads, {length}, {length}) of one text with {length} "
                    f"tokens, got {shapes}"
                )
        self.maps = [weights.detach().reshape(-1, length, length) for weights in maps]
        worst = max(float((weights.sum(-1) - 1).abs().max()) for weights in self.maps)
        if not worst < _SLACK:
            raise ValueError(f"rows of attention sum to 1, these are off by up to {worst:.3g}")

    def check(self, layer: int, head: int, token: int) -> tuple[int, int, int]:
        """Return the position if it is there, or raise ValueError."""
        counts = {"layer": len(self.maps)}
        if layer in range(len(self.maps)):
            counts |= {"head": len(self.maps[layer]), "token": len(self.tokens)}
        for (name, count), value in zip(counts.items(), (layer, head, token), strict=False):
            if value not in range(count):
                raise ValueError(f"{name} must be 0 to {count - 1}, got {value!r}")
        return layer, head, token

    def row(self, layer: int, head: int, token: int) -> Tensor:
        """Return the weights of one token, (T,)."""
        return self.maps[layer][head, token]

    def text(self, layer: int, head: int, token: int) -> "Tokens":
        """Return the text with the weights above its tokens."""
        weights = self.row(layer, head, token).round(decimals=2)
        return plots.tokens(self.tokens, weights, title=self._title(layer, head, token))

    def words(self, layer: int, head: int, token: int) -> str:
        """Say in a sentence where most of the weight lies."""
        row = self.row(layer, head, token)
        top = row.argsort(descending=True, stable=True)[:_NAMED].tolist()
        said = ", ".join(f"{self._name(i)} {row[i].item():.2g}" for i in top)
        return f"Layer {layer}, head {head}: {self._name(token)} looks at {said}."

    def picture(self, layer: int, head: int, token: int) -> plots.Picture:
        """Draw a row as bars."""
        return plots.bars(
            self.row(layer, head, token).round(decimals=2),
            self.tokens,
            title=self._title(layer, head, token),
            alt=self.words(layer, head, token),
            xlabel="share of its attention",
        )

    def _title(self, layer: int, head: int, token: int) -> str:
        return f"Layer {layer}, head {head}: what {self.tokens[token]!r} looks at"

    def _name(self, token: int) -> str:
        return f"{self.tokens[token]!r} (token {token})"


def explorer(rows: HeadRows, start: tuple[int, int, int] = (0, 0, 0)) -> "VBox":
    """Return the browser as a widget.

    CSS classes: `xailab-heads` on the whole, `xailab-heads-layer`, `xailab-heads-head` and
    `xailab-heads-token` on the sliders.
    """
    controls = _controls(rows, start)
    layer, head, _ = controls.values()

    def draw(*place: int) -> Shown:
        return Shown(rows.text(*place)._repr_html_(), escape(rows.words(*place)))

    def fit(_: str) -> None:
        head.max = len(rows.maps[layer.value]) - 1  # moves the head down if it was beyond

    return explorer_of("heads", controls, draw, moved=fit)


def _controls(rows: HeadRows, start: tuple[int, int, int]) -> dict[str, Any]:
    """Return the three sliders by name."""
    from ipywidgets import IntSlider

    layer, head, token = start
    live = {"continuous_update": True}
    layers = labeled("Layer", "Layer, from the input upwards") | live
    heads = labeled("Head", "Head of this layer") | live
    tokens = [(f"{i} {each}", i) for i, each in enumerate(rows.tokens)]
    return {
        "layer": IntSlider(value=layer, max=len(rows.maps) - 1, **layers),
        "head": IntSlider(value=head, max=len(rows.maps[layer]) - 1, **heads),
        "token": slider("Token", "Token that looks", tokens, token, **live),
    }
