"""The playground: a small network learns points in the plane while you watch.

Lesson `gradient_flow` uses this file. `Training` is the whole model; `explorer` puts controls
around it. Training runs as a task on the event loop of the kernel, a twentieth of a second at a
time, so that between two slices other cells run and the Stop button is heard.
"""

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xailab import plots
from xailab.core import capture, frozen
from xailab.core.outputs import classes_of
from xailab.core.scores import gradients_on
from xailab.data.toy2d import PLANES, plane
from xailab.foundations.gradient_flow import ACTIVATIONS, deep_mlp, gradient_norms
from xailab.models.loop import batches, class_loss, order, run_epoch
from xailab.plots.pictures import CYCLE, MUTED, new_figure, styled
from xailab.plots.words import lead
from xailab.widgets.show import announced, frame, show

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget

EXTENT = 2.4  # the plane is drawn from -EXTENT to EXTENT
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
EDGES = ("none", "weights", "gradients")
LAST_EPOCH = 3000  # a forgotten playground comes to rest
_POINTS, _TRAIN, _BATCH = 300, 200, 25
_FINE, _COARSE = 72, 36  # cells of the decision and of a neuron's map
_SLICE, _PAUSE = 0.05, 0.12  # seconds of training, then seconds for everybody else


@dataclass(frozen=True)
class Settings:
    """What the controls of the playground are set to; see `playground`."""

    data: str = "moons"
    noise: float = 0.15
    depth: int = 3
    width: int = 6
    activation: str = "tanh"
    residual: bool = False
    learning_rate: float = 0.1
    seed: int = 0
    edges: str = "weights"


def playground(
    data: str = "moons",
    *,
    noise: float = 0.15,
    depth: int = 3,
    width: int = 6,
    activation: str = "tanh",
    residual: bool = False,
    learning_rate: float = 0.1,
    seed: int = 0,
    edges: str = "weights",
    epochs: int = 100,
) -> None:
    """Show a network that learns points in the plane, with all that can be chosen about it.

    Tab walks through the controls, the arrow keys change one, Space presses a button. Where
    widgets do not run, a picture of the network after some epochs stands in. One playground
    trains at a time: showing or starting another stops it.

    Args:
        data: "circles", "moons", "xor" or "spirals" (see `xailab.data.plane`).
        noise: 0 to 0.5, standard deviation of what is added to the points.
        depth: hidden layers, 1 to 10.
        width: units in each, 1 to 8.
        activation: a name that `deep_mlp` knows.
        residual: with a skip around every hidden layer but the first.
        learning_rate: one of 0.001, 0.003, 0.01, ..., 10.
        seed: of the points, the weights and the order of the points.
        edges: what is drawn between the units: "none", "weights" or "gradients" of the weights.
        epochs: how long the network of the stand-in picture was trained.

    Raises:
        ValueError: a setting that the controls do not have.
    """
    settings = Settings(data, noise, depth, width, activation, residual, learning_rate, seed, edges)
    _check(settings)
    show(explorer(settings), trained_picture(settings, epochs))


def activation_picture(names: Sequence[str], *, title: str) -> plots.Picture:
    """Draw activation functions (above) and their derivatives (below), a column for each.

    Derivatives that jump are drawn with a gap, not with a slope that is not there.

    Raises:
        ValueError: no name, or one that `deep_mlp` does not know.
    """
    if not names or any(name not in ACTIVATIONS for name in names):
        raise ValueError(f"names must be some of {list(ACTIVATIONS)}, got {list(names)}")
    z = torch.linspace(-4, 4, 800, dtype=torch.float64).requires_grad_()  # 0 is not among them
    with styled():
        figure = new_figure(1.5 * len(names) + 0.6, 3.6, title)
        axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for (upper, lower), name in zip(axes.T, names, strict=True):
            a = ACTIVATIONS[name]()(z)
            (slope,) = torch.autograd.grad(a.sum(), z)
            jumps = slope.diff().abs() > 0.5
            slope[1:][jumps] = torch.nan
            upper.plot(z.detach(), a.detach(), color=CYCLE[0])
            lower.plot(z.detach(), slope, color=CYCLE[1])
            upper.set(title=name.replace("_", " "), ylim=(-1.2, 2.2))
            lower.set(xlabel="z", ylim=(-0.2, 1.25), xticks=(-4, 0, 4))
        for ax in axes.flat:
            ax.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        axes[0, 0].set_ylabel("activation")
        axes[1, 0].set_ylabel("derivative")
    said = ", ".join(name.replace("_", " ") for name in names)
    return plots.Picture(
        figure, f"{lead(title)}Above {said} from -4 to 4, below their derivatives."
    )


def _check(settings: Settings) -> None:
    menus: dict[str, Any] = {
        "data": PLANES,
        "activation": ACTIVATIONS,
        "learning_rate": RATES,
        "edges": EDGES,
    }
    for name, choices in menus.items():
        if getattr(settings, name) not in choices:
            listed = ", ".join(map(str, choices))
            raise ValueError(f"{name} must be one of {listed}; got {getattr(settings, name)!r}")
    for name, low, high in (("noise", 0, 0.5), ("depth", 1, 10), ("width", 1, 8)):
        if not low <= getattr(settings, name) <= high:
            raise ValueError(f"{name} must lie in {low}..{high}, got {getattr(settings, name)}")


def trained_picture(settings: Settings, epochs: int) -> plots.Picture:
    """Return the picture of a network after some epochs; it stops early if the loss diverges."""
    training = Training(settings)
    while training.epoch < epochs and not training.diverged:
        training.run_epoch()
    return training.picture()


class Training:
    """One network, its points and its optimizer; everything that the picture shows.

    Attributes:
        settings: what it was made with.
        edges: what is drawn between the units, one of `EDGES`; may change at any time.
        net: a `deep_mlp` with two outputs.
        X, y: (300, 2) points and (300,) classes; the first 200 are trained on.
        epoch: how often all 200 were seen.
        loss: mean cross-entropy of the last epoch; before the first, of the untrained network.
        diverged: the loss or a weight is no longer a number.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.edges = settings, settings.edges
        points = plane(settings.data, _POINTS, noise=settings.noise, seed=settings.seed)
        self.X, self.y = torch.from_numpy(points.X), torch.from_numpy(points.y)
        self.net = deep_mlp(
            settings.depth,
            settings.width,
            settings.activation,
            settings.residual,
            seed=settings.seed,
        )
        self._optimizer = torch.optim.SGD(
            self.net.parameters(), settings.learning_rate, momentum=0.9
        )
        self.epoch, self.diverged = 0, False
        with torch.no_grad():
            self.loss = class_loss(self.net(self.X[:_TRAIN]), self.y[:_TRAIN]).item()

    def run_epoch(self) -> None:
        """Take one step for each batch of 25 points; nothing happens once the loss diverged."""
        if self.diverged:
            return

        def loss_of(rows: Tensor) -> Tensor:
            return class_loss(self.net(self.X[rows]), self.y[rows])

        rows = order(_TRAIN, seed=self.settings.seed, epoch=self.epoch)
        with gradients_on():
            parts = batches(rows, _BATCH)
            self.loss = run_epoch(self.net, loss_of, parts, optimizer=self._optimizer)
        self.epoch += 1
        weights = (p.isfinite().all() for p in self.net.parameters())
        self.diverged = not (np.isfinite(self.loss) and all(weights))

    def accuracies(self) -> tuple[float, float]:
        """Return the share of points classified right: trained on, and held out."""
        with torch.no_grad():
            right = (classes_of(self.net(self.X)) == self.y).float()
        return right[:_TRAIN].mean().item(), right[_TRAIN:].mean().item()

    def maps(self) -> tuple[Tensor, list[Tensor]]:
        """Return p(1) - p(0) over the plane (72, 72), and per layer the neurons' (units, 36, 36).

        Values that are no longer numbers are drawn as 0.
        """
        steps = torch.linspace(-EXTENT, EXTENT, _FINE)
        vertical, horizontal = torch.meshgrid(steps.flip(0), steps, indexing="ij")
        grid = torch.stack([horizontal, vertical], dim=-1).reshape(-1, 2)
        names = [f"layer{i + 1}" for i in range(self.settings.depth)]
        with frozen(self.net), torch.no_grad(), capture(self.net, names) as kept:
            chances = self.net(grid).softmax(1)
        decision = (chances[:, 1] - chances[:, 0]).reshape(_FINE, _FINE)
        every = _FINE // _COARSE
        layers = [kept[name].T.reshape(-1, _FINE, _FINE)[:, ::every, ::every] for name in names]
        return decision.nan_to_num(), [_finite(maps) for maps in layers]

    def lines(self) -> list[Tensor] | None:
        """Return weights or their gradients (units, units before), layer 2 first; None: no edges.

        A gradient is that of the loss of all 200 points.
        """
        if self.edges == "none":
            return None
        weights = [block.linear.weight for block in list(self.net.children())[1:-1]]  # type: ignore[union-attr]
        if self.edges == "gradients" and weights:
            with gradients_on():
                loss = class_loss(self.net(self.X[:_TRAIN]), self.y[:_TRAIN])
                weights = list(torch.autograd.grad(loss, weights))  # type: ignore[arg-type]
        return [_finite(weight.detach()) for weight in weights]  # type: ignore[operator]

    def png(self) -> bytes:
        """Return the picture as the widget shows it."""
        buffer = io.BytesIO()
        decision, layers = self.maps()
        look = {"extent": EXTENT, "held_out": self._held_out(), "edges": self.lines()}
        page = plots.raster(decision, layers, self.X, self.y, **look)
        page.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def picture(self) -> plots.Picture:
        """Return the picture as a figure, with the status as its title and sentence."""
        decision, layers = self.maps()
        return plots.boundary(
            decision,
            layers,
            self.X,
            self.y,
            extent=EXTENT,
            held_out=self._held_out(),
            edges=self.lines(),
            title=self.words(),
            alt=f"{self._setting_words()} Trained like this it reaches: {self.words()} "
            f"{self.gradient_words()} {self._area_words(decision)}",
        )

    def words(self) -> str:
        """Say how far it is: epoch, loss and both accuracies, or that it diverged."""
        if self.diverged:
            return (
                f"Epoch {self.epoch}: the loss is no longer a number, the steps of learning rate "
                f"{self.settings.learning_rate:g} were too long. Choose a smaller one."
            )
        train, held_out = self.accuracies()
        return (
            f"Epoch {self.epoch}: loss {self.loss:.3f}, right on {train:.0%} of the points trained "
            f"on and {held_out:.0%} of those held out."
        )

    def gradient_words(self) -> str:
        """Say how much gradient the first and the last hidden layer get; "" once it diverged."""
        if self.diverged:
            return ""
        x, y = self.X[:_TRAIN], self.y[:_TRAIN]
        norms = list(gradient_norms(self.net, x, y, class_loss).values())[:-1]
        last = f", {norms[-1]:.2g} in layer {len(norms)}" if len(norms) > 1 else ""
        return f"Norm of the gradient: {norms[0]:.2g} in layer 1{last}."

    def _setting_words(self) -> str:
        s = self.settings
        skips = "with" if s.residual else "without"
        return (
            f"The playground: {s.data} with noise {s.noise:g}; {s.depth} hidden layers of "
            f"{s.width} {s.activation} units {skips} skips, learning rate {s.learning_rate:g}."
        )

    def _area_words(self, decision: Tensor) -> str:
        share = (decision > 0).float().mean().item()
        return (
            "A column of small maps for each layer, then the plane: class 1 (red squares) is given "
            f"{share:.0%} of it, class 0 (blue disks) the rest."
        )

    def _held_out(self) -> Any:
        return np.arange(_POINTS) >= _TRAIN


def _finite(maps: Tensor) -> Tensor:
    """Replace what cannot be drawn: not a number, or too large to be scaled."""
    return maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


class Player:
    """Trains on the event loop until it is told to stop, and says when there is news.

    Stopping is a flag, not a cancelled task: a front end may hand button clicks to another thread
    than the one in which a cell is run.
    """

    _active: "Player | None" = None

    def __init__(self, settings: Settings, on_news: Callable[["Player"], None]) -> None:
        self.training, self.on_news = Training(settings), on_news
        self.trouble = ""
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it is training, or about to take its next slice."""
        return self._wanted

    def start(self) -> None:
        """Train from here on, in slices; returns at once. Another player that trains is stopped.

        Raises:
            RuntimeError: no event loop is running (outside a notebook's kernel).
        """
        loop = asyncio.get_running_loop()
        if Player._active is not self:
            Player.stop_all()
        Player._active = self
        if not self._wanted:
            self._wanted, self.trouble = True, ""
            self._task = loop.create_task(self._run())

    def stop(self) -> None:
        """Take no further slice; a stopped player may be started again."""
        self._wanted, self._task = False, None

    @classmethod
    def stop_all(cls) -> None:
        """Stop whichever playground is training."""
        if cls._active is not None:
            cls._active.stop()
            cls._active = None

    def reset(self, settings: Settings) -> None:
        """Begin anew with other settings; if it was training, it goes on with the new network."""
        self.training, self.trouble = Training(settings), ""
        self.on_news(self)

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            while self._wanted and self._task in (me, None):
                self._slice()
                self.on_news(self)
                await asyncio.sleep(_PAUSE)
        except Exception as error:  # a task's error would vanish; the status line shows it
            self.trouble = f"Training stopped: {type(error).__name__}: {error}"
            self.stop()
            self.on_news(self)

    def _slice(self) -> None:
        began = perf_counter()
        while perf_counter() - began < _SLICE and not self._over():
            self.training.run_epoch()
        if self._over():
            self.stop()

    def _over(self) -> bool:
        return self.training.diverged or self.training.epoch >= LAST_EPOCH


