"""Finding a layer by name and keeping what it computes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from xailab.core.company import trial
from xailab.core.state import alone, frozen


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule with this dotted name.

    Raises:
        TypeError: the model is not an `nn.Module` or is one of `torch.jit`, or the name is not a
            string.
        ValueError: no such layer; the message lists near names.

    >>> find_layer(nn.Sequential(nn.ReLU()), "0")
    ReLU()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a layer can be found only in an nn.Module, not in {type(model).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"layer must be a dotted module name (str), got {type(name).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "a network scripted or traced by torch.jit takes no hooks: hand over the "
            "nn.Module that it was made of"
        )
    known = dict(model.named_modules(remove_duplicate=False))  # a shared layer has two names
    if name and name in known:
        return known[name]
    names = [known_name for known_name in known if known_name]
    near = get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
    raise ValueError(f"the model has no layer {name!r}; near names: {', '.join(near) or 'none'}")


@contextmanager
def capture(
    model: nn.Module, layers: str | Sequence[str], *, leaf: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of named layers of every forward pass inside the `with` block.

    The tensors stay in the autograd graph, so that gradients with respect to them can be asked
    for. The mapping holds the latest pass; the hooks are gone when the block ends.

    Args:
        model: the network.
        layers: one dotted module name or several.
        leaf: begin the graph at these layers. Nothing below them is recorded, which saves time
            and memory where only gradients with respect to their outputs are wanted.

    Yields:
        A mapping name -> output of that layer, filled by each forward pass.

    Raises:
        ValueError: a layer that does not exist, or that ran more than once in one pass (which
            of its outputs is meant?).
        TypeError: a layer whose output is not one tensor.

    Elsewhere: captum's `LayerActivation`, torchvision's `create_feature_extractor`.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with capture(net, "0") as kept:
    ...     logits = net(torch.ones(1, 2))
    >>> kept["0"].shape
    torch.Size([1, 3])
    """
    names: list[Any] = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    modules = {name: find_layer(model, name) for name in names}
    kept: dict[str, Tensor] = {}

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} returns {type(output).__name__}, not one tensor")
            if leaf and not output.is_floating_point():
                raise TypeError(f"layer {name!r} gives {output.dtype}: it has no gradient")
            if name in kept:
                raise ValueError(f"layer {name!r} ran more than once in one forward pass")
            kept[name] = output.detach().requires_grad_() if leaf else output
            return kept[name].clone()  # a later in-place layer must not overwrite what we keep

        return keep

    def clear(*call: Any) -> None:
        kept.clear()

    with alone(), ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(clear).remove)
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(keeper(name)).remove)
        yield kept


def output_of(kept: Mapping[str, Tensor], layer: str, rows: int) -> Tensor:
    """Return what `capture` kept of a layer, one answer a row.

    Raises:
        ValueError: the layer did not run, or does not answer row by row.

    >>> output_of({"0": torch.ones(2, 3)}, "0", 2).shape
    torch.Size([2, 3])
    """
    if layer not in kept:
        raise ValueError(f"layer {layer!r} did not run in this forward pass")
    shape = tuple(kept[layer].shape)
    if not shape or shape[0] != rows:
        raise ValueError(f"layer {layer!r} gives {shape} for {rows} rows: not one answer a row")
    return kept[layer]


def units_of(kept: Mapping[str, Tensor], layer: str, rows: int, axis: int = 1) -> Tensor:
    """Return the same with its units on axis 1, refusing outputs without a dimension of units.

    Args:
        kept, layer, rows: as for `output_of`.
        axis: where the units are, as `units_axis` tells.

    Raises:
        ValueError: as `output_of`; a layer that gives one number a row.

    >>> units_of({"0": torch.ones(2, 3)}, "0", 2).shape
    torch.Size([2, 3])
    """
    output = output_of(kept, layer, rows)
    if output.ndim < 2:
        raise ValueError(f"layer {layer!r} gives {tuple(output.shape)}: it has no units")
    return output.movedim(axis, 1)


