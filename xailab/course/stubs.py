"""Answers and their stubs: cutting them out of a lesson, and telling whether one was filled in.

An answer stands between `### BEGIN SOLUTION` and `### END SOLUTION`: in a body, at the top level of
a cell, or inside a triple-quoted string.
"""

import ast
import dis
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

CODE = "# YOUR CODE HERE"
TEXT = "(your answer here)"
_BLOCK = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n(.*?)^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S
)
_MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION[ \t]*\n?", re.M)
_FOR_TESTS = re.compile(r"^# NBVAL_\w+[ \t]*\n?", re.M)
_OPEN_STUB = re.compile(rf"{re.escape(CODE)}[ \t]*\n[ \t]*\.\.\.[ \t]*(\n|$)")


def cut(source: str) -> str:
    """Return a cell with its answers replaced by stubs, without marks that are for tests alone.

    >>> print(cut("def f(x):\\n    ### BEGIN SOLUTION\\n    return x\\n    ### END SOLUTION"))
    def f(x):
        # YOUR CODE HERE
        ...

    Raises:
        ValueError: a BEGIN without its END, or the other way round.
    """

    def stub(match: re.Match[str]) -> str:
        line = source.count("\n", 0, match.start()) + 1
        if any(first < line < last for first, last in _long_strings(source)):
            return TEXT
        return textwrap.indent(_code_stub(match[1], match[2]), match[1])

    left = _BLOCK.sub(stub, source)
    if marker := _MARKER.search(left):
        raise ValueError(f"{marker[0].strip()!r} has no partner")
    return _FOR_TESTS.sub("", left)


def answers(source: str) -> list[str]:
    """Return the text of every answer in a cell."""
    return [match[2] for match in _BLOCK.finditer(source)]


def uncut(source: str) -> str:
    """Return a cell with its answers, without the lines that mark them."""
    cut(source)  # for its errors
    return unmarked(source)


def unmarked(source: str) -> str:
    """Return a cell without the lines that mark answers, whether they come in pairs or not."""
    return _MARKER.sub("", source).rstrip("\n")


def _long_strings(source: str) -> list[tuple[int, int]]:
    """First and last line of every string that spans lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        (token.start[0], token.end[0])
        for token in tokens
        if token.type == tokenize.STRING and token.start[0] < token.end[0]
    ]


def _code_stub(indent: str, answer: str) -> str:
    """`...`, or `name = ...` at the top level, so that the next cell finds the name."""
    names = [] if indent else list(dict.fromkeys(_assigned(answer)))
    return "\n".join([CODE, *(f"{name} = ..." for name in names)] + ["..."] * (not names))


def _assigned(answer: str) -> Iterator[str]:
    statements = [node for node in ast.parse(answer).body if isinstance(node, ast.Assign)]
    targets = [target for statement in statements for target in statement.targets]
    stored = [node for target in targets for node in ast.walk(target)]
    return (n.id for n in stored if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def is_empty(answer: Any) -> bool:
    """Return whether nothing was answered: None, `...`, the stub's text, an empty function."""
    if answer is None or answer is ...:
        return True
    if isinstance(answer, str):
        return TEXT in answer or not answer.strip()
    return any(_has_no_body(function) for function in _functions(answer))


def has_open_stub(answer: Any) -> bool:
    """Return whether the `...` under the marker still stands somewhere in the learner's code."""
    return any(_OPEN_STUB.search(_source(function)) for function in _functions(answer))


def _functions(answer: Any) -> list[FunctionType]:
    owned = vars(answer).values() if isinstance(answer, type) else [answer]
    return [value for value in owned if isinstance(value, FunctionType)]


def _has_no_body(function: FunctionType) -> bool:
    """`...`, `pass` and docstrings leave no trace in the bytecode: the empty body shows there."""

    def empty() -> None: ...

    return _instructions(function) == _instructions(empty)


def _instructions(function: FunctionType | Callable[[], None]) -> list[tuple[str, Any]]:
    return [(step.opname, step.argval) for step in dis.get_instructions(function)]


def _source(function: FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except OSError:  # typed at a prompt that keeps no source
        return ""
