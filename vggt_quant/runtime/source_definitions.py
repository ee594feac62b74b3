"""The definitions in this package's modules and the names that each refers to, from syntax trees; no code is run.

A definition is a function, a class or an assignment at the top of a module. Everything else at the top (a call, `if`,
`try`) runs when the module is imported and is its `loose` part. Names are resolved by Python's scoping rules: a
parameter with the name of an import is not that import. Comments, docstrings and layout are ignored. Standard library
only.
"""

import ast
import copy
import hashlib
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

Chain = tuple[str, ...]
"""`a.b.c` as ("a", "b", "c")."""

STAR = "* of "
"""What the name starts with under which `from a import *` is kept."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A piece of a module."""

    statements: tuple[ast.stmt, ...]
    refers_to: frozenset[Chain]
    """Names that it takes from its module, each with the attributes that follow it."""
    imports: dict[str, Chain]
    """Name -> the full name of what an import inside the piece binds to it."""
    finds_by_name: bool
    """Whether it imports modules whose names stand nowhere in the code."""

    @cached_property
    def code(self) -> str:
        """Hash of its code."""
        # Source text again and not `ast.dump`, whose fields differ from one version of Python to the next.
        text = "\n".join(ast.unparse(_Stripped().visit(statement)) for statement in self.statements)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """The pieces of a module."""

    definitions: dict[str, Definition]
    loose: Definition
    never_run: dict[str, Definition] = field(default_factory=dict)
    """Class with a `forward` -> the class without it and without the methods that only `forward` calls."""
    imports: dict[str, Chain] = field(default_factory=dict)
    """As in `Definition`, at the top of the module."""
    loose_names: frozenset[str] = frozenset()
    """What the loose part binds."""


@cache
def parse(source: bytes, package: Chain) -> Module:
    """Take a module apart; `package` is the full name of the package that it lies in."""
    tree, scopes = ast.parse(source), _global_names(source)
    pieces: dict[str, list[ast.stmt]] = {}
    loose: list[ast.stmt] = []
    imports: dict[str, Chain] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports |= dict(_bound_by_import(statement, package))
        elif names := _defined(statement):
            for name in names:
                pieces.setdefault(name, []).append(statement)
        elif not _is_docstring(statement):
            loose.append(statement)
    for statement in loose:
        imports |= _imports_in(statement, package)
    reduced = {node.name: less for node in tree.body if isinstance(node, ast.ClassDef) if (less := _less_forward(node))}
    return Module(
        definitions={name: _definition(nodes, package, scopes.get(name)) for name, nodes in pieces.items()},
        never_run={name: _definition([less], package, scopes.get(name)) for name, less in reduced.items()},
        loose=_definition(loose, package, None),
        imports=imports,
        loose_names=frozenset(name for statement in loose for name in _stored(statement)),
    )


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a definition binds; none for a statement that is no definition."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    if any(isinstance(node, ast.Attribute | ast.Subscript) for target in targets for node in ast.walk(target)):
        return []  # It changes something that is defined elsewhere.
    return [name for target in targets for name in _stored(target)]


def _less_forward(node: ast.ClassDef) -> ast.ClassDef | None:
    """A class without `forward` and the methods that only `forward` calls; None for a class that has none."""
    methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    run = _called(["forward"], methods)
    used = _called([name for name in methods if name not in run or name.startswith("__")], methods)
    body = [inner for inner in node.body if not isinstance(inner, ast.FunctionDef) or inner.name in used]
    kept = copy.copy(node)
    kept.body = body or [ast.Pass()]
    return kept if run else None


def _called(names: list[str], methods: dict[str, ast.FunctionDef]) -> set[str]:
    """Those of the methods, and the methods that they name as attributes (`self.other`), and so on."""
    found: set[str] = set()
    todo = [name for name in names if name in methods]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            attributes = {inner.attr for inner in ast.walk(methods[name]) if isinstance(inner, ast.Attribute)}
            todo += attributes & methods.keys()
    return found


def _stored(node: ast.AST) -> list[str]:
    names = [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)]
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [*names, *(inner.name for inner in ast.walk(node) if isinstance(inner, kinds))]


def _definition(nodes: list[ast.stmt], package: Chain, scope: frozenset[str] | None) -> Definition:
    finder = _References(scope)
    for node in nodes:
        finder.visit_top(node)
    local: dict[str, Chain] = {}
    for node in nodes:
        local |= _imports_in(node, package)
    return Definition(
        statements=tuple(nodes),
        refers_to=frozenset(finder.chains),
        imports=local,
        finds_by_name=any(chain[-1] in ("import_module", "__import__") for chain in finder.chains),
    )


def _imports_in(node: ast.AST, package: Chain) -> dict[str, Chain]:
    found = (inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom))
    return {name: chain for statement in found for name, chain in _bound_by_import(statement, package)}


def _bound_by_import(statement: ast.Import | ast.ImportFrom, package: Chain) -> Iterator[tuple[str, Chain]]:
    """(name, full name of what it means) for each name that an import binds."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            chain = tuple(alias.name.split("."))
            yield (alias.asname, chain) if alias.asname else (alias.name, chain)
        return
    base = package[: len(package) - statement.level + 1] if statement.level else ()
    base += tuple(statement.module.split(".")) if statement.module else ()
    for alias in statement.names:
        yield (
            (f"* of {'.'.join(base)}", base) if alias.name == "*" else (alias.asname or alias.name, (*base, alias.name))
        )


class _References(ast.NodeVisitor):
    """Collects names with the attributes that follow them; `scope` are those that a body takes from its module."""

    def __init__(self, scope: frozenset[str] | None) -> None:
        self.chains: set[Chain] = set()
        self.scope, self.is_inside = scope, False

    def visit_top(self, node: ast.stmt) -> None:
        """A definition: its body has a separate scope, all else (decorators, defaults, bases) is in the module's."""
        body = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
        for child in ast.iter_child_nodes(node):
            self.is_inside = child in body
            self.visit(child)

    def visit_Name(self, node: ast.Name) -> None:
        self._add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._add((inner.id, *reversed(attributes)))
        else:
            self.visit(inner)

    def visit_arg(self, node: ast.arg) -> None:
        self._visit_annotation(node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_annotation(node.annotation)
        for child in (node.target, node.value):
            if child:
                self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in ast.iter_child_nodes(node):
            if child is node.returns:
                self._visit_annotation(node.returns)
            else:
                self.visit(child)

    def _visit_annotation(self, node: ast.expr | None) -> None:
        """Python may leave annotations out of a function's scope, but they name the classes of its arguments."""
        if node:
            before, self.is_inside = self.is_inside, False
            self.visit(node)
            self.is_inside = before

    def _add(self, chain: Chain) -> None:
        if not self.is_inside or self.scope is None or chain[0] in self.scope:
            self.chains.add(chain)


def _global_names(source: bytes) -> dict[str, frozenset[str]]:
    """Function or class at the top -> the names that anything in it takes from the module or from Python itself."""
    names: dict[str, frozenset[str]] = {}
    for table in symtable.symtable(source.decode(), "module", "exec").get_children():
        names[table.get_name()] = names.get(table.get_name(), frozenset()) | _globals_in(table)
    return names


def _globals_in(table: symtable.SymbolTable) -> frozenset[str]:
    here = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() or symbol.is_imported()}
    return frozenset(here).union(*map(_globals_in, table.get_children()))


class _Stripped(ast.NodeTransformer):
    """Removes the docstrings of functions, classes and fields."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_docstring(node) else node


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
