"""The table of the course, `lessons/course.toml`: which lessons there are, in which order.

A lesson has a name; its number is its place in the table, so nothing else may hold a number. What
is read here is announced as the audit event `xailab.curriculum`: the build notes which lines of the
table a lesson depends on.
"""

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One lesson of the table.

    Attributes:
        name: of its source, `lessons/NAME.py`.
        number: its place, from 0.
        title: how links call it.
        needs: names of the lessons that come before it.
        planned: whether it is still to be written.
        form: "old" if it was written before there were core and deeper sections.
    """

    name: str
    number: int
    title: str
    needs: tuple[str, ...] = ()
    planned: bool = False
    form: str = "new"

    @property
    def stem(self) -> str:
        """The file name of its notebooks: `09_cam`."""
        return f"{self.number:02}_{self.name}"

    @property
    def words(self) -> str:
        """Number and title, and whether it is still planned: `09 Class activation maps`."""
        return f"{self.number:02} {self.title}{' (planned)' if self.planned else ''}"

    @property
    def link(self) -> str:
        """The words in Markdown, linked to the notebook in the same folder if there is one."""
        return self.words if self.planned else f"[{self.words}]({self.stem}.ipynb)"


@dataclass(frozen=True)
class Step:
    """One step of a track: when, and which lessons or what else."""

    when: str
    lessons: tuple[str, ...] = ()
    graded: str = ""
    text: str = ""


@dataclass(frozen=True)
class Track:
    """A way through the course."""

    name: str
    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Curriculum:
    """The table: lessons in order, parts (title -> names), tracks by name."""

    entries: tuple[Entry, ...]
    parts: dict[str, tuple[str, ...]]
    tracks: dict[str, Track]

    @classmethod
    def read(cls, path: Path) -> "Curriculum":
        """Read and check a table.

        Raises:
            ValueError: a name twice, a lesson that needs a later one, a track that names no lesson.
        """
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
        try:
            return cls._checked(stored)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path.name}: {error}") from None

    @classmethod
    def _checked(cls, stored: dict[str, Any]) -> "Curriculum":
        rows = [row for part in stored["parts"] for row in part["lessons"]]
        entries = tuple(_entry(number, row) for number, row in enumerate(rows))
        _require_order(entries)
        parts = {p["title"]: tuple(row["name"] for row in p["lessons"]) for p in stored["parts"]}
        short = {title.partition(":")[0]: names for title, names in parts.items()}
        tracks = [_track(track, short) for track in stored.get("tracks", [])]
        table = cls(entries, parts, {track.name: track for track in tracks})
        for name in (name for track in tracks for step in track.steps for name in step.lessons):
            table.find(name)
        return table

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries}

    def find(self, name: str) -> Entry:
        """Return the lesson of this name; `ValueError` lists near names."""
        if name in self._by_name:
            return self._by_name[name]
        near = get_close_matches(name, self._by_name, cutoff=0.4) or list(self._by_name)
        raise ValueError(f"no lesson {name!r}; did you mean {', '.join(near)}?")

    @property
    def written(self) -> list[Entry]:
        """The lessons that have a source."""
        return [entry for entry in self.entries if not entry.planned]

    def neighbors(self, name: str) -> tuple[Entry | None, Entry | None]:
        """Return the written lessons before and after one, or None where there is none."""
        at = self.written.index(self.find(name))
        before = self.written[at - 1] if at else None
        return before, next(iter(self.written[at + 1 :]), None)


def _entry(number: int, row: dict[str, Any]) -> Entry:
    if row.get("form", "old") != "old":
        raise ValueError(f'{row["name"]}: form is "old" or not given, not {row["form"]!r}')
    return Entry(number=number, **(row | {"needs": tuple(row["needs"])}))


def _require_order(entries: tuple[Entry, ...]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise ValueError(f"{entry.name} stands there twice")
        if later := set(entry.needs) - seen:
            raise ValueError(f"{entry.name} needs {sorted(later)}, not before it")
        seen.add(entry.name)


def _track(track: dict[str, Any], parts: dict[str, tuple[str, ...]]) -> Track:
    return Track(
        track["name"], track["title"], tuple(_step(step, parts) for step in track["steps"])
    )


def _step(step: dict[str, Any], parts: dict[str, tuple[str, ...]]) -> Step:
    named = step.get("lessons", [])
    lessons = tuple(name for entry in named for name in parts.get(entry, (entry,)))
    return Step(**(step | {"lessons": lessons}))


def place() -> Path:
    """Return the table: the repository's, or the wheel's copy.

    Raises:
        FileNotFoundError: neither is there (a broken installation).
    """
    here = Path(__file__).resolve()
    places = (here.parents[2] / "lessons" / "course.toml", here.parent / "_course.toml")
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"no table of lessons at {places[0]} or {places[1]}: reinstall xailab")


@cache
def _table(path: Path) -> Curriculum:
    return Curriculum.read(path)


def lesson(name: str) -> Entry:
    """Return one lesson of this course; `ValueError` lists near names.

    >>> lesson("start_here").stem
    '00_start_here'
    """
    sys.audit("xailab.curriculum", name)
    return _table(place()).find(name)


def lessons() -> Iterator[Entry]:
    """Yield the lessons of this course in their order, planned ones too.

    >>> next(lessons()).words
    '00 Start here'
    """
    for entry in _table(place()).entries:
        sys.audit("xailab.curriculum", entry.name)
        yield entry
