"""What formats and attention backends declare is read from their text, and is what they say when they run."""

import importlib.metadata
import subprocess
import sys

import pytest

from vggt_quant.inference import attention
from vggt_quant.quantization import formats
from vggt_quant.runtime import fingerprint, provenance
from vggt_quant.runtime.source_literals import BACKENDS, FORMATS, declared


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package in which a test writes files of formats and backends."""
    for name in (FORMATS, BACKENDS):
        tmp_path.joinpath(*name.split(".")).mkdir(parents=True)
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    return tmp_path


def test_a_formats_library_is_read_as_its_spec_says_it():
    said = {name: formats.spec(name).distribution for name in formats.names()}
    assert {name: said[name] for name in said if said[name]} == declared(FORMATS, "distribution")
    assert "torchao" in said.values()


@pytest.mark.parametrize("word", ["distribution", "rank", "least_db"])
def test_a_backends_facts_are_read_as_its_entry_says_them(word):
    default = {"distribution": None, "rank": None, "least_db": 40}[word]
    said = {name: getattr(attention.get(name), word) for name in attention.names()}
    assert {name: said[name] for name in said if said[name] != default} == declared(BACKENDS, word)
    assert declared(BACKENDS, word)


def test_the_version_of_a_new_files_library_is_recorded_where_it_is_installed(package):
    (package / "quantization/formats/mine.py").write_text('SPEC = FormatSpec(bits=4, distribution="numpy")')
    (package / "inference/attention/other.py").write_text('BACKEND = Backend(distribution="no-such-library")')
    versions = provenance.kernel_libraries()
    assert versions.pop("numpy") == importlib.metadata.version("numpy")
    assert set(versions) <= {"triton"}


def test_a_fact_that_is_no_literal_is_refused_with_its_file(package):
    (package / "inference/attention/mine.py").write_text("BACKEND = Backend(rank=RANK)")
    with pytest.raises(ValueError, match=r"mine\.py: rank should be a literal, .* but is RANK\.$"):
        declared(BACKENDS, "rank")


def test_versions_of_libraries_are_read_without_torch():
    code = (
        "import sys; from vggt_quant.runtime import provenance; provenance.kernel_libraries();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
