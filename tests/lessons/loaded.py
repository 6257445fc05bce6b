"""Which data sets a lesson loads, read off its code and, where that calls xailab, off xailab's."""

import ast
from functools import cache
from pathlib import Path

import xailab
from xailab import data

NAMES = {entry.name for entry in data.entries()}
LOADING = {"load", "pretrained", "fetch", "read_member", "read_members"}
PACKAGE = Path(xailab.__file__).parent


def loaded(source: str) -> set[str]:
    """Return the data sets that a lesson names, and those that functions it takes load."""
    tree = ast.parse(source)
    return _named(tree) | _behind(_taken(tree, tree))


def _named(tree: ast.AST) -> set[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loads = [call for call in calls if call.args and _name(call.func) in LOADING]
    return {call.args[0].value for call in loads if isinstance(call.args[0], ast.Constant)} & NAMES


def _name(function: ast.AST) -> str:
    return getattr(function, "attr", "") or getattr(function, "id", "")


def _taken(file: ast.AST, part: ast.AST) -> set[str]:
    """Names of xailab that a part of a file uses: its own, `pretrained`, `data.photos`."""
    imports = [node for node in ast.walk(file) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").partition(".")[0] == "xailab"]
    names = {alias.asname or alias.name: alias.name for node in ours for alias in node.names}
    names |= {node.name: node.name for node in ast.iter_child_nodes(file) if _is_code(node)}
    found = set()
    for node in ast.walk(part):
        if isinstance(node, ast.Name) and node.id in names:
            found.add(names[node.id])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id in {*names, "xailab"} else set()
    return found


def _is_code(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


@cache
def _functions() -> dict[str, tuple[set[str], set[str]]]:
    """Name of a function or class of xailab -> data sets in its code, names that it uses."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in PACKAGE.rglob("*.py"):
        file = ast.parse(path.read_text(encoding="utf-8"))
        for node in filter(_is_code, file.body):
            sets, names = found.setdefault(node.name, (set(), set()))
            sets |= _named(node)
            names |= _taken(file, node)
    return found


def _behind(names: set[str]) -> set[str]:
    """Follow names through xailab to the data sets that are read there."""
    functions, seen, sets = _functions(), set(), set()
    left = names & set(functions)
    while left:
        name = left.pop()
        seen.add(name)
        sets |= functions[name][0] | ({name} & NAMES)  # data.photos() itself loads "photos"
        left |= (functions[name][1] & set(functions)) - seen
    return sets
