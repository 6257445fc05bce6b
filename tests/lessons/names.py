"""Which names a piece of a lesson binds, and which it needs from elsewhere: by reading alone."""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass
class Names:
    """Names of one scope.

    Attributes:
        bound: name -> how: "import numpy", "loop" or "other".
        needed: names that are used before they are bound here.
        later: names that functions use; when they are called, all of this scope is bound.
    """

    bound: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)

    @property
    def wanted(self) -> set[str]:
        """What has to come from elsewhere."""
        return self.needed | (self.later - self.bound.keys())


def names_of(sources: Iterable[str]) -> Names:
    """Return the names of code cells that run one after the other; magics are left out."""
    names = Names()
    for source in sources:
        for statement in ast.parse(re.sub(r"^\s*[%!].*$", "pass", source, flags=re.M)).body:
            _read(statement, names)
    return names


def _read(node: ast.AST | None, names: Names, how: str = "other") -> None:
    """Read one node, in the order in which Python runs it."""
    if node is None:
        return
    if isinstance(node, _SCOPES):
        return _read_scope(node, names)
    if isinstance(node, _COMPREHENSIONS):
        return _read_comprehension(node, names)
    if isinstance(node, ast.Name):
        return _read_name(node, names, how)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _read_import(node, names)
    if isinstance(node, ast.For | ast.AsyncFor):
        _read(node.iter, names)
        _read(node.target, names, "loop")
        return _read_all([*node.body, *node.orelse], names)
    if isinstance(node, ast.AugAssign):
        _read(ast.parse(ast.unparse(node.target), mode="eval").body, names)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        _read(node.value, names)
        return _read_all(getattr(node, "targets", None) or [node.target], names)
    if isinstance(node, ast.ExceptHandler) and node.name:
        names.bound.setdefault(node.name, "loop")
    _read_all(ast.iter_child_nodes(node), names, how)


def _read_all(nodes: Iterable[ast.AST], names: Names, how: str = "other") -> None:
    for node in nodes:
        _read(node, names, how)


def _read_name(node: ast.Name, names: Names, how: str) -> None:
    if isinstance(node.ctx, ast.Store):
        if names.bound.get(node.id) in (None, "loop"):
            names.bound[node.id] = how
    elif node.id not in names.bound:
        names.needed.add(node.id)


def _read_import(node: ast.Import | ast.ImportFrom, names: Names) -> None:
    source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for each in node.names:
        name = each.asname or each.name.partition(".")[0]
        names.bound[name] = f"import {source}{each.name if each.asname or source else name}"


def _read_scope(node: ast.AST, names: Names) -> None:
    """A function or class: what it needs of the names around it counts when it is called."""
    inner, body = Names(), getattr(node, "body", [])
    arguments = getattr(node, "args", None)
    if arguments:
        _read_all([*arguments.defaults, *filter(None, arguments.kw_defaults)], names)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += filter(None, [arguments.vararg, arguments.kwarg])
        _read_all([each.annotation for each in every if each.annotation], names)
        inner.bound = {each.arg: "other" for each in every}
    _read_all(getattr(node, "decorator_list", []) + getattr(node, "bases", []), names)
    _read_all(body if isinstance(body, list) else [body], inner)
    if isinstance(node, ast.ClassDef):  # its body runs now, its methods later
        names.needed |= inner.needed - names.bound.keys()
        names.later |= inner.later
    else:
        locals_ = inner.bound.keys() - _declared_global(body)
        names.later |= (inner.needed | inner.later) - locals_
    if not isinstance(node, ast.Lambda):
        names.bound[node.name] = "other"


def _declared_global(body: list[ast.stmt] | ast.expr) -> set[str]:
    nodes = body if isinstance(body, list) else [body]
    found = [each for node in nodes for each in ast.walk(node) if isinstance(each, ast.Global)]
    return {name for each in found for name in each.names}


def _read_comprehension(node: ast.AST, names: Names) -> None:
    inner = Names()
    first = node.generators[0]
    _read(first.iter, names)
    _read(first.target, inner)
    _read_all(first.ifs, inner)
    for each in node.generators[1:]:
        _read(each.iter, inner)
        _read(each.target, inner)
        _read_all(each.ifs, inner)
    parts = [getattr(node, name, None) for name in ("elt", "key", "value")]
    _read_all(filter(None, parts), inner)
    walrus = {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    names.needed |= inner.needed - names.bound.keys()
    names.later |= inner.later
    for name in walrus:
        names.bound.setdefault(name, "other")
