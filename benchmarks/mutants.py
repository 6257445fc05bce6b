"""Would the tests notice? Break one line at a time and run the module's own tests and doctests.

    python -m benchmarks.mutants xailab/attribution/cam.py [--n 30] [--seed 0] [--only LINE]

A mutant that no test notices (all pass) shows a line that no test holds to its definition, or
a change that changes nothing. The tree is copied first; the shared one is never touched.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ("numpy", "scipy.stats", "sklearn.linear_model", "torch", "torchvision", "pytest")
# Not before the fork: what is tried, and TensorFlow (quantus brings it), which has threads.
LATER = {"xailab", "tests", "tensorflow", "keras", "quantus"}
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
BORDERS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
DROPPED = {"relu", "abs", "detach"}
NAMES = {"sum": "mean", "mean": "sum", "min": "max", "max": "min", "amin": "amax", "amax": "amin"}
Mutant = tuple[int, str, str]  # line, what was done, the whole source


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of the functions of a module."""
    tree = ast.parse(source)
    found = []
    for node in _places(tree):
        for what, new in _changes(node):
            line = getattr(node, "lineno", 0)
            text = ast.unparse(_Swap(node, new).visit(_copied(tree, node)))
            found.append((line, what, text))
    return found


def _copied(tree: ast.Module, node: ast.AST) -> ast.Module:
    """Return a copy of the tree that shares the one node to be replaced."""
    return copy.deepcopy(tree, {id(node): node})


class _Swap(ast.NodeTransformer):
    """Puts another node in the place of one."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _places(node: ast.AST, inside: bool = False) -> Iterator[ast.AST]:
    """Yield what may be changed: in functions, but no type hint, docstring or error text."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if inside:
        yield node
    inside = inside or isinstance(node, ast.FunctionDef)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, inside)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield each change of one node: what it is called, and the new node."""
    match node:
        case ast.BinOp() if type(node.op) in BINARY:
            yield "arithmetic", _with(node, op=BINARY[type(node.op)]())
        case ast.Compare(ops=[op]) if type(op) in BORDERS:
            yield "border", _with(node, ops=[BORDERS[type(op)]()])
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and / or", _with(node, op=other)
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node.operand
        case ast.Constant(value=bool() as flag):
            yield "constant", ast.Constant(not flag)
        case ast.Constant(value=int() | float() as number):
            yield "constant", ast.Constant(number + 1)
        case ast.Call(func=ast.Attribute(attr=name, value=before)) if name in DROPPED:
            yield "dropped call", before
        case ast.Attribute(attr=name) if name in NAMES:
            yield "other reduction", _with(node, attr=NAMES[name])
        case ast.Name(id=name) if name in NAMES and isinstance(node.ctx, ast.Load):
            yield "other reduction", _with(node, id=NAMES[name])
        case ast.AugAssign() | ast.Expr():
            yield "statement", ast.Pass()
        case ast.Assign(targets=[target], value=value) if _rebinds(target, value):
            yield "statement", ast.Pass()


def _rebinds(target: ast.expr, value: ast.expr) -> bool:
    """Tell whether something else stands there before: without a first value any test fails."""
    names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
    return not isinstance(target, ast.Name | ast.Tuple) or getattr(target, "id", None) in names


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def difference(source: str, mutant: str) -> str:
    """Return the lines that differ."""
    before, after = ast.unparse(ast.parse(source)).splitlines(), mutant.splitlines()
    lines = list(unified_diff(before, after, lineterm="", n=0))[2:]
    return "\n".join(line.strip() for line in lines if not line.startswith("@@"))


def outcome(folder: Path, module: str, text: str, tests: list[str], seconds: float) -> str:
    """Run the tests with this text in the place of the module: passed, failed or out of time."""
    (folder / module).write_text(text)
    shutil.rmtree((folder / module).parent / "__pycache__", ignore_errors=True)
    child = os.fork()
    if child == 0:
        _test(folder, tests)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if status == 0 else "failed"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "out of time"


def _test(folder: Path, tests: list[str]) -> None:
    """Run the tests in this process, which then ends."""
    code = 1
    try:
        import pytest

        os.chdir(folder)
        sys.path.insert(0, str(folder))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-n0", *tests]))
    finally:
        os._exit(code)


def tests_of(module: str) -> list[str]:
    """Return the mirror test file of a module, and the module itself for its doctests."""
    package, name = Path(module).parts[1:-1], Path(module).stem
    return [module, str(Path("tests", *package, f"test_{name}.py"))]


def preload(tests: str) -> None:
    """Import what a test file imports of other packages, once for all mutants."""
    path, names = ROOT / tests, list(PRELOADED)
    for node in ast.walk(ast.parse(path.read_text() if path.exists() else "")):
        if isinstance(node, ast.ImportFrom):
            names.append(str(node.module))
        elif isinstance(node, ast.Import):
            names += [one.name for one in node.names]
    for name in names:
        if name.split(".")[0] not in LATER:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def sample(source: str, n: int, seed: int) -> list[Mutant]:
    """Draw n mutants; a greater n with the same seed begins with the same ones."""
    every = mutants(source)
    random.Random(seed).shuffle(every)
    return every[:n]


def run(
    module: str, n: int, seed: int, skip: int = 0, line: int | None = None, also: Sequence[str] = ()
) -> None:
    """Print which of n mutants of a module its tests notice."""
    tests, source = [*tests_of(module), *also], (ROOT / module).read_text()
    drawn = sample(source, n, seed)[skip:]
    for one in tests[1:]:
        preload(one)
    if line is not None:
        drawn = [one for one in mutants(source) if one[0] == line]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("xailab", "tests", "datasets", "pyproject.toml"):
            _copy(ROOT / part, folder / part)
        began = time.monotonic()
        if (came := outcome(folder, module, source, tests, 600)) != "passed":
            print(f"{module}: its tests as they are: {came}; nothing was tried", flush=True)
            return
        limit = 30 + 3 * (time.monotonic() - began)
        ends = Counter()
        for where, what, text in drawn:
            ends[end := outcome(folder, module, text, tests, limit)] += 1
            if end != "failed":  # a loop without an end counts as killed, a slow machine must not
                print(f"{end}, {module}:{where}, {what}\n{difference(source, text)}", flush=True)
        killed = len(drawn) - ends["passed"]
        slow = f" ({ends['out of time']} out of time)" if ends["out of time"] else ""
        print(f"{module}: {len(drawn)} run, {killed} killed{slow}, seed {seed}", flush=True)


def _copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copy(source, to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+")
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first of the sample")
    parser.add_argument("--line", type=int, help="all mutants of one line in place of a sample")
    parser.add_argument("--also", nargs="+", default=(), help="tests beside the module's own")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    # the package comes from the copy, so none of it may be loaded before, and not the installed one
    sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != ROOT]
    for module in given.modules:
        run(module, given.n, given.seed, given.skip, given.line, given.also)


if __name__ == "__main__":
    main()
