"""Build checked definitions (`msgspec.Struct`) from plain data; an error message has the location, value and cure.

The types of a definition say what is allowed. `build` makes one from the content of a JSON or YAML file. A `Definition`
is checked in the same way when Python code constructs it. NaN and infinity are refused.
"""

import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

T = TypeVar("T")
UNIONS = (types.UnionType, typing.Union)
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of settings: frozen, made by keyword, without unknown keys, and checked whoever makes it.

    A subclass repeats `frozen=True, kw_only=True`: mypy wants the first, and msgspec inherits only the first.
    """

    def __post_init__(self) -> None:
        """Refuse values of a wrong type, make plain data what a field says; a subclass with rules calls this first."""
        for name, kind in _fields(type(self)):
            value = getattr(self, name)
            made = build(kind, value, f"{type(self).__name__}.{name}")
            if made is not value:
                structs.force_setattr(self, name, made)


@functools.cache
def _fields(kind: type[Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in structs.fields(kind))


def build(kind: type[T], data: Any, where: str = "", *, strict: bool = True) -> T:
    """Turn what JSON or YAML holds into a `kind`.

    Args:
        kind: A `msgspec.Struct`, or any type that msgspec knows.
        data: dicts, lists, texts, numbers, None.
        where: What the data is, for messages: "results/speed/bf16.json", "Variant bf16".
        strict: False also takes numbers, true, false and null written as text, as a command line hands them on.

    Raises:
        ValueError: A key is missing or unknown, or a value is not what `kind` allows; the sentence names the place.
    """
    _refuse_not_finite(data, where)
    try:
        return msgspec.convert(data, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(kind, data, where, "", strict) or f"{_place(where, '')}{error}.") from error


def near(name: object, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where a known name is like this one, else nothing; to be put into a message.

    A like name starts with the same letter: `gpu` is not meant to be `cpu`.
    """
    if not isinstance(name, str):
        return ""
    lowered = {other.lower(): other for other in known if other[:1].lower() == name[:1].lower()}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def _refuse_not_finite(data: Any, where: str, path: str = "") -> None:
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{_place(where, path)}should be a finite number or null, but is {data}.")
    if isinstance(data, Mapping):
        for key, value in data.items():
            _refuse_not_finite(value, where, _step(path, key))
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            _refuse_not_finite(value, where, f"{path}[{index}]")


def _explain(kind: Any, data: Any, where: str, path: str, strict: bool) -> str | None:
    """What is wrong at the deepest place that is wrong; None if msgspec takes the data after all."""
    if _takes(kind, data, strict):
        return None
    member = _meant(kind, data)
    if isinstance(data, Mapping) and isinstance(member, type) and issubclass(member, Struct):
        return _explain_struct(member, data, where, path, strict)
    for inner, value, step in _inside(member, data, path):
        if wrong := _explain(inner, value, where, step, strict):
            return wrong
    if isinstance(data, Mapping) and (tags := _tags(kind)):
        field, path = next(iter(tags)), _step(path, next(iter(tags)))
        kind, data = Literal[tuple(tags[field])], data.get(field)
    choices = [choice for choice in _choices(kind) if isinstance(choice, str)]
    found = f"{_shown(data)}{near(data, choices)}"
    return f"{_place(where, path)}should be {expected(kind)}, but is {found}."


def _explain_struct(kind: type[Struct], data: Mapping[Any, Any], where: str, path: str, strict: bool) -> str:
    fields = {field.encode_name: field for field in structs.fields(kind)}
    tag = kind.__struct_config__.tag_field
    known = [*([tag] if tag else []), *fields]
    if tag and data.get(tag, kind.__struct_config__.tag) != kind.__struct_config__.tag:
        own = kind.__struct_config__.tag
        return f"{_place(where, _step(path, tag))}should be {own}, but is {_shown(data[tag])}."
    for key in data if kind.__struct_config__.forbid_unknown_fields else ():
        if key not in known:
            keys = f"the keys are {', '.join(known)}" if known else "there are none"
            return f"{_before(where, path)}there is no key {key!r}{near(key, known)}; {keys}."
    for name, field in fields.items():
        if name not in data and field.required:
            return f"{_before(where, path)}the key {name!r} is missing; it should be {expected(field.type)}."
        if name in data and (wrong := _explain(field.type, data[name], where, _step(path, name), strict)):
            return wrong
    return f"{_before(where, path)}{_own_rule(kind, data, strict)}"


def _own_rule(kind: type[Struct], data: Mapping[Any, Any], strict: bool) -> str:
    """The sentence of `__post_init__`, which msgspec adds a path to that users cannot read."""
    values = {
        field.name: msgspec.convert(data[field.encode_name], field.type, strict=strict)
        for field in structs.fields(kind)
        if field.encode_name in data
    }
    try:
        kind(**values)
    except (TypeError, ValueError) as error:
        return str(error)
    return f"it does not fit {kind.__name__}."


