"""Markdown tables and JSON schemas of definitions, from their types and the docstrings of their fields."""

import ast
import inspect
import json
import textwrap
import typing
from typing import Any

import msgspec
from msgspec import Struct, structs

from vggt_quant.results.record import Record
from vggt_quant.results.schema import SCHEMA_VERSION
from vggt_quant.results.validation import expected

HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$comment": "Written by `make docs` from the package's definitions; edit those.",
}
"""How each schema file begins."""


def field_docs(kind: type[Struct]) -> dict[str, str]:
    """The docstring under each field of a definition and of its bases, on one line."""
    docs: dict[str, str] = {}
    for cls in reversed([c for c in kind.__mro__ if issubclass(c, Struct) and c.__module__ != "msgspec"]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(below):
                docs[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return docs


def _is_text(node: ast.stmt) -> typing.TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def table(kind: type[Struct]) -> str:
    """A Markdown table of a definition's keys, those of definitions inside it with their path: `images.folder`."""
    rows = ["| key | meaning | value | default |", "|---|---|---|---|", *_rows(kind, "")]
    return "\n".join(rows)


def _rows(kind: type[Struct], prefix: str) -> list[str]:
    rows, docs = [], field_docs(kind)
    for field in structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            rows += _rows(field.type, f"{name}.")
        else:
            value = expected(field.type).replace(" that is not empty", "")
            rows.append(f"| `{name}` | {docs[field.name]} | {value} | {_default(field)} |")
    return rows


def _default(field: structs.FieldInfo) -> str:
    if field.required:
        return "(required)"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    text = value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value))
    return f"`{text}`"


def json_schema(kind: Any) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a type, the docstrings of fields as descriptions."""
    schema, parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    described = {cls.__name__: field_docs(cls) for cls in _definitions(kind, set())}
    for name, part in parts.items():
        for key, text in described.get(name, {}).items():
            part["properties"][key]["description"] = text
    return {**HEAD, **schema[0], "$defs": parts}


def file_schema(kind: type[Record]) -> dict[str, Any]:
    """JSON Schema of the file that holds a result: its fields, and the version of the schema."""
    schema = json_schema(kind)
    file = schema["$defs"].pop(kind.__name__)
    version = {"type": "integer", "const": SCHEMA_VERSION}
    file["properties"] = {"schema_version": version, **file["properties"]}
    file["required"] = ["schema_version", *file["required"]]
    return {**HEAD, **file, "$defs": schema["$defs"]}


def _definitions(kind: Any, found: set[type[Struct]]) -> set[type[Struct]]:
    """Every `Struct` that a type refers to, itself included."""
    if isinstance(kind, type) and issubclass(kind, Struct) and kind not in found:
        found.add(kind)
        for field in structs.fields(kind):
            _definitions(field.type, found)
    for part in typing.get_args(kind):
        _definitions(part, found)
    return found
