"""Decisions about the structure, held as tests: who may import whom, how long files and functions may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggt_quant"
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms, or their single modules, that it may import. A room is a file or folder directly below the package.
CHECKPOINTS = {"quantization.checkpoint", "quantization.formats", "quantization.made_by"}
ALLOWED = {
    "kernels": set(),
    "model": set(),
    "results": set(),
    "variants": {"results"},
    "runtime": {"results", "variants"},
    "quantization": {"kernels", "model", "results", "runtime", "variants"},
    "data": {"model", "results", "runtime"},
    "inference": {*CHECKPOINTS, "kernels", "model", "variants"},
    "evaluation": {"inference", "data", "model", "results", "runtime", "variants"},
    "benchmark": {
        *CHECKPOINTS,
        *("inference", "evaluation.reference", "data", "model", "results", "runtime", "variants"),
    },
    "report": {"results", "runtime"},
    "cli": {
        *("benchmark", "data", "evaluation", "inference", "kernels", "model"),
        *("quantization", "report", "results", "runtime", "variants"),
    },
    "__main__": {"cli", "runtime"},
    "__init__": set(),
}

# Inside a room: what these modules must not know.
FORBIDDEN = {
    "quantization/checkpoint.py": {"quantization.methods"},
    "quantization/formats": {"quantization.methods", "model"},
    "quantization/methods": {"model", "kernels"},
}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Modules of this package that a file imports, as names below the package: `data.truth.frames`."""
    here = list(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("vggt_quant.") for name in names if name.startswith("vggt_quant."))


def is_among(name, modules):
    """Whether a name is one of the modules or stands in one of them."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward_only(path):
    above = {name for name in imported(path) if not is_among(name, ALLOWED[room(path)] | {room(path)})}
    assert not above, f"{path.name} imports {above}"


@pytest.mark.parametrize("place", FORBIDDEN)
def test_inside_a_room_nobody_imports_what_it_must_not_know(place):
    files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).glob("*.py"))
    assert files
    for path in files:
        assert not [name for name in imported(path) if is_among(name, FORBIDDEN[place])], path


def test_a_method_imports_no_other_method():
    files = list((PACKAGE / "quantization" / "methods").glob("[!_]*.py"))
    methods = {f"quantization.methods.{path.stem}" for path in files}
    for path in files:
        assert not [name for name in imported(path) if is_among(name, methods)], path


def imports_of(path, modules):
    """Those of `modules` (full name -> file) that a file imports when it runs; a name for a type alone is none."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in inner.values()}
    return {modules[name] for name in found if name in modules} - {path}


def circles(modules):
    """The files that can reach themselves by imports, given as full name -> file."""
    graph = {path: imports_of(path, modules) for path in modules.values()}
    reach = {path: set(targets) for path, targets in graph.items()}
    for middle in graph:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    return sorted(str(path.relative_to(ROOT)) for path, targets in reach.items() if path in targets)


def test_no_module_of_the_package_imports_itself_by_way_of_others():
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    assert circles({name: path for path, name in names.items()}) == []


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (ROOT / "tools").rglob("*.py")}), ids=lambda f: f.name
)
def test_no_tool_imports_itself_by_way_of_others(folder):
    assert circles({path.stem: path for path in folder.glob("*.py")}) == []


def test_a_circle_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        (tmp_path / f"{name}.py").write_text(f"def late():\n    from {other} import thing\n")
    assert circles({path.stem: path for path in tmp_path.glob("*.py")}) == ["a.py", "b.py", "c.py"]


def test_the_house_is_small():
    """Rooms: what lies directly below the package, and the other top-level folders with Python. Tests may know all."""
    outside = [path for path in ROOT.glob("[!.]*/**/*.py") if not path.is_relative_to(PACKAGE)]
    folders = {path.relative_to(ROOT).parts[0] for path in outside}
    arrows = {(room(path), name.split(".")[0]) for path in FILES for name in imported(path)}
    arrows |= {(path.relative_to(ROOT).parts[0], name.split(".")[0]) for path in outside for name in imported(path)}
    arrows = {(above, below) for above, below in arrows if above not in (below, "tests")}
    assert len(ALLOWED) <= 15
    assert len(ALLOWED) + len(folders) <= 20
    assert len(arrows) <= 55, sorted(arrows)


def test_the_import_table_names_every_room_and_no_other():
    assert set(ALLOWED) == {room(path) for path in FILES}


@pytest.mark.parametrize(
    "module",
    [
        *(f"cli.{path.stem}" for path in (PACKAGE / "cli").glob("[!_]*.py")),
        *(
            "cli._speed_table",
            "results.schema",
            "results.validation",
            "results.documentation",
            "quantization.catalog",
            "results.intervals",
        ),
        *("report.collect", "report.figures", "runtime.cache_keys", "variants"),
    ],
)
def test_what_needs_no_torch_does_not_import_it(module):
    code = f"import sys, vggt_quant.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_model_without_weights_is_built_without_pytorchs_compiler():
    """It would cost every stage a second and 0.15 GB, which would count as the variant's memory."""
    code = (
        "import sys, torch; from vggt_quant.model import VGGT, VGGTConfig; torch.set_default_device('meta');"
        "VGGT(VGGTConfig()); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    limit = 400 if room(path) in ("model", "kernels") else 310
    text = path.read_text()
    assert text.count("\n") <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


def test_the_readme_names_every_file_of_the_package_and_no_other():
    """The tree in the README is the map; a map that lies is worse than none."""
    for readme in ("README.md", "README.zh-CN.md"):
        blocks = (ROOT / readme).read_text().split("```text")[1:]
        tree = next(block.split("```")[0] for block in blocks if "\nvggt_quant/\n" in block)
        named = set(re.findall(r"^\s+(\w+(?:\.py|/))\s", tree, re.M))
        real = {path.name + ("/" if path.is_dir() else "") for path in PACKAGE.iterdir() if path.name[0] != "."}
        real -= {"__pycache__/", "__main__.py", "_workflow/", "_config/"}
        assert real <= named, f"{readme} does not name {real - named}"
