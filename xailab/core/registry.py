"""The list of all methods, which the comparer, the scoreboard and the contract tests go through."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
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


def chosen(
    methods: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
) -> list[Method]:
    """Return the methods meant: by name, as functions `(model, x, target)`, or named functions.

    Raises:
        TypeError: neither names nor functions.
        ValueError: none at all, a name that is not listed (the message gives near ones), or one
            name twice.
    """
    if isinstance(methods, str):
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
    registered = METHODS.get(own_name)
    if registered and registered.function is wanted:
        return registered
    return Method(own_name, wanted, frozenset())
