"""All exercises and questions by id: `TOPIC.NAME`, found in `xailab.course.exercises.TOPIC`."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

from xailab.core import curriculum
from xailab.course import exercises

Kind = Literal["code", "predict", "criticize"]
Check = Callable[[Any], str | None]


@dataclass(frozen=True)
class Exercise:
    """One exercise: what it is worth, its hints, and the function that checks an answer."""

    id: str
    kind: Kind
    points: int
    minutes: int
    difficulty: int
    hints: tuple[str, ...]
    check: Check

    def __post_init__(self) -> None:
        _require(self.kind in get_args(Kind), self.id, f"kind is {self.kind!r}")
        _require(self.points > 0 and self.minutes > 0, self.id, "points and minutes start at 1")
        _require(1 <= self.difficulty <= 5, self.id, f"difficulty is {self.difficulty}, not 1 to 5")
        _require(len(self.hints) <= 3, self.id, f"{len(self.hints)} hints; at most 3")


@dataclass(frozen=True)
class Question:
    """One quiz question: every choice has its own feedback, one choice is right."""

    id: str
    text: str
    choices: Mapping[str, str]
    right: str

    def __post_init__(self) -> None:
        _require(len(self.choices) > 1, self.id, "a question needs two choices")
        _require(self.right in self.choices, self.id, f"{self.right!r} is none of the choices")
        _require(all(self.choices.values()), self.id, "every choice needs feedback")


def _require(met: bool, id: str, message: str) -> None:
    if not met:
        raise ValueError(f"{id}: {message}")


_Entry = TypeVar("_Entry", Exercise, Question)
_exercises: dict[str, Exercise] = {}
_questions: dict[str, Question] = {}


def exercise(
    id: str,
    *,
    kind: Kind,
    points: int,
    minutes: int,
    difficulty: int = 1,
    hints: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Register the decorated function as the check of the exercise `id`.

    Args:
        id: `TOPIC.NAME`, with TOPIC the name of the module it stands in.
        kind: "code", "predict" or "criticize".
        points: what it counts in `progress()`.
        minutes: how long it takes.
        difficulty: 1 (easy) to 5.
        hints: up to three, the last nearly the answer.

    Returns:
        A decorator for `check(answer)`, which returns None or a remark, or raises `Mistake`.

    Raises:
        ValueError: the id does not fit its module, is taken, or a value is out of range.
    """

    def register(check: Check) -> Check:
        _require(check.__module__.endswith(f".{topic_of(id)}"), id, f"stands in {check.__module__}")
        entry = Exercise(id, kind, points, minutes, difficulty, tuple(hints), check)
        taken = _exercises.get(id)
        # The same name again is a reloaded module; another name is a copied id.
        _require(not taken or taken.check.__name__ == check.__name__, id, "this id is taken")
        _exercises[id] = entry
        return check

    return register


def question(id: str, text: str, *, choices: Mapping[str, str], right: str) -> None:
    """Register a quiz question: `choices` maps each choice to its feedback, `right` is one of them.

    Raises:
        ValueError: fewer than two choices, a choice without feedback, `right` not among them.
    """
    topic_of(id)
    entry = Question(id, text, dict(choices), right)
    _require(_questions.get(id, entry).text == text, id, "this id is taken")
    _questions[id] = entry


def find_exercise(id: str) -> Exercise:
    """Return the exercise with this id; `ValueError` names near ids."""
    return _find(id, _exercises, "exercise")


def find_question(id: str) -> Question:
    """Return the question with this id; `ValueError` names near ids."""
    return _find(id, _questions, "question")


def _find(id: str, entries: dict[str, _Entry], what: str) -> _Entry:
    topic(topic_of(id))
    if id not in entries:
        raise ValueError(f"no {what} {id!r}{_near(id, entries)}")
    return entries[id]


def exercises_of(name: str) -> list[Exercise]:
    """Return the exercises of a topic in the order in which they are written."""
    topic(name)
    return [entry for id, entry in _exercises.items() if topic_of(id) == name]


def questions_of(name: str) -> list[Question]:
    """Return the questions of a topic in the order in which they are written."""
    topic(name)
    return [entry for id, entry in _questions.items() if topic_of(id) == name]


def topics() -> list[str]:
    """Return the topics that have exercises, in the order of their lessons."""
    names = [module.name for module in pkgutil.iter_modules(exercises.__path__)]
    return sorted(names, key=lambda name: curriculum.lesson(name).number)


def lesson_of(name: str) -> str:
    """Return the file name of a topic's notebooks: `lesson_of("backprop")` is "01_backprop"."""
    return curriculum.lesson(name).stem


def minutes_of(id: str) -> int:
    """Return the minutes of an exercise; 0 for one that is not registered.

    >>> minutes_of("nothing.here")
    0
    """
    try:
        return find_exercise(id).minutes
    except ValueError:
        return 0


def topic(name: str) -> ModuleType:
    """Import the exercises of a topic; `ValueError` names near topics."""
    known = [module.name for module in pkgutil.iter_modules(exercises.__path__)]
    if name not in known:
        raise ValueError(f"no exercises for {name!r}{_near(name, known)}")
    return import_module(f"{exercises.__name__}.{name}")


def topic_of(id: str) -> str:
    """Return TOPIC of `TOPIC.NAME`; `ValueError` for any other form."""
    first, dot, name = id.partition(".")
    if not (dot and first.isidentifier() and name.isidentifier()):
        raise ValueError(f'an id is written "topic.name", not {id!r}')
    return first


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:5]
    return f"; did you mean {', '.join(near)}?" if near else "; none are registered"
