"""The learner's own copies of the lessons: what was written in them is never overwritten.

They lie in a folder that git ignores, so that `git pull` never meets them. A note in the folder
says which original each copy was made from: a copy that is still that original is renewed without
a word, one that somebody worked in is kept, and the newer original is announced.
"""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from xailab.core.files import write_atomically

ASIDE = "old"  # where copies go that made room for a fresh one
_NOTE = ".xailab.json"


def renew(course: Path, folder: Path, fresh: str | None = None) -> list[str]:
    """Bring a folder of copies up to date with the course; return what a learner should know.

    Args:
        course: the folder with `notebooks/` and `solutions/`.
        folder: of the copies, made if missing; the solutions come into its `solutions/`.
        fresh: a lesson ("09_cam", "cam" or "9") whose copy is set aside for a fresh one.

    Raises:
        ValueError: there is no such lesson; near names are listed.
        OSError: the folder cannot be written.
    """
    originals = _originals(course)
    chosen = lesson(course, fresh).name if fresh else None
    noted = _read_note(folder)
    known = dict(noted)
    said = list(_follow_new_names(originals, folder, known))
    newer = [
        name
        for name, original in originals.items()
        if not _renewed(name, original.read_bytes(), folder, known)
    ]
    for name in (chosen, f"solutions/{chosen}"):
        if chosen and name in originals:
            said += _refreshed(name, originals[name].read_bytes(), folder, known)
    if newer := [name for name in newer if Path(name).name != chosen]:
        said.append(_announcement(newer))
    if known != noted:
        write_atomically(folder / _NOTE, json.dumps(known, indent=1, sort_keys=True))
    return said


def lesson(course: Path, name: str) -> Path:
    """Return the original of the lesson that somebody calls "09_cam", "cam" or "9".

    Raises:
        ValueError: there is none; near names are listed.
    """
    paths = sorted((course / "notebooks").glob("*.ipynb"))
    called = {key: path for path in paths for key in (_topic(path), path.stem)}
    called |= {number[1]: p for p in paths if (number := re.match(r"0*(\d+)_", p.name))}
    wanted = Path(name).name.removesuffix(".ipynb")
    if found := called.get(wanted) or called.get(wanted.lstrip("0") or "0"):
        return found
    near = get_close_matches(wanted, called, cutoff=0.4) or [_topic(path) for path in paths]
    raise ValueError(f"no lesson {name!r}; did you mean {' or '.join(near)}?")


def _originals(course: Path) -> dict[str, Path]:
    """Return place in the learner's folder -> original."""
    lessons = {path.name: path for path in sorted((course / "notebooks").glob("*.ipynb"))}
    answers = sorted((course / "solutions").glob("*.ipynb"))
    return lessons | {f"solutions/{path.name}": path for path in answers}


def _topic(path: Path) -> str:
    """Return the name of a lesson without its number, which may change.

    >>> _topic(Path("09_cam.ipynb"))
    'cam'
    """
    return re.sub(r"^\d+_", "", path.stem)


def _read_note(folder: Path) -> dict[str, str]:
    """Return name of a copy -> sha256 of the original it was made from."""
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # lost or damaged: all copies count as worked in
        return {}
    return note if isinstance(note, dict) else {}


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()


def _follow_new_names(
    originals: dict[str, Path], folder: Path, known: dict[str, str]
) -> Iterator[str]:
    """Rename the copies of lessons that got another number; yield what was renamed."""
    places = {(Path(name).parent, _topic(Path(name))): name for name in originals}
    for old in [name for name in known if name not in originals]:
        new = places.get((Path(old).parent, _topic(Path(old))))
        if new and (folder / old).is_file() and not (folder / new).exists():
            (folder / old).rename(folder / new)
            known[new] = known[old]
            if new == Path(new).name:
                yield f"{old} is called {new} now; your copy was renamed"
        del known[old]


def _renewed(name: str, original: bytes, folder: Path, known: dict[str, str]) -> bool:
    """Copy what is not there or is still as it was copied; tell whether the copy is up to date."""
    copy = folder / name
    there = _hash(copy.read_bytes()) if copy.is_file() else None
    now, before = _hash(original), known.get(name)
    if there not in (None, now, before):
        known.setdefault(name, now)  # from where it came is not known: only what comes next is new
        return known[name] == now
    if there != now:
        write_atomically(copy, original)
    known[name] = now
    return True


def _refreshed(name: str, original: bytes, folder: Path, known: dict[str, str]) -> Iterator[str]:
    """Put a fresh copy in the place of one that was worked in, which is set aside."""
    copy = folder / name
    if copy.read_bytes() != original:
        aside = _free(folder / ASIDE / name)
        aside.parent.mkdir(parents=True, exist_ok=True)
        copy.rename(aside)
        write_atomically(copy, original)
        yield f"{name} is fresh; yours is {aside.relative_to(folder).as_posix()}"
    elif name == Path(name).name:
        yield f"{name} is as the course has it"
    known[name] = _hash(original)


def _free(path: Path) -> Path:
    """Return the path, or the first of "NAME-2", "NAME-3", ... that is not there."""
    number = 2
    free = path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free


def _announcement(newer: list[str]) -> str:
    names = sorted({_topic(Path(name)) for name in newer})
    return (
        f"the course has something newer than your copies of {', '.join(names)}, which are kept; "
        f"`xailab lab --fresh {names[0]}` takes the new one and sets yours aside"
    )
