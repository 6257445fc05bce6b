"""Laying a layer's output out as maps: channels first, channels last, or tokens of patches."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xailab.core.company import trial
from xailab.core.layers import axis_in, capture, find_layer, last_maps, layouts
from xailab.core.places import Places, followed, grid, is_grid, same_places
from xailab.core.scores import gradients_on
from xailab.core.state import frozen

_TO_LAY_OUT = (
    "Tokens are laid out by reshape=, for instance `lambda t: t[:, 1:].mT.unflatten(2, (14, 14))` "
    "for a class token before 14 x 14 patches"
)


class Layout(NamedTuple):
    """How the output of a layer becomes maps (N, K, h, w).

    Attributes:
        axis: which axis of the output holds the channels.
        tokens: of tokens the number of each patch's token, row by row; those of no patch (class,
            registers, distillation) are left out. None: the output is maps.
        sides: of the grid of patches.
    """

    axis: int
    tokens: Tensor | None = None
    sides: tuple[int, ...] = ()

    def maps(self, output: Tensor) -> Tensor:
        """Return a layer's output as (N, K, h, w).

        >>> tokens = torch.tensor([[[9.0], [1.0], [2.0]]])  # a class token before 1 x 2 patches
        >>> Layout(2, torch.tensor([1, 2]), (1, 2)).maps(tokens)
        tensor([[[[1., 2.]]]])
        """
        maps = output.movedim(self.axis, 1)
        return maps if self.tokens is None else maps[:, :, self.tokens].unflatten(2, self.sides)

    def __str__(self) -> str:
        return "" if self.tokens is None else " x ".join(map(str, self.sides)) + " tokens"


def layout_of(model: nn.Module, layer: str, x: Tensor) -> Layout:
    """Tell how a layer's output is laid out over x: known, never guessed.

    Which axis holds channels is told by `units_axis`. Where a network goes on with something else
    than maps (tokens, channels last), the places of its numbers are followed from the picture to
    the layer (`core.places`), and have to be those of a full grid over the picture. Attention
    weights, queries, keys and values, and what is hidden in an MLP of tokens are no maps.

    Args:
        model: the network.
        layer: dotted name of the layer.
        x: (N, C, H, W), or any other rows with channels first, whose layers must have as many axes.

    Raises:
        TypeError, ValueError: as for `find_layer`.
        ValueError: the layer did not run, or its output is not known to be maps.

    >>> vit = nn.Sequential(nn.Conv2d(1, 3, 4, 4), nn.Flatten(2), nn.AdaptiveAvgPool1d(1))
    >>> str(layout_of(vit, "1", torch.zeros(1, 1, 8, 12)))
    '2 x 3 tokens'
    """
    find_layer(model, layer)
    runs = layouts(model, x, until=layer)
    shape = next((one.shape for one in runs if one.name == layer), None)
    if x.ndim == 4 and any(one.axis != 1 for one in runs):  # not maps alone
        found = next((one for one in followed(model, x, until=layer) if one.name == layer), None)
        places = found.places if found else None
        known_by_kind = shape is not None and len(shape) == 3 and found and found.of_picture
        if places is not None or not (shape is None or known_by_kind):
            return _proved(places, layer, shape, x)  # what nobody can follow is known by its kind
    if shape is not None and len(shape) != x.ndim - 1:
        raise ValueError(_no_maps(layer, shape, x))
    return Layout(axis_in(runs, layer))


def _proved(places: Places | None, layer: str, shape: Any, x: Tensor) -> Layout:
    found = _laid_out(places)
    if found is None:
        raise ValueError(_no_maps(layer, shape, x))
    return found


def _no_maps(layer: str, shape: tuple[int, ...], x: Tensor) -> str:
    came = ", ".join(map(str, ("N", *shape)))
    return (
        f"layer {layer!r} gives ({came}), which is not known to be maps over x {tuple(x.shape)}: "
        "maps are what convolutions, blocks and norms give. Attention weights, queries, keys and "
        "what is hidden in an MLP are none, and of tokens it must be known which patch each stands "
        f"for. {_TO_LAY_OUT}"
    )


def _laid_out(places: Places | None) -> Layout | None:
    """Return the layout that these places prove: of maps, or of the stream's tokens."""
    if places is None:
        return None
    if places.at.ndim == 4:
        axes = (1, 3) if places.stream else (1,)  # a convolution's output, hidden or not, is maps
        fits = [axis for axis in axes if is_grid(places.at.movedim(axis, 1))]
        return Layout(fits[0]) if fits else None
    if places.at.ndim != 3 or not places.stream:
        return None
    for axis in (2, 1):
        every = places.at[0].movedim(axis - 1, 1)  # (tokens, channels)
        one = every[:, :1]
        if (same_places(every, one) | (every.isnan() & one.isnan())).all():
            return _of_tokens(one[:, 0], axis)
    return None


def _of_tokens(at: Tensor, axis: int) -> Layout | None:
    """Return the layout of tokens at these places if they fill a grid, each cell once."""
    numbers = (~at.isnan()).nonzero()[:, 0]
    at = at[numbers]
    sides = _different(at.imag), _different(at.real)
    if len(at) < 2 or sides[0] * sides[1] != len(at):
        return None
    row, column = (at.imag * sides[0] - 0.5).round(), (at.real * sides[1] - 0.5).round()
    order = (row * sides[1] + column).argsort()
    if not same_places(at[order], grid(*sides, like=at).flatten()).all():
        return None
    return Layout(axis, numbers[order], sides)


