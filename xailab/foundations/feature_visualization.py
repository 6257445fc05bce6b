"""Pictures made by a network: what excites a channel, a neuron or a class most?

Lesson `feature_visualization` teaches this file. A picture is optimized by gradient ascent. What
keeps it from turning into noise is how it is written down (`parametrization`) and how it is shaken
(`transforms`). Pictures are (N, C, H, W) with values in [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from xailab.core.checks import as_integer, check_input, check_positive
from xailab.core.layers import capture, find_layer, units_axis
from xailab.core.scores import gradients_of, gradients_on, outputs_of, select
from xailab.core.state import frozen

Transform = Callable[[Tensor, Generator], Tensor]
Normalize = Callable[[Tensor], Tensor]
Unit = int | tuple[int, ...]
Callback = Callable[[int, Tensor, Tensor], None]

# Principal axes of the RGB values of the course's twenty photos, each as long as the deviation
# along it: brightness, red against blue, green against both. Those of ImageNet are much alike.
_COLORS = ((0.2245, 0.0694, -0.0415), (0.2351, 0.0165, 0.0628), (0.2395, -0.0812, -0.0228))
_FIRST = 0.01  # deviation of the noise that the optimization starts from
_CONTRAST = 0.25  # makes one step in the Fourier plane about as large as one step of a pixel


def _reach(name: str, pixels: Any) -> int:
    number = as_integer(name, pixels)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number}")
    return number


def _wide(pictures: Tensor) -> Tensor:
    """Return pictures in float32 or finer: neither fft nor warping knows half precision."""
    return pictures.to(torch.promote_types(pictures.dtype, torch.float32))


# ---- transforms: shake the picture, so that only what survives shaking can grow ---------------


def pad(width: int, value: float = 0.5) -> Transform:
    """Return a transform that adds a frame: (N, C, H, W) -> (N, C, H + 2 width, W + 2 width).

    >>> pad(1, value=0.0)(torch.ones(1, 1, 1, 1), torch.Generator()).sum().item()
    1.0
    """
    return lambda pictures, generator: F.pad(pictures, [width] * 4, value=value)


def jitter(pixels: int) -> Transform:
    """Return a transform that moves the picture by up to `pixels` each way, around the edge.

    All pictures of a batch move alike. What leaves on one side comes in on the other.

    >>> x = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> moved = jitter(1)(x, torch.Generator().manual_seed(0))
    >>> sorted(moved.flatten().tolist()) == sorted(x.flatten().tolist())
    True
    """
    pixels = _reach("pixels", pixels)

    def shift(pictures: Tensor, generator: Generator) -> Tensor:
        down, right = torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist()
        return pictures.roll((down, right), (2, 3))

    return shift


def scale(low: float, high: float) -> Transform:
    """Return a transform that enlarges about the center by a factor between `low` and `high`.

    The size in pixels stays; a factor below 1 repeats the edge.

    Raises:
        ValueError: factors that are not positive or not in order.
    """
    if not 0 < low <= high:
        raise ValueError(f"scale needs 0 < low <= high, got {low} and {high}")

    def zoom(pictures: Tensor, generator: Generator) -> Tensor:
        factor = _uniform(low, high, generator)
        return _warp(pictures, 1 / factor, 0.0)

    return zoom


def rotate(degrees: float) -> Transform:
    """Return a transform that turns about the center by up to `degrees` either way."""

    def turn(pictures: Tensor, generator: Generator) -> Tensor:
        return _warp(pictures, 1.0, math.radians(_uniform(-degrees, degrees, generator)))

    return turn


STANDARD: tuple[Transform, ...] = (jitter(8), scale(0.9, 1.1), rotate(10), jitter(4))


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _warp(pictures: Tensor, reach: float, angle: float) -> Tensor:
    """Look up every pixel at the place `reach` times as far from the center, turned by `angle`."""
    wide = _wide(pictures)
    height, width = pictures.shape[2:]
    cos, sin = reach * math.cos(angle), reach * math.sin(angle)
    rows = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    matrix = wide.new_tensor(rows).expand(len(pictures), 2, 3)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return F.grid_sample(wide, grid, padding_mode="border", align_corners=False).to(pictures)


# ---- parametrizations: which numbers the optimizer turns --------------------------------------


def fourier_to_pixels(waves: Tensor, width: int) -> Tensor:
    r"""Turn the amplitudes of waves into values of pixels, low frequencies first.

    $$z = \mathrm{irfft2}\Big(\frac{c_f}{\max(f, 1/\max(H, W))}\Big)$$

    $c_f$ is the complex amplitude of the wave of frequency $f$ (cycles per pixel). Dividing by $f$
    gives a step of the optimizer the spectrum of a photo. The transform is orthonormal.

    Args:
        waves: (N, C, H, W // 2 + 1) complex, the half plane that `irfft2` takes.
        width: W, which the half plane leaves open (even or odd).

    Returns:
        (N, C, H, W), unbounded, float32 or float64.

    Raises:
        ValueError: waves whose last dimension does not belong to this width.

    Reference: Olah, Mordvintsev, Schubert (2017), Feature Visualization.
    Elsewhere: lucid's and torch-lucent's `fft_image`.

    >>> flat = torch.zeros(1, 1, 2, 2, dtype=torch.complex64)
    >>> flat[..., 0, 0] = 1.0  # the constant wave, divided by max(0, 1/2)
    >>> fourier_to_pixels(flat, 2).round(decimals=3)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    waves = waves.to(torch.promote_types(waves.dtype, torch.complex64))  # no fft in half
    height = waves.shape[-2]
    if waves.shape[-1] != width // 2 + 1:
        raise ValueError(f"width {width} takes {width // 2 + 1} columns, got {waves.shape[-1]}")
    like: dict[str, Any] = {"dtype": waves.real.dtype, "device": waves.device}
    rows, columns = torch.fft.fftfreq(height, **like), torch.fft.rfftfreq(width, **like)
    frequency = torch.hypot(*torch.meshgrid(rows, columns, indexing="ij"))
    scaled = waves / frequency.clamp(min=1 / max(height, width))
    return torch.fft.irfft2(scaled, s=(height, width), norm="ortho")


def correlate_colors(values: Tensor) -> Tensor:
    """Mix three independent channels, (N, 3, H, W), into red, green and blue as photos do.

    The first channel is brightness, the others are the much weaker differences of color.
    """
    mix = values.new_tensor(_COLORS)
    return torch.einsum("rc,nchw->nrhw", mix / mix.norm(dim=1).max(), values)


class _Canvas(NamedTuple):
    """The numbers that are optimized, and how they become pictures (N, C, H, W) in [0, 1]."""

    numbers: Tensor
    render: Callable[[], Tensor]


def _pixels(size: torch.Size, start: Callable[..., Tensor]) -> _Canvas:
    """Every pixel is a number of its own, squeezed into [0, 1] by a sigmoid."""
    numbers = start(*size)
    return _Canvas(numbers, numbers.sigmoid)


def _fourier(size: torch.Size, start: Callable[..., Tensor]) -> _Canvas:
    """Every wave is a number (two: cosine and sine), shared by all pixels."""
    width = size[3]
    numbers = start(*size[:3], width // 2 + 1, 2)

    def render() -> Tensor:
        values = _CONTRAST * fourier_to_pixels(torch.view_as_complex(numbers), width)
        return (correlate_colors(values) if size[1] == 3 else values).sigmoid()

    return _Canvas(numbers, render)


_PARAMETRIZATIONS = {"fourier": _fourier, "pixel": _pixels}


# ---- penalties ---------------------------------------------------------------------------------


def total_variation(pictures: Tensor) -> Tensor:
    r"""Return how much neighboring pixels differ, (N,).

    $$\mathrm{TV}(x) = \mathrm{mean}\,|x_{i+1,j} - x_{ij}| + \mathrm{mean}\,|x_{i,j+1} - x_{ij}|$$

    Reference: Rudin, Osher, Fatemi (1992), Nonlinear total variation based noise removal
        algorithms; as a regularizer here: Mahendran, Vedaldi (2015), Understanding Deep Image
        Representations by Inverting Them.

    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))  # 0 down, 1 across
    tensor([1.])
    """
    down = pictures.diff(dim=2).abs().mean((1, 2, 3))
    across = pictures.diff(dim=3).abs().mean((1, 2, 3))
    return down + across


def likeness(maps: Tensor) -> Tensor:
    r"""Return how alike the pictures are to the layer: mean cosine of their Gram matrices.

    $$G^n_{kl} = \sum_{ij} A^{nk}_{ij} A^{nl}_{ij}, \qquad
      \text{mean over pairs } n \ne m \text{ of } \cos(G^n, G^m)$$

    Args:
        maps: (N, K, h, w) activations.

    Reference: Olah, Mordvintsev, Schubert (2017), Feature Visualization, section Diversity.

    >>> likeness(torch.eye(2).reshape(2, 2, 1, 1))  # two pictures, two channels, none shared
    tensor(0.)
    """
    flat = maps.flatten(2)
    grams = F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
    cosines = grams @ grams.T
    n = len(maps)
    return (cosines.sum() - cosines.diagonal().sum()) / max(1, n * (n - 1))


# ---- the optimization --------------------------------------------------------------------------


def maximize(
    model: nn.Module,
    *,
    layer: str | None = None,
    unit: Unit | Sequence[Unit] | None = None,
    target: int | Sequence[int] | None = None,
    parametrization: str = "fourier",
    transforms: Sequence[Transform] = STANDARD,
    n_steps: int = 128,
    seed: int = 0,
    shape: tuple[int, int, int] = (3, 128, 128),
    normalize: Normalize | None = None,
    learning_rate: float = 0.05,
    variation: float = 0.0,
    decay: float = 0.0,
    diversity: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    r"""Make the pictures that excite units, or classes, of a network most.

    $$x^* = \arg\max_\theta\; \mathbb{E}_T\, s\big(T(x_\theta)\big)
      - \lambda_1 \mathrm{TV}(x_\theta) - \lambda_2 \,\mathrm{mean}\,(x_\theta - \tfrac12)^2
      - \lambda_3\, \text{likeness}$$

    $s$ is a logit, the mean of a channel or one neuron; $\theta$ are pixels or waves; $T$ are the
    random transforms, drawn anew each step. The optimizer is Adam.

    Args:
        model: an `nn.Module`; where `layer` is given, nothing behind it is computed.
        layer: dotted name of the layer that the unit belongs to.
        unit: a channel k (the mean of its map is maximized), a neuron (k, row, column), or a list
            of either: one picture each, made in one batch. Of tokens, (k, token) is a neuron.
        target: in place of layer and unit, a class index or a list of them; its logit is maximized.
        parametrization: "fourier" (waves scaled by 1/f, colors decorrelated) or "pixel"; in
            float32 or float64, also where the model works in half.
        transforms: applied in this order each step; () for none.
        n_steps: gradient steps.
        seed: decides the start and the transforms; the global random state plays no part.
        shape: (C, H, W) of a picture in pixels.
        normalize: turns pictures in [0, 1] into the model's input; None: the input is in [0, 1].
        learning_rate: Adam's step.
        variation: weight of `total_variation`, in units of the score.
        decay: weight of the mean squared distance from gray, in units of the score.
        diversity: weight of `likeness` of the pictures to this layer, in units of the score.
        callback: called each step with its number, the pictures and their scores (N,) before it.

    Returns:
        (N, C, H, W) in [0, 1], detached, N the number of units or targets (1 for a single one).

    Raises:
        TypeError: `layer`, `unit` or `target` of another type than described.
        ValueError: not exactly one of target and (layer, unit); no such layer, unit, class or
            parametrization; a layer whose axis of units is not known; a shape that is not
            (C, H, W) or that the model refuses; a score that no gradient connects with the
            pictures, or that no step could move, as behind a ReLU that stays closed.

    Reference: Erhan, Bengio, Courville, Vincent (2009), Visualizing Higher-Layer Features of a
        Deep Network; Olah, Mordvintsev, Schubert (2017), Feature Visualization.
    Elsewhere: lucid and torch-lucent `render_vis`, captum `InputOptimization`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    >>> options = {"parametrization": "pixel", "transforms": (), "shape": (1, 1, 2)}
    >>> maximize(net, target=0, n_steps=200, learning_rate=0.1, **options).round(decimals=1)
    tensor([[[[1., 0.]]]])
    """
    goal = _goal(model, layer, unit, target, diversity)
    steps = range(check_positive("n_steps", n_steps))
    generator = Generator().manual_seed(as_integer("seed", seed))
    with frozen(model), gradients_on():
        dtype, (numbers, render) = _canvas(model, parametrization, goal.n, shape, generator)
        climber = _Climber(numbers, learning_rate)
        history = []
        for step in steps:
            pictures = render()
            shaken = _applied(transforms, pictures, generator)
            scores, alike = goal.reach((normalize(shaken) if normalize else shaken).to(dtype))
            history.append(scores.detach())
            if callback is not None:
                callback(step, pictures.detach().to(dtype), history[-1])
            _check_reached(scores)
            away = ((pictures - 0.5) ** 2).mean((1, 2, 3))
            penalty = variation * total_variation(pictures) + decay * away
            climber.step((scores - penalty).sum() - diversity * alike)
        _check_alive(torch.stack(history))
        return render().detach().to(dtype)


def _check_reached(scores: Tensor) -> None:
    """The penalties always have a gradient; what is to be maximized must have one too."""
    if not scores.requires_grad:
        raise ValueError(
            "no gradient reaches the pictures: on the way from them to the score the model leaves "
            "autograd (no_grad, detach, NumPy, rounding to integers, quantized layers)"
        )


def _check_alive(history: Tensor) -> None:
    """Refuse to pass noise off as an answer: scores (steps, N) that never changed."""
    still = (history == history[0]).all(0).nonzero().flatten().tolist()
    if still and len(history) > 1:
        raise ValueError(
            f"nothing moved the score of number {', '.join(map(str, still))}: a ReLU may be closed "
            "for nearly gray pictures; try the layer before it, or another seed"
        )


class _Climber:
    """Adam, uphill. torch's own first imports its compiler, which takes longer than a picture.

    Reference: Kingma, Ba (2015), Adam: A Method for Stochastic Optimization.
    """

    def __init__(self, numbers: Tensor, learning_rate: float) -> None:
        self.numbers, self.rate, self.count = numbers, learning_rate, 0
        self.mean, self.square = torch.zeros_like(numbers), torch.zeros_like(numbers)

    def step(self, wanted: Tensor) -> None:
        """Change the numbers so that `wanted`, one number, rises."""
        (slope,) = torch.autograd.grad(wanted, self.numbers)
        self.count += 1
        self.mean.lerp_(slope, 0.1)
        self.square.lerp_(slope**2, 0.001)
        mean = self.mean / (1 - 0.9**self.count)
        deviation = (self.square / (1 - 0.999**self.count)).sqrt()
        with torch.no_grad():
            self.numbers += self.rate * mean / (deviation + 1e-8)


def _canvas(
    model: nn.Module, name: str, n: int, shape: tuple[int, int, int], generator: Generator
) -> tuple[torch.dtype, _Canvas]:
    """Return the model's dtype, and n nearly gray pictures on its device, in float32 or finer."""
    if name not in _PARAMETRIZATIONS:
        known = " or ".join(map(repr, _PARAMETRIZATIONS))
        raise ValueError(f"parametrization must be {known}, got {name!r}")
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shape}")
    sides = [check_positive("shape", length) for length in shape]
    weights = (p.detach().flatten() for p in model.parameters() if p.is_floating_point())
    like = next(weights, torch.zeros(0))

    def start(*size: int) -> Tensor:
        noise = _FIRST * torch.randn(*size, generator=generator)
        return noise.to(_wide(like[:0])).detach().requires_grad_()

    return like.dtype, _PARAMETRIZATIONS[name](torch.Size((n, *sides)), start)


def _applied(transforms: Sequence[Transform], pictures: Tensor, generator: Generator) -> Tensor:
    for transform in transforms:
        pictures = transform(pictures, generator)
    return pictures


class _Goal(NamedTuple):
    """How many pictures are made, and what is maximized.

    `reach` maps inputs to the scores (N,) and to how alike the pictures are, one number.
    """

    n: int
    reach: Callable[[Tensor], tuple[Tensor, Tensor]]


def _goal(
    model: nn.Module,
    layer: str | None,
    unit: Unit | Sequence[Unit] | None,
    target: int | Sequence[int] | None,
    diversity: float,
) -> _Goal:
    """Choose between the classes and the units of a layer; exactly one of them is given."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if (target is None) == (layer is None) or (layer is None) != (unit is None):
        given = {"layer": layer, "unit": unit, "target": target}
        raise ValueError(f"give either target, or layer and unit; got {given}")
    if layer is not None:
        find_layer(model, layer)
        return _unit_goal(model, layer, _units(unit), diversity)
    if diversity:
        raise ValueError("diversity compares activations: it needs layer and unit, not target")
    targets = [as_integer("target", one) for one in _several(target)]
    if not targets:
        raise ValueError("target is an empty list")

    def reach(x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = outputs_of(model, x)
        columns = outputs[:, None] if outputs.ndim == 1 else outputs
        return select(columns, targets), columns.new_zeros(())

    return _Goal(len(targets), reach)


def _several(given: Any) -> list[Any]:
    """Return what was given as a list: lists, ranges and rows of numbers are several."""
    rows = isinstance(given, np.ndarray | Tensor) and given.ndim > 0
    return list(given) if rows or isinstance(given, list | range) else [given]


def _unit_goal(model: nn.Module, layer: str, units: list[Unit], diversity: float) -> _Goal:
    asked = _Maps(model, layer)

    def reach(x: Tensor) -> tuple[Tensor, Tensor]:
        maps = asked(x)
        each = [_unit_score(row, unit) for row, unit in zip(maps, units, strict=True)]
        scores = torch.stack(each)
        return scores, likeness(maps) if diversity else scores.new_zeros(())

    return _Goal(len(units), reach)


def _units(unit: object) -> list[Unit]:
    """Return a list of channels and neurons; a tuple is one neuron, a list is several units."""
    units = [_unit(one) for one in _several(unit)]
    if not units:
        raise ValueError("unit is an empty list")
    return units


def _unit(one: Any) -> Unit:
    try:
        if not isinstance(one, tuple):
            return as_integer("unit", one)
        parts = tuple(as_integer("unit", part) for part in one)
    except TypeError as error:
        raise TypeError(
            f"a unit is a channel (int) or (channel, row, column), got {one!r}"
        ) from error
    if len(parts) < 2:
        raise ValueError(f"a neuron is (channel, row, column), got {one!r}")
    return parts


def _unit_score(maps: Tensor, unit: Unit) -> Tensor:
    """Return the mean of a channel, or one neuron, of one picture's activations (K, ...)."""
    index = unit if isinstance(unit, tuple) else (unit,)
    fits = len(index) == 1 or len(index) == maps.ndim
    if not fits or any(not 0 <= i < n for i, n in zip(index, maps.shape, strict=False)):
        raise ValueError(
            f"the layer gives {tuple(maps.shape)}, channels first: there is no unit {unit}; a unit "
            "is a channel, or a neuron like (channel, row, column)"
        )
    return maps[index].mean()


class _Reached(Exception):
    """The layer has answered; the rest of the network is not needed."""


class _Maps:
    """Returns a layer's output for x, (N, K, ...), without running what comes after it."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model, self.layer, self.axis = model, layer, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activations, their units on axis 1 wherever the layer has them."""
        output = self._output(x)
        if output.ndim < 2 or len(output) != len(x):
            shape = tuple(output.shape)
            raise ValueError(f"layer {self.layer!r} gives {shape} for {len(x)} rows: no units")
        if not self.axis:
            self.axis = 1 if output.ndim == 2 else units_axis(self.model, self.layer, x.detach())
        return output.movedim(self.axis, 1)

    def _output(self, x: Tensor) -> Tensor:
        def halt(*_: object) -> None:
            raise _Reached

        with capture(
            self.model, self.layer
        ) as kept:  # its hook comes first, then the one that halts
            handle = find_layer(self.model, self.layer).register_forward_hook(halt)
            try:
                outputs_of(self.model, x)
            except _Reached:
                return kept[self.layer]
            finally:
                handle.remove()
        raise ValueError(f"layer {self.layer!r} did not run in this forward pass")


# ---- DeepDream ---------------------------------------------------------------------------------


def deep_dream(
    model: nn.Module,
    image: Tensor,
    *,
    layer: str,
    unit: int | None = None,
    n_octaves: int = 4,
    octave_scale: float = 1.4,
    n_steps: int = 10,
    step_size: float = 0.01,
    move: int = 16,
    normalize: Normalize | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Strengthen in a photo whatever a layer finds in it, from coarse to fine.

    $$x \leftarrow x + \eta\, \frac{g}{\mathrm{mean}\,|g|}, \qquad
      g = \frac{\partial}{\partial x} \mathrm{mean}\, A(x)^2$$

    This is done on a small copy of the photo first; what was added is enlarged and carried to the
    next larger copy (an octave), up to full size.

    Args:
        model: a convolutional network; nothing behind `layer` is computed.
        image: (1, C, H, W) in [0, 1].
        layer: dotted name of the layer whose activations $A$ grow.
        unit: grow the mean of one channel instead of the mean square of all.
        n_octaves: copies of the photo, the largest being the photo itself.
        octave_scale: how much larger each copy is than the one before, above 1.
        n_steps: steps in each octave.
        step_size: $\eta$, mean change of a pixel in one step.
        move: the picture is moved by up to so many pixels before each step and back after it.
        normalize: turns [0, 1] into the model's input; None: the input is in [0, 1].
        seed: decides the moves.

    Returns:
        The shape of `image`, in [0, 1], detached.

    Raises:
        TypeError, ValueError: bad image, layer, unit or number.

    Reference: Mordvintsev, Olah, Tyka (2015), Inceptionism: Going Deeper into Neural Networks.
    Elsewhere: the DeepDream tutorial of TensorFlow; no package that we know of.

    >>> grows = nn.Sequential(nn.Identity(), nn.Flatten())
    >>> photo = torch.full((1, 1, 4, 4), 0.5)
    >>> deep_dream(grows, photo, layer="0", n_octaves=1, n_steps=2, step_size=0.1).mean()
    tensor(0.7000)
    """
    _check_photo(model, image)
    if not 1 < octave_scale < math.inf:
        raise ValueError(f"octave_scale must be above 1, got {octave_scale}")
    move, steps = _reach("move", move), range(check_positive("n_steps", n_steps))
    generator = Generator().manual_seed(as_integer("seed", seed))
    goal = None if unit is None else _unit(unit)
    asked = _Maps(model, layer)

    def slope(x: Tensor) -> Tensor:
        maps = _wide(asked((normalize(x) if normalize else x).to(image.dtype)))
        wanted = (maps**2).mean() if goal is None else _unit_score(maps[0], goal)
        return gradients_of(wanted, x, name="the picture")

    photo, dream = _wide(image.detach()), None
    with frozen(model), gradients_on():
        for octave in reversed(range(check_positive("n_octaves", n_octaves))):
            factor = octave_scale**-octave
            base = _resized(photo, [max(1, round(n * factor)) for n in photo.shape[2:]])
            added = 0 if dream is None else _resized(dream, base.shape[2:])
            x = (base + added).clamp(0, 1)
            for _ in steps:
                x = _dream_step(x, slope, step_size, move, generator)
            dream = x - base
    return x.to(image.dtype)


def _check_photo(model: nn.Module, image: Tensor) -> None:
    check_input(model, image)
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"image must be one picture (1, C, H, W), got {tuple(image.shape)}")
    if image.min() < 0 or image.max() > 1:
        low, high = image.min().item(), image.max().item()
        raise ValueError(f"image must lie in [0, 1], got {low:.3g} to {high:.3g}")


def _dream_step(
    x: Tensor,
    slope: Callable[[Tensor], Tensor],
    step_size: float,
    move: int,
    generator: Generator,
) -> Tensor:
    """Take one normalized step uphill, on the picture moved by a random amount."""
    down, right = torch.randint(-move, move + 1, (2,), generator=generator).tolist()
    gradient = slope(x.roll((down, right), (2, 3)).requires_grad_()).roll((-down, -right), (2, 3))
    return (x + step_size * gradient / gradient.abs().mean().clamp(min=1e-12)).clamp(0, 1)


def _resized(pictures: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(pictures, list(size), mode="bilinear", align_corners=False)


# ---- how coarse or fine a picture is -----------------------------------------------------------


class Spectrum(NamedTuple):
    """Power of a picture by spatial frequency.

    Attributes:
        frequency: (R,) cycles per picture, 1, 2, ...; the mean brightness, 0, is left out.
        power: (R,) squared deviation carried by all waves of this frequency; its sum is the
            variance of the picture.
        density: (R,) the same per wave: flat for white noise, near 1 / f^2 for photos.
    """

    frequency: Tensor
    power: Tensor
    density: Tensor


def radial_spectrum(image: Tensor) -> Spectrum:
    r"""Measure how much of a picture is coarse and how much is fine.

    $$P(r) = \sum_{r - 1/2 \,\le\, |k| \,<\, r + 1/2} \frac{|\hat x_k|^2}{(HW)^2}$$

    $\hat x$ is the Fourier transform, $k$ counts the cycles per picture down and across. By
    Parseval's theorem the powers add up to the variance of the pixels.

    Args:
        image: (..., H, W); leading dimensions (pictures, colors) are averaged.

    Returns:
        A `Spectrum`, in float32 or float64. In a picture that is not square, a cycle is measured
        against its shorter side.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: fewer than two dimensions, a side below 2, NaN or infinity.

    Reference: Field (1987), Relations between the statistics of natural images and the response
        properties of cortical cells: the 1/f rule of photos.

    >>> stripes = torch.tensor([0.0, 1.0, 0.0, -1.0]).expand(4, 4)  # one cycle across
    >>> radial_spectrum(stripes).power
    tensor([0.5000, 0.0000, 0.0000])
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        came = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image must be a tensor of floats, got {came}")
    if image.ndim < 2 or min(image.shape[-2:]) < 2:
        raise ValueError(f"image must be (..., H, W), 2 x 2 or more, got {tuple(image.shape)}")
    if not torch.isfinite(image).all():
        raise ValueError("image holds NaN or infinite values")
    height, width = image.shape[-2:]
    waves = torch.fft.fft2(_wide(image.detach()), norm="forward").abs() ** 2
    power = waves.reshape(-1, height, width).mean(0)
    rows = torch.fft.fftfreq(height, device=image.device)[:, None]
    columns = torch.fft.fftfreq(width, device=image.device)[None]
    radius = ((rows**2 + columns**2).sqrt() * min(height, width)).round().long().clamp(min=1)
    radius[0, 0] = 0  # the mean alone
    rings = power.new_zeros(int(radius.max()) + 1)
    total = rings.index_add(0, radius.flatten(), power.flatten())
    count = rings.index_add(0, radius.flatten(), torch.ones_like(power).flatten())
    frequency = torch.arange(1, len(rings), device=image.device)
    return Spectrum(frequency, total[1:], total[1:] / count[1:].clamp(min=1))
