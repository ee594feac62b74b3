"""Ctrl-C while modules are imported: one line, exit code 130, nothing left."""

import signal
import subprocess
import sys
import time

import pytest
from processes import COMMAND

from vggt_quant.results import files
from vggt_quant.runtime import interrupts, jobs

SLOW = """
import os, signal
from vggt_quant.runtime.interrupts import calm_imports
with calm_imports():
    {before}
    import pressed
"""
PRESSED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException as error:
    raise AttributeError("half a module") from error
"""


def ended(tmp_path, before="pass", **environment):
    (tmp_path / "pressed.py").write_text(PRESSED)
    (tmp_path / "main.py").write_text(SLOW.format(before=before))
    return subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, **environment)


def test_in_an_import_it_ends_the_process_with_one_line(tmp_path):
    process = ended(tmp_path)
    assert (process.returncode, process.stderr) == (130, f"{interrupts.SENTENCE}\n")


def test_a_file_that_is_being_written_is_removed_first(tmp_path):
    before = (
        f"from vggt_quant.results.files import whole; file = whole({str(tmp_path / 'product')!r}); file.__enter__()"
    )
    assert "AttributeError: half a module" in ended(tmp_path, before).stderr
    assert not [path for path in tmp_path.iterdir() if "product" in path.name]


def test_whatever_an_interrupted_library_raises_counts_as_interrupted():
    def half_a_module():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise AttributeError("half a module") from error

    with pytest.raises(KeyboardInterrupt):
        jobs.work("quantize", None, None, half_a_module)


def test_a_file_is_unfinished_until_it_has_its_name(tmp_path):
    with files.whole(tmp_path / "a") as file:
        assert {file} == files.UNFINISHED
    assert not files.UNFINISHED


@pytest.mark.parametrize("seconds", [0.6, 1.2])
def test_quantize_is_interrupted_in_one_line(tmp_path, seconds):
    words = ["quantize", "--model", "nano-random", "--variant", "bf16", "--output", str(tmp_path / "x.safetensors")]
    process = subprocess.Popen([*COMMAND, *words, "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == f"{interrupts.SENTENCE}\n"
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
