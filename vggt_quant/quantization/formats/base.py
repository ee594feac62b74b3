"""The whole protocol of a packed format: the members of a Linear over packed weights, and their defaults.

A format file has a class `PackedLinear(PackedBase)`. It must define

    format, spec                    the name of its file; what that file declares as `SPEC`
    layout(fields)                  the tensors that a checkpoint stores, with dtypes and shapes
    dequantized()                   float32 [N, K]: the weights that it stands for

and may override

    from_weight(weight, bias)       the Linear's weight rounded to nearest, if methods may write it
    multiply(operand)               the product: by the dequantized weights
    kernel(device)                  the name of the kernel on that device, for the records
    settings                        the names of further fields
    unsupported(device)             why a device cannot run it
    operand, arithmetic             what it multiplies, and in which type
    in_graphs                       whether a CUDA graph can hold the product

What a layer derives from its tensors (row sums, another library's object) is kept in `derived` and nowhere else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vggt_quant.kernels import products, torch_reference
from vggt_quant.kernels.operands import Kind
from vggt_quant.quantization.formats._spec import FormatSpec

Layout = dict[str, tuple[torch.dtype | None, tuple[int, ...]]]
Stamp = tuple[tuple[Tensor | None, int], ...]


class Derived:
    """What a layer made of its tensors, kept until they change.

    It is made at first use, and again when a tensor was replaced or edited in place (edits through `.data` are not
    noticed: PyTorch does not count them). A copy and a pickle of the layer start without it.
    """

    def __init__(self) -> None:
        self._made: Any = None
        self._stamp: Stamp | None = None

    def get(self, make: Callable[[], Any], stamp: Callable[[], Stamp]) -> Any:
        """The result of `make`, which may itself replace the tensors that `stamp` reads."""
        # Compiled code guards on the tensors itself, and cannot read versions.
        is_stale = self._stamp is None or (not torch.compiler.is_compiling() and not _is_same(self._stamp, stamp()))
        if is_stale:
            self.forget()  # first: another library's object may be as large as the layer
            self._made = make()
            self._stamp = stamp()
        return self._made

    def forget(self) -> None:
        """Drop it; the next use makes it again."""
        self._made = self._stamp = None

    def tensors(self) -> list[Tensor]:
        """Plain tensors that are in it, as far as there is one now: in a tuple, a module or any other object."""
        made = self._made
        if made is None:
            return []
        if isinstance(made, nn.Module):
            return [*made.parameters(), *made.buffers()]
        parts = made if isinstance(made, tuple) else (made,) if type(made) is Tensor else vars(made).values()
        return [part for part in parts if isinstance(part, Tensor)]

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        return Derived, ()


def _is_same(one: Stamp, other: Stamp) -> bool:
    return all(a is b and v == w for (a, v), (b, w) in zip(one, other, strict=True))


def stamp_of(tensors: Iterable[Tensor | None]) -> Stamp:
    """Tensors with the counts of their edits in place; a tensor made in inference mode has no count."""
    return tuple((tensor, 0 if tensor is None or tensor.is_inference() else tensor._version) for tensor in tensors)


class PackedBase(nn.Module):
    """A Linear over packed weights, held in buffers by the names of the format's `layout`."""

    format: ClassVar[str]
    spec: ClassVar[FormatSpec]
    """Its declaration, which is read without torch, too (`formats.spec`)."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Names of further fields, each an attribute."""
    in_graphs: ClassVar[bool] = True
    """Whether a CUDA graph can hold the product: not where it waits for the GPU."""

    in_features: int
    out_features: int
    weight_packed: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor | None
    bias: Tensor | None

    def __init__(self, tensors: dict[str, Tensor | None], **fields: Any) -> None:
        super().__init__()
        self.derived = Derived()
        for name in ("in_features", "out_features", *self.settings):
            setattr(self, name, fields[name])
        for name in self.layout(fields):
            self.register_buffer(name, tensors.get(name))

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name with dtype (None: any) and shape; `weight_zero_point` and `bias` may be absent."""
        raise NotImplementedError

    @classmethod
    def from_weight(cls, weight_NK: Tensor, bias_N: Tensor | None, **settings: Any) -> Self:
        """Pack a weight without NaN or infinity, each value rounded to the nearest that the format has.

        `settings` are those of the format's `spec`.
        """
        raise NotImplementedError

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        raise NotImplementedError

    def multiply(self, operand: Any) -> Tensor:
        """[M, K], an operand of type `operand`, to [M, N], with the bias."""
        return torch_reference.linear(operand, self.dequantized().to(operand.dtype), self.bias)

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The name of what multiplies on `device`."""
        return "torch: dequantize, then matmul"

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device`, whose type is in `spec.devices`, cannot run it, or None."""
        if device.type == "cuda" and not has_triton():
            return f"{cls.format} needs Triton on a GPU, which is not installed"
        return None

    @property
    def operand(self) -> Kind:
        """What it multiplies; in the fast engine the producer before the layer makes it."""
        return "bfloat16"

    @property
    def arithmetic(self) -> str | None:
        """The 8-bit type that it multiplies in; None where that is the activations' own type."""
        return None if self.operand == "bfloat16" else self.operand.removesuffix("_asymmetric")

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The inverse of `fields` and `tensors`.

        Raises:
            ValueError: Tensors that do not fit the fields.
        """
        check_tensors(tensors, cls.layout(fields))
        return cls(dict(tensors), **{name: value for name, value in fields.items() if name != "format"})

    def fields(self) -> dict[str, Any]:
        """Sizes and settings, as JSON."""
        names = ("format", "in_features", "out_features", *self.settings)
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint."""
        return dict(self.named_buffers(recurse=False))

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.out_features * self.in_features

    def packed_bytes(self) -> int:
        """Bytes of weights, scales and zero points, without the bias."""
        return sum(tensor.nbytes for tensor in self._weights().values())

    def hidden_bytes(self) -> int:
        """Bytes that it holds in no parameter and no buffer: of what is derived now, less what lies in its tensors."""
        ours = {tensor.untyped_storage().data_ptr() for tensor in self.buffers()}
        return sum(held.nbytes for held in self.derived.tensors() if held.untyped_storage().data_ptr() not in ours)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N] in the type of `x` (autocast's under autocast); 8-bit arithmetic passes no gradient."""
        dtype = compute_dtype(x)
        rows_MK = x.to(dtype).reshape(-1, self.in_features)
        out_MN = self.multiply(products.quantize_rows(rows_MK, self.operand))
        return out_MN.to(dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        settings = [f"{name}={getattr(self, name)}" for name in self.settings]
        has_zero_points = self._buffers.get("weight_zero_point") is not None
        return ", ".join([f"{self.in_features} -> {self.out_features}", *settings, f"zero_points={has_zero_points}"])

    def _derive(self, make: Callable[[], Any]) -> Any:
        """What `make` makes of the tensors, through `derived`."""
        return self.derived.get(make, lambda: stamp_of(self._buffers.values()))

    def _weights(self) -> dict[str, Tensor]:
        """The buffers without the bias."""
        return {name: tensor for name, tensor in self.named_buffers(recurse=False) if name != "bias"}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.derived.forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but keep types, bias apart: `model.half()` would round small scales away."""
        self.derived.forget()
        before = self._weights()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch's
        for name, tensor in before.items():
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        return self


def packed_layers(model: nn.Module) -> dict[str, PackedBase]:
    """Every packed layer of a model by name; a layer that stands at two names is listed under both."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: layer for name, layer in modules if isinstance(layer, PackedBase)}


def replace(model: nn.Module, name: str, packed: PackedBase) -> None:
    """Put a packed layer where `name` is, in the mode (training or evaluation) of the layer that stood there."""
    model.set_submodule(name, packed.train(model.get_submodule(name).training))


def check_tensors(tensors: dict[str, Tensor], expected: Layout) -> None:
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