def explorer(settings: Settings | None = None) -> "VBox":
    """Return the playground as a widget; the one shown before stops.

    CSS classes: `xailab-play` on the whole, `xailab-play-data` and so on (the names of
    `Settings`) on the controls, `xailab-play-train`, `-stop` and `-reset` on the buttons,
    `xailab-play-status` on the status line.
    """
    from ipywidgets import HTML, HBox, Layout, VBox

    Player.stop_all()
    settings = settings or Settings()
    controls, buttons = _controls(settings), _buttons()
    image, status = frame(), HTML()
    status.add_class("xailab-play-status")
    shown: dict[str, Any] = {"at": 0.0, "running": None}

    def news(player: Player) -> None:
        image.value = player.training.png()
        changed = shown["running"] != player.running or not player.running
        if changed or perf_counter() - shown["at"] > 1:  # a screen reader reads every change
            status.value = _status(player)
            shown.update(at=perf_counter(), running=player.running)

    player = Player(settings, news)
    _connect(player, settings, controls, buttons)
    half = (len(controls) + 1) // 2
    columns = [VBox(list(controls.values())[:half]), VBox(list(controls.values())[half:])]
    wrap = Layout(flex_flow="row wrap")
    box = VBox([HBox(columns, layout=wrap), HBox(list(buttons.values())), status, image])
    box.add_class("xailab-play")
    box.observe(lambda _: player.stop(), "comm")  # closed: nobody can press Stop any more
    news(player)
    return box


