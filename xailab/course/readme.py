"""What the README takes from the built lessons: the table of lessons, and its pictures."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

from xailab.core.files import write_atomically
from xailab.course.lesson import Lesson
from xailab.course.runs import Run

BEGIN, END = "<!-- lessons:begin -->", "<!-- lessons:end -->"
_TAG = "readme-"  # a cell tagged "readme-cat" makes docs/pictures/cat.png


def problems(lessons: list[Lesson], root: Path, *, write: bool) -> list[str]:
    """Compare the README with the lessons, or renew what it takes from them.

    Args:
        lessons: all lessons.
        root: the folder of the course; without a README there is nothing to do.
        write: renew; otherwise only tell what is old.

    Returns:
        What is wrong or old.
    """
    readme = root / "README.md"
    if not readme.exists():
        return []
    try:
        wanted = {readme: _with_table(readme.read_text(encoding="utf-8"), lessons, root).encode()}
        wanted |= pictures(lessons, root)
    except ValueError as error:
        return [f"no table of lessons: {error}"]
    old = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    if write:
        for path in old:
            write_atomically(path, wanted[path])
        return []
    return [f"{path.relative_to(root)} is old: run `xailab build`" for path in old]


def _with_table(text: str, lessons: list[Lesson], root: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(lessons, root)}\n{END}{after}"


def table(lessons: list[Lesson], root: Path) -> str:
    """Return the table of lessons in Markdown, their times together, and what is planned.

    Raises:
        ValueError: the opening of a lesson lacks its title or question.
    """
    rows = [_row(lesson, Run.read(root, lesson.name)) for lesson in lessons]
    head = "| | Lesson | Question | Core | Deeper | Run | Memory |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *rows, "", _times(lessons), *_planned(lessons)])


def _row(lesson: Lesson, run: Run | None) -> str:
    took = f"{run.seconds:.0f} s | {run.peak_mb} MB" if run else "- | -"
    deeper = f"{lesson.deeper_minutes} min" if lesson.deeper_minutes else "-"
    return (
        f"| {lesson.entry.number:02} | [{lesson.title}](notebooks/{lesson.stem}.ipynb) "
        f"([solution](solutions/{lesson.stem}.ipynb)) | {lesson.question} "
        f"| {lesson.core_minutes} min | {deeper} | {took} |"
    )


def _times(lessons: list[Lesson]) -> str:
    core = sum(lesson.core_minutes for lesson in lessons) / 60
    deeper = sum(lesson.deeper_minutes for lesson in lessons) / 60
    more = f", the deeper sections {deeper:.0f} more" if deeper else ""
    return f"Text, code and exercises of the cores take {core:.0f} hours together{more}."


def _planned(lessons: list[Lesson]) -> list[str]:
    planned = [each for each in lessons[0].course.entries if each.planned]
    listed = ", ".join(f"{each.number:02} {each.title}" for each in planned)
    return ["", f"Planned, not written yet: {listed}."] if planned else []


def pictures(lessons: list[Lesson], root: Path) -> dict[Path, bytes]:
    """Return the pictures of the README, by path: each the output of a cell tagged for it."""
    return {
        root / "docs" / "pictures" / f"{tag.removeprefix(_TAG)}.png": b64decode(data["image/png"])
        for lesson in lessons
        for cell in _solution(lesson, root).get("cells", [])
        for tag in cell["metadata"].get("tags", [])
        if tag.startswith(_TAG)
        for data in [output.get("data", {}) for output in cell["outputs"]]
        if "image/png" in data
    }


def _solution(lesson: Lesson, root: Path) -> dict[str, Any]:
    stored = root / "solutions" / f"{lesson.stem}.ipynb"
    return json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
