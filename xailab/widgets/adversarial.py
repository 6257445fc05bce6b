"""The epsilon slider: how far may each pixel move, and what becomes of the answer and its map?

Lesson `adversarial` uses this file. All attacks, answers and saliency maps are computed once and
kept, so that moving a slider only draws.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xailab import plots
from xailab.attribution.saliency import saliency
from xailab.core.checks import Model, check_input, split_target
from xailab.core.state import frozen
from xailab.plots.arrays import to_image, to_map
from xailab.plots.pictures import CYCLE, MUTED, new_figure, styled
from xailab.trust.adversarial import fgsm, pgd
from xailab.widgets.show import explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes

Attack = Callable[..., Tensor]

_PLACES = {"left": 0.03, "right": 0.98, "bottom": 0.06, "top": 0.86, "wspace": 0.15, "hspace": 0.2}
EPSILONS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)


def _pgd(model: Model, x: Tensor, y: Tensor, *, epsilon: float) -> Tensor:
    return pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 4, n_steps=10)


ATTACKS: Mapping[str, Attack] = MappingProxyType({"FGSM": fgsm, "PGD": _pgd})


def epsilon_slider(
    models: Mapping[str, Model],
    x: Tensor,
    y: Tensor,
    *,
    epsilons: Sequence[float] = EPSILONS,
    attacks: Mapping[str, Attack] = ATTACKS,
) -> None:
    """Show a slider for epsilon, and buttons for picture, network and attack.

    Above stand the picture, its change and the attacked picture, below the probabilities and the
    saliency map of the class that the network names, before and after. Tab walks from one control
    to the next; the arrow keys move the slider, Enter presses a button. Where widgets do not run,
    the middle epsilon of the first picture stands in.

    Args:
        models: readable name -> network that maps (N, 1, H, W) to logits (N, K).
        x: (N, 1, H, W), gray pictures with values in 0..1.
        y: (N,), their true classes.
        epsilons: how far each pixel may move, rising.
        attacks: readable name -> attack(model, x, y, epsilon=...) -> rows.

    Raises:
        TypeError, ValueError: as for `fgsm`; no network, attack or epsilon; pictures in color.
    """
    attacked = Attacked(models, x, y, epsilons=epsilons, attacks=attacks)
    show(explorer(attacked), attacked.picture(*attacked.start))


class Answers(NamedTuple):
    """What one network says about N pictures, attacked in one way with one epsilon.

    Attributes:
        rows: (N, 1, H, W), what the network was shown.
        probabilities: (N, K).
        maps: (N, 1, H, W), saliency of the class that is named.
    """

    rows: Tensor
    probabilities: Tensor
    maps: Tensor


class Attacked:
    """Every picture under every attack, for every network, and how to draw one of them."""

    def __init__(
        self,
        models: Mapping[str, Model],
        x: Tensor,
        y: Tensor,
        *,
        epsilons: Sequence[float] = EPSILONS,
        attacks: Mapping[str, Attack] = ATTACKS,
    ) -> None:
        """Attack; arguments and errors as for `epsilon_slider`."""
        for name, given in {"models": models, "attacks": attacks, "epsilons": epsilons}.items():
            if not given:
                raise ValueError(f"{name} is empty: give at least one")
        self.x = check_input(next(iter(models.values())), x).detach()
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"x must be gray pictures (N, 1, H, W), got {tuple(x.shape)}")
        self.y = torch.as_tensor(split_target(y, len(x)))
        self.epsilons = list(epsilons)
        self.networks, self.attacks = list(models), list(attacks)
        self.start = (0, self.networks[0], self.attacks[0], len(self.epsilons) // 2)
        self._clean = {name: answers(model, self.x) for name, model in models.items()}
        self._found = {
            (name, kind, i): answers(model, attack(model, self.x, self.y, epsilon=epsilon))
            for name, model in models.items()
            for kind, attack in attacks.items()
            for i, epsilon in enumerate(self.epsilons)
        }

    def picture(self, row: int, network: str, attack: str, place: int) -> plots.Picture:
        """Draw picture, change and attacked picture, and under them answers and maps."""
        before, after = self._clean[network], self._found[network, attack, place]
        epsilon = self.epsilons[place]
        names = [_named(each, row) for each in (before, after)]
        title = f"{network}, {attack}, epsilon {epsilon:.2f}: {names[0]} becomes {names[1]}"
        if names[0].split()[0] == names[1].split()[0]:
            title = f"{network}, {attack}, epsilon {epsilon:.2f}: stays {names[1]}"
        alike = likeness(before.maps[row], after.maps[row])
        with styled():
            figure = new_figure(7.6, 5.0, title)
            figure.set_layout_engine("none")  # a search for the layout takes longer than drawing
            axes = figure.subplots(2, 3, gridspec_kw=_PLACES).ravel()
            _gray(axes[0], before.rows[row], f"a {self.y[row].item()}")
            _signed(axes[1], after.rows[row] - before.rows[row], max(epsilon, 1e-9), "the change")
            _gray(axes[2], after.rows[row], "attacked")
            top = max(each.maps[row].abs().max().item() for each in (before, after)) or 1.0
            _signed(axes[3], before.maps[row], top, f"map of {names[0].split()[0]} before")
            _signed(axes[5], after.maps[row], top, f"map of {names[1].split()[0]} after")
            _bars(axes[4], before.probabilities[row], after.probabilities[row])
        words = (
            f"{title} (a picture of {self.y[row].item()}). The maps before and after, each of the "
            f"class that is named, have a correlation of {alike:.2f}."
        )
        return plots.picture(figure, words)


def answers(model: Model, rows: Tensor) -> Answers:
    """Ask a network about pictures (N, 1, H, W), and for the saliency of what it says."""
    with frozen(model), torch.no_grad():
        probabilities = model(rows).softmax(1)
    return Answers(rows, probabilities, saliency(model, rows, probabilities.argmax(1)))


def likeness(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two maps' numbers; 0 where one of them is constant.

    >>> round(likeness(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])), 6)
    -1.0
    """
    a, b = (each.double().flatten() - each.double().mean() for each in (a, b))
    lengths = a.norm() * b.norm()
    return (a @ b / lengths).item() if lengths > 0 else 0.0


