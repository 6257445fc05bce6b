"""Model answers out of the lessons, and planted wrong ones, for the tests of the checks."""

import ast
import re
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from xailab.course import Mistake
from xailab.course.lesson import Lesson
from xailab.course.registry import find_exercise
from xailab.course.stubs import answers, uncut

LESSONS = Path(__file__).parents[3] / "lessons"


def solution_of(lesson: str, name: str, *, lessons: Path = LESSONS) -> Any:
    """Return what the model answer of a lesson defines under `name`.

    Its imports, the answer, and the definitions before it that the answer uses are executed;
    nothing else of the lesson runs.
    """
    cells = [c for c in Lesson.read(lessons / f"{lesson}.py").cells if c.cell_type == "code"]
    statements = [(s, bool(answers(c.source))) for c in cells for s in _statements(c.source)]
    ends = [i for i, (s, answered) in enumerate(statements, 1) if answered and name in _names(s)]
    if not ends:
        raise LookupError(f"no answer in lessons/{lesson}.py defines {name!r}")
    before = [statement for statement, _ in statements[: ends[0]]]
    imports = [s for s in before if isinstance(s, ast.Import | ast.ImportFrom)]
    namespace: dict[str, Any] = {"__name__": "lesson"}
    exec(_compiled([*imports, *_needed(name, before)], lesson), namespace)
    return namespace[name]


def _statements(source: str) -> list[ast.stmt]:
    return ast.parse(re.sub(r"^[%!].*$", "", uncut(source), flags=re.MULTILINE)).body


def _compiled(statements: list[ast.stmt], name: str = "lesson") -> CodeType:
    return compile(ast.Module(statements, []), f"{name}.py", "exec")


def _names(statement: ast.stmt) -> set[str]:
    """What a definition or an assignment defines at the top level."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    nodes = [node for target in targets for node in ast.walk(target)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _needed(name: str, statements: list[ast.stmt]) -> list[ast.stmt]:
    """Return the definitions that `name` depends on, itself included, in order."""
    wanted, kept = {name}, []
    for statement in reversed(statements):
        if _names(statement) & wanted:
            kept.append(statement)
            wanted |= _uses(_compiled([statement]))
    return kept[::-1]


def _uses(code: CodeType) -> set[str]:
    """Global names (and attributes) that code uses, also inside its functions; no local ones."""
    inner = [_uses(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)


def assert_accepted(id: str, answer: Any) -> None:
    """Assert that the check of an exercise takes an answer."""
    find_exercise(id).check(answer)


def assert_rejected(id: str, wrong: Any, match: str) -> None:
    """Assert that the check refuses an answer with a message that fits the pattern `match`."""
    with pytest.raises(Mistake, match=match):
        find_exercise(id).check(wrong)


def planted(source: str) -> dict[str, Counter[str]]:
    """Count the answers that a module of tests plants: "accepted" and "rejected", by exercise.

    A call in a parametrized test counts once for each set of its parameters.
    """
    tree = ast.parse(source).body
    assigned = [node for node in tree if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    found: dict[str, Counter[str]] = {"accepted": Counter(), "rejected": Counter()}
    for test in tree:
        if isinstance(test, ast.FunctionDef):
            for call in (node for node in ast.walk(test) if isinstance(node, ast.Call)):
                kind = ast.unparse(call.func).removeprefix("assert_")
                if kind in found:
                    id = values.get(ast.unparse(call.args[0]), call.args[0])
                    found[kind][ast.unparse(id).strip("'")] += _times(test, values)
    return found


def _times(test: ast.FunctionDef, values: dict[str, ast.expr]) -> int:
    """Return how often a test runs, as far as its parameters are written out."""
    times = 1
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize"):
            given = values.get(ast.unparse(mark.args[1]), mark.args[1])
            times *= len(given.elts) if isinstance(given, ast.List | ast.Tuple) else 1
    return times
