"""Dataclasses to JSON and back, checked: the small mechanism under `results`. Standard library only."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal


def build(annotation: Any, data: Any, where: str = "") -> Any:
    """Turn plain JSON data into the annotated type; a missing, unknown or mistyped field is a ValueError."""
    if dataclasses.is_dataclass(annotation):
        return _build_dataclass(annotation, data, where)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return data
    if origin in (types.UnionType, typing.Union):
        return None if data is None else build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is Literal:
        _expect(data in arguments, where, f"one of {list(arguments)}", data)
        return data
    if origin is list:
        _expect(isinstance(data, list), where, "a list", data)
        return [build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data)]
    if origin is dict:
        _expect(isinstance(data, dict), where, "an object", data)
        return {key: build(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    return _build_scalar(annotation, data, where)


def _build_dataclass(cls: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), where or cls.__name__, "an object", data)
    hints = typing.get_type_hints(cls)
    unknown = set(data) - set(hints)
    _expect(not unknown, where or cls.__name__, f"only the fields of {cls.__name__}", sorted(unknown))
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in data and not _has_default(f)]
    _expect(not missing, where or cls.__name__, f"all fields of {cls.__name__}", f"nothing for {missing}")
    return cls(**{key: build(hints[key], value, f"{where}.{key}".lstrip(".")) for key, value in data.items()})


def _build_scalar(annotation: Any, data: Any, where: str) -> Any:
    if annotation is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    _expect(not isinstance(data, float) or math.isfinite(data), where, "a finite number or null", data)
    is_bool_as_number = isinstance(data, bool) and annotation is not bool
    _expect(isinstance(data, annotation) and not is_bool_as_number, where, annotation.__name__, data)
    return data


def _expect(condition: bool, where: str, expected: str, data: Any) -> None:
    if not condition:
        raise ValueError(f"{where} should be {expected}, but is {data!r}")


def _has_default(item: dataclasses.Field) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def json_schema(cls: Any) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a result type, its nested types under `$defs`."""
    definitions: dict[str, Any] = {}
    reference = _schema_of(cls, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **reference, "$defs": definitions}


def _schema_of(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        if annotation.__name__ not in definitions:
            definitions[annotation.__name__] = {}
            definitions[annotation.__name__] = _object_schema(annotation, definitions)
        return {"$ref": f"#/$defs/{annotation.__name__}"}
    if annotation is Any:
        return {}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema_of(argument, definitions) for argument in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": names[annotation]}


def _object_schema(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    required = [f.name for f in dataclasses.fields(cls) if not _has_default(f)]
    properties = {name: _schema_of(hint, definitions) for name, hint in hints.items()}
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**schema, "description": (cls.__doc__ or "").strip()}
