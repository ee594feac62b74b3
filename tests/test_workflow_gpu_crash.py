"""On a CUDA GPU: a kernel that writes where it must not takes down its own job, and no other."""

import pytest
import torch
from workflow_project import Project, said

from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import AccuracyResult, SpeedResult, read

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.workflow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

CRASHES = '''"""A format of the tests: int8 weights, behind a kernel that writes far outside of its memory."""

import triton
import triton.language as tl

from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.w8a16 import PackedLinear as Int8Weights

SPEC = FormatSpec(bits=8, devices=("cuda",))


@triton.jit
def _write(out):
    tl.store(out + (1 << 44), 1.0)


class PackedLinear(Int8Weights):
    """A Linear whose product ruins the CUDA context of its process."""

    format = "crashes"
    spec = SPEC

    def multiply(self, operand):
        """Nothing comes of it."""
        _write[(1,)](operand.new_zeros(1).float())
        return super().multiply(operand)
'''
GOOD = {
    "bf16": {"method": "cast", "dtype": "bfloat16"},
    "int8_w8a8": {"method": "round_to_nearest", "config": {"format": "w8a8"}, "dtype": "bfloat16"},
}
CRASHING = {"method": "round_to_nearest", "config": {"format": "crashes"}, "dtype": "bfloat16"}


def test_a_kernel_that_ruins_its_context_fails_its_own_variant_and_the_others_are_measured(tmp_path):
    project = Project(tmp_path / "project", {"bf16": GOOD["bf16"], "bad": CRASHING, **GOOD}, device="cuda")
    (project.root / "vggt_quant" / "quantization" / "formats" / "crashes.py").write_text(CRASHES)
    process = project.snakemake()
    assert process.returncode == 1, said(process)
    results = project.run / "results"
    for variant in GOOD:
        for stage, kind in (("accuracy", AccuracyResult), ("speed", SpeedResult)):
            assert read(kind, results / stage / f"{variant}.json").outcome == "ok"
    report = read(ComparisonReport, results / "partial" / "comparison_report.json")
    rows = {row.variant: row for row in report.variants}
    assert {name for name, row in rows.items() if row.outcome == "failed"} == {"bad"}
    assert "illegal memory access" in rows["bad"].error.message
    assert rows["int8_w8a8"].speed.provenance.device_name == torch.cuda.get_device_name()
