"""Parts of a network as models of their own: up to a layer, from a layer on, with inputs fixed.

Every method explains a model of one tensor of rows. With these three it explains a unit inside a
network, explains by what a layer gives in place of what goes in, and takes networks of two inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.checks import Model, Target
from xailab.core.company import check_company
from xailab.core.layers import find_layer, hooked
from xailab.core.scores import frozen_gradient
from xailab.core.state import alone, frozen


def up_to(model: nn.Module, layer: str) -> nn.Module:
    r"""Return the network up to a layer: $x \mapsto h_l(x)$, what that layer hands on.

    With it every method takes a unit for its target: `saliency(up_to(net, "fc1"), x, 3)` of unit 3
    of a layer (N, K), `saliency(up_to(net, "conv1"), x, lambda maps: maps[:, 3, 4, 4])` of channel
    3 at one place. What comes behind the layer is not computed, except in the first pass of rows of
    a shape, which looks whether the layer runs again.

    Args:
        model: the network; its layers keep their names behind "model.".
        layer: dotted name of the layer.

    Returns:
        A network that shares the modules of `model`.

    Raises:
        TypeError, ValueError: as for `find_layer`; when it is run, a layer that does not run, runs
            more than once, or gives something else than one tensor.

    Reference: Dhamdhere, Sundararajan, Yan (2019), How Important Is a Neuron?
    Elsewhere: captum's `NeuronGradient`, `NeuronIntegratedGradients`, ...; torchvision
        `create_feature_extractor`.

    >>> net = nn.Sequential(nn.ReLU(), nn.Flatten(0))
    >>> up_to(net, "0")(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """
    find_layer(model, layer)
    return _UpTo(model, layer)


def from_layer(model: nn.Module, layer: str, x: Tensor) -> nn.Module:
    r"""Return the network from a layer on, for fixed inputs: $a \mapsto f(x \mid h_l = a)$.

    Whatever else of x reaches the score, past the layer, stays as it is for x.

    Args:
        model: the network; its layers keep their names behind "model.".
        layer: dotted name of the layer.
        x: (1, ...), a row for all that the result is asked about, or (N, ...), one for each of
            exactly N.

    Returns:
        A network that takes what the layer gives, and shares the modules of `model`.

    Raises:
        TypeError, ValueError: as for `find_layer`; when it is run, a layer that does not run, runs
            more than once, gives something else than one tensor, or another shape than what it is
            to be replaced by.

    Elsewhere: an intervention; captum's `Layer...` methods work so.

    >>> net = nn.Sequential(nn.ReLU(), nn.Flatten(0))
    >>> from_layer(net, "0", torch.tensor([[-1.0, 2.0]]))(torch.tensor([[5.0, -6.0]]))
    tensor([ 5., -6.])
    """
    find_layer(model, layer)
    return _FromLayer(model, layer, x)


def fixed(model: Model, takes: str | None = None, /, **others: Any) -> nn.Module:
    """Return a model of several inputs as one of x alone; the others are fixed.

    Args:
        model: any callable; an `nn.Module` keeps its layers, their names behind "model.".
        takes: the name of the argument that x becomes; None: the first.
        others: the other arguments by name. A tensor is one row, (1, ...), which every row of x
            gets; what is no tensor is handed on as it is.

    Raises:
        ValueError: a tensor of several rows: methods ask about any number of rows, in any order, so
            nothing would say which row of x it belongs to.

    Elsewhere: captum's `additional_forward_args`; `functools.partial`, for one row.

    >>> product = lambda x, z: x * z
    >>> fixed(product, z=torch.tensor([[3.0]]))(torch.ones(2, 1))
    tensor([[3.],
            [3.]])
    """
    for name, value in others.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or len(value) != 1):
            raise ValueError(
                f"{name} must be one row, (1, ...), for all rows of x, got {tuple(value.shape)}: "
                "explain rows that differ in it one by one"
            )
    return _Fixed(model, takes, others)


@dataclass(frozen=True)
class AtLayer:
    """What a layer gives for rows, and the score as a function of it.

    Attributes:
        model: the network.
        x: (N, ...), the rows.
        layer: dotted name.
        outputs: (N, ...), what the layer gives for them.
    """

    model: Model
    x: Tensor
    layer: str
    outputs: Tensor

    def on(self, rows: Tensor | slice = slice(None)) -> nn.Module:
        """Return the model from the layer on, for these rows."""
        return from_layer(self.model, self.layer, self.x[rows])  # type: ignore[arg-type]

    def gives(self, rows: Tensor, batch_size: int | None = None) -> Tensor:
        """Return what the layer gives for other rows."""
        return _given(self.model, rows, self.layer, batch_size)

    def slope(self, rows: Tensor, outputs: Tensor, target: Target) -> Tensor:
        """Return the score's gradient by other outputs of the layer for these rows."""
        return frozen_gradient(self.on(rows), outputs, target)


def at_layer(
    model: Model, x: Tensor, layer: str, target: Target, *, batch_size: int | None = None
) -> AtLayer:
    """Return what a layer gives for x, and the score as a function of it.

    Raises:
        TypeError, ValueError: as for `up_to`; a layer that does not give floats, one answer a row;
            rows that influence each other.
    """
    at = AtLayer(model, x, layer, _given(model, x, layer, batch_size))
    if not at.outputs.is_floating_point():
        raise TypeError(f"layer {layer!r} gives {at.outputs.dtype}: it has no gradient")
    with frozen(model):
        check_company(model, x, of=2, target=target)
    return at


def _given(model: Model, x: Tensor, layer: str, batch_size: int | None) -> Tensor:
    part = up_to(model, layer)  # type: ignore[arg-type]
    with frozen(model), torch.no_grad():
        return batched(part, x, batch_size=batch_size, owner=part, progress=False)


class _Stop(BaseException):
    """The layer has answered; no handler of the network's own is to catch this."""


class _UpTo(nn.Module):
    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        self._seen: set[Any] = set()  # shapes of rows for which the layer is known to run once

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):  # a tracer, which would take the pass for the whole network
            raise TypeError(f"x must be a Tensor, got {type(x).__name__}")
        shape = tuple(x.shape[1:]), x.dtype
        outputs = self._outputs(x, stop=shape in self._seen)
        if len(outputs) != 1:
            often = "ran more than once" if outputs else "did not run"
            raise ValueError(f"layer {self.layer!r} {often} in one forward pass")
        if not isinstance(outputs[0], Tensor):
            kind = type(outputs[0]).__name__
            raise TypeError(f"layer {self.layer!r} returns {kind}, not one tensor")
        self._seen.add(shape)
        return outputs[0]

    def _outputs(self, x: Tensor, *, stop: bool) -> list[Any]:
        """Run the model, and return what the layer gave each time."""
        found: list[Any] = []
        thread, reached = get_ident(), _Stop()

        def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
            if get_ident() != thread:  # another thread runs the same network
                return None
            found.append(output)
            if stop:
                raise reached
            return output.clone() if isinstance(output, Tensor) else None  # it may work in place

        with alone():
            handle = find_layer(self.model, self.layer).register_forward_hook(keep)
            try:
                self.model(x)
            except _Stop as stopped:
                if stopped is not reached:
                    raise
                reached.__traceback__ = None  # it would keep all tensors of the pass alive
            except Exception:  # what lies behind the layer need not take such rows
                if not found:
                    raise
            finally:
                handle.remove()
        return found


