"""The list of all methods, which the comparer, the scoreboard and the contract tests go through."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """One attribution method `(model, x, target, ...) -> Tensor`.

    Attributes:
        name: its name everywhere: function, table, picture.
        function: the function itself.
        needs: what a model must have, of "layer" (a layer with positions), "relu" (ReLU modules
            and no functional ones), "gap" (global average pooling before a linear classifier).
        options: the names of its keyword arguments.
    """

    name: str
    function: Callable[..., Any]
    needs: frozenset[str]
    options: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        keywords = frozenset(list(inspect.signature(self.function).parameters)[3:])
        object.__setattr__(self, "options", keywords)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


METHODS: dict[str, Method] = {}


def method(*needs: str) -> Callable[[F], F]:
    """Enter a function into the list of methods; with that it is under the contract tests."""

    def enter(function: F) -> F:
        name = function.__name__
        METHODS[name] = Method(name, function, frozenset(needs))
        return function

    return enter