def _different(values: Tensor) -> int:
    """Return how many different numbers there are, rounding apart."""
    return 1 + int((values.sort().values.diff() > 1e-4).sum())


# ---- the layer to explain through ----------------------------------------------------------------


def last_layer(model: nn.Module, x: Tensor) -> str | None:
    """Return the last layer that holds maps through which the answer depends on the picture.

    Of a network of maps the one of `last_maps`. Of a network of tokens the last layer that is known
    to hold tokens of patches (`layout_of`), with a gradient from the answer to one of them: behind
    its last attention a network that reads the class token does not look at the patches any more.
    None where no layer is known to.

    >>> last_layer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), torch.zeros(1, 1, 8, 8))
    '0'
    """
    name = last_maps(model, x)
    if x.ndim != 4 or isinstance(model, torch.jit.ScriptModule):
        return name
    if name is not None and _is_known(model, name, x):
        return next(_maps_reached(model, x), name)  # what runs last may be a branch apart
    found = [(one.name, _laid_out(one.places)) for one in followed(model, x)]
    known = {name: layout for name, layout in found if layout is not None}
    return next(_reached(model, x, known), None) if known else None


def _is_known(model: nn.Module, layer: str, x: Tensor) -> bool:
    try:
        layout_of(model, layer, x)
    except ValueError:
        return False
    return True


def _maps_reached(model: nn.Module, x: Tensor) -> Iterator[str]:
    """Yield layers of maps, last first, to which a gradient of the answer comes.

    One at a time: nothing below a layer has to be kept, and nearly always it is the first.
    """
    runs = layouts(model, x)
    names = [one.name for one in runs]
    for one in reversed(runs):
        if one.holds_maps(x) and names.count(one.name) == 1:
            with (
                frozen(model),
                trial(),
                gradients_on(),
                capture(model, one.name, leaf=True) as kept,
            ):
                answers = _numbers(model(x[:1].detach().clone()))[:1]
                slopes = _slopes(answers, kept)
            if slopes and one.shape[0] not in _classes(answers, x):
                yield one.name


def _classes(answers: list[Tensor], x: Tensor) -> set[int]:
    """Return how many classes an answer has that is maps itself."""
    return {one.shape[1] for one in answers if one.ndim == x.ndim}


def _reached(model: nn.Module, x: Tensor, layouts: Mapping[str, Layout]) -> Iterator[str]:
    """Yield those layers, last first, to whose maps a gradient of the answer comes.

    The answer is weighed at random, since the sum of probabilities has no gradient; of several the
    first counts, as in torchvision's "out" before "aux". Before training a classifier may be all
    zeros: then the gradient of what it reads is asked for. Where the answer is maps itself (a
    segmentation), a layer with one channel a class is the answer, and no reason for it.
    """
    kept: dict[str, list[Tensor]] = {}
    read: list[Tensor] = []  # by linear layers

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.setdefault(name, []).append(output)
        return output.clone()  # a later in-place layer must not overwrite what we keep

    def reads(module: nn.Module, inputs: Any) -> None:
        read[:] = [one for one in inputs if isinstance(one, Tensor)]

    with frozen(model), trial(), gradients_on(), ExitStack() as stack:
        for name in layouts:
            handle = find_layer(model, name).register_forward_hook(partial(keep, name))
            stack.callback(handle.remove)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(reads).remove)
        answers = _numbers(model(x[:1].detach().clone().requires_grad_()))[:1]
        once = {name: one for name, (one, *more) in kept.items() if not more}
        slopes = _slopes(answers, once) or _slopes(read, once)
    classes = _classes(answers, x)
    for name in reversed(once):
        maps = layouts[name].maps(slopes[name]) if name in slopes else None
        if maps is not None and maps.any() and maps.shape[1] not in classes:
            yield name


def _numbers(answer: Any) -> list[Tensor]:
    """Return the tensors of an answer that can have gradients, its logits first."""
    found = [one for one in tree_leaves(answer) if isinstance(one, Tensor)]
    logits = getattr(answer, "logits", None)
    first = [logits] if isinstance(logits, Tensor) else []
    return [one for one in [*first, *found] if one.is_floating_point()]


def _slopes(answers: list[Tensor], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of a weighted sum of all answers where there is one."""
    score = _weighed([one for one in answers if one.requires_grad])
    able = {name: one for name, one in kept.items() if one.requires_grad}
    if score is None or not able:
        return {}
    found = torch.autograd.grad(score, list(able.values()), allow_unused=True, retain_graph=True)
    pairs = zip(able, found, strict=True)
    return {name: slope for name, slope in pairs if slope is not None and slope.any()}


def _weighed(answers: list[Tensor]) -> Tensor | None:
    """Return a weighted sum of all answers, with fixed random weights."""
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(one.shape, generator=generator).to(one) * one).sum() for one in answers]
    return torch.stack(parts).sum() if parts else None
