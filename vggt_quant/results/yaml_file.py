"""Read YAML files that people write; a fault is one sentence with its line and column."""

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads YAML; the one in C, which most builds have, takes a sixth of the time."""


def read_yaml(path: Path, what: str = "") -> Any:
    """What a YAML file holds.

    Raises:
        ValueError: It cannot be read, is no YAML, or has a key twice; the sentence names line and column.
    """
    try:
        loader = LOADER(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _refuse_twice(node, set())
        return loader.construct_document(node) if node else None
    except OSError as error:
        raise ValueError(f"Cannot read {what}{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"Cannot read {what}{path}: it is not UTF-8 text ({error.reason}).") from error
    except yaml.YAMLError as error:
        raise ValueError(f"Cannot read {what}{path}: {_fault(error)}.") from error


def _refuse_twice(node: yaml.Node | None, seen: set[yaml.Node]) -> None:
    """Refuse a key that a mapping has twice: the first value would be lost silently."""
    if node is None or node in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(node)
    names = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in names and key.tag != "tag:yaml.org,2002:merge":
            raise yaml.composer.ComposerError(None, None, f"{key.value} is there twice", key.start_mark)
        names.add(key.value if isinstance(key, yaml.ScalarNode) else key)
        _refuse_twice(value, seen)
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _refuse_twice(item, seen)


def _fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{getattr(error, 'problem', None) or error}"
