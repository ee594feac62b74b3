"""Packed formats, one per file, found by file name: how integers are stored and multiplied.

Every format file has a class `PackedLinear`, an `nn.Module` that replaces an `nn.Linear`, with

    format                          the name of its file
    in_features, out_features       as the Linear had them
    fields() -> dict                what JSON can hold: sizes and settings
    tensors() -> dict               what the checkpoint stores: plain tensors
    from_tensors(fields, tensors)   the inverse of both
    dequantized() -> Tensor         float32 [N, K]: the weights that it stands for
    num_weights, packed_bytes()     how many weights in how many bytes, scales and zero points included
    kernel(device) -> str           the kernel that runs on that device
    arithmetic                      the 8-bit type that it multiplies in, or None: the activations' own

and, where they differ from the usual,

    devices                         the kinds of device that it runs on, if not both "cpu" and "cuda"
    unsupported(device)             why that device cannot run it, or None
    operand, multiply(operand)      for the fast engine: the kind of operand it wants (`kernels.operands`), the product
    in_graphs                       False where the product waits for the GPU, so that no CUDA graph can hold it
    hidden_bytes()                  bytes that it holds in no parameter and no buffer

A format knows a Linear, never VGGT. Modules are swapped and tensors not subclassed, because a plain buffer keeps
autocast, safetensors and `sum of bytes` truthful.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

import torch
from torch import Tensor, nn


def names() -> list[str]:
    """All formats, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no format {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def packed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every packed layer of a model by name; a layer that stands at two names is listed under both."""
    return {name: layer for name, layer in model.named_modules(remove_duplicate=False) if _is_packed(layer)}


def _is_packed(module: nn.Module) -> bool:
    """Known by the file of its class, so that no format needs to be imported to find that no layer is in it."""
    cls = type(module)
    return cls.__name__ == "PackedLinear" and cls.__module__.rpartition(".")[0] == __name__


def replace(model: nn.Module, name: str, packed: nn.Module) -> None:
    """Put a packed layer where `name` is, in the mode (training or evaluation) of the layer that stood there."""
    model.set_submodule(name, packed.train(model.get_submodule(name).training))


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, tuple[torch.dtype | None, tuple[int, ...]]]) -> None:
    """Compare stored tensors with the dtypes (None: any) and shapes that a format wants.

    Raises:
        ValueError: One is missing, unknown, or of another dtype or shape; `weight_zero_point` and `bias` may be absent.
    """
    required = set(expected) - {"weight_zero_point", "bias"}
    if not required <= set(tensors) <= set(expected):
        raise ValueError(f"it has the tensors {sorted(tensors)}, but should have {sorted(expected)}.")
    for name, tensor in tensors.items():
        dtype, shape = expected[name]
        if tensor.dtype != (dtype or tensor.dtype) or tuple(tensor.shape) != shape:
            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise ValueError(f"{name} is {found}, but should have {dtype or 'any dtype'} and {shape}.")


def has_triton() -> bool:
    """Whether there is Triton, which our kernels for GPUs are written in."""
    return importlib.util.find_spec("triton") is not None


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type a Linear would multiply `x` in: autocast's while autocast is on, else its own."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype
