"""What the files of formats and attention backends declare, read from their text: no file is run, no torch imported."""

import ast

from vggt_quant.runtime import fingerprint

FORMATS, BACKENDS = "quantization.formats", "inference.attention"
NAMES = {FORMATS: "SPEC", BACKENDS: "BACKEND"}
"""Package -> the name that each of its files gives to its declaration."""


def declared(package: str, word: str) -> dict[str, object]:
    """File of a package -> what its declaration, `SPEC = FormatSpec(...)` or `BACKEND = Backend(...)`, says of `word`.

    A file that leaves the word out is not in it.

    Raises:
        ValueError: The word's value is not a literal.
    """
    found = {}
    for name in fingerprint.files_in(package):
        file = fingerprint.PACKAGE.joinpath(*package.split("."), f"{name}.py")
        for keyword in _keywords(fingerprint.read(file), NAMES[package]):
            if keyword.arg == word:
                found[name] = _literal(keyword.value, f"{file}: {word}")
    return found


def _keywords(source: bytes, name: str) -> list[ast.keyword]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == name:
            return node.value.keywords
    return []


def _literal(value: ast.expr, place: str) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError as error:
        sentence = f"{place} should be a literal, as it is read without running, but is {ast.unparse(value)}."
        raise ValueError(sentence) from error
