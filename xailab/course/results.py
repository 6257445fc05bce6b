"""What the learner has done: `progress()` in a lesson, `xailab progress` for the whole course."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from xailab.core import curriculum
from xailab.core.curriculum import Curriculum
from xailab.course import messages, records, registry, rubrics, whereabouts
from xailab.course.registry import Exercise

if TYPE_CHECKING:
    from rich.table import Table

_WORDS = {"open": "○ open", "done": "● done", "you": "☑ ticked by you", "teacher": "☑ by a teacher"}


@dataclass(frozen=True)
class Result:
    """One exercise and how far it is.

    Attributes:
        entry: the exercise.
        state: "open", "done", or for a free text who ticked its points: "you", "teacher".
        points: earned; a free text earns them by ticks alone.
    """

    entry: Exercise
    state: str
    points: float

    @classmethod
    def of(cls, entry: Exercise, record: records.Record) -> "Result":
        """Return the result that a record gives; records of older forms have no ticks."""
        if not record.get("passed"):
            return cls(entry, "open", 0)
        if entry.kind != "criticize":
            return cls(entry, "done", entry.points)
        names = rubrics.ticked(entry, record)
        return cls(entry, record.get("by", "done"), rubrics.worth(entry, names))


def of_lesson(name: str) -> list[Result]:
    """Return the results of a lesson's exercises, in their order."""
    stored = records.read()
    return [Result.of(entry, stored.get(entry.id, {})) for entry in registry.exercises_of(name)]


def progress(lesson: str | None = None) -> None:
    """Show what is done in a lesson, and link what is still open.

    Args:
        lesson: its name ("cam"); None: the lesson in whose notebook this is called, and outside of
            one the whole course, as `xailab progress` shows it.

    Raises:
        ValueError: there is no lesson with exercises of this name.
    """
    name = lesson or whereabouts.lesson()
    if name is None:
        return show_course()
    results = of_lesson(name)
    messages.show(_plain(name, results), _html(name, results))


def _sum(results: list[Result]) -> str:
    done = sum(result.state != "open" for result in results)
    return f"{done} of {len(results)} exercises, {_points(results)} points"


def _points(results: list[Result]) -> str:
    earned = round(sum(result.points for result in results), 2)
    return f"{earned:g} of {sum(result.entry.points for result in results)}"


def _next(results: list[Result]) -> str:
    waiting = [r.entry.id for r in results if r.state == "done" and r.entry.kind == "criticize"]
    return f"Nothing ticked yet: {', '.join(waiting)}." if waiting else ""


def _plain(name: str, results: list[Result]) -> str:
    width = max(len(result.entry.id) for result in results)
    lines = [
        f"{_WORDS[r.state]:15}  {r.entry.id:<{width}}  {r.points:g} of {r.entry.points}"
        f"  ({r.entry.kind}, {r.entry.minutes} min)"
        for r in results
    ]
    return "\n".join(filter(None, [f"{name}: {_sum(results)}", *lines, _next(results)]))


def _html(name: str, results: list[Result]) -> str:
    columns = ("Exercise", "Kind", "Minutes", "State", "Points")
    head = "".join(f"<th scope='col'>{column}</th>" for column in columns)
    rows = "".join(_row(result) for result in results)
    caption = escape(f"{name}: {_sum(results)}")
    note = _next(results)
    return (
        f"<table><caption>{caption}</caption><tr>{head}</tr>{rows}</table>"
        f"{f'<p>{escape(note)}</p>' if note else ''}"
    )


def _row(result: Result) -> str:
    entry, name = result.entry, escape(result.entry.id)
    address = whereabouts.link(entry.id) if result.state == "open" else None
    linked = f"<a href='{escape(address)}'>{name}</a>" if address else name
    return (
        f"<tr><th scope='row'>{linked}</th><td>{entry.kind}</td><td>{entry.minutes}</td>"
        f"<td>{_WORDS[result.state]}</td><td>{result.points:g} of {entry.points}</td></tr>"
    )


def show_course() -> None:
    """Print the table of the whole course, in the width that there is."""
    from rich.console import Console

    Console().print(course_table())


def course_table() -> "Table":
    """Return the whole course as a table: by part and lesson, what is done, ticked and earned."""
    from rich.table import Table

    columns = ("lesson", "done", "ticked", "points")
    table = Table(*columns, box=None, pad_edge=False, show_footer=True)
    every: list[Result] = []
    with_exercises = set(registry.topics())
    for title, names in Curriculum.read(curriculum.place()).parts.items():
        rows = {name: of_lesson(name) for name in names if name in with_exercises}
        if rows:
            part = [result for results in rows.values() for result in results]
            table.add_row(title.partition(":")[0], *_counts(part), style="bold")
            every += part
        for name, results in rows.items():
            table.add_row(f"  {curriculum.lesson(name).words}", *_counts(results))
    for column, text in zip(table.columns, ("whole course", *_counts(every)), strict=True):
        column.footer = text
    return table


def _counts(results: list[Result]) -> tuple[str, str, str]:
    done = sum(result.state != "open" for result in results)
    texts = [result for result in results if result.entry.kind == "criticize"]
    ticked = sum(result.state in ("you", "teacher") for result in texts)
    return f"{done} of {len(results)}", f"{ticked} of {len(texts)}", _points(results)
