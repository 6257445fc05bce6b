"""`xailab build`: lessons/*.py to notebooks/*.ipynb (learner) and solutions/*.ipynb (executed)."""

import os
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xailab.core.curriculum import Curriculum
from xailab.core.files import write_atomically
from xailab.course import readme, runs, stubs
from xailab.course.execute import BuildError, execute
from xailab.course.lesson import Lesson


def main(
    lessons: list[str],
    check: bool,
    *,
    force: bool = False,
    text: bool = False,
    root: Path | None = None,
) -> int:
    """Build the lessons that changed, or with `check` only tell which notebooks have drifted.

    A lesson is executed when its code changed, or something that its last run reached
    (`xailab.course.runs`). Where only its text changed, the stored outputs are kept.

    Args:
        lessons: names ("cam", "09_cam", "lessons/cam.py"); none means all.
        check: execute and write nothing; report every difference.
        force: execute also where nothing changed.
        text: execute nothing: write texts, keep the outputs of code that is the same.
        root: the folder of the course; the nearest with `lessons/` when not given.

    Returns:
        Exit code: 0, or 1 after a failed lesson or any drift.

    Raises:
        ValueError: there is no such lesson, or no `lessons/` folder.
    """
    home = root or find_root()
    chosen = choose(lessons, home)
    if check:
        problems = check_all(chosen, home) + stale(chosen, home)
    else:
        problems = build_all(chosen, home, force=force, text=text)
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


def table(root: Path) -> Curriculum:
    """Return the table of the course in this folder."""
    return Curriculum.read(root / "lessons" / "course.toml")


def choose(names: list[str], root: Path) -> list[Lesson]:
    """Return the named lessons, or all that are written; `ValueError` names near ones."""
    course = table(root)
    chosen = [course.find(_bare(name)) for name in names] or course.written
    if planned := [entry.name for entry in chosen if entry.planned]:
        raise ValueError(f"not written yet: {', '.join(planned)}")
    return [Lesson.read(root / "lessons" / f"{each.name}.py", course) for each in chosen]


def _bare(name: str) -> str:
    """`cam` of "cam", "lessons/cam.py" and "notebooks/09_cam.ipynb"."""
    number, _, rest = Path(name).stem.partition("_")
    return rest if number.isdigit() else Path(name).stem


def build_all(
    lessons: list[Lesson], root: Path, *, force: bool = False, text: bool = False
) -> list[str]:
    """Build what changed and renew what the README takes from it; return what failed."""
    problems = []
    with _progress_bar() as bar:
        for lesson in lessons:
            try:
                problems += _build(lesson, root, bar, force=force, text=text)
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


def _build(lesson: Lesson, root: Path, bar: Progress, *, force: bool, text: bool) -> list[str]:
    """Write both notebooks, the learner's last: an interrupted build leaves the old pair."""
    learner, solution = text_of(lesson.learner()), lesson.solution()
    _renumber(lesson, root)
    whole = carry(_stored(lesson, root), solution)
    task = bar.add_task(lesson.name, total=len(solution.cells))
    if not text and (force or not whole or runs.stale(root, lesson.name)):
        solution, run = execute(lesson, root, on_cell=lambda: bar.advance(task))
        run.write(root, lesson.name)
        whole = True
    bar.update(task, completed=len(solution.cells))
    _write(root / "solutions" / f"{lesson.stem}.ipynb", text_of(solution))
    _write(root / "notebooks" / f"{lesson.stem}.ipynb", learner)
    return [] if whole else [f"{lesson.name} was written, but has to run: `xailab build`"]


def _renumber(lesson: Lesson, root: Path) -> None:
    """Move the notebooks of a lesson that had another number."""
    for folder in ("notebooks", "solutions"):
        wanted = root / folder / f"{lesson.stem}.ipynb"
        for old in root.glob(f"{folder}/[0-9][0-9]_{lesson.name}.ipynb"):
            if old != wanted:
                old.replace(wanted)


def carry(old: NotebookNode | None, new: NotebookNode) -> bool:
    """Move the stored outputs to a new notebook: each while all code up to it is the same.

    Args:
        old: the executed notebook, or None.
        new: the same lesson not yet executed; changed in place.

    Returns:
        Whether every code cell of the new notebook now has been executed.
    """
    was, now = _code_cells(old), _code_cells(new)
    for stored, cell in zip(was, now, strict=False):
        if stored.source != cell.source:
            break
        cell.outputs = stored.get("outputs", [])
        cell.execution_count = stored.get("execution_count")
    return len(was) == len(now) and all(c.execution_count for c in now if c.source.strip())