def _inside(kind: Any, data: Any, path: str) -> Iterable[tuple[Any, Any, str]]:
    """The parts of a mapping or list: the type of each, its value and its place."""
    arguments = typing.get_args(kind)
    if isinstance(data, Mapping) and typing.get_origin(kind) is dict:
        yield from ((arguments[0], key, _step(path, key)) for key in data)
        yield from ((arguments[1], value, _step(path, key)) for key, value in data.items())
    elif isinstance(data, (list, tuple)) and typing.get_origin(kind) in (list, tuple):
        fixed = typing.get_origin(kind) is tuple and Ellipsis not in arguments
        if not fixed or len(arguments) == len(data):
            inner = arguments if fixed else (arguments[0],) * len(data)
            yield from ((one, value, f"{path}[{i}]") for i, (one, value) in enumerate(zip(inner, data, strict=True)))


def _meant(kind: Any, data: Any) -> Any:
    """The member of a union that data of this shape was meant for, without its `Annotated`."""
    kind = _bare(kind)
    if typing.get_origin(kind) not in UNIONS:
        return kind
    wanted: tuple[type, ...] = (Struct, dict) if isinstance(data, Mapping) else (list, tuple)
    members = [_bare(member) for member in typing.get_args(kind)]
    fitting = [m for m in members if isinstance(c := typing.get_origin(m) or m, type) and issubclass(c, wanted)]
    for member in fitting:
        config = getattr(member, "__struct_config__", None)
        if len(fitting) == 1 or (config and config.tag_field and data.get(config.tag_field) == config.tag):
            return member
    return None


def _tags(kind: Any) -> dict[str, list[Any]]:
    """The field that tells the structs of a union apart, and what each of them has there."""
    tags: dict[str, list[Any]] = {}
    for member in typing.get_args(kind) if typing.get_origin(kind) in UNIONS else ():
        config = getattr(_bare(member), "__struct_config__", None)
        if config and config.tag_field:
            tags.setdefault(config.tag_field, []).append(config.tag)
    return tags


def expected(kind: Any) -> str:
    """What a type allows, in words: "a whole number from 1 or null"."""
    if typing.get_origin(kind) is Annotated:
        return _limited(*typing.get_args(kind))
    if typing.get_origin(kind) in UNIONS:
        members, choices = typing.get_args(kind), _choices(kind)
        if choices and bool in members:
            choices = [True, False, *choices]
        others = [expected(m) for m in members if typing.get_origin(m) is not Literal and not (choices and m is bool)]
        return " or ".join([*([_listed(choices)] if choices else []), *dict.fromkeys(others)])
    if typing.get_origin(kind) is Literal:
        return _listed(_choices(kind))
    cls = typing.get_origin(kind) or kind
    if cls in WORDS:
        return WORDS[cls]
    if cls is tuple and Ellipsis not in typing.get_args(kind):
        return f"a list of {len(typing.get_args(kind))}, each {expected(typing.get_args(kind)[0])}"
    return "a list" if cls in (list, tuple) else "a mapping"


def _limited(kind: Any, *marks: Any) -> str:
    for mark in marks:
        if isinstance(mark, Meta):
            if mark.description:
                return mark.description
            limits = {"from": mark.ge, "above": mark.gt, "up to": mark.le, "below": mark.lt}
            given = " ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
            empty = " that is not empty" if mark.min_length else ""
            return f"{expected(kind)} {given}".strip() + empty
    return expected(kind)


def _choices(kind: Any) -> list[Any]:
    """The values that a literal, or the literals of a union, list."""
    kind = _bare(kind)
    if typing.get_origin(kind) in UNIONS:
        return [choice for member in typing.get_args(kind) for choice in _choices(member)]
    return list(typing.get_args(kind)) if typing.get_origin(kind) is Literal else []


def _listed(choices: list[Any]) -> str:
    words = [choice if isinstance(choice, str) else _shown(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _takes(kind: Any, data: Any, strict: bool) -> bool:
    try:
        msgspec.convert(data, kind, strict=strict)
    except msgspec.ValidationError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value as people write it in YAML or JSON, cut where it is long."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _step(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _place(where: str, path: str) -> str:
    """The subject of a sentence."""
    both = f"{where}: {path}" if where and path else where or path
    return f"{both} " if both else "the value "


def _before(where: str, path: str) -> str:
    """The prefix of a sentence that has its own subject."""
    return "".join(f"{part}: " for part in (where, path) if part)
