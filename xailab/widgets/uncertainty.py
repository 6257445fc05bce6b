"""The uncertainty surface: where a network is unsure because of noise, and where of ignorance.

Lesson `uncertainty` uses this file. The networks are trained already; a surface is asked for once
and kept.
"""

import io
from collections.abc import Callable, Mapping
from functools import cached_property
from html import escape
from math import isfinite, log, pi
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from xailab import models, plots
from xailab.core.checks import check_positive
from xailab.data import plane
from xailab.trust.probabilities import Prediction
from xailab.trust.uncertainty import ensemble, laplace_last_layer, mc_dropout, mc_weights
from xailab.widgets.show import Shown, explorer_of, show, slider

if TYPE_CHECKING:
    from ipywidgets import VBox

EXTENT = 6.0
_DISTANCES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
_ON_RING = 72  # points
_PARTS = ("total", "aleatoric", "epistemic")
_START = (0.2, 4.0)  # noise and distance


class World(NamedTuple):
    """Two moons and the networks that were trained on them.

    Attributes:
        nets: a `MoonNets`, five members and a Bayesian network.
        x: (N, 2) the points.
        y: (N,) their classes.
    """

    nets: Any
    x: Tensor
    y: Tensor


Method = Callable[[World, Tensor], Prediction]


def _all_five(world: World, points: Tensor) -> Prediction:
    return ensemble(list(world.nets.members), points, batch_size=len(points))


def _dropout(world: World, points: Tensor) -> Prediction:
    return mc_dropout(world.nets.members[0], points, batch_size=len(points))


def _bayes(world: World, points: Tensor) -> Prediction:
    return mc_weights(world.nets.bayes, points, batch_size=len(points))


def _laplace(world: World, points: Tensor) -> Prediction:
    fitted = laplace_last_layer(world.nets.members[0], world.x, world.y, batch_size=len(world.x))
    return fitted.predict(points, batch_size=len(points))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ensemble of 5": _all_five,
        "MC dropout": _dropout,
        "Bayes by backprop": _bayes,
        "Laplace": _laplace,
    }
)


def uncertainty_surface(
    *, methods: Mapping[str, Method] = METHODS, extent: float = EXTENT, size: int = 48
) -> None:
    """Show three uncertainties over the plane around two moons, for a method and a noise.

    A dashed ring has the chosen distance from the middle of the points; the words compare the
    uncertainties along it with those at the points. Tab walks from one control to the next, the
    arrow keys move it (space picks a method). Where widgets do not run, the first method stands in.

    Args:
        methods: readable name -> function of a `World` and points (M, 2), giving a `Prediction`.
        extent: the plane runs from -extent to extent both ways.
        size: points along each side of the plane.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: no method, an extent or a size that is not positive.
    """
    surfaces = Surfaces(methods=methods, extent=extent, size=size)
    show(explorer(surfaces), surfaces.picture(next(iter(methods)), *_START))


class Surfaces:
    """Worlds of several noises, what methods say about them, and how to draw it."""

    def __init__(
        self, *, methods: Mapping[str, Method] = METHODS, extent: float = EXTENT, size: int = 48
    ) -> None:
        """Lay the grid; arguments and errors as for `uncertainty_surface`."""
        if not methods:
            raise ValueError("methods is empty: give at least one")
        if not (extent > 0 and isfinite(extent)):
            raise ValueError(f"extent must be a positive number, got {extent}")
        self.methods, self.extent = dict(methods), float(extent)
        line = torch.linspace(-self.extent, self.extent, check_positive("size", size))
        self.grid = torch.cartesian_prod(-line, line).flip(1)  # (size^2, 2), from the upper left
        self.size = size
        self.distances = [one for one in _DISTANCES if one <= extent] or [self.extent]
        angles = 2 * pi * torch.arange(_ON_RING) / _ON_RING
        circle = torch.stack([angles.cos(), angles.sin()], dim=1)
        self.rings = torch.tensor(self.distances)[:, None, None] * circle  # (rings, _ON_RING, 2)
        self._asked: dict[tuple[str, float], dict[str, Prediction]] = {}

    @cached_property
    def worlds(self) -> dict[float, World]:
        """The points of every noise with their networks."""
        made = {}
        for noise, nets in zip(models.MOON_NOISES, models.moon_nets(), strict=True):
            points = plane("moons", 300, noise=noise)
            made[noise] = World(nets, torch.as_tensor(points.X), torch.as_tensor(points.y))
        return made

    def ask(self, method: str, noise: float) -> dict[str, Prediction]:
        """Return what a method says at the points, on the grid and along the rings, asked once."""
        if (method, noise) not in self._asked:
            world = self.worlds[noise]
            places = {"points": world.x, "grid": self.grid, "rings": self.rings.flatten(0, 1)}
            told = self.methods[method](world, torch.cat(list(places.values())))
            parts = [part.split([len(one) for one in places.values()]) for part in told]
            answers = [Prediction(*pieces) for pieces in zip(*parts, strict=True)]
            self._asked[method, noise] = dict(zip(places, answers, strict=True))
        return self._asked[method, noise]

    def means(self, method: str, noise: float, distance: float) -> dict[str, tuple[float, float]]:
        """Return for each uncertainty its mean at the points and its mean on a ring, in nats."""
        told, row = self.ask(method, noise), self.distances.index(distance)
        near, far = told["points"], told["rings"]
        shape = self.rings.shape[:2]
        return {
            part: (
                getattr(near, part).mean().item(),
                getattr(far, part).reshape(shape)[row].mean().item(),
            )
            for part in _PARTS
        }

    def words(self, method: str, noise: float, distance: float) -> str:
        """Compare the uncertainties at the points with those on the ring."""
        means = self.means(method, noise, distance)
        changes = [
            f"{part} {means[part][0]:.3f} nats at the points, {means[part][1]:.3f} on the ring"
            for part in _PARTS[1:]
        ]
        return f"{method}, noise {noise:g}, distance {distance:g}: {'; '.join(changes)}"

    def png(self, method: str, noise: float, distance: float) -> bytes:
        """Draw the three surfaces with the ring, fast."""
        buffer = io.BytesIO()
        plots.surface_raster(*self._drawn(method, noise), ring=distance, **self._scale).save(
            buffer, "PNG"
        )
        return buffer.getvalue()

    def picture(self, method: str, noise: float, distance: float) -> plots.Picture:
        """Draw the same as a figure with its sentence."""
        values, x, y = self._drawn(method, noise)
        title = self.words(method, noise, distance)
        alt = f"{title}. {plots.describe_surfaces(values)}"
        return plots.surfaces(values, x, y, ring=distance, title=title, alt=alt, **self._scale)

    @property
    def _scale(self) -> dict[str, Any]:
        """One scale for all: to log 2, the entropy of a coin."""
        return {"extent": self.extent, "top": log(2)}

    def _drawn(self, method: str, noise: float) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        told, world = self.ask(method, noise)["grid"], self.worlds[noise]
        shape = self.size, self.size
        return {part: getattr(told, part).reshape(shape) for part in _PARTS}, world.x, world.y


def explorer(surfaces: Surfaces) -> "VBox":
    """Return the surfaces as a widget.

    CSS classes: `xailab-surface` on the whole, `xailab-surface-method`, `xailab-surface-noise`
    and `xailab-surface-distance` on the controls.
    """
    from ipywidgets import ToggleButtons

    radii = [(f"{one:g}", one) for one in surfaces.distances]
    nearest = min(surfaces.distances, key=lambda one: abs(one - _START[1]))
    noises = list(models.MOON_NOISES)
    controls = {
        "method": ToggleButtons(
            options=list(surfaces.methods),
            description="Method",
            tooltips=["Whom to ask; Tab and space choose"] * len(surfaces.methods),
        ),
        "noise": slider("Noise", "How far points are scattered", noises, _START[0]),
        "distance": slider("Distance", "Radius of the dashed ring", radii, nearest),
    }
    return explorer_of(
        "surface",
        controls,
        lambda *place: Shown(surfaces.png(*place), escape(surfaces.words(*place))),
    )
