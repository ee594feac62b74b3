"""Keys: what an edit changes, on a real copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vggt_quant import variants
from vggt_quant.runtime import cache_keys, fingerprint

PACKAGE = Path(fingerprint.__file__).parent
EVERY = list(variants.load_variants())


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "vggt_quant", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "config", tmp_path / "config")
    return tmp_path


def keys_of(root):
    command = [sys.executable, "-P", "-m", "vggt_quant", "keys", "--device", "cpu"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def changed(before, after, stage):
    return [name for name in EVERY if before[stage][name] != after[stage][name]]


def edit(root, file, old, new):
    path = root / "vggt_quant" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_editing_the_4_bit_format_changes_exactly_the_4_bit_variants(copy):
    before = keys_of(copy)
    edit(copy, "formats/w4a16.py", 'format = "w4a16"', 'format = "w4a16"\n    revision = 2')
    after = keys_of(copy)
    assert changed(before, after, "quantize") == ["int4_group128", "int4_group64"]
    assert changed(before, after, "accuracy") == ["int4_group128", "int4_group64"]
    assert before["reference"] == after["reference"]


def test_editing_a_metric_changes_accuracy_and_no_checkpoint(copy):
    before = keys_of(copy)
    with open(copy / "vggt_quant" / "metrics" / "depth.py", "a") as file:
        file.write("\nCONSTANT = 1\n")
    after = keys_of(copy)
    assert changed(before, after, "quantize") == []
    assert changed(before, after, "speed") == []
    assert changed(before, after, "accuracy") == EVERY


def test_editing_the_model_changes_reference_accuracy_and_speed_but_no_round_to_nearest_checkpoint(copy):
    before = keys_of(copy)
    with open(copy / "vggt_quant" / "model" / "layers.py", "a") as file:
        file.write("\nCONSTANT = 1\n")
    after = keys_of(copy)
    assert before["reference"] != after["reference"]
    assert changed(before, after, "quantize") == []
    assert changed(before, after, "accuracy") == changed(before, after, "speed") == EVERY


def append(root, file):
    with open(root / "vggt_quant" / file, "a") as opened:
        opened.write("\nCONSTANT = 1\n")


def test_editing_the_loader_of_weights_changes_every_checkpoint(copy):
    before = keys_of(copy)
    append(copy, "model/pretrained.py")
    after = keys_of(copy)
    assert changed(before, after, "quantize") == EVERY
    assert before["reference"] != after["reference"]


@pytest.mark.parametrize("file", ["results.py", "provenance.py", "synthetic.py", "model/hub.py", "report.py"])
def test_editing_what_decides_no_number_changes_no_checkpoint_and_no_reference(copy, file):
    before = keys_of(copy)
    append(copy, file)
    after = keys_of(copy)
    assert before != after
    assert changed(before, after, "quantize") == []
    assert before["reference"] == after["reference"]


def test_editing_the_drawn_scene_times_and_compares_nothing_again_but_draws_it(copy):
    before = keys_of(copy)
    append(copy, "synthetic.py")
    after = keys_of(copy)
    assert changed(before, after, "speed") == changed(before, after, "accuracy") == []
    assert before["images"] != after["images"]


def test_editing_the_preparation_of_photos_prepares_them_again(copy):
    before = keys_of(copy)
    append(copy, "inputs.py")
    assert before["images"] != keys_of(copy)["images"]


def sources_of(root, module):
    code = f"from vggt_quant.runtime.fingerprint import sources; print(sources({module!r}))"
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True)


@pytest.mark.parametrize(
    "statement",
    [
        "from . import probe_target",
        "from . import probe_target as other",
        "from .probe_target import *",
        "from .probe_target import thing",
        "from ..methods import probe_target",
        "import vggt_quant.quantization.methods.probe_target",
        "from vggt_quant.quantization.methods import probe_target",
        "from vggt_quant.quantization.methods.probe_target import *",
        "def late():\n    from .probe_target import thing",
        "if TYPE_CHECKING:\n    from vggt_quant.quantization.methods.probe_target import thing",
    ],
)
def test_every_way_to_import_a_module_is_followed(copy, statement):
    folder = copy / "vggt_quant" / "methods"
    (folder / "probe.py").write_text(statement + "\n")
    (folder / "probe_target.py").write_text("thing = 1\n")
    before = sources_of(copy, "methods.probe").stdout
    (folder / "probe_target.py").write_text("thing = 2\n")
    assert len(before.strip()) == 64
    assert sources_of(copy, "methods.probe").stdout != before


@pytest.mark.parametrize(
    "statement", ["from vggt_quant import load", "from .. import load", "from vggt_quant import *"]
)
def test_an_import_that_cannot_be_followed_is_refused(copy, statement):
    (copy / "vggt_quant" / "methods" / "probe.py").write_text(statement + "\n")
    run = sources_of(copy, "methods.probe")
    assert run.returncode != 0
    assert "import it from the file it stands in" in run.stderr


def test_comments_and_docstrings_change_nothing(copy):
    before = keys_of(copy)
    edit(copy, "policy.py", '"""Name -> reason."""', '"""Name -> the reason why."""')
    edit(
        copy,
        "rounding.py",
        '"""The uniform integer grid',
        '# A new comment.\n"""Another docstring. The uniform integer grid',
    )
    assert keys_of(copy) == before


def test_changing_a_setting_changes_that_variant_alone(copy):
    before = keys_of(copy)
    path = copy / "config" / "variants.yaml"
    path.write_text(path.read_text().replace("group_size: 64", "group_size: 32"))
    assert changed(before, keys_of(copy), "quantize") == ["int4_group64"]


def test_the_keys_of_cached_files_hold_weights_config_photos_and_device():
    variant = variants.find_variant("int8_symmetric")
    models = [[weights, {"img_size": size}] for weights in ("a", "b") for size in (112, 224)]
    assert (
        len({cache_keys.checkpoint_key(variant, model, device) for model in models for device in ("cpu", "cuda")}) == 8
    )
    photos = [["a", [1, 3, 28, 42]], ["a", [1, 3, 42, 28]], ["b", [1, 3, 28, 42]]]
    assert len({cache_keys.reference_key(model, images, "cpu") for model in models for images in photos}) == 12


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"no module metricks"):
        fingerprint.sources("metricks")
