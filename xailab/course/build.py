"""`xailab build`: lessons/*.py to notebooks/*.ipynb (learner) and solutions/*.ipynb (executed)."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xailab.core.files import write_atomically
from xailab.course import readme, stubs
from xailab.course.execute import BuildError, execute
from xailab.course.lesson import Lesson


def main(lessons: list[str], check: bool, *, force: bool = False, root: Path | None = None) -> int:
    """Build the lessons that changed, or with `check` only tell which notebooks have drifted.

    Args:
        lessons: names ("08_cam", "cam", "lessons/08_cam.py"); none means all.
        check: execute and write nothing; report every difference.
        force: execute also what has not changed (the package changed, not the lesson).
        root: the folder of the course; the nearest with `lessons/` when not given.

    Returns:
        Exit code: 0, or 1 after a failed lesson or any drift.

    Raises:
        ValueError: there is no such lesson, or no `lessons/` folder.
    """
    home = root or find_root()
    chosen = choose(lessons, home)
    problems = check_all(chosen, home) if check else build_all(chosen, home, force=force)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(problem, style="red", markup=False)
    return 1 if problems else 0


def find_root() -> Path:
    """Return the nearest folder, from here upwards, that has `lessons/`."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "lessons").is_dir():
            return folder
    raise ValueError(f"no lessons/ folder in {here} or above: run this in the course's repository")


def choose(names: list[str], root: Path) -> list[Path]:
    """Return the sources of the named lessons, or of all; `ValueError` names near ones."""
    paths = sorted((root / "lessons").glob("[0-9]*_*.py"))
    keys = {key: path for path in paths for key in (path.stem, path.stem.partition("_")[2])}
    unknown = [name for name in names if Path(name).stem not in keys]
    if unknown:
        near = get_close_matches(Path(unknown[0]).stem, keys, cutoff=0.4) or sorted(keys)
        raise ValueError(f"no lesson {unknown[0]!r}; did you mean {', '.join(near)}?")
    return [keys[Path(name).stem] for name in names] or paths


def build_all(paths: list[Path], root: Path, *, force: bool = False) -> list[str]:
    """Build what changed and renew the README's table and pictures; return what failed."""
    lessons = [Lesson.read(path) for path in paths]
    problems = []
    with _progress_bar() as bar:
        for lesson in lessons:
            try:
                _build(lesson, root, force, bar)
            except (BuildError, ValueError, SyntaxError) as error:
                problems.append(str(error))
    return problems + readme.problems(choose([], root), root, write=True)


def _progress_bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
    )
    quiet = os.environ.get("XAILAB_QUIET") == "1"
    return Progress(*columns, console=Console(stderr=True), disable=quiet)


def _build(lesson: Lesson, root: Path, force: bool, bar: Progress) -> None:
    """Write both notebooks, the learner's last: an interrupted build leaves the old pair."""
    learner = text_of(lesson.learner())
    task = bar.add_task(lesson.name, total=len(lesson.cells))
    if force or solution_drift(lesson, root):
        solution = execute(lesson, root, on_cell=lambda: bar.advance(task))
        write_atomically(root / "solutions" / f"{lesson.name}.ipynb", text_of(solution))
    bar.update(task, completed=len(lesson.cells))
    path = root / "notebooks" / f"{lesson.name}.ipynb"
    if _text(path) != learner:
        write_atomically(path, learner)


def text_of(notebook: NotebookNode) -> str:
    """Return a notebook as the bytes that are stored: sorted keys, one space of indent."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def check_all(paths: list[Path], root: Path) -> list[str]:
    """Return every difference between the lessons and what is stored; execute nothing."""
    problems: list[str] = []
    for path in paths:
        lesson = Lesson.read(path)
        for find in (learner_drift, solution_drift, leaks):
            problems += _found(find, lesson, root)
    return problems + _strays(root) + readme.problems(choose([], root), root, write=False)


def _found(find: Callable[[Lesson, Path], list[str]], lesson: Lesson, root: Path) -> list[str]:
    try:
        return find(lesson, root)
    except (ValueError, SyntaxError) as error:
        return [f"{lesson.name}: {error}"]


def learner_drift(lesson: Lesson, root: Path) -> list[str]:
    """Return how `notebooks/NAME.ipynb` differs from what the lesson gives now."""
    stored = _text(root / "notebooks" / f"{lesson.name}.ipynb")
    return _drift("notebooks", lesson, stored, text_of(lesson.learner()))


def solution_drift(lesson: Lesson, root: Path) -> list[str]:
    """Return how `solutions/NAME.ipynb`, without its outputs, differs from the lesson now."""
    stored = _text(root / "solutions" / f"{lesson.name}.ipynb")
    if stored is None:
        return _drift("solutions", lesson, None, "")
    try:
        notebook = nbformat.reads(stored, as_version=4)
        bare, whole = text_of(_bare(notebook)), _was_executed(notebook)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError):
        return [f"solutions/{lesson.name}.ipynb is no valid notebook: run `xailab build`"]
    return _drift("solutions", lesson, bare, text_of(lesson.solution())) or (
        [] if whole else [f"solutions/{lesson.name}.ipynb was not executed: run `xailab build`"]
    )


def _was_executed(notebook: NotebookNode) -> bool:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    measured = all(key in notebook.metadata.xailab for key in readme.MEASURED)
    return measured and all(cell.execution_count for cell in cells)


def _bare(notebook: NotebookNode) -> NotebookNode:
    """Return a copy as it was before it was executed."""
    bare = nbformat.from_dict(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    for key in readme.MEASURED:
        bare.metadata.xailab.pop(key, None)
    return bare


def _drift(folder: str, lesson: Lesson, stored: str | None, wanted: str) -> list[str]:
    name = f"{folder}/{lesson.name}.ipynb"
    if stored is None:
        return [f"{name} is missing: run `xailab build`"]
    if stored == wanted:
        return []
    pairs = zip(stored.splitlines(), wanted.splitlines(), strict=False)
    line, (came, want) = next(
        ((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1]), (0, ("", ""))
    )
    return [
        f"{name} is not what lessons/{lesson.name}.py gives; edit the lesson and run `xailab build`"
        f"\n  first difference (line {line} without outputs): {came.strip()} / {want.strip()}"
    ]


def leaks(lesson: Lesson, root: Path) -> list[str]:
    """Return the answers that the learner's copy would still show."""
    pairs = zip(lesson.cells, lesson.learner().cells, strict=True)
    return [
        f"{lesson.where(cell.source)}: the learner's copy shows the answer {answer.strip()!r}"
        for cell, copy in pairs
        for answer in stubs.answers(cell.source)
        if answer.strip() and copy.source.count(answer.strip()) >= cell.source.count(answer.strip())
    ]


def _strays(root: Path) -> list[str]:
    known = {path.stem for path in choose([], root)}
    notebooks = [*root.glob("notebooks/*.ipynb"), *root.glob("solutions/*.ipynb")]
    return [f"{p.relative_to(root)} has no lesson" for p in notebooks if p.stem not in known]