def _named(said: Answers, row: int) -> str:
    """Say which class is named, and how surely."""
    share, named = said.probabilities[row].max(0)
    return f"{named.item()} ({share.item():.2f})"


def _gray(ax: "Axes", image: Tensor, title: str) -> None:
    ax.imshow(to_image(image))
    _frameless(ax, title)


def _signed(ax: "Axes", values: Tensor, top: float, title: str) -> None:
    ax.imshow(to_map(values), cmap="RdBu_r", vmin=-top, vmax=top)
    _frameless(ax, title)


def _frameless(ax: "Axes", title: str) -> None:
    ax.set_axis_off()
    ax.set_title(title, fontsize=10, y=1.0)


def _bars(ax: "Axes", before: Tensor, after: Tensor) -> None:
    """Draw each class's probability before and after, side by side."""
    classes = np.arange(len(before))
    ax.bar(classes - 0.2, before.numpy(), 0.4, color=MUTED, label="before")
    ax.bar(classes + 0.2, after.numpy(), 0.4, color=CYCLE[1], label="after")
    ax.set(ylim=(0, 1.25), xticks=classes, yticks=np.linspace(0, 1, 6))  # the legend's room on top
    ax.set_title("probability of each class", fontsize=10, y=1.0)
    ax.legend(fontsize=8, frameon=False, loc="upper center", ncols=2)


def explorer(attacked: Attacked) -> "VBox":
    """Return the slider as a widget.

    CSS classes: `xailab-epsilon` on the whole, `xailab-epsilon-picture`, `xailab-epsilon-network`,
    `xailab-epsilon-attack` and `xailab-epsilon-radius` on the controls.
    """
    from ipywidgets import ToggleButtons

    look = {"style": {"description_width": "6em"}}
    rows = [(f"{y} ({row + 1})", row) for row, y in enumerate(attacked.y.tolist())]
    radii = [(f"{epsilon:.2f}", i) for i, epsilon in enumerate(attacked.epsilons)]
    controls = {  # in the order of `Attacked.picture`'s arguments
        "picture": slider("Picture", "Which picture is attacked", rows, **look),
        "network": ToggleButtons(
            options=attacked.networks,
            description="Network",
            tooltips=[f"Attack the network: {name}" for name in attacked.networks],
        ),
        "attack": ToggleButtons(
            options=attacked.attacks,
            description="Attack",
            tooltips=[f"Attack with {name}" for name in attacked.attacks],
        ),
        "radius": slider(
            "Epsilon", "How far each pixel may move", radii, attacked.start[-1], **look
        ),
    }
    return explorer_of("epsilon", controls, attacked.picture)