class _FromLayer(nn.Module):
    def __init__(self, model: nn.Module, layer: str, x: Tensor) -> None:
        super().__init__()
        self.model, self.layer, self.x = model, layer, x.detach()

    def forward(self, output: Tensor) -> Any:
        rows = self.x.expand(len(output), *self.x.shape[1:]) if len(self.x) == 1 else self.x
        if len(rows) != len(output):
            raise ValueError(f"there are {len(rows)} rows of x for {len(output)} of the layer")
        ran: list[None] = []

        def put(module: nn.Module, inputs: Any, own: Any) -> Tensor:
            ran.append(None)
            self._check(output, own, len(ran))
            return output.clone()  # a later layer may work in place

        with hooked(self.model, {self.layer: put}):
            return self.model(rows.clone())

    def _check(self, output: Tensor, own: Any, runs: int) -> None:
        if runs > 1:
            raise ValueError(f"layer {self.layer!r} ran more than once in one forward pass")
        if not isinstance(own, Tensor):
            raise TypeError(f"layer {self.layer!r} returns {type(own).__name__}, not one tensor")
        if own.shape != output.shape or own.dtype != output.dtype:
            came, gives = (f"{tuple(one.shape)} {one.dtype}" for one in (output, own))
            raise ValueError(f"layer {self.layer!r} gives {gives}: it cannot be replaced by {came}")


class _Fixed(nn.Module):
    def __init__(
        self, model: Callable[..., Any], takes: str | None, others: dict[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.takes, self.others = model, takes, others

    def forward(self, x: Tensor) -> Any:
        others = {
            name: value.to(x.device).expand(len(x), *value.shape[1:])
            if isinstance(value, Tensor)
            else value
            for name, value in self.others.items()
        }
        if self.takes is None:
            return self.model(x, **others)
        return self.model(**{self.takes: x}, **others)
