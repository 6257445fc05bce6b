"""What a run of a lesson reached, so that it runs again only when some of that has changed.

`solutions/runs/NAME.json` holds seconds, memory, and the files that the run read, each with a hash:
modules of the package (comments and docstrings apart), shipped weights and vocabularies, the
registry of data sets, the lines of the course's table, and the pinned versions. What a process
that the lesson starts reads is not seen.
"""

import ast
import hashlib
import io
import json
import os
import sys
import tokenize
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import xailab
from xailab.core.curriculum import Curriculum
from xailab.core.files import write_atomically

HOME = Path(xailab.__file__).resolve().parents[1]  # of the package: the repository
TABLE = "lessons/course.toml"
ALWAYS = ("constraints.txt",)
_OUTSIDE = {".git", ".venv", "build", "notebooks", "solutions"}  # nothing that a lesson depends on
_opened: set[str] = set()
_looked_up: set[str] = set()


def watch() -> None:
    """Note from now on which files this process reads; called in the kernel before the lesson."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.add(os.fsdecode(arguments[0]))
    elif event == "xailab.curriculum":
        _looked_up.add(arguments[0])


def reached(root: str) -> list[str]:
    """Return what this process has read of the course at `root` and of the package, by name."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    names = {_name(path, Path(root)) for path in [*_opened, *filter(None, modules)]}
    names -= {None, TABLE}
    return sorted([*filter(None, names), *ALWAYS, *(f"{TABLE}: {name}" for name in _looked_up)])


def _name(path: str, root: Path) -> str | None:
    """The path below the package's home or the course's; None elsewhere, and for what is made."""
    absolute = Path(os.path.abspath(path))
    for home in (HOME, root.resolve()):
        if absolute.is_relative_to(home):
            inside = absolute.relative_to(home)
            made = absolute.suffix == ".pyc" or inside.parts[0] in _OUTSIDE
            return None if made or not absolute.is_file() else inside.as_posix()
    return None


@dataclass(frozen=True)
class Run:
    """One execution of a solution.

    Attributes:
        seconds: how long its cells took.
        peak_mb: the most memory it used.
        reached: name -> hash of everything it read.
        passed: the state in which both notebooks last ran under nbval.
    """

    seconds: float
    peak_mb: int
    reached: dict[str, str] = field(default_factory=dict)
    passed: str = ""

    @classmethod
    def of(cls, names: list[str], root: Path, *, seconds: float, peak_mb: int) -> "Run":
        """Return the run that read these files as they stand now."""
        return cls(seconds, peak_mb, {name: digest(name, root) for name in names})

    @classmethod
    def read(cls, root: Path, name: str) -> "Run | None":
        """Return the last run of a lesson; None if there is none or it cannot be read."""
        try:
            return cls(**json.loads(place(root, name).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, root: Path, name: str) -> None:
        """Store this run as the last one of a lesson."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
        if _text(place(root, name)) != text:
            write_atomically(place(root, name), text)

    def changed(self, root: Path) -> list[str]:
        """Return what it read that is not as it was; all that is not known counts as changed."""
        if not self.reached:
            return ["what it reaches is not known"]
        return [name for name, old in self.reached.items() if digest(name, root) != old]


def place(root: Path, name: str) -> Path:
    """Return where the last run of a lesson is stored."""
    return root / "solutions" / "runs" / f"{name}.json"


def stale(root: Path, name: str) -> list[str]:
    """Return why a lesson has to run again: what changed since it ran; nothing if it need not."""
    run = Run.read(root, name)
    return run.changed(root) if run else ["it has not run"]


def state(root: Path, name: str, stem: str) -> str:
    """Return a hash of both notebooks of a lesson and of all that they reach, as it stands now."""
    run = Run.read(root, name)
    paths = [root / folder / f"{stem}.ipynb" for folder in ("notebooks", "solutions")]
    facts = [_text(path) or "" for path in paths]
    facts += [digest(each, root) for each in run.reached] if run else []
    return _hash("\n".join(facts))


def digest(name: str, root: Path) -> str:
    """Return the hash of a file or of a line of the table as it stands now; "" if it is gone."""
    file, _, line = name.partition(": ")
    path = next((p for p in (root / file, HOME / file) if p.is_file()), None)
    if path is None:
        return ""
    if line:
        return _line(path, path.stat().st_mtime_ns, line)
    return _file(path, path.stat().st_mtime_ns)


@cache
def _line(path: Path, _changed: int, name: str) -> str:
    try:
        entry = Curriculum.read(path).find(name)
    except ValueError:
        return ""
    return _hash(f"{entry.stem} {entry.words}")


@cache
def _file(path: Path, _changed: int) -> str:
    data = path.read_bytes()
    return _hash(essence(data.decode())) if path.suffix == ".py" else _hash(data)


def essence(source: str) -> str:
    """Return a Python source without comments, docstrings and blank lines, which change no result.

    >>> essence("def f(x):\\n    '''Twice.'''\\n\\n    return 2 * x  # not x + x\\n")
    'def f(x):\\n    return 2 * x'
    """
    lines = [line + b"\n" for line in source.encode().split(b"\n")]
    for (first, start), (last, end) in sorted(_idle(source), reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + lines[last - 1][end:]]
    return "\n".join(line.decode().rstrip() for line in lines if line.strip())


_Span = tuple[tuple[int, int], tuple[int, int]]


def _idle(source: str) -> list[_Span]:
    """Where comments and docstrings begin and end: lines from 1, columns in bytes from 0."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    rows = source.split("\n")
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    spans = [
        ((row, len(rows[row - 1][:column].encode())), (row, len(rows[row - 1].encode())))
        for row, column in (comment.start for comment in comments)
    ]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            doc: Any = node.body[0]
            spans.append(((doc.lineno, doc.col_offset), (doc.end_lineno, doc.end_col_offset)))
    return spans


def _hash(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
