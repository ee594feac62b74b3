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

# Room -> the rooms it may import. A room is a module or folder directly below the package.
ALLOWED = {
    "typed_json": set(),
    "scene_results": set(),
    "run_settings": set(),
    "results": {"scene_results", "typed_json"},
    "machine": {"results"},
    "variants": {"run_settings"},
    "progress": set(),
    "gpus": set(),
    "fingerprint": set(),
    "arguments": set(),
    "model": set(),
    "kernels": set(),
    "policy": set(),
    "geometry": set(),
    "intervals": set(),
    "images": set(),
    "rounding": set(),
    "tensor_file": set(),
    "scenes": {"images", "geometry"},
    "synthetic": {"geometry"},
    "metrics": {"geometry"},
    "formats": {"kernels", "rounding"},
    "methods": {"formats", "kernels", "rounding", "progress"},
    "quantize": {"methods", "formats", "policy", "variants"},
    "advanced": {"quantize", "variants"},
    "checkpoint": {"model", "formats", "tensor_file"},
    "fast": {"run_settings", "kernels", "model"},
    "engine": {"checkpoint", "fast", "model", "formats", "run_settings"},
    "provenance": {"machine", "results"},
    "keys": {"fingerprint", "machine", "variants"},
    "inputs": {"images", "scenes", "synthetic", "model", "results", "scene_results", "tensor_file"},
    "packing": {
        *("checkpoint", "formats", "keys", "machine", "methods", "model"),
        *("provenance", "quantize", "results", "tensor_file", "typed_json", "variants"),
    },
    "reference": {"engine", "keys", "model", "progress", "provenance", "results", "scene_results", "tensor_file"},
    "truth": {"geometry", "metrics", "scene_results"},
    "accuracy": {
        *("engine", "metrics", "progress", "provenance", "reference", "results", "scene_results", "tensor_file"),
        *("run_settings", "truth"),
    },
    "speed": {"checkpoint", "engine", "machine", "progress", "provenance", "results", "run_settings", "tensor_file"},
    "speed_results": {"results"},
    "roofline": set(),
    "operations": {"checkpoint", "engine", "formats", "model"},
    "growth": {"speed_results"},
    "random_photos": {"results", "scene_results", "tensor_file"},
    "sweep": {
        *("checkpoint", "engine", "growth", "intervals", "jobs", "machine", "operations", "provenance"),
        *("random_photos", "reference", "results", "rounding", "run_settings", "speed", "speed_results", "tensor_file"),
    },
    "speed_flags": {"arguments"},
    "speed_folder": {"machine", "results", "speed_results"},
    "speed_summary": {"growth", "results", "row_values", "speed_results", "text_table"},
    "speed_figures": {"bars", "growth", "row_values", "speed_results", "typed_json"},
    "speed_report": {
        *("growth", "machine", "results", "roofline", "speed_figures", "speed_folder", "speed_results"),
        *("speed_summary", "typed_json"),
    },
    "speed_table": {
        *("fingerprint", "inputs", "jobs", "keys", "machine", "random_photos"),
        *("results", "speed_flags", "speed_folder", "speed_report", "speed_results", "variants"),
    },
    "row_values": {"results"},
    "estimates": {"intervals", "results", "row_values", "scene_results"},
    "recommendation": {"results", "row_values"},
    "bars": {"results", "row_values"},
    "figures": {"bars", "results", "row_values", "typed_json"},
    "text_table": set(),
    "report_truth": {"intervals", "results", "row_values", "text_table"},
    "report_summary": {"report_truth", "results", "row_values", "text_table"},
    "report": {"estimates", "figures", "recommendation", "report_summary", "results", "row_values", "typed_json"},
    "jobs": {"gpus", "machine", "results"},
    "stages": {
        *("accuracy", "checkpoint", "engine", "inputs", "machine", "model", "packing"),
        *("reference", "results", "run_settings", "speed", "speed_flags", "speed_results", "sweep", "typed_json"),
        "variants",
    },
    "compare": {"gpus", "jobs", "machine", "typed_json", "variants"},
    "fetch": {"machine", "model", "progress"},
    "doctor": {"engine", "fast", "formats", "machine", "methods", "variants"},
    "cli": {"arguments", "jobs", "machine", "results", "variants"},
    "__main__": {"cli"},
    "__init__": set(),
}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of this package that a file imports."""
    here = ["vggt_quant", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: -node.level]] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "vggt_quant" else [base]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("vggt_quant."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward_only(path):
    above = set(imported_rooms(path)) - ALLOWED[room(path)] - {room(path)}
    assert not above, f"{path.name} imports {above}"


def test_no_method_imports_another_method_or_a_kernel():
    for path in (PACKAGE / "methods").glob("[a-z]*.py"):
        assert not re.search(r"^(from|import) vggt_quant\.(methods|kernels)", path.read_text(), re.M), path


@pytest.mark.parametrize(
    "module", ["cli", "results", "report", "figures", "intervals", "keys", "compare", "variants", "speed_table"]
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
        real = {path.name + ("/" if path.is_dir() else "") for path in PACKAGE.iterdir() if path.name[0] not in "."}
        real -= {"__pycache__/", "__main__.py", "_workflow/", "_config/"}
        assert real <= named, f"{readme} does not name {real - named}"
