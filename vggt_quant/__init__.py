"""vggt_quant: quantize VGGT with several methods and formats, and measure each one.

    import vggt_quant
    model = vggt_quant.load("facebook/VGGT-1B")                  # or a packed checkpoint, a folder, "tiny"
    vggt_quant.quantize_model(model, "int4_group128")            # in place; works on any module with Linears
    vggt_quant.save(model, "vggt-int4.safetensors")              # two weights in a byte, also on disk
    outputs = vggt_quant.load("vggt-int4.safetensors", device="cuda")(images)

Names are imported when they are first used, so that reading results needs no torch.
"""

import importlib
from typing import Any

_HOME = {
    "load": "inference.loaded",
    "load_into": "quantization.checkpoint",
    "save": "quantization.checkpoint",
    "CheckpointError": "quantization.checkpoint",
    "quantize_model": "quantization.quantize",
    "Variant": "variants",
    "load_variants": "quantization.catalog",
    "quantize_model_advanced": "quantization.advanced",
    "AdvancedQuantConfig": "quantization.advanced",
    "find_images": "data.find_images",
    "load_images": "data.images",
    "VGGT": "model",
    "VGGTConfig": "model",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vggt_quant' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vggt_quant.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
