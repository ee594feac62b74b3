"""What a result depends on, as hashes: the sources that a stage of a variant runs through, and cache keys.

`sources(module, ...)` follows the imports inside this package, read from the syntax trees and not from running code, so
it costs milliseconds and no torch. Formats and methods are found by file name and not by import, so they are named to
it. Comments, docstrings and layout are not hashed: they decide nothing. Standard library only.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def sources(*modules: str) -> str:
    """Hash of the named modules of this package and of all that they import from it.

    Args:
        modules: Names below the package, e.g. "metrics" or "formats.w4a16".

    Raises:
        ValueError: A module that does not exist.
    """
    closure: set[Path] = set()
    for module in modules:
        _follow(_require(module), closure)
    return digest({str(path.relative_to(PACKAGE)): _hash_code(path) for path in sorted(closure)})


def own_sources(*modules: str) -> str:
    """Hash of the named modules alone, without what they import."""
    return digest({module: _hash_code(_require(module)) for module in modules})


def digest(parts: Any) -> str:
    """Hash of anything that JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _require(module: str) -> Path:
    path = _module_path(module.split("."))
    if path is None:
        raise ValueError(f"vggt_quant has no module {module}.")
    return path


def _module_path(parts: list[str]) -> Path | None:
    base = PACKAGE.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and path.parent.is_relative_to(PACKAGE) and base != PACKAGE:
            return path
    return None


def _follow(path: Path, closure: set[Path]) -> None:
    if path in closure:
        return
    closure.add(path)
    for imported in _imports(path):
        _follow(imported, closure)


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of this package that the file imports, packages on the way included (the top package is left out)."""
    here = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        for name in _imported_names(node, here):
            top, *parts = name.split(".")
            if top == PACKAGE.name:
                found += [_module_path(parts[:depth]) for depth in range(1, len(parts) + 1)]
                if parts and found[-len(parts)] is None:
                    raise ValueError(
                        f"{path} imports {name}, which is no module; import it from the file it stands in."
                    )
    return tuple(file for file in found if file is not None)


def _imported_names(node: ast.AST, here: list[str]) -> list[str]:
    """Dotted names that an import statement may mean; `from a import b` means a and perhaps the module a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = here[: -node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


@cache
def _hash_code(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [statement for statement in node.body if not _is_bare_string(statement)]
    # Source text again and not `ast.dump`, whose fields differ from one version of Python to the next.
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_bare_string(node: ast.stmt) -> bool:
    """A docstring, of a module, class, function or field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
