"""All exercises and questions by id: `TOPIC.NAME`, found in `xailab.course.exercises.TOPIC`."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

from xailab.core import curriculum
from xailab.course import exercises
from xailab.course.compare import expect_text

Kind = Literal["code", "predict", "criticize"]
Check = Callable[[Any], str | None]


SECONDS = 30.0  # for one check; the longest takes 7 on two busy cores


@dataclass(frozen=True)
class Exercise:
    """One exercise: what it is worth, its hints, and the function that checks an answer.

    Attributes:
        seconds: how long the check may run before it is ended.
        model: the model answer of a free text.
        rubric: what a good free text says: name of a point -> one sentence. A person ticks.
    """

    id: str
    kind: Kind
    points: int
    minutes: int
    difficulty: int
    hints: tuple[str, ...]
    check: Check
    seconds: float = SECONDS
    model: str = ""
    rubric: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        free, size = self.kind == "criticize", len(self.rubric)
        _require(free == bool(self.model), self.id, "a free text, and no other, has a model answer")
        _require(
            4 <= size <= 6 if free else not size, self.id, f"{size} points to tick, not 4 to 6"
        )
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
    kind: Literal["code", "predict"],
    points: int,
    minutes: int,
    difficulty: int = 1,
    hints: tuple[str, ...] = (),
    seconds: float = SECONDS,
) -> Callable[[Check], Check]:
    """Register the decorated function as the check of the exercise `id`.

    Args:
        id: `TOPIC.NAME`, with TOPIC the name of the module it stands in.
        kind: "code" or "predict"; a free text is registered by `criticize`.
        points: what it counts in `progress()`.
        minutes: how long it takes.
        difficulty: 1 (easy) to 5.
        hints: up to three, the last nearly the answer.
        seconds: how long the check may run.

    Returns:
        A decorator for `check(answer)`, which returns None or a remark, or raises `Mistake`.

    Raises:
        ValueError: the id does not fit its module, is taken, or a value is out of range.
    """

    def register(check: Check) -> Check:
        _require(check.__module__.endswith(f".{topic_of(id)}"), id, f"stands in {check.__module__}")
        entry = Exercise(id, kind, points, minutes, difficulty, tuple(hints), check, seconds)
        taken = _exercises.get(id)
        # The same name again is a reloaded module; another name is a copied id.
        _require(not taken or taken.check.__name__ == check.__name__, id, "this id is taken")
        _exercises[id] = entry
        return check

    return register


def criticize(
    id: str,
    *,
    points: int,
    minutes: int,
    difficulty: int = 1,
    hints: tuple[str, ...] = (),
    model: str,
    rubric: Mapping[str, str],
) -> None:
    """Register a free text, which no machine scores: a person ticks the points of its rubric.

    Args:
        id: as for `exercise`; so are points, minutes, difficulty and hints.
        model: the model answer, shown once the learner has written one.
        rubric: four to six points: name -> one sentence that a good answer says in its own words.

    Raises:
        ValueError: the id is taken, or a value is out of range.
    """
    topic_of(id)
    told = " ".join(model.split())
    steps, points_to_tick = tuple(hints), dict(rubric)
    entry = Exercise(
        id, "criticize", points, minutes, difficulty, steps, expect_text,
        model=told, rubric=points_to_tick,
    )  # fmt: skip
    _require(_exercises.get(id, entry).model == told, id, "this id is taken")
    _exercises[id] = entry


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
