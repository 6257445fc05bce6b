"""Write what every package offers: docs/api.md, and the stubs `__init__.pyi`.

The names come from the code, which is read and not run:

    python -m docs.api            writes both
    python -m docs.api --check    fails if either is not as it would be written
"""

import ast
import copy
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "docs/api.md"

# Every public function and class of these is a name of its package. Which names the others offer is
# a choice, made in their `__init__.pyi` and kept; all offer their modules.
WHOLE = ("foundations", "attribution", "behavior", "simplify", "trust", "evaluate")
# Its functions have the names of those for torch: only the module is a name of its package.
APART = ("cam_keras",)
PACKAGES = (*WHOLE, "data", "models", "plots", "widgets", "course", "core")

_HEAD = """\
# Every public name, with one line

Made from the docstrings by `python -m docs.api`; a test compares. Each name can be imported from
its package, `from xailab.attribution import grad_cam`, and is loaded when it is first used.
`help(grad_cam)` says the rest: formula, arguments with shapes, a paper, an example.
"""


class Name(NamedTuple):
    """A public name: where it is defined, how it is called, the first line of its docstring."""

    name: str
    module: str
    call: str
    line: str


def modules(package: Path) -> list[Path]:
    """Return the files of a package that can be imported from it."""
    return [file for file in sorted(package.glob("*.py")) if not file.name.startswith("_")]


def defined(file: Path) -> list[Name]:
    """Return the public functions and classes that a file defines, and no imported ones."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, kinds) and node.name[0] != "_"]
    return [Name(one.name, file.stem, _call(one), _first(one)) for one in found]


def stub(package: Path) -> str:
    """Return the `__init__.pyi` that offers every module and every name of a package.

    Raises:
        ValueError: two modules define one name.
    """
    files = modules(package)
    offered: dict[str, str] = {}
    for name, module, *_ in (one for file in files for one in defined(file)):
        if module in APART or name == module:  # such a module can be called: core.callable_module
            continue
        if name in offered:
            raise ValueError(f"{package.name}: {offered[name]} and {module} both define {name}")
        offered[name] = module
    lines = [
        f"from .{module} import {name} as {name}"
        for name, module in sorted(offered.items(), key=_order)
    ]
    return _stub(package, lines)


def chosen(package: Path) -> str:
    """Return the `__init__.pyi` of a package with the names it offers now, and every module."""
    lines = (package / "__init__.pyi").read_text(encoding="utf-8").splitlines()
    return _stub(package, [line for line in lines if not line.startswith("from . import ")])


def _stub(package: Path, lines: list[str]) -> str:
    inner = [one.parent.name for one in package.glob("*/__init__.py")]
    homes = sorted([*inner, *(file.stem for file in modules(package))])
    return "\n".join([*(f"from . import {one} as {one}" for one in homes), *lines]) + "\n"


def names(package: Path) -> list[Name]:
    """Return the public names of a package by its stub, sorted; functions and classes only."""
    tree = ast.parse((package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    pairs = {(one.name, node.module or one.name) for node in imports for one in node.names}
    known = {one[:2]: one for file in modules(package) for one in defined(file)}
    offered = [known[pair] for pair in pairs if pair in known]
    return sorted(offered, key=lambda one: (one.name.lower(), one.name))


def text() -> str:
    """Return the whole of docs/api.md."""
    parts = [_HEAD]
    for package in (ROOT / "xailab" / name for name in PACKAGES):
        title = _first(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
        rows = [f"| `{one.call}` | `{one.module}` | {one.line} |" for one in names(package)]
        parts.append(f"## xailab.{package.name}\n\n{title}\n")
        parts.append("\n".join(["| call | module | what it is |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def stubs() -> dict[Path, str]:
    """Return the text of every stub that is made."""
    packages = [ROOT / "xailab" / name for name in PACKAGES]
    make = {package: stub if package.name in WHOLE else chosen for package in packages}
    return {package / "__init__.pyi": make[package](package) for package in packages}


def _order(item: tuple[str, str]) -> tuple[str, int, str]:
    """Sort as the linter does: by module, then CONSTANTS, Classes, functions."""
    name, module = item
    return module, 0 if name.isupper() else 1 if name[0].isupper() else 2, name


def _call(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Return a function as it is called, with its defaults and without types; a class by name."""
    if isinstance(node, ast.ClassDef):
        return node.name
    bare = copy.deepcopy(node.args)
    for one in ast.walk(bare):
        if isinstance(one, ast.arg):
            one.annotation = None
    return f"{node.name}({ast.unparse(bare)})".replace("|", "\\|")


def _first(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    line = (ast.get_docstring(node) or "").partition("\n")[0]
    return line.replace("|", "\\|")


def main(check: bool) -> int:
    """Write the files, or say which are not as they would be written."""
    stale = [*_update(stubs(), check), *_update({API: text()}, check)]  # the list reads the stubs
    for path in stale:
        print(path, "is not up to date: run python -m docs.api" if check else "is written")
    return int(check and bool(stale))


def _update(files: dict[Path, str], check: bool) -> list[Path]:
    old = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in files}
    stale = [path for path, content in files.items() if content != old[path]]
    for path in [] if check else stale:
        path.write_text(files[path], encoding="utf-8")
    return [path.relative_to(ROOT) for path in stale]


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
