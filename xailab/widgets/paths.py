"""The path slider: integrated gradients while they are being added up, from baseline to input.

Lesson `integrated_gradients` uses this file. All gradients on all paths are computed once and kept,
so that moving a slider only draws.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xailab import plots
from xailab.core.batching import batched
from xailab.core.checks import Model, check_baseline, check_input, check_positive, split_target
from xailab.core.scores import batched_gradients, scores_of
from xailab.core.state import frozen
from xailab.plots.arrays import to_image, to_map
from xailab.plots.pictures import new_figure, styled
from xailab.widgets.show import explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

BASELINES: Mapping[str, float] = MappingProxyType({"black": 0.0, "white": 1.0})
_PARTS = "gradient there", "map so far"


def path_slider(
    model: Model,
    x: Tensor,
    targets: Tensor | Sequence[int],
    *,
    names: Sequence[str] | None = None,
    baselines: Mapping[str, float | Tensor] = BASELINES,
    n_steps: int = 20,
) -> None:
    """Show a slider for the place on the path: picture, gradient there, and the map so far.

    Tab walks from one control (picture, baseline, alpha) to the next, the arrow keys move it.
    Where widgets do not run, the middle of the first picture's path stands in.

    Args:
        model: maps (N, C, H, W) to logits (N, K).
        x: (N, C, H, W), pictures with values in 0..1.
        targets: (N,), the class whose score is explained, one a picture.
        names: one a picture; without them the targets.
        baselines: name -> where the path begins, a number or a tensor that broadcasts to `x`.
        n_steps: places on the path, without the first.

    Raises:
        TypeError, ValueError: as for `integrated_gradients`; values outside 0..1; another number
            of names; no baseline.
    """
    paths = Paths(model, x, targets, names=names, baselines=baselines, n_steps=n_steps)
    show(explorer(paths), paths.picture(0, next(iter(paths.walks)), n_steps // 2))


class Walk(NamedTuple):
    """All paths from one baseline, for N pictures with n + 1 places each.

    Attributes:
        inputs: (N, n + 1, C, H, W), the pictures on the way.
        scores: (N, n + 1).
        gradients: (N, n + 1, C, H, W).
        maps: (N, n + 1, C, H, W), integrated gradients of the part of the path gone so far.
    """

    inputs: Tensor
    scores: Tensor
    gradients: Tensor
    maps: Tensor


class Paths:
    """Pictures, scores, gradients and growing maps on several paths, and how to draw them."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        targets: Tensor | Sequence[int],
        *,
        names: Sequence[str] | None = None,
        baselines: Mapping[str, float | Tensor] = BASELINES,
        n_steps: int = 20,
    ) -> None:
        """Walk all paths; arguments and errors as for `path_slider`."""
        x = check_input(model, x).detach()
        classes = split_target(torch.as_tensor(targets), len(x))
        self.names = [str(one) for one in (classes if names is None else names)]
        if len(self.names) != len(x) or not baselines:
            raise ValueError(
                f"expected {len(x)} names and a baseline or more, got {len(self.names)} names and "
                f"{len(baselines)} baselines"
            )
        self.alphas = torch.linspace(0, 1, check_positive("n_steps", n_steps) + 1).to(x)
        starts = {name: check_baseline(one, x) for name, one in baselines.items()}
        for name, one in [("x", x), *starts.items()]:
            if one.min() < 0 or one.max() > 1:
                raise ValueError(f"pictures have values in 0..1; {name!r} has others")
        self.walks = {
            name: _walk(model, start, x, classes, self.alphas) for name, start in starts.items()
        }

    def picture(self, row: int, baseline: str, place: int) -> plots.Picture:
        """Draw the picture at a place of the path, the gradient there, and the map so far.

        Equal colors mean equal numbers all along one path, so the map is seen to grow.
        """
        walk = self.walks[baseline]
        rise, total = self.progress(row, baseline, place)
        title = (
            f"{self.names[row]}, from {baseline}: the score rose by {rise:.2f}, "
            f"the map adds up to {total:.2f}"
        )
        with styled():
            figure = new_figure(7.4, 3.1, title)
            axes = list(figure.subplots(1, 3))
            axes[0].imshow(to_image(walk.inputs[row, place]))
            colors = [
                _draw(ax, one[row], place) for ax, one in zip(axes[1:], walk[2:], strict=True)
            ]
            bar = figure.colorbar(colors[0], cax=axes[2].inset_axes((1.04, 0, 0.07, 1)))
            bar.set_label("relative to the largest\non this path")
        alpha = self.alphas[place].item()
        for ax, name in zip(axes, (f"input at alpha {alpha:.2f}", *_PARTS), strict=True):
            ax.set_title(name, fontsize=10)
            ax.set_axis_off()
        return plots.picture(figure, self._words(row, baseline, place))

    def progress(self, row: int, baseline: str, place: int) -> tuple[float, float]:
        """Return how far the score has risen since the baseline, and the sum of the map so far."""
        walk = self.walks[baseline]
        rise = walk.scores[row, place] - walk.scores[row, 0]
        return rise.item(), walk.maps[row, place].sum().item()

    def _words(self, row: int, baseline: str, place: int) -> str:
        """Say where on the path this is, what has been added up, and where it lies."""
        rise, total = self.progress(row, baseline, place)
        whole, _ = self.progress(row, baseline, -1)
        sentence = (
            f"{self.names[row]}, path from {baseline}, alpha {self.alphas[place].item():.2f}: the "
            f"score rose by {rise:.2f} of {whole:.2f}, the map so far adds up to {total:.2f}. "
        )
        if not place:
            return sentence + "No step is taken yet, the map is empty."
        return sentence + plots.describe(self.walks[baseline].maps[row, place], name="the map")


