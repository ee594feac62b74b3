"""Compile every kernel for a GPU that need not be there; run by test_kernels_compile.py in a process of its own.

Usage: compile_kernels.py CAPABILITY      e.g. 90 for Hopper

The launchers run as they are, with tensors of the CPU; a driver that only knows its target stands in for the GPU's, and
each launch ends behind the compilation. Prints a line per compiled kernel: its name, the bytes of registers that it
spills, and the bytes of shared memory that a program takes.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from vggt_quant.kernels import attention_fp8, attention_fp8_pack, gemm, maps, rotary, rows, torch_reference, unpack

CAPABILITY = int(sys.argv[1])


class Driver:
    """As much of a driver as compilation asks for."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", CAPABILITY, 32)


def compile_only(self, *args, grid, warmup, **kwargs):
    """What stands in for a launch."""
    kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
    if kernel.hash not in seen:
        seen.add(kernel.hash)
        print(self.__name__, spilled_bytes(kernel.asm["cubin"]), kernel.metadata.shared, flush=True)


def spilled_bytes(binary):
    """What the compiler reports as stack."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", report)[1])


seen = set()
driver.set_active(Driver())
launch, jit.JITFunction.run = jit.JITFunction.run, compile_only
gemm.has_tma = lambda device, row_bytes: CAPABILITY >= 90 and row_bytes % 16 == 0
gemm.has_little_memory = lambda device: CAPABILITY >= 120


def compile_rows():
    x, update = torch.zeros(9, 1024, dtype=torch.bfloat16), torch.zeros(9, 1024, dtype=torch.bfloat16)
    weight = torch.zeros(1024, dtype=torch.bfloat16)
    for kind in ("bfloat16", "int8", "int8_asymmetric", *(["float8"] if CAPABILITY >= 89 else [])):
        rows.layer_norm(x, weight, weight, 1e-5, kind, rows.Update(change_MK=update, gamma_K=weight))
        rows.layer_norm(x, weight, weight, 1e-5, kind)
        rows.gelu(torch.zeros(9, 4096, dtype=torch.bfloat16), kind)
        rows.quantize(x, kind)


def compile_products():
    for kind in ("int8", "int8_asymmetric", *(["float8"] if CAPABILITY >= 89 else [])):
        for m, n, k in ((5, 6144, 2048), (930, 1024, 1024), (4650, 1024, 1024), (93_000, 3072, 1024), (17, 9, 130)):
            weight = torch_reference.quantize_rows(torch.zeros(n, k), kind)
            values = torch.zeros(1, dtype=weight.values_MK.dtype).expand(m, k).contiguous()
            ones = torch.ones(m)
            has_zero = kind == "int8_asymmetric"
            a = gemm.Rows(
                values_MK=values, scale_M=ones, zero_M=ones if has_zero else None, total_M=ones if has_zero else None
            )
            b = gemm.Weight(
                values_NK=weight.values_MK, scale_N=weight.scale_M, zero_N=weight.zero_M, bias_N=torch.zeros(n),
                sum_N=torch.zeros(n) if has_zero else None,
            )  # fmt: skip
            gemm.gemm(a, b)


def compile_unpacking():
    packed, scale = torch.zeros(8, 512, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.bfloat16)
    for zero in (None, torch.zeros(8, 8, dtype=torch.uint8)):
        for kind in ("bfloat16", "int8", *(["float8"] if CAPABILITY >= 89 else [])):
            unpack.unpack_int4(packed, scale, zero, 1024, 128, kind, None if kind == "bfloat16" else torch.ones(8))
    weight, scale = torch.zeros(8, 1024, dtype=torch.int8), torch.ones(8, 1, dtype=torch.bfloat16)
    for zero in (None, torch.zeros(8, 1, dtype=torch.int16)):
        unpack.unpack_int8(weight, scale, zero)


def compile_attention():
    qkv, norm = torch.zeros(1860, 3072, dtype=torch.bfloat16), torch.ones(64, dtype=torch.bfloat16)
    norms = rotary.HeadNorms(q_weight_E=norm, q_bias_E=norm, k_weight_E=norm, k_bias_E=norm)
    rotary.norm_rotate(qkv, norms, torch.zeros(2, 930, 64), 16)
    if CAPABILITY == 90:
        attention_fp8.attend(attention_fp8_pack.pack(qkv, 16))


def compile_maps():
    x, bias = torch.zeros(2, 10, 12, 128, dtype=torch.bfloat16), torch.zeros(128, dtype=torch.bfloat16)
    maps.resize(x, (20, 24))
    maps.resize(x, (20, 24), bias, torch.zeros(20, 128), torch.zeros(24, 128))
    maps.finish(x, bias, relu=True, first=x, second=x)
    maps.finish(x, bias, relu=False, first=x)
    hidden, values = torch.zeros(2, 10, 12, 32, dtype=torch.bfloat16), torch.zeros(2, 10, 12, 3)
    for activation, outputs in (("exp", 2), ("inv_log", 4)):
        weight = torch.zeros(outputs, 32, dtype=torch.bfloat16)
        out = values[..., : outputs - 1].contiguous()
        maps.dense_output(hidden, weight[0], weight, weight[:, 0], activation, out, values[..., 0].contiguous())


if __name__ == "__main__":
    print("triton", triton.__version__)
    compile_rows()
    compile_products()
    compile_unpacking()
    compile_attention()
    compile_maps()
