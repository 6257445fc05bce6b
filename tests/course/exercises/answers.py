"""Model answers out of the lessons, and planted wrong ones, for the tests of the checks."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from xailab.course import Mistake
from xailab.course.lesson import Lesson
from xailab.course.registry import find_exercise
from xailab.course.stubs import uncut

LESSONS = Path(__file__).parents[3] / "lessons"


def solution_of(lesson: str, name: str) -> Any:
    """Return what the model answer of a lesson defines under `name`.

    Imports and the definition itself are executed, and before it the top-level functions, classes
    and constants of the lesson that it needs; nothing else of the lesson runs.
    """
    statements = [s for cell in _code(lesson) for s in ast.parse(cell).body]
    imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
    needed = _needed(name, [s for s in statements if _names(s)])
    if not needed:
        raise LookupError(f"lessons/{lesson}.py defines no {name!r}")
    namespace: dict[str, Any] = {"__name__": "lesson"}
    exec(compile(ast.Module([*imports, *needed], []), f"{lesson}.py", "exec"), namespace)
    return namespace[name]


def _code(lesson: str) -> list[str]:
    cells = Lesson.read(LESSONS / f"{lesson}.py").cells
    sources = [uncut(cell.source) for cell in cells if cell.cell_type == "code"]
    return [re.sub(r"^[%!].*$", "", source, flags=re.M) for source in sources]


def _names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if not isinstance(statement, ast.Assign):
        return set()
    nodes = [node for target in statement.targets for node in ast.walk(target)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _needed(name: str, definitions: list[ast.stmt]) -> list[ast.stmt]:
    """Return the definitions that `name` depends on, itself included, as they stand in order."""
    wanted, kept = {name}, []
    for statement in reversed(definitions):
        if _names(statement) & wanted:
            kept.append(statement)
            wanted |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return kept[::-1]


def assert_accepted(id: str, answer: Any) -> None:
    """Assert that the check of an exercise takes an answer."""
    find_exercise(id).check(answer)


def assert_rejected(id: str, wrong: Any, match: str) -> None:
    """Assert that the check refuses an answer with a message that fits the pattern `match`."""
    with pytest.raises(Mistake, match=match):
        find_exercise(id).check(wrong)
