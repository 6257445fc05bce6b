"""Comparisons that name the mistake, so that the check of an exercise fits in a few lines."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


class Mistake(Exception):
    """What is wrong with an answer, in words for the learner."""


def as_array(value: Any, what: str) -> np.ndarray:
    """Return numbers as a float array; tensors are detached and brought to the CPU.

    Raises:
        Mistake: `value` is None, a stub or anything else that is not numbers.
    """
    if value is None or value is ...:
        raise Mistake(f"{said(what, '{is}')} {value}: does your code return a value on every path?")
    try:
        return _numbers(value)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise Mistake(f"{what} should be numbers, but a {kind} came: {as_text(value)}") from None


def _numbers(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=float)


def as_text(value: Any, limit: int = 200) -> str:
    """Return a value as one short text: numbers to four digits, long arrays cut in the middle.

    >>> as_text([0.123456, 2.0])
    '[0.1235, 2]'
    """
    if isinstance(value, str | bool | None):
        value = str(value)
        return value if len(value) <= limit else f"{value[:limit]}..."
    try:
        numbers = _numbers(value)
    except (TypeError, ValueError):
        return as_text(repr(value), limit)
    formats: Any = {"float_kind": lambda number: f"{number:.4g}"}
    text = np.array2string(numbers, separator=", ", threshold=24, edgeitems=2, formatter=formats)
    text = re.sub(r"\n\s*\n", "\n", text)  # numpy parts the blocks of many axes by blank lines
    return f"{text} (shape {numbers.shape})" if numbers.size > 24 else text


_PLURAL = {
    "is": "are",
    "has": "have",
    "holds": "hold",
    "carries": "carry",
    "its": "their",
    "it": "them",
}
_SINGULAR = {word: word for word in _PLURAL}


def said(what: str, text: str) -> str:
    """Return a sentence about `what`, its verbs in braces agreeing in number.

    >>> said("the loss", "{is} large"), said("the rows of x", "{is} large")
    ('the loss is large', 'the rows of x are large')
    """
    return f"{what} {text.format(**(_PLURAL if is_plural(what) else _SINGULAR))}"


def is_plural(what: str) -> bool:
    """Return whether a phrase names several things: the last word before "of", "for", ... tells.

    >>> [is_plural(what) for what in ("the map", "conv: the maps of two", "3 of 8 rows", "a class")]
    [False, True, True, False]
    """
    phrase = re.sub(r"\(.*?\)", "", what).split(": ")[-1]
    head = re.split(r",| (?:of|for|at|in|with|where|when|by|over|from)\b", phrase)[0].strip()
    if head.isdigit():
        return int(head) != 1
    words = re.findall(r"[^\W\d]+(?:'\w)?", head)
    last = words[-1] if words else ""
    return last != "bias" and bool(re.search(r"(?<![sui'])s$", last))


def expect_shape(got: Any, shape: tuple[int, ...], what: str) -> None:
    """Raise `Mistake` unless `got` has this shape; names a forgotten, extra or swapped axis."""
    came = as_array(got, what).shape
    if came == tuple(shape):
        return
    wanted = said(what, f"should have shape {shape}, but {{has}} {came}")
    raise Mistake(f"{wanted}{_shape_reason(came, shape)}")


def _shape_reason(came: tuple[int, ...], want: tuple[int, ...]) -> str:
    if [n for n in came if n != 1] == [n for n in want if n != 1]:
        more = len(came) > len(want)
        return f": an axis of length 1 is {'left over' if more else 'missing'} or out of place."
    if sorted(came) == sorted(want):
        return ": two axes are swapped (transpose)."
    if len(came) < len(want):
        return ": an axis was summed or averaged away."
    return "."


def expect_finite(got: Any, what: str, why: str = "") -> None:
    """Raise `Mistake` where `got` holds nan or inf; `why` says what usually causes it here."""
    numbers = as_array(got, what)
    if not np.isfinite(numbers).all():
        raise Mistake(f"{said(what, '{holds}')} nan or inf: {as_text(numbers)}. {why}".rstrip())


def expect_detached(got: Any, what: str) -> None:
    """Raise `Mistake` where a tensor still hangs in the autograd graph."""
    if getattr(got, "requires_grad", False):
        raise Mistake(said(what, "still {carries} {its} graph: return {it} with .detach()."))


def expect_close(
    got: Any,
    want: Any,
    what: str,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    known: Mapping[str, Any] | None = None,
) -> None:
    """Raise `Mistake` unless `got` equals `want` in shape and numbers; name the mistake if known.

    Args:
        got: the learner's numbers (array, tensor, list or number).
        want: the right numbers.
        what: what is compared, to open the message: "softmax of [0, ln 3]".
        rtol: allowed difference, relative to `want`.
        atol: allowed difference, absolute.
        known: for this exercise, what the learner did (a sentence) -> the numbers that gives. A
            wrong axis or a forgotten factor is told from other mistakes by its result.

    Raises:
        Mistake: with the reason (one of `known`, shape, nan, sign, missing ReLU, constant factor)
            and with the numbers expected and received.
    """

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol))

    came, right = as_array(got, what), as_array(want, what)
    if same(came, right):
        return
    for reason, wrong in (known or {}).items():
        if same(came, as_array(wrong, what)):
            raise Mistake(_compared(f"{what}: {reason}", came, right))
    expect_shape(came, right.shape, what)
    expect_finite(came, what, "Large exponents, log(0) or 0/0 do that.")
    reason = _number_reason(came, right, same)
    raise Mistake(_compared(said(what, reason), came, right))


def _number_reason(
    came: np.ndarray, want: np.ndarray, same: Callable[[np.ndarray, np.ndarray], bool]
) -> str:
    if same(-came, want):
        return "{has} the wrong sign."
    if same(came, np.abs(want)):
        return "{has} lost {its} signs: an absolute value too many?"
    if same(np.maximum(came, 0), want):
        return "{has} negative values where 0 is expected: is a ReLU missing?"
    if same(came, np.maximum(want, 0)):
        return "{has} 0 where negative values are expected: a ReLU too many?"
    scale = float((came * want).sum() / max(float((want * want).sum()), 1e-300))
    if want.size > 1 and scale != 0 and same(came / scale, want):
        return (
            f"{{is}} {scale:.4g} times what is expected: a sum for a mean, or a forgotten factor?"
        )
    return "{is} not what is expected."


def _compared(reason: str, came: np.ndarray, want: np.ndarray) -> str:
    both = (("expected:", want), ("came:", came))
    below = "\n" + " " * len("expected: ")
    lines = [reason, *(f"{name:<10}{as_text(a)}".replace("\n", below) for name, a in both)]
    if came.shape == want.shape and want.size > 24:
        at = np.unravel_index(int(np.nanargmax(np.abs(came - want))), want.shape)
        spot = ", ".join(str(int(i)) for i in at)
        lines.append(
            f"largest difference at [{spot}]: {want[at]:.4g} expected, {came[at]:.4g} came"
        )
    return "\n".join(lines)


def expect_number(guess: Any, low: float, high: float, what: str = "your guess") -> None:
    """Raise `Mistake` unless `guess` is one number between `low` and `high`, both allowed."""
    number = as_array(guess, what)
    if number.ndim or not low <= float(number) <= high:
        raise Mistake(f"{what} should be a number from {low:g} to {high:g}, not {as_text(guess)}.")


def expect_share(guess: Any) -> None:
    """Raise `Mistake` unless `guess` is a share, 0 to 1; percent and quotes are named."""
    if isinstance(guess, int | float) and 1 < guess <= 100:
        raise Mistake(f"a share runs from 0 to 1: write {guess}% as {guess / 100:g}.")
    if isinstance(guess, str) and guess.strip().replace(".", "", 1).isdigit():
        raise Mistake(f"write the number without quotes: {guess.strip()}.")
    expect_number(guess, 0, 1)


def expect_choice(guess: Any, choices: Iterable[Any], what: str = "your guess") -> None:
    """Raise `Mistake` unless `guess` is one of `choices`; capitals and spaces do not matter."""
    allowed = list(choices)
    if _bare(guess) not in map(_bare, allowed):
        names = ", ".join(map(repr, allowed))
        raise Mistake(f"{what} should be one of {names}, not {guess!r}.")


def _bare(value: Any) -> Any:
    return value.strip().casefold() if isinstance(value, str) else value


def expect_text(answer: Any) -> None:
    """Raise `Mistake` unless the answer is a text; what it says, no machine can judge."""
    if not isinstance(answer, str):
        raise Mistake(f"write your answer as text in quotes; a {type(answer).__name__} came.")
