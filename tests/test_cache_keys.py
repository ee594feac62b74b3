"""Keys of this package: what an edit of each module changes, what is left out and decides nothing, what really runs."""

import ast
import functools
import inspect
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
from small_run import nano_run

from vggt_quant.benchmark.sweep import measure_sweep
from vggt_quant.benchmark.timing import measure_speed
from vggt_quant.evaluation.accuracy import measure_accuracy
from vggt_quant.evaluation.reference import make_reference
from vggt_quant.quantization import make_checkpoint as packing
from vggt_quant.runtime import cache_keys, fingerprint
from vggt_quant.variants import load_variants

PACKAGE = fingerprint.PACKAGE
VARIANTS = load_variants()
SOME = ("bf16", "pytorch_dynamic_int8", "int8_symmetric", "int4_group64", "fp8_attention8")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
COMPUTED = {  # stage -> its key, the function that computes it, what is left out
    "checkpoint": (cache_keys.quantize_code, "quantization.make_checkpoint:_make", cache_keys.NOT_IN_A_CHECKPOINT),
    "quantize": (
        cache_keys.description_code,
        "quantization.make_checkpoint:make_checkpoint",
        cache_keys.NOT_IN_A_QUANTIZE_RESULT,
    ),
    "accuracy": (cache_keys.accuracy_code, "evaluation.accuracy:measure_accuracy", cache_keys.NOT_MEASURED),
    "speed": (cache_keys.speed_code, "benchmark.timing:measure_speed", cache_keys.NOT_MEASURED),
    "sweep": (cache_keys.sweep_code, "benchmark.sweep:measure_sweep", cache_keys.NOT_MEASURED),
}


def codes():
    """(stage, variant) -> key."""
    every = {(stage, name): code(VARIANTS[name]) for stage, (code, *_) in COMPUTED.items() for name in SOME}
    return every | {("reference", None): cache_keys.reference_code()}


@pytest.fixture(scope="module")
def unedited():
    fingerprint.forget()
    return codes()


@pytest.fixture
def changed_by(monkeypatch, unedited):
    """The (stage, variant) whose keys change when a file's text is edited."""

    def changed(file, edit):
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "read", lambda path: read(path, edit if path == PACKAGE / file else None))
            fingerprint.forget()
            after = codes()
        fingerprint.forget()
        return {key for key in after if after[key] != unedited[key]}

    return changed


def read(path, edit):
    return edit(path.read_bytes()) if edit else path.read_bytes()


def append(statement):
    return lambda source: source + f"\n{statement}\n".encode()


def replaced(old, new):
    def edit(source):
        assert old.encode() in source
        return source.replace(old.encode(), new.encode(), 1)

    return edit


