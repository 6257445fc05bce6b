"""Progress of the learner: one JSON file on this machine; nothing leaves it."""

import json
import os
import warnings
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from filelock import FileLock

from xailab.core.files import home, write_atomically
from xailab.course import messages, registry

VERSION = 1
PATIENCE = 5.0  # seconds to wait for another notebook's write, which takes milliseconds


def strict() -> bool:
    """Return whether `XAILAB_STRICT=1` turns failed and missing answers into errors."""
    return os.environ.get("XAILAB_STRICT") == "1"


def place() -> Path | None:
    """Return the progress file: `XAILAB_PROGRESS`, or `progress.json` at home, or none when strict.

    Builds and grading run strict: they must not count as the progress of whoever runs them.
    """
    if chosen := os.environ.get("XAILAB_PROGRESS"):
        return Path(chosen)
    return None if strict() else home() / "progress.json"


def read() -> dict[str, dict[str, Any]]:
    """Return exercise id -> {"passed", "tries", "guess"}; a corrupt file is put aside."""
    path = place()
    if path is None or not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            raise ValueError(f"version {stored['version']}, not {VERSION}")
        return {str(id): dict(record) for id, record in stored["exercises"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _put_aside(path, error)
        return {}


def _put_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.broken")
    with suppress(FileNotFoundError):  # another notebook was quicker
        os.replace(path, aside)
    warnings.warn(f"progress could not be read ({error}); it now is {aside}", stacklevel=4)


def record(id: str, *, passed: bool, guess: str | None = None) -> None:
    """Note one try; what has been passed stays passed.

    A full or read-only disk, or one that another process holds too long, only warns.
    """
    path = place()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock when its holder ends, so a crash blocks nobody.
        with FileLock(f"{path}.lock", timeout=PATIENCE, poll_interval=0.01):
            _add(path, id, passed, guess)
    except OSError as error:  # filelock.Timeout is one
        warnings.warn(f"progress was not saved: {error}", stacklevel=3)


def _add(path: Path, id: str, passed: bool, guess: str | None) -> None:
    records = read()  # read again under the lock: another notebook may have written
    old = records.get(id, {})
    new: dict[str, Any] = {
        "passed": passed or bool(old.get("passed")),
        "tries": int(old.get("tries", 0)) + 1,
    }
    if guess is not None:
        new["guess"] = guess
    records[id] = new
    stored = {"version": VERSION, "exercises": dict(sorted(records.items()))}
    write_atomically(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def progress() -> None:
    """Show exercises and points done in each lesson, and in all."""
    rows = [_row(topic) for topic in registry.topics()]
    done, exercises, points, total = (sum(column) for column in list(zip(*rows, strict=True))[1:])
    rows.append(("all lessons", done, exercises, points, total))
    messages.show(_plain(rows), _html(rows))


_Row = tuple[str, int, int, int, int]


def _row(topic: str) -> _Row:
    entries, records = registry.exercises_of(topic), read()
    done = [entry for entry in entries if records.get(entry.id, {}).get("passed")]
    points = sum(entry.points for entry in done), sum(entry.points for entry in entries)
    return registry.lesson_of(topic), len(done), len(entries), *points


def _plain(rows: list[_Row]) -> str:
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{lesson:<{width}}  {done} of {all_} exercises, {points} of {total} points"
        for lesson, done, all_, points, total in rows
    )


def _html(rows: list[_Row]) -> str:
    body = "".join(
        f"<tr><th scope='row'>{escape(lesson)}</th><td>{done} of {all_}</td>"
        f"<td>{points} of {total}</td></tr>"
        for lesson, done, all_, points, total in rows
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Lesson", "Exercises", "Points"))
    return f"<table><caption>Your progress</caption><tr>{head}</tr>{body}</table>"
