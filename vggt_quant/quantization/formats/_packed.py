"""What every packed Linear shares: buffers by name, fields for JSON, and the way from activations to a product.

A format lists its tensors in `layout` and says in `multiply` what happens to an operand; `operand` names the kind it
wants (`kernels.operands`). In the fast engine the producer before the layer makes that operand; a plain `forward`
makes it from the activations it is given.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vggt_quant.kernels import products
from vggt_quant.kernels.operands import Kind, Operand
from vggt_quant.quantization.formats import check_tensors, compute_dtype, has_triton

Layout = dict[str, tuple[torch.dtype | None, tuple[int, ...]]]


class PackedBase(nn.Module):
    """A Linear over packed weights; `format`, `layout`, `dequantized`, `multiply` and `kernel` are the format's."""

    format: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    """Names of further fields, each an attribute."""
    operand: Kind = "bfloat16"

    def __init__(self, tensors: dict[str, Tensor | None], **fields: Any):
        super().__init__()
        for name in ("in_features", "out_features", *self.settings):
            setattr(self, name, fields[name])
        for name in self.layout(fields):
            self.register_buffer(name, tensors.get(name))

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name with dtype (None: any) and shape; `weight_zero_point` and `bias` may be absent."""
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PackedBase":
        """The inverse of `fields` and `tensors`.

        Raises:
            ValueError: Tensors that do not fit the fields.
        """
        check_tensors(tensors, cls.layout(fields))
        return cls(tensors, **{name: value for name, value in fields.items() if name != "format"})

    def fields(self) -> dict[str, Any]:
        """Sizes and settings, as JSON."""
        names = ("format", "in_features", "out_features", *self.settings)
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint."""
        return dict(self.named_buffers())

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device` cannot run it, or None."""
        if device.type == "cuda" and not has_triton():
            return f"{cls.format} needs Triton on a GPU, which is not installed"
        return None

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        raise NotImplementedError

    @property
    def arithmetic(self) -> str | None:
        """The 8-bit type that it multiplies in; None where that is the activations' own type."""
        return None if self.operand == "bfloat16" else self.operand.removesuffix("_asymmetric")

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.out_features * self.in_features

    def packed_bytes(self) -> int:
        """Bytes of weights, scales and zero points, without the bias."""
        return sum(tensor.nbytes for name, tensor in self.tensors().items() if name != "bias")

    def multiply(self, operand: Operand) -> Tensor:
        """[M, K] of the kind `operand` to [M, N], with the bias."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N] in the type of `x` (autocast's under autocast); 8-bit arithmetic passes no gradient."""
        dtype = compute_dtype(x)
        rows_MK = x.to(dtype).reshape(-1, self.in_features)
        out_MN = self.multiply(products.quantize_rows(rows_MK, self.operand))
        return out_MN.to(dtype).view(*x.shape[:-1], self.out_features)

    def _derived(self, make: Callable[[], Any]) -> Any:
        """What `make` derives from the tensors: made at first use, and anew once they were moved or loaded."""
        if "_made" not in self.__dict__:
            self.__dict__["_made"] = make()
        return self.__dict__["_made"]

    def _load_from_state_dict(self, *args: Any) -> None:
        self.__dict__.pop("_made", None)
        super()._load_from_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedBase":
        """Move with the model, but keep types, bias apart: `model.half()` would round small scales away."""
        self.__dict__.pop("_made", None)
        before = {name: tensor for name, tensor in self.named_buffers() if name != "bias"}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        return self

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        settings = [f"{name}={getattr(self, name)}" for name in self.settings]
        zero = getattr(self, "weight_zero_point", None) is not None
        return ", ".join([f"{self.in_features} -> {self.out_features}", *settings, f"zero_points={zero}"])
