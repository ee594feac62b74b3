"""What this machine can run, and with which kernels, as two tables. Imports torch."""

import importlib.metadata
import platform
import shutil
from pathlib import Path

import torch
from huggingface_hub import constants
from rich.table import Table

from vggt_quant.inference.attention._choice import usual
from vggt_quant.inference.engine import device_kinds, unsupported
from vggt_quant.quantization import formats, methods
from vggt_quant.runtime import machine
from vggt_quant.variants import Variant, load_variants


def facts() -> Table:
    """Processor, memory, GPU, disk and versions."""
    table = Table(title="This machine", show_header=False, title_justify="left")
    memory = machine.memory_bytes() / 1e9
    free_disk = shutil.disk_usage(Path.cwd()).free / 1e9
    gpus = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("vggt-quant", "torch", "snakemake")]
    for row in (
        ("versions", ", ".join([f"Python {platform.python_version()}", *versions])),
        ("processor", f"{machine.cpu_name()}, {torch.get_num_threads()} threads, {_instructions()}"),
        ("memory", f"{memory:.0f} GB ({'enough' if memory > 8 else 'too little'} to quantize VGGT-1B, which needs 6)"),
        ("GPU", "; ".join(gpus) or "none that torch can use: everything runs on the CPU"),
        *([("attention", _attention())] if gpus else []),
        ("free disk here", f"{free_disk:.0f} GB (VGGT-1B with all its checkpoints takes about 17)"),
        ("model cache", str(constants.HF_HUB_CACHE)),
    ):
        table.add_row(*row)
    return table


def _instructions() -> str:
    """Vector instructions that decide the speed on a CPU."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if name in flags]
    return " ".join(fast) or "no AVX2: expect a slow run"


def _describe_gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    memory = properties.total_memory / 1e9
    return f"{properties.name}, {memory:.0f} GB, compute capability {properties.major}.{properties.minor}"


def _attention() -> str:
    """The kernel of the fast engine's attention, and how to get a faster one."""
    name = usual(torch.device("cuda"), 64).title
    is_slower = name != "flash-attn-4" and torch.cuda.get_device_capability()[0] == 9
    return name + (" (pip install 'vggt-quant[gpu]' for a faster one)" if is_slower else "")


def variants() -> Table:
    """The kernel of each variant that is compared by default."""
    table = Table(title="Variants", title_justify="left")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    for column in ("variant", "everything else in", f"kernel on {kind}"):
        table.add_column(column)
    for name, variant in load_variants().items():
        if variant.is_default(kind):
            table.add_row(name, variant.dtype, _kernel(variant, kind))
    return table


def _kernel(variant: Variant, kind: str) -> str:
    """What multiplies the packed layers: the format's kernel, be it named in the settings or fixed by the method."""
    format_name = methods.config_of(variant).packs
    if format_name is None:
        return f"torch {variant.dtype}"
    if kind not in device_kinds(format_name):
        other = device_kinds(format_name)[0].upper()
        return f"none: it is measured on the {other}" if other == "CPU" else "none: it runs on CUDA only"
    reason = unsupported(format_name, torch.device(kind))
    if reason:
        return f"none: {reason}"
    return formats.layer(format_name).kernel(torch.device(kind))