def _code_cells(notebook: NotebookNode | None) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"] if notebook else []


def _stored(lesson: Lesson, root: Path) -> NotebookNode | None:
    """Return the executed notebook as it is stored; None if there is none that can be read."""
    try:
        stored = _text(root / "solutions" / f"{lesson.stem}.ipynb")
        return nbformat.reads(stored, as_version=4) if stored else None
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError):
        return None


def text_of(notebook: NotebookNode) -> str:
    """Return a notebook as the bytes that are stored: sorted keys, one space of indent."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _write(path: Path, text: str) -> None:
    if _text(path) != text:
        write_atomically(path, text)


def check_all(lessons: list[Lesson], root: Path) -> list[str]:
    """Return every difference between the lessons and what is stored; execute nothing."""
    problems: list[str] = []
    for lesson in lessons:
        for find in (learner_drift, solution_drift, leaks):
            problems += _found(find, lesson, root)
    return problems + strays(root) + readme.problems(choose([], root), root, write=False)


def stale(lessons: list[Lesson], root: Path) -> list[str]:
    """Return the lessons whose stored outputs may no longer be what they give now, and why."""
    found = [(lesson.stem, runs.stale(root, lesson.name)) for lesson in lessons]
    return [f"{stem} has to run again: {_some(why)}" for stem, why in found if why]


def _some(why: list[str]) -> str:
    return ", ".join(why[:3]) + (f" and {len(why) - 3} more" if len(why) > 3 else "")


def _found(find: Callable[[Lesson, Path], list[str]], lesson: Lesson, root: Path) -> list[str]:
    try:
        return find(lesson, root)
    except (ValueError, SyntaxError) as error:
        return [f"{lesson.name}: {error}"]


def learner_drift(lesson: Lesson, root: Path) -> list[str]:
    """Return how `notebooks/NN_NAME.ipynb` differs from what the lesson gives now."""
    stored = _text(root / "notebooks" / f"{lesson.stem}.ipynb")
    return _drift("notebooks", lesson, stored, text_of(lesson.learner()))


def solution_drift(lesson: Lesson, root: Path) -> list[str]:
    """Return how `solutions/NN_NAME.ipynb` differs from the lesson now, with its own outputs."""
    stored = _text(root / "solutions" / f"{lesson.stem}.ipynb")
    old, wanted = _stored(lesson, root), lesson.solution()
    if stored and old is None:
        return [f"solutions/{lesson.stem}.ipynb is no valid notebook: run `xailab build`"]
    whole = carry(old, wanted)
    return _drift("solutions", lesson, stored, text_of(wanted)) or (
        [] if whole else [f"solutions/{lesson.stem}.ipynb was not executed: run `xailab build`"]
    )


def _drift(folder: str, lesson: Lesson, stored: str | None, wanted: str) -> list[str]:
    name = f"{folder}/{lesson.stem}.ipynb"
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
        f"\n  first difference (line {line}): {came.strip()[:200]} / {want.strip()[:200]}"
    ]


def leaks(lesson: Lesson, root: Path) -> list[str]:
    """Return the answers that the learner's copy would still show."""
    pairs = zip(lesson.cells, lesson.learner().cells, strict=False)  # the footer comes last
    return [
        f"{lesson.where(cell.source)}: the learner's copy shows the answer {answer.strip()!r}"
        for cell, copy in pairs
        for answer in stubs.answers(cell.source)
        if answer.strip() and copy.source.count(answer.strip()) >= cell.source.count(answer.strip())
    ]


def strays(root: Path) -> list[str]:
    """Return sources that the table does not list as written, and notebooks and runs of none."""
    written = table(root).written
    names, stems = {each.name for each in written}, {each.stem for each in written}
    notebooks = [*root.glob("notebooks/*.ipynb"), *root.glob("solutions/*.ipynb")]
    lost = [path for path in notebooks if path.stem not in stems]
    lost += [path for path in root.glob("solutions/runs/*.json") if path.stem not in names]
    problems = [f"{path.relative_to(root)} has no lesson" for path in sorted(lost)]
    sources = sorted(path.stem for path in root.glob("lessons/*.py"))
    return problems + [
        f"lessons/{name}.py is not a written lesson of lessons/course.toml"
        for name in sources
        if name not in names
    ]
