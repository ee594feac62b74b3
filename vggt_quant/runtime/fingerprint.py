"""Hashes of the code that a function can reach inside this package, for keys.

`closure("evaluation.accuracy:measure_accuracy")` follows every name that the function uses to its definition, then the
names in that definition, and so on. It includes the code that each reached module runs on import. No code is run, so it
takes milliseconds and needs no torch. A function that imports modules by name (`formats.get`) includes all files of its
folder, or those that the caller has `chosen`. Standard library only.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vggt_quant.runtime.source_definitions import STAR, Chain, Definition, Module, parse

PACKAGE = Path(__file__).parents[1]
LOOSE = ""
"""In place of a definition's name: what a module runs when it is imported."""

NEVER_RUN = " without forward"
"""What follows the name of a class whose modules are built, but never run."""

Piece = tuple[Chain, str]
"""(module, definition), the module's name below the package."""


def code(
    *entries: str,
    without: Collection[str] = (),
    never_run: Collection[str] = (),
    chosen: Mapping[str, Collection[str]] | None = None,
) -> str:
    """Hash of `closure`, with the same arguments."""
    return digest(closure(*entries, without=without, never_run=never_run, chosen=chosen))


def closure(
    *entries: str,
    without: Collection[str] = (),
    never_run: Collection[str] = (),
    chosen: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Every definition that the entries can reach -> hash of its code.

    Args:
        entries: "module:function", or "module" for all that it defines; names below the package.
        without: Modules, packages or single definitions (likewise written) that are not followed.
        never_run: Modules or packages whose classes are built, but never run: their `forward` is not followed.
        chosen: Package -> the files in it that are taken where something reached imports its files by name; all files
            of packages that are not mentioned.

    Raises:
        ValueError: An entry that does not exist, or an import that cannot be followed.
    """
    files = tuple(sorted((package, tuple(names)) for package, names in (chosen or {}).items()))
    return _closure(entries, tuple(without), tuple(never_run), files)


@cache
def _closure(
    entries: tuple[str, ...],
    without: tuple[str, ...],
    never_run: tuple[str, ...],
    chosen: tuple[tuple[str, tuple[str, ...]], ...],
) -> dict[str, str]:
    """See `closure`; the variants of a run share most of theirs."""
    found: dict[Piece, str] = {}
    todo = [piece for entry in entries for piece in _named(entry)]
    while todo:
        piece = _less_forward(todo.pop(), never_run)
        if piece in found or _is_left_out(piece, without):
            continue
        found[piece] = _definition(piece).code
        todo += _leads_to(piece)
        if _definition(piece).finds_by_name:
            todo += _found_by_name(piece[0], dict(chosen))
    return {f"{'.'.join(module)}:{name}": found[module, name] for module, name in sorted(found)}


def digest(parts: Any) -> str:
    """Hash of anything that JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def files_in(package: str) -> list[str]:
    """The modules of a package whose files are found by their names: those without a leading underscore."""
    return sorted(path.stem for path in PACKAGE.joinpath(*package.split(".")).glob("[!_]*.py"))


def _named(entry: str) -> list[Piece]:
    module, _, name = entry.partition(":")
    parts = tuple(module.split("."))
    if not _path(parts):
        raise ValueError(f"vggt_quant has no module {module}.")
    if name and name not in _module(parts).definitions:
        raise ValueError(f"vggt_quant.{module} defines no {name}.")
    return [(parts, name)] if name else _whole(parts)


def _whole(module: Chain) -> list[Piece]:
    return [(module, LOOSE), *((module, name) for name in _module(module).definitions)]


@cache
def _is_left_out(piece: Piece, without: tuple[str, ...]) -> bool:
    module = ".".join(piece[0])
    return any(f"{module}.".startswith(f"{name}.") or f"{module}:{piece[1]}" == name for name in without)


def _less_forward(piece: Piece, never_run: tuple[str, ...]) -> Piece:
    """The piece itself, or what stands for a class that is never run."""
    module, name = piece
    if name in _module(module).never_run and _is_left_out((module, LOOSE), never_run):
        return module, name + NEVER_RUN
    return piece


def _definition(piece: Piece) -> Definition:
    module, name = _module(piece[0]), piece[1]
    if name.endswith(NEVER_RUN):
        return module.never_run[name.removesuffix(NEVER_RUN)]
    return module.loose if name == LOOSE else module.definitions[name]


@cache
def _leads_to(piece: Piece) -> frozenset[Piece]:
    """What a piece refers to, and what runs when the modules of all that are imported."""
    (where, name), module, definition = piece, _module(piece[0]), _definition(piece)
    found = {(where[:depth], LOOSE) for depth in range(1, len(where) + 1)}
    executed = [*definition.imports.values(), *(module.imports.values() if name == LOOSE else ())]
    found.update((_split(target, where)[0], LOOSE) for target in executed if target[0] == PACKAGE.name)
    imports = module.imports | definition.imports
    for chain in definition.refers_to:
        if target := _longest(chain, imports):
            found.update(_pieces(target, where))
        elif chain[0] in module.definitions:
            found.add((where, chain[0]))
    for target in (target for bound, target in imports.items() if bound.startswith(STAR)):
        found.update(_pieces(target, where))
    return frozenset(found)


def _found_by_name(where: Chain, chosen: Mapping[str, Collection[str]]) -> Iterator[Piece]:
    path = _path(where)
    folder = ".".join(where if path and path.name == "__init__.py" else where[:-1])
    for name in chosen.get(folder, files_in(folder)):
        yield from _named(f"{folder}.{name}")


def _longest(chain: Chain, imports: dict[str, Chain]) -> Chain | None:
    """What a name with its attributes means by the longest import of it (`import a.b` binds `a.b`), or None."""
    for length in range(len(chain), 0, -1):
        if target := imports.get(".".join(chain[:length])):
            return (*target, *chain[length:])
    return None


def _pieces(target: Chain, importer: Chain) -> Iterator[Piece]:
    """The definition that a full name means, or the whole module."""
    if target[0] != PACKAGE.name:
        return
    module, rest = _split(target, importer)
    if not rest:
        yield from _whole(module)
        return
    found = _module(module)
    if rest[0] in found.definitions:
        yield module, rest[0]
    elif rest[0] in found.imports:
        yield module, LOOSE
        yield from _pieces((*found.imports[rest[0]], *rest[1:]), module)
    elif rest[0] in found.loose_names or rest[0].startswith("__"):
        yield module, LOOSE
    else:
        raise _not_there(target, importer)


def _split(target: Chain, importer: Chain) -> tuple[Chain, Chain]:
    """A full name as the module in it and what follows."""
    parts = target[1:]
    for length in range(len(parts), 0, -1):
        if _path(parts[:length]):
            return parts[:length], parts[length:]
    raise _not_there(target, importer)


def _not_there(target: Chain, importer: Chain) -> ValueError:
    where, name = ".".join(importer), ".".join(target)
    return ValueError(f"{where} imports {name}, which is not there; import it from the file that defines it.")


@cache
def _path(module: Chain) -> Path | None:
    base = PACKAGE.joinpath(*module)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if module and path.is_file():
            return path
    return None


@cache
def _module(module: Chain) -> Module:
    path = _path(module)
    assert path, module
    package = module if path.name == "__init__.py" else module[:-1]
    return parse(read(path), (PACKAGE.name, *package))


def read(path: Path) -> bytes:
    """The source of a module."""
    return path.read_bytes()


def forget() -> None:
    """Read every module again from now on."""
    for function in (_closure, _module, _leads_to, _path):
        function.cache_clear()
