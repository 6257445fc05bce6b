"""Asking a model about rows, and saying what to do where it does not take them as they are.

Every method hands over one tensor of rows. A model that wants something else beside it, a dict,
token ids, or numbers of another precision fails with an error of its own; here that becomes one
that shows the line of code which helps. All other errors of a model pass as they are.
"""

import inspect
import re
from contextlib import suppress
from typing import Any

from torch import Tensor

from xailab.core.checks import InputError, Model
from xailab.core.state import networks_in

# Words of torch's complaints about shapes, and about numbers of another precision.
_SHAPE = re.compile(r"shape|size|dimension|channels|expected .*input|[0-9]D", re.IGNORECASE)
_PRECISION = re.compile(r"dtype|scalar type|Input type", re.IGNORECASE)
_PLAIN = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError)
_MANY = 6  # keys of a dict are enough to show what it is


def ask(model: Model, x: Tensor) -> Any:
    """Return what a model answers to a copy of these rows, in whatever form.

    Raises:
        ValueError: the model refuses the shape of `x`.
        TypeError: it takes other arguments than `x`, a dict, token ids, or another dtype.

    >>> import torch
    >>> ask(lambda x: (x, 2 * x), torch.ones(1))
    (tensor([1.]), tensor([2.]))
    """
    try:
        return model(x.clone())  # a first layer that works in place must not change x
    except _PLAIN as error:
        refusal = _refusal(model, x, error) if type(error) in _PLAIN else None
        if refusal is None:
            raise
        raise refusal from error


def _refusal(model: Model, x: Tensor, error: Exception) -> Exception | None:
    """Return what to say in place of a model's error; None where it is the model's own affair."""
    inputs = _inputs(model)
    if any(one.name == "inputs_embeds" for one in inputs[1:]) and x.is_floating_point():
        return TypeError(
            f"the model takes token ids first, and x holds {x.dtype}: of a text explain the "
            "vectors, and fix the others, for instance `lambda x: model(inputs_embeds=x, "
            "attention_mask=mask.expand(len(x), -1))` with one row of mask"
        )
    if isinstance(error, TypeError) and not _takes_x_alone(model, x):
        return TypeError(
            f"the model must take x as its one argument, but {error}: fix the others, for instance "
            f"`{_with_others(inputs)}` with one row of each (xailab.core.fixed does so in an "
            "nn.Module, which keeps the layers)"
        )
    if isinstance(error, RuntimeError):
        other = _of_precision(model, x) if _PRECISION.search(str(error)) else None
        words = f"the model refuses x of shape {tuple(x.shape)}: {error}"
        return other or (InputError(words) if _SHAPE.search(str(error)) else None)
    keys = [] if isinstance(error, ValueError) else _keys_wanted(model, x)
    if not keys:
        return None
    rest = "".join(f", {key!r}: {key}.expand(len(x), -1)" for key in keys[1:])
    return TypeError(
        f"the model takes a dict, and asks for {', '.join(map(repr, keys))}: give it one, with all "
        f"but x fixed, for instance `lambda x: model({{{keys[0]!r}: x{rest}}})`"
    )


def _inputs(model: Model) -> list[inspect.Parameter]:
    """Return what a model must be given: its first input, and all that have no default."""
    try:
        found = list(inspect.signature(getattr(model, "forward", model)).parameters.values())
    except (TypeError, ValueError):  # it has no signature
        return []
    own = [one for one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    embeds = [one for one in own[1:] if one.name == "inputs_embeds"]
    return [*own[:1], *(one for one in own[1:] if one.default is one.empty), *embeds]


def _takes_x_alone(model: Model, x: Tensor) -> bool:
    """Tell whether a model can be called with x, as far as its signature says."""
    try:
        inspect.signature(getattr(model, "forward", model)).bind(x)
    except TypeError:
        return False
    except ValueError:  # it has none
        pass
    return True


def _with_others(inputs: list[inspect.Parameter]) -> str:
    """Write down a function of x alone that hands a model one row of everything else."""
    names = [f"{one.name}=" if one.kind is one.KEYWORD_ONLY else "" for one in inputs]
    first = f"{names[0]}x" if inputs else "x"
    rest = [
        f"{name}{one.name}.expand(len(x), -1)"
        for name, one in zip(names[1:], inputs[1:], strict=True)
    ]
    return f"lambda x: model({', '.join([first, *rest])})"


def _of_precision(model: Model, x: Tensor) -> Exception | None:
    """Say which dtype came and which the networks have, where they differ."""
    for network in networks_in(model):
        held = {p.dtype for p in network.parameters() if p.is_floating_point()}
        if held and x.dtype not in held:
            own = str(held.pop())
            return TypeError(
                f"x is {x.dtype}, but the weights of the network that the model uses "
                f"({type(network).__name__}) are {own}: hand over x.to({own})"
            )
    return None


class _Wanted(Exception):
    """A model has asked a dict for this key."""


class _Probe(dict[str, Any]):
    """An empty dict that says what it is asked for."""

    def __missing__(self, key: str) -> Any:
        raise _Wanted(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


def _keys_wanted(model: Model, x: Tensor) -> list[str]:
    """Return the keys that a model asks of the dict that it takes, as far as it gets."""
    keys: list[str] = []
    while len(keys) < _MANY:
        try:
            with suppress(*_PLAIN):
                model(_Probe.fromkeys(keys, x))  # type: ignore[arg-type]
        except _Wanted as wanted:
            if isinstance(wanted.args[0], str):
                keys.append(wanted.args[0])
                continue
        break
    return keys