def _walk(
    model: Model, start: Tensor, x: Tensor, classes: Sequence[int | None], alphas: Tensor
) -> Walk:
    """Walk from `start` to `x` for every row; the map grows by the trapezoid rule."""
    steps = alphas.reshape(-1, *[1] * (x.ndim - 1))
    walks = []
    for begin, end, target in zip(start, x, classes, strict=True):
        inputs = begin + steps * (end - begin)
        gradients = batched_gradients(model, inputs, target)
        with frozen(model), torch.no_grad():
            scores = batched(partial(scores_of, model, target=target), inputs, owner=model)
        parts = (end - begin) * (gradients[1:] + gradients[:-1]) / (2 * (len(alphas) - 1))
        maps = torch.cat([torch.zeros_like(parts[:1]), parts.cumsum(0)])
        walks.append(Walk(inputs, scores, gradients, maps))
    return Walk(*(torch.stack(column) for column in zip(*walks, strict=True)))


def _draw(ax: "Axes", maps: Tensor, place: int) -> "AxesImage":
    """Draw one of a path's maps (n + 1, C, H, W); 1 is the largest magnitude that any has."""
    largest = maps.sum(1).abs().max().clamp(min=torch.finfo(maps.dtype).tiny)
    return ax.imshow(to_map(maps[place] / largest), cmap="RdBu_r", vmin=-1, vmax=1)


def explorer(paths: Paths) -> "VBox":
    """Return the slider as a widget.

    CSS classes: `xailab-path` on the whole, `xailab-path-picture`, `xailab-path-baseline` and
    `xailab-path-alpha` on the controls.
    """
    rows = [(name, row) for row, name in enumerate(paths.names)]
    alphas = [(f"{alpha:.2f}", i) for i, alpha in enumerate(paths.alphas.tolist())]
    place = "Place on the path, 0 the baseline, 1 the picture"
    controls = {
        "picture": slider("Picture", "Which picture is explained", rows),
        "baseline": slider("Baseline", "Where the path begins", list(paths.walks)),
        "alpha": slider("Alpha", place, alphas, (len(alphas) - 1) // 2),
    }
    return explorer_of("path", controls, paths.picture)