def _connect(
    player: Player,
    settings: Settings,
    controls: "dict[str, Any]",
    buttons: "dict[str, Any]",
) -> None:
    """Let the controls restart the training and the buttons do what they say."""

    def current() -> Settings:
        return replace(settings, **{name: control.value for name, control in controls.items()})

    def train(_: Any) -> None:
        try:
            player.start()
        except RuntimeError:
            player.trouble = "Training needs the kernel of a notebook."
            player.on_news(player)

    def stop(_: Any) -> None:
        player.stop()
        player.on_news(player)

    def reset(_: Any) -> None:
        player.stop()
        player.reset(current())

    def redraw(_: Any) -> None:
        player.training.edges = controls["edges"].value
        player.on_news(player)

    for name, control in controls.items():
        control.observe(redraw if name == "edges" else lambda _: player.reset(current()), "value")
    buttons["train"].on_click(train)
    buttons["stop"].on_click(stop)
    buttons["reset"].on_click(reset)


def _controls(settings: Settings) -> "dict[str, Any]":
    from ipywidgets import Checkbox, FloatSlider, IntSlider, Layout, SelectionSlider

    look: dict[str, Any] = {
        "layout": Layout(width="24em"),
        "style": {"description_width": "7em"},
    }
    rates = [(f"{rate:g}", rate) for rate in RATES]
    # No menus: JupyterLab takes a closed menu's arrow keys to move between cells.
    controls = {
        "data": SelectionSlider(options=list(PLANES), description="Data set", **look),
        "noise": FloatSlider(min=0, max=0.5, step=0.05, description="Noise", **look),
        "depth": IntSlider(min=1, max=10, description="Hidden layers", **look),
        "width": IntSlider(min=1, max=8, description="Units in each", **look),
        "activation": SelectionSlider(options=list(ACTIVATIONS), description="Activation", **look),
        "residual": Checkbox(description="residual: a skip around each layer", **look),
        "learning_rate": SelectionSlider(options=rates, description="Learning rate", **look),
        "edges": SelectionSlider(options=list(EDGES), description="Edges show", **look),
    }
    controls["residual"].layout = Layout(width="30em")
    for name, control in controls.items():
        control.value = getattr(settings, name)
        control.add_class(f"xailab-play-{name.replace('_', '-')}")
    return controls


def _buttons() -> "dict[str, Widget]":
    from ipywidgets import Button

    # Never disabled: a button that is loses the keyboard's focus when it is pressed.
    words = {
        "train": ("Train", "Go on training"),
        "stop": ("Stop", "Pause; Train goes on from here"),
        "reset": ("Reset", "Stop, and begin with new weights"),
    }
    buttons = {}
    for name, (label, tip) in words.items():
        buttons[name] = Button(description=label, tooltip=tip)
        buttons[name].add_class(f"xailab-play-{name}")
    return buttons


def _status(player: Player) -> str:
    state = "Training. " if player.running else "Stopped. " if player.training.epoch else ""
    if not player.running and player.training.epoch >= LAST_EPOCH:
        state = f"Stopped after {LAST_EPOCH} epochs; Reset begins anew. "
    lines = [player.trouble or state + player.training.words()]
    lines += [] if player.trouble else [player.training.gradient_words()]
    return announced("<br>".join(escape(line) for line in lines if line))
