"""Records of the learner: one JSON file on this machine; nothing leaves it."""

import json
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from xailab.core.files import home, write_atomically

VERSION = 1
PATIENCE = 5.0  # seconds to wait for another notebook's write, which takes milliseconds

Record = dict[str, Any]
By = Literal["you", "teacher"]


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


def read() -> dict[str, Record]:
    """Return exercise id -> {"passed", "tries"}, with "guess" or "ticked" and "by" where there are.

    A corrupt file is put aside.
    """
    return _stored()["exercises"]


def answers() -> dict[str, dict[str, str]]:
    """Return the answers to the concept inventory: "before" or "after" -> question -> choice."""
    return _stored()["inventory"]


def _stored() -> dict[str, Any]:
    path = place()
    empty: dict[str, Any] = {"version": VERSION, "exercises": {}, "inventory": {}}
    if path is None or not path.exists():
        return empty
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            raise ValueError(f"version {stored['version']}, not {VERSION}")
        # Files written before there was an inventory have none.
        parts = {"exercises": stored["exercises"], "inventory": stored.get("inventory", {})}
        return empty | {
            name: {str(key): dict(value) for key, value in part.items()}
            for name, part in parts.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _put_aside(path, error)
        return empty


def _put_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.broken")
    with suppress(FileNotFoundError):  # another notebook was quicker
        os.replace(path, aside)
    warnings.warn(f"progress could not be read ({error}); it now is {aside}", stacklevel=5)


def record(id: str, *, passed: bool, guess: str | None = None) -> None:
    """Note one try; what has been passed stays passed.

    A full or read-only disk, or one that another process holds too long, only warns.
    """

    def tried(stored: dict[str, Any]) -> None:
        entry = stored["exercises"].setdefault(id, {})
        entry["passed"] = passed or bool(entry.get("passed"))
        entry["tries"] = int(entry.get("tries", 0)) + 1
        if guess is not None:
            entry["guess"] = guess

    _change(tried)


def record_ticks(id: str, names: Iterable[str], by: By) -> None:
    """Note which points of its rubric a free text makes, and who says so; warns as `record`."""

    def ticked(stored: dict[str, Any]) -> None:
        entry = stored["exercises"].setdefault(id, {"passed": True, "tries": 0})
        entry |= {"ticked": list(names), "by": by}

    _change(ticked)


def record_answers(when: str, chosen: dict[str, str]) -> None:
    """Note the answers to the concept inventory "before" or "after"; warns as `record`."""
    _change(lambda stored: stored["inventory"].update({when: dict(chosen)}))


def _change(change: Callable[[dict[str, Any]], None]) -> None:
    path = place()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock when its holder ends, so a crash blocks nobody.
        with FileLock(f"{path}.lock", timeout=PATIENCE, poll_interval=0.01):
            stored = _stored()  # read again under the lock: another notebook may have written
            change(stored)
            stored["exercises"] = dict(sorted(stored["exercises"].items()))
            write_atomically(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:  # filelock.Timeout is one
        warnings.warn(f"progress was not saved: {error}", stacklevel=4)