def imported_modules(path):
    """Files of this package that importing a file runs: a second, plainer reading of the sources than the keys'."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base.startswith("vggt_quant"):
                found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("vggt_quant")}
    parents = {".".join(name.split(".")[:depth]) for name in found for depth in range(2, name.count(".") + 2)}
    bases = [PACKAGE.parent.joinpath(*name.split(".")) for name in parents]
    return {file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()}


def import_closure(paths, left_out):
    closure, todo = set(), [*paths]
    while todo:
        path = todo.pop()
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if path not in closure and not any(f"{name}.".startswith(f"{out}.") for out in left_out):
            closure.add(path)
            inits = [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(PACKAGE)]
            todo += imported_modules(path) | {init for init in inits if init.parent != PACKAGE}
    return closure


@functools.cache
def may_depend(stage, name):
    """The files that the key of a stage may depend on, by the imports of the module that computes it."""
    if stage == "reference":
        entries, left_out = ["evaluation/reference.py"], cache_keys.NOT_IN_A_REFERENCE
    else:
        entries = [f"{COMPUTED[stage][1].partition(':')[0].replace('.', '/')}.py"]
        left_out, variant = COMPUTED[stage][2], VARIANTS[name]
        entries += [f"quantization/formats/{packed}.py" for packed in cache_keys.formats_of(variant)]
        entries += [f"quantization/methods/{variant.method}.py"] if stage in ("checkpoint", "quantize", "sweep") else []
        entries += [f"inference/attention/{backend}.py" for backend in cache_keys.backends_of(variant)]
        entries += ["evaluation/metrics/" + path.name for path in (PACKAGE / "evaluation/metrics").glob("*.py")]
    every = import_closure([PACKAGE / entry for entry in entries], left_out)
    if stage == "sweep":
        every |= may_depend("checkpoint", name) | may_depend("reference", None) | {PACKAGE / "data/random_photos.py"}
        every |= import_closure([PACKAGE / "data/random_photos.py"], left_out)
    return every


@functools.cache
def modules_in(stage, name):
    """The files that a key hashes a piece of."""
    if stage == "reference":
        pieces = fingerprint.closure("evaluation.reference:make_reference", without=cache_keys.NOT_IN_A_REFERENCE)
    else:
        pieces = closure(stage, VARIANTS[name])
    bases = [PACKAGE.joinpath(*piece.partition(":")[0].split(".")) for piece in pieces]
    return {file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_key_depends_on_a_module_that_its_computation_does_not_import(path, unedited):
    for key in unedited:
        assert path not in modules_in(*key) or path in may_depend(*key), key


class Trace:
    """What of this package runs inside the block, but for what is left out by name and all that it calls."""

    def __init__(self, left_out):
        self.left_out, self.depth, self.seen, self.forwards = left_out, 0, set(), set()

    def __enter__(self):
        sys.setprofile(self.note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def note(self, frame, event, _):
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_OPTIMIZED  # and not the body of a class or module that is imported
        if event not in ("call", "return") or not is_function or not code.co_filename.startswith(str(PACKAGE)):
            return
        module = ".".join(Path(code.co_filename).relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        name = code.co_qualname.split(".")[0]
        if is_left_out(module, name, self.left_out):
            self.depth += 1 if event == "call" else -1
        elif event == "call" and not self.depth and not name.startswith("<"):
            self.seen.add(f"{module}:{name}")
            self.forwards |= {module} if code.co_name == "forward" else set()


def is_left_out(module, name, left_out):
    return any(f"{module}.".startswith(f"{out}.") or f"{module}:{name}" == out for out in left_out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return nano_run(tmp_path_factory.mktemp("computed"))


def closure(stage, variant):
    never_run = cache_keys.NOT_RUN_FOR_A_CHECKPOINT if stage in ("checkpoint", "quantize") else ()
    _, entry, left_out = COMPUTED[stage]
    pieces = fingerprint.closure(entry, without=left_out, never_run=never_run, chosen=cache_keys.files_of(variant))
    return {piece.removesuffix(fingerprint.NEVER_RUN) for piece in pieces}


@pytest.mark.parametrize("name", SOME)
def test_every_function_that_runs_while_a_checkpoint_is_made_is_in_its_key_or_left_out_by_name(run, tmp_path, name):
    with Trace(cache_keys.NOT_IN_A_CHECKPOINT) as made:
        packing._make(run.model, VARIANTS[name], tmp_path / "made.safetensors", "cpu")
    assert made.seen - closure("checkpoint", VARIANTS[name]) == set()
    assert {"quantization.quantize:run", "model.layers:Mlp"} <= made.seen
    assert made.forwards == set()
    with Trace(cache_keys.NOT_IN_A_QUANTIZE_RESULT) as described:
        packing.make_checkpoint(run.model, VARIANTS[name], tmp_path, "cpu")
        packing.make_checkpoint(run.model, VARIANTS[name], tmp_path, "cpu")
    assert described.seen - closure("quantize", VARIANTS[name]) == set()
    assert described.forwards == set()


@pytest.mark.parametrize("name", ["pytorch_dynamic_int8", "int4_group64"])
def test_every_function_that_runs_while_a_checkpoint_is_measured_is_in_the_key_or_left_out_by_name(run, tmp_path, name):
    variant = VARIANTS[name]
    packed = packing.make_checkpoint(run.model, variant, tmp_path, "cpu")
    with Trace(cache_keys.NOT_MEASURED) as compared:
        measure_accuracy(run.model, run.images, run.reference, packed, "cpu", variant.run)
    assert compared.seen - closure("accuracy", variant) == set()
    with Trace(cache_keys.NOT_MEASURED) as timed:
        measure_speed(run.images, packed, "cpu", variant.run)
    assert timed.seen - closure("speed", variant) == set()
    with Trace(cache_keys.NOT_MEASURED) as swept:
        measure_sweep(run.images, packed, "cpu", variant.run, num_images=[1], repeats=6)
    assert swept.seen - closure("sweep", variant) == set()
    assert "results.intervals:median_interval" in swept.seen


def test_every_function_that_makes_the_float32_outputs_is_in_their_key_or_left_out_by_name(run, tmp_path):
    with Trace(cache_keys.NOT_IN_A_REFERENCE) as made:
        make_reference(run.model, run.images, tmp_path, "cpu")
    assert made.seen <= set(
        fingerprint.closure("evaluation.reference:make_reference", without=cache_keys.NOT_IN_A_REFERENCE)
    )
    with Trace([]) as everything:
        make_reference(run.model, run.images, tmp_path / "again", "cpu")
    assert not [piece for piece in everything.seen if piece.startswith(("kernels.", "inference.fast."))]


def of(stages, names=SOME):
    return {(stage, name) for stage in stages for name in names}


MEASURED = ("accuracy", "speed", "sweep")
REFERENCE = {("reference", None)}
INTEGERS = ["int8_symmetric", "int4_group64"]
ROUNDED = [name for name in SOME if VARIANTS[name].method == "round_to_nearest"]


def decorated(function):
    """An edit of that function and of nothing else in the module."""
    return replaced(f"\ndef {function}(", f"\n@print\ndef {function}(")


CASES = {
    "results/intervals.py": (replaced("FEWEST_SCENES = 6", "FEWEST_SCENES = 7"), of(["sweep"])),
    "results/growth.py": (replaced("GIB = ", "GIB = 0 + "), of(["sweep"])),
    "runtime/jobs.py": (append("print()"), of(["sweep"])),
    "evaluation/reference.py": (decorated("load_outputs"), of(["accuracy", "sweep"]) | REFERENCE),
    "quantization/grid.py": (decorated("fit"), of(["checkpoint", "quantize", *MEASURED], INTEGERS)),  # formats round
    "quantization/formats/w4a16.py": (append("print()"), of(["checkpoint", "quantize", *MEASURED], ["int4_group64"])),
    "quantization/methods/round_to_nearest.py": (append("print()"), of(["checkpoint", "quantize", "sweep"], ROUNDED)),
    "inference/attention/float8.py": (append("print()"), of(MEASURED, ["fp8_attention8"])),
    "evaluation/metrics/depth.py": (append("print()"), of(["accuracy"])),
    "model/weights/pretrained.py": (decorated("load_state"), of(["checkpoint", "quantize", "sweep"]) | REFERENCE),
    "runtime/memory.py": (decorated("keep_freed_memory"), of(["speed", "sweep"])),
    "runtime/provenance.py": (decorated("commit"), set()),
    "model/weights/hub.py": (decorated("fetch"), set()),
    **{
        file: (append("print()"), set())
        for file in (
            *("runtime/progress.py", "report/figures.py", "cli/flags.py"),
            *("data/scenes/eth3d.py", "data/synthetic/rooms.py"),
        )
    },
}


@pytest.mark.parametrize("file", CASES)
def test_an_edit_changes_exactly_the_keys_of_what_it_decides(changed_by, file):
    edit, expected = CASES[file]
    assert changed_by(file, edit) == expected


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("model/layers.py", replaced("return self.fc2(F.gelu(self.fc1(x)))", "return self.fc2(self.fc1(x))")),
        ("model/layers.py", decorated("attend")),
        (
            "model/vggt.py",
            replaced("def _predict_cameras(self, tokens:", "def _predict_cameras(self, tokens=None, *a:"),
        ),
        ("model/vggt.py", decorated("_autocast_off")),
    ],
)
def test_editing_how_the_model_runs_changes_all_that_runs_it_and_no_checkpoint(changed_by, file, edit):
    assert changed_by(file, edit) == of(MEASURED) | REFERENCE


@pytest.mark.parametrize(
    "edit",
    [
        replaced("self.fc1 = nn.Linear(", "self.fc1 = Narrow("),
        replaced("class Mlp(nn.Module)", "class Mlp(nn.Sequential)"),
    ],
)
def test_editing_which_layers_the_model_builds_changes_every_checkpoint_too(changed_by, edit):
    """A subclass of Linear is kept dense, and an unchanged key would still hand out the packed one."""
    assert changed_by("model/layers.py", edit) == of(["checkpoint", "quantize", *MEASURED]) | REFERENCE


@pytest.mark.parametrize(
    ("file", "edit", "others"),
    [
        ("quantization/make_checkpoint.py", decorated("_describe"), []),
        ("quantization/make_checkpoint.py", decorated("_count_formats"), []),
        ("quantization/make_checkpoint.py", decorated("_kept"), []),
        ("quantization/make_checkpoint.py", decorated("_is_weight_of"), []),
        ("quantization/make_checkpoint.py", decorated("_weight_sqnr_db"), []),
        ("runtime/tensor_file.py", decorated("tensor_bytes"), []),
        ("quantization/checkpoint.py", decorated("memory_bytes"), ["speed", "sweep"]),
        ("results/decibels.py", decorated("sqnr_db"), ["accuracy", "sweep"]),
    ],
)
def test_a_corrected_figure_repeats_the_quantize_step_and_makes_no_checkpoint_again(changed_by, file, edit, others):
    changed = changed_by(file, edit)
    assert of(["quantize"]) <= changed <= of(["quantize", *others])


def test_a_field_of_a_result_changes_no_checkpoint(changed_by):
    edit = replaced("class QuantizeResult", "class Other:\n    pass\n\n\nclass QuantizeResult")
    assert not of(["checkpoint"]) & changed_by("results/schema.py", edit)
    assert not of(["checkpoint"]) & changed_by("results/schema.py", append("print()"))


@pytest.mark.parametrize(
    "file",
    [
        *("quantization/methods/another.py", "quantization/formats/another.py", "evaluation/metrics/another.py"),
        *("cli/another.py", "data/scenes/another.py", "inference/attention/another.py"),
    ],
)
def test_a_new_method_format_metric_command_layout_or_backend_changes_no_checkpoint(
    tmp_path, monkeypatch, file, unedited
):
    shutil.copytree(PACKAGE, tmp_path / "vggt_quant", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "vggt_quant")
    path = tmp_path / "vggt_quant" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("thing = 1\n")
    fingerprint.forget()
    changed = {key for key, code in codes().items() if code != unedited[key]}
    monkeypatch.undo()
    fingerprint.forget()
    assert changed <= (of(["accuracy"]) if file.startswith("evaluation/metrics") else set())


def test_changing_a_setting_changes_that_checkpoint():
    variant = VARIANTS["int4_group64"]
    other = msgspec.structs.replace(variant, config={**variant.config, "group_size": 32})
    assert cache_keys.quantize_code(other) != cache_keys.quantize_code(variant)


def test_a_format_that_a_methods_default_names_is_not_missed():
    variant = msgspec.structs.replace(VARIANTS["fp8_attention8"], config={})
    assert "fp8" in cache_keys.formats_of(variant)


def test_the_keys_of_cached_files_hold_weights_config_photos_and_device():
    variant = VARIANTS["int8_symmetric"]
    models = [[weights, {"img_size": size}] for weights in ("a", "b") for size in (112, 224)]
    keys = {cache_keys.checkpoint_key(variant, model, device) for model in models for device in ("cpu", "cuda")}
    assert len(keys) == 8
    photos = [["a", [1, 3, 28, 42]], ["a", [1, 3, 42, 28]], ["b", [1, 3, 28, 42]]]
    assert len({cache_keys.reference_key(model, images, "cpu") for model in models for images in photos}) == 12


def test_a_method_or_format_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="Variant fp8_attention8: there is no format 'fp9'; there are "):
        cache_keys.quantize_code(msgspec.structs.replace(VARIANTS["fp8_attention8"], config={"format": "fp9"}))
    with pytest.raises(ValueError, match="Variant fp8_attention8: there is no method 'rounding'; there are "):
        cache_keys.quantize_code(msgspec.structs.replace(VARIANTS["fp8_attention8"], method="rounding"))
