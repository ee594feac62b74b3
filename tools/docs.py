"""`make docs`: write the tables of settings, methods, formats and backends, and the JSON schemas, from the code.

In a Markdown file a table is between `<!-- NAME, by make docs -->` and `<!-- end -->`. Schemas are whole files.
`--check` names the files with wrong content. A method, format or backend without a row is not an error: a new file is
complete without this document, and the next `make docs` adds its row.
"""

import json
import re
import sys
from pathlib import Path

from vggt_quant.inference import attention
from vggt_quant.quantization import formats, methods
from vggt_quant.results.documentation import field_docs, file_schema, json_schema, table
from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.variants import Comparison, Name, VariantSettings

ROOT = Path(__file__).parents[1]
PACKAGE = Path(formats.__file__).parents[2]
PACKED = PACKAGE / "quantization"


def methods_table() -> str:
    """Every method with its settings."""
    rows = ["| method | what it does | settings |", "|---|---|---|"]
    for name in methods.names():
        docs = field_docs(methods.get(name).Config)
        settings = " ".join(f"`{key}`: {text}" for key, text in docs.items() if key in _fields(name)) or "none"
        rows.append(f"| `{name}` | {_first_line(PACKED / 'methods' / f'{name}.py')} | {settings} |")
    return "\n".join(rows)


def _fields(method: str) -> tuple[str, ...]:
    return methods.get(method).Config.__struct_fields__


def formats_table() -> str:
    """Every format with the settings that it takes."""
    rows = ["| format | what it is | bits | `group_size` | `zero_points` | runs on |", "|---|---|---|---|---|---|"]
    for name in formats.names():
        spec = formats.spec(name)
        sizes = ", ".join(map(str, spec.group_sizes)) or "any"
        facts = (spec.bits, sizes if spec.grouped else "-", "yes" if spec.zero_points else "-", ", ".join(spec.devices))
        about = _first_line(PACKED / "formats" / f"{name}.py")
        rows.append(f"| `{name}` | {about} | {' | '.join(map(str, facts))} |")
    return "\n".join(rows)


def _first_line(file: Path) -> str:
    """The first sentence of a file's docstring, without the file's name before it."""
    text = file.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0]
    sentence = re.split(r"(?<=\.)\s", " ".join(text.split()))[0]
    return re.sub(rf"^{file.stem}: ", "", sentence)


def attention_table() -> str:
    """Every attention backend."""
    rows = ["| `run.attention` | what it is |", "|---|---|"]
    files = {name: PACKAGE / "inference" / "attention" / f"{name}.py" for name in attention.names()}
    return "\n".join([*rows, *(f"| `{name}` | {_first_line(file)} |" for name, file in files.items())])


BLOCKS = {
    "config/README.md": {
        "keys of config.yaml": lambda: table(Comparison),
        "keys of a variant": lambda: table(VariantSettings),
        "methods": methods_table,
        "formats": formats_table,
        "attention": attention_table,
    },
}
SCHEMAS = {
    "workflow/schemas/config.schema.json": lambda: json_schema(Comparison),
    "workflow/schemas/variants.schema.json": lambda: json_schema(dict[Name, VariantSettings]),
    "workflow/schemas/comparison_report.schema.json": lambda: file_schema(ComparisonReport),
}


OPEN = ("methods", "formats", "attention")
"""Blocks with a row for each file of a folder."""


def written(file: str, *, new_rows: bool = True) -> str:
    """What a file should hold.

    Args:
        file: Below the repository's root.
        new_rows: Whether `OPEN` blocks get rows that are not in the file yet.

    Raises:
        ValueError: A Markdown file without the marks of a block.
    """
    if file in SCHEMAS:
        return json.dumps(SCHEMAS[file](), indent=1) + "\n"
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, make in BLOCKS[file].items():
        start, end = f"<!-- {name}, by make docs -->\n", "\n<!-- end -->"
        head, mark, rest = text.partition(start)
        if not mark or end not in rest:
            raise ValueError(f"{file} has no block between {start.strip()} and {end.strip()}.")
        old, _, below = rest.partition(end)
        text = head + mark + (make() if new_rows or name not in OPEN else _known_rows(make(), old)) + end + below
    return text


def _known_rows(table: str, old: str) -> str:
    """A table without the rows whose first cell is in no row of the old one."""
    known = {_first_cell(row) for row in old.splitlines()}
    return "\n".join(row for row in table.splitlines() if _first_cell(row) in known)


def _first_cell(row: str) -> str:
    return row.split("|")[1].strip() if row.count("|") > 1 else row


def main() -> int:
    """Write the files, or with `--check` name those that say something wrong; 1 if there are any."""
    new_rows = "--check" not in sys.argv
    stale = [file for file in (*BLOCKS, *SCHEMAS) if not _is_written(file, new_rows)]
    for file in stale:
        if "--check" in sys.argv:
            print(f"{file} is not what `make docs` writes; run it.")
        else:
            (ROOT / file).write_text(written(file), encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


def _is_written(file: str, new_rows: bool) -> bool:
    path = ROOT / file
    return path.is_file() and path.read_text(encoding="utf-8") == written(file, new_rows=new_rows)


if __name__ == "__main__":
    sys.exit(main())
