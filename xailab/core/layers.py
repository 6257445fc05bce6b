"""Finding a layer by name and keeping what it computes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.state import frozen


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule with this dotted name.

    Raises:
        TypeError: the model is not an `nn.Module`, or the name is not a string.
        ValueError: no such layer; the message lists near names.

    >>> find_layer(nn.Sequential(nn.ReLU()), "0")
    ReLU()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a layer can be found only in an nn.Module, not in {type(model).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"layer must be a dotted module name (str), got {type(name).__name__}")
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
            if name in kept:
                raise ValueError(f"layer {name!r} ran more than once in one forward pass")
            kept[name] = output.detach().requires_grad_() if leaf else output
            return kept[name].clone()  # a later in-place layer must not overwrite what we keep

        return keep

    handles = [model.register_forward_pre_hook(lambda *_: kept.clear())]
    try:
        handles += [module.register_forward_hook(keeper(name)) for name, module in modules.items()]
        yield kept
    finally:
        for handle in handles:
            handle.remove()


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


def units_of(kept: Mapping[str, Tensor], layer: str, rows: int) -> Tensor:
    """Return the same, refusing outputs without a dimension of units.

    Raises:
        ValueError: as `output_of`; a layer that gives one number a row.

    >>> units_of({"0": torch.ones(2, 3)}, "0", 2).shape
    torch.Size([2, 3])
    """
    output = output_of(kept, layer, rows)
    if output.ndim < 2:
        raise ValueError(f"layer {layer!r} gives {tuple(output.shape)}: it has no units")
    return output


@contextmanager
def edited(model: nn.Module, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on `edit(output)` in place of its output inside the `with` block.

    Args:
        model: the network.
        layer: dotted name of the layer; if it runs twice, both outputs are edited.
        edit: what becomes of the output; it must not work in place on what it is given.

    Raises:
        TypeError, ValueError: as for `find_layer`.

    Elsewhere: an intervention, a patch; a forward hook that returns something.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> with edited(net, "0", lambda output: output - 3):
    ...     net(torch.tensor([5.0]))
    tensor([2.])
    """
    handle = find_layer(model, layer).register_forward_hook(lambda *call: edit(call[-1]))
    try:
        yield
    finally:
        handle.remove()


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
    own = [(module, vars(module)["forward"]) for module in forwards if "forward" in vars(module)]
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
        for module, forward in own:
            vars(module)["forward"] = forward


def last_maps(model: nn.Module, x: Tensor) -> str | None:
    """Return the name of the last layer whose output still has positions, or None.

    That is the usual layer for Grad-CAM: the deepest maps before pooling or flattening. Layers
    that run twice are passed over, since `capture` could not tell which output is meant.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> last_maps(net, torch.zeros(1, 1, 8, 8))
    '1'
    """
    names: list[str] = []

    def note(name: str) -> Any:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            with_positions = isinstance(output, Tensor) and output.ndim == x.ndim >= 3
            if with_positions and output[0, 0].numel() > 1:
                names.append(name)

        return see

    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(note(name)))
        with frozen(model), torch.no_grad():
            model(x[:1].clone())
    finally:
        for handle in handles:
            handle.remove()
    return next((name for name in reversed(names) if names.count(name) == 1), None)