@contextmanager
def edited(model: nn.Module, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on `edit(output)` in place of its output inside the `with` block.

    Args:
        model: the network.
        layer: dotted name of the layer; if it runs twice, both outputs are edited.
        edit: what becomes of the output; it must not work in place on what it is given.

    Raises:
        TypeError, ValueError: as for `find_layer`.
        ValueError: on leaving, the model ran but the layer did not, so nothing was edited.

    Elsewhere: an intervention, a patch; a forward hook that returns something.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> with edited(net, "0", lambda output: output - 3):
    ...     net(torch.tensor([5.0]))
    tensor([2.])
    """
    with hooked(model, {layer: lambda *call: edit(call[-1])}):
        yield


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Put forward hooks on layers, and raise on leaving if the model ran without one of them.

    A layer may be passed over: its owner reads its `weight` (attention's `out_proj`), a fast path
    leaves it out, or the model never uses it. What was to be changed there has not been changed.

    Args:
        model: the network.
        hooks: layer name -> forward hook (module, inputs, output) -> None or another output.

    Raises:
        TypeError, ValueError: as for `find_layer`.
        ValueError: on leaving, the model ran but the layer did not.

    >>> net = nn.Sequential(nn.ReLU())
    >>> with hooked(net, {"0": lambda module, inputs, output: output + 1}):
    ...     net(torch.tensor([5.0]))
    tensor([6.])
    """
    ran = dict.fromkeys(["", *hooks], 0)

    def counted(name: str, hook: Callable[..., Any] | None) -> Any:
        def call(*seen: Any) -> Any:
            ran[name] += 1
            return hook(*seen) if hook else None

        return call

    with alone(), ExitStack() as stack:
        for name, hook in hooks.items():
            handle = find_layer(model, name).register_forward_hook(counted(name, hook))
            stack.callback(handle.remove)
        stack.callback(model.register_forward_hook(counted("", None)).remove)
        yield
    for name in hooks:
        if ran[""] and not ran[name]:
            raise ValueError(
                f"layer {name!r} did not run although the model did (its owner reads its weights, "
                "or never uses it): nothing was changed there"
            )


@contextmanager
def replaced(forwards: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let modules compute something else inside the `with` block.

    An instance's own `forward` hides its class's; unlike a backward hook it also serves modules
    that work in place.

    >>> relu = nn.ReLU()
    >>> with replaced({relu: torch.neg}):
    ...     relu(torch.tensor([5.0]))
    tensor([-5.])
    """
    with alone():
        own = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
        try:
            for module, forward in forwards.items():
                vars(module)["forward"] = forward
            yield
        finally:
            for module in forwards:
                vars(module).pop("forward", None)
            for module, forward in own.items():
                vars(module)["forward"] = forward


# ---- which axis holds what ---------------------------------------------------------------------

_CHANNELS_FIRST = (
    _ConvNd,
    _BatchNorm,
    _InstanceNorm,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.Upsample,
    nn.PixelShuffle,
)
_CHANNELS_LAST = (nn.Linear, nn.Embedding)


class Ran(NamedTuple):
    """One module that ran, with the layout of its output.

    Attributes:
        name: dotted.
        leaf: it has no modules inside.
        shape: of one row of its output.
        axis: which axis of the output, rows counted, holds its units or channels; None where
            that cannot be told, or where there are none (attention weights).
    """

    name: str
    leaf: bool
    shape: tuple[int, ...]
    axis: int | None

    @property
    def positions(self) -> int:
        """How many places each unit is seen at."""
        return math.prod(self.shape) // self.shape[self.axis - 1] if self.axis else 0

    def as_maps(self, x: Tensor) -> bool:
        """Tell whether it has the axes of x, its channels where x has them."""
        return self.axis == 1 and len(self.shape) == x.ndim - 1

    def holds_maps(self, x: Tensor) -> bool:
        """Tell whether it is maps of x with more than one place."""
        return self.as_maps(x) and self.positions > 1


def units_axis(model: nn.Module, layer: str, x: Tensor) -> int:
    """Tell which axis of a layer's output holds its units: known, never guessed.

    Convolutions, batch norms and pools have them on axis 1, linear layers, embeddings and layer
    norms on the last; a layer that keeps its input's shape has them where its input had them, and
    a block where the layer of that shape inside it has them. Failing that, positions are told
    from channels by the proportions of the picture.

    Args:
        model: the network.
        layer: dotted name of the layer.
        x: (N, ...), one row of which is run.

    Raises:
        TypeError, ValueError: as for `find_layer`.
        ValueError: the layer did not run, holds attention weights, or has axes that nothing tells
            apart.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> units_axis(net, "1", torch.zeros(1, 5, 2))
    2
    """
    find_layer(model, layer)
    return axis_in(layouts(model, x, until=layer), layer)


def axis_in(runs: Sequence[Ran], layer: str) -> int:
    """Return the axis that holds a layer's units among modules that ran, as `units_axis` does."""
    mine = [one for one in runs if one.name == layer]
    if not mine:
        raise ValueError(f"layer {layer!r} did not run in this forward pass")
    if mine[0].axis is None:
        shape = ("N", *mine[0].shape)
        raise ValueError(
            f"layer {layer!r} gives ({', '.join(map(str, shape))}), and nothing tells which axis "
            "holds its channels (attention weights have none): take another layer"
        )
    return mine[0].axis


def last_maps(model: nn.Module, x: Tensor) -> str | None:
    """Return the name of the last layer whose output still has positions, or None.

    That is the usual layer for Grad-CAM: the deepest maps before pooling or flattening. Maps have
    as many axes as `x` and their channels on axis 1 for certain (`units_axis`). A network that
    goes on with its positions in another form (tokens, channels last) has no such layer. Layers
    that run twice are passed over, since `capture` could not tell which output is meant.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> last_maps(net, torch.zeros(1, 1, 8, 8))
    '1'
    """
    if x.ndim < 3 or isinstance(model, torch.jit.ScriptModule):
        return None
    runs = layouts(model, x)
    names = [one.name for one in runs]
    for one in reversed(runs):
        if one.holds_maps(x) and names.count(one.name) == 1:
            return one.name
        if one.leaf and not one.as_maps(x) and _goes_on(one):
            return None
    return None


def _goes_on(one: Ran) -> bool:
    """Tell whether a network works on with positions in a form that is no map."""
    return len(one.shape) > 1 and (one.axis is None or one.positions > 1)


class _Reached(Exception):
    """The layer has answered; the rest of the network is not needed."""


def layouts(model: nn.Module, x: Tensor, *, until: str | None = None) -> list[Ran]:
    """Run one row, and return every module that gave a tensor, in the order in which they ended.

    What comes behind the layer `until` is not computed.
    """
    runs: list[Ran] = []
    axes: dict[int, int | None] = {}  # of every tensor seen, by its identity
    alive: list[Tensor] = []  # so that no identity is given away again
    known: dict[tuple[int, ...], set[int]] = {}  # shape -> axes that layers of known kind had

    def see(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != 1:
            return
        shape = tuple(output.shape[1:])
        axis = _axis_by_kind(module, output)
        if axis is not None:
            known.setdefault(shape, set()).add(axis)
        elif not _sums_to_one(module, output):
            axis = _axis_by_input(inputs, shape, axes) or _axis_by_shape(shape, x, known)
        axes[id(output)] = axis
        alive.append(output)
        runs.append(Ran(name, not any(module.children()), shape, axis))
        if name == until:
            raise _Reached

    def before(module: nn.Module, inputs: Any) -> None:
        for one in inputs:
            if isinstance(one, Tensor) and not runs:
                axes[id(one)] = 1 if one.ndim > 1 else None
                known.setdefault(tuple(one.shape[1:]), set()).add(1)
                alive.append(one)

    with frozen(model), trial(), suppress(_Reached), ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(before).remove)
        for name, module in model.named_modules():
            if name:
                handle = module.register_forward_hook(partial(see, name))
                stack.callback(handle.remove)
        model(x[:1].clone())
    return runs


def _axis_by_kind(module: nn.Module, output: Tensor) -> int | None:
    """Return the axis of the units of a layer whose kind says it."""
    if isinstance(module, _CHANNELS_FIRST) or output.ndim == 2:
        return 1
    if isinstance(module, _CHANNELS_LAST):
        return output.ndim - 1
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        found = [i for i in range(1, output.ndim) if output.shape[i] == module.normalized_shape[0]]
        plain = type(module).forward is nn.LayerNorm.forward  # others may permute first
        return output.ndim - 1 if plain else found[0] if len(found) == 1 else None
    return None


def _sums_to_one(module: nn.Module, output: Tensor) -> bool:
    """Tell whether an output is attention weights: shares of all tokens, for every token."""
    if isinstance(module, (nn.Softmax, nn.Softmax2d)):
        return True
    if output.ndim < 3 or output.shape[-1] != output.shape[-2]:
        return False
    one = output.new_ones(())
    first = output[(0,) * (output.ndim - 1)]  # a look at one line spares most maps the rest
    if (first < 0).any() or not torch.allclose(first.sum(), one, 1e-2):
        return False
    return bool((output >= 0).all()) and torch.allclose(output.sum(-1), one, 1e-2)


def _axis_by_input(inputs: Any, shape: tuple[int, ...], axes: Mapping[int, int | None]) -> Any:
    """Return the axis of the one input of the same shape: an activation, a dropout keep it."""
    same = [one for one in inputs if isinstance(one, Tensor) and tuple(one.shape[1:]) == shape]
    return axes.get(id(same[0])) if len(same) == 1 else None


def _axis_by_shape(
    shape: tuple[int, ...], x: Tensor, known: Mapping[tuple[int, ...], set[int]]
) -> int | None:
    """Return the axis that layers of this very shape had, else the one that proportions leave."""
    if shape in known:
        (axis, *others) = known[shape]
        return None if others else axis
    if len(shape) != x.ndim - 1 or x.ndim != 4:
        return None
    fits = [
        axis
        for axis, sides in ((1, shape[1:]), (3, shape[:2]))
        if _proportional(sides, x.shape[2:])
    ]
    return fits[0] if len(fits) == 1 else None


def _proportional(sides: Sequence[int], whole: Sequence[int]) -> bool:
    """Tell whether maps of these sides can be a smaller picture: convolutions may cut its edges."""
    (h, w), (height, width) = sides, whole
    ratio = (h * width) / (w * height)
    return h <= height and w <= width and 0.75 < ratio < 1 / 0.75
