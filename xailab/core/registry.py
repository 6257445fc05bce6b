"""The list of all methods, which the comparer, the scoreboard and the contract tests go through."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """One attribution method `(model, x, target, ...) -> Tensor`.

    Attributes:
        name: the function's name, as in tables.
        title: its name in the field, as in pictures.
        function: the function itself.
        needs: of a model, "layer" (a layer with positions), "relu" (ReLU modules
            and no functional ones), "gap" (global average pooling before a linear classifier),
            "known" (nothing but operations that a rule is known for);
            and of the caller, "background" (rows to compare with), "window" (its size), "masks"
            (their number and grid), "few" (features, or groups of them: 2^n are run).
        options: the names of its keyword arguments.
    """

    name: str
    function: Callable[..., Any]
    needs: frozenset[str]
    title: str = ""
    options: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())[3:]
        named = (
            one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        )
        object.__setattr__(self, "options", frozenset(named))
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))

    def maps(self, model: Any, x: Tensor, target: Any, options: Mapping[str, Any]) -> Tensor:
        """Run the function with those options that it knows.

        Raises:
            TypeError: it did not return a tensor or an array.
            ValueError: it did not give one map per row of `x`.
        """
        known = {name: value for name, value in options.items() if name in self.options}
        answer = self.function(model, x, target, **known)
        if not isinstance(answer, (Tensor, np.ndarray)):
            raise TypeError(
                f"{self.name} must return a Tensor, it returned {type(answer).__name__}"
            )
        if answer.ndim < 2 or len(answer) != len(x):
            came, shape = tuple(answer.shape), tuple(x.shape)
            raise ValueError(f"{self.name} must give one map per row of x {shape}, it gave {came}")
        return torch.as_tensor(answer).detach()


METHODS: dict[str, Method] = {}


def method(*needs: str, title: str = "") -> Callable[[F], F]:
    """Enter a function into the list of methods; with that it is under the contract tests."""

    def enter(function: F) -> F:
        name = function.__name__
        METHODS[name] = Method(name, function, frozenset(needs), title)
        return function

    return enter


def chosen(
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
) -> list[Method]:
    """Return the methods meant: by name, as functions `(model, x, target)`, or named functions.

    One name or one function may stand alone.

    Raises:
        TypeError: neither names nor functions.
        ValueError: none at all, a name that is not listed (the message gives near ones), or one
            name twice.
    """
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    named = methods.items() if isinstance(methods, Mapping) else [(None, one) for one in methods]
    found = [_found(name, one) for name, one in named]
    names = [one.name for one in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"name at least one method, and each once; got {names}")
    return found


def _found(name: str | None, wanted: Any) -> Method:
    if isinstance(wanted, str):
        if wanted not in METHODS:
            near = get_close_matches(wanted, METHODS, n=3) or sorted(METHODS)
            raise ValueError(f"there is no method {wanted!r}; there is {', '.join(near)}")
        return METHODS[wanted]
    if not callable(wanted):
        raise TypeError(f"a method is a name or a function, got {type(wanted).__name__}")
    own_name = name or str(getattr(wanted, "__name__", type(wanted).__name__))
    known = (one.needs for one in METHODS.values() if one.function is wanted)
    return Method(own_name, wanted, next(known, frozenset()))


def refuse_unknown(options: Iterable[str], methods: Sequence[Method]) -> None:
    """Raise for an option that would silently do nothing; `layer` is known to everyone.

    Raises:
        TypeError: none of the methods takes it; the message gives near ones.
    """
    known = {"layer"}.union(*(method.options for method in methods))
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=3) or sorted(known)
            raise TypeError(f"none of the methods takes {option!r}; they take {', '.join(near)}")
