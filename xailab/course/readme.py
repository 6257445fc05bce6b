"""What the README takes from the built lessons: the table of lessons, and its pictures."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

from xailab.core.files import write_atomically
from xailab.course.lesson import Lesson

BEGIN, END = "<!-- lessons:begin -->", "<!-- lessons:end -->"
MEASURED = ("seconds", "peak_mb")
_TAG = "readme-"  # a cell tagged "readme-cat" makes docs/pictures/cat.png


def problems(lessons: list[Path], root: Path, *, write: bool) -> list[str]:
    """Compare the README with the lessons, or renew what it takes from them.

    Args:
        lessons: the sources of all lessons.
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
    except ValueError as error:
        return [f"no table of lessons: {error}"]
    wanted |= pictures(lessons, root)
    old = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    if write:
        for path in old:
            write_atomically(path, wanted[path])
        return []
    return [f"{path.relative_to(root)} is old: run `xailab build`" for path in old]


def _with_table(text: str, lessons: list[Path], root: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(lessons, root)}\n{END}{after}"


def table(lessons: list[Path], root: Path) -> str:
    """Return the table of lessons in Markdown; measured facts are the stored ones.

    Raises:
        ValueError: the opening of a lesson lacks its title, question or time.
    """
    rows = [_row(Lesson.read(path), measured(path, root)) for path in lessons]
    head = "| | Lesson | Question | Read and do | Run | Memory |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def measured(lesson: Path, root: Path) -> dict[str, Any]:
    """Return `seconds`, `peak_mb` and `source_sha256` of a built lesson; empty when not built."""
    facts = _solution(lesson, root).get("metadata", {}).get("xailab", {})
    return facts if all(key in facts for key in MEASURED) else {}


def pictures(lessons: list[Path], root: Path) -> dict[Path, bytes]:
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


def _solution(lesson: Path, root: Path) -> dict[str, Any]:
    stored = root / "solutions" / f"{lesson.stem}.ipynb"
    return json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}


def _row(lesson: Lesson, facts: dict[str, Any]) -> str:
    run = f"{facts['seconds']:.0f} s | {facts['peak_mb']} MB" if facts else "- | -"
    return (
        f"| {lesson.number} | [{lesson.title}](notebooks/{lesson.name}.ipynb) "
        f"([solution](solutions/{lesson.name}.ipynb)) | {lesson.question} "
        f"| {lesson.reading_minutes} min | {run} |"
    )
