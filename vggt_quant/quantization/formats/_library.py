"""Base of the formats that another library multiplies, with a fallback in plain PyTorch.

Such a format stores our integers or values (`_integers`, `fp8`) as plain tensors, so a checkpoint can be made, checked
and read without the library. On a device that the library supports, a layer hands its tensors over once, and the
library quantizes the activations and multiplies. On other devices the format says why it is not supported; a layer that
is called there anyway multiplies by its dequantized weight.
"""

import functools
import importlib.metadata
import importlib.util
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vggt_quant.kernels import torch_reference
from vggt_quant.kernels.operands import Kind
from vggt_quant.quantization.formats.base import PackedBase


class Library(PackedBase):
    """A Linear that a library multiplies; `hand_over` and `call` are the format's."""

    library: ClassVar[str]
    """What is imported; what is installed is the spec's `distribution`."""
    product: ClassVar[str]
    """What the library does, for the records."""
    least_capability: ClassVar[tuple[int, int]] = (7, 5)
    """Of a GPU."""
    multiple_of: ClassVar[int] = 1
    """Both sides of a weight are multiples of it on a GPU."""
    rearranges: ClassVar[bool] = False
    """Whether the library copies the weights; ours are then kept in CPU memory."""
    multiplies_in: ClassVar[str | None] = None
    """The 8-bit type that the library multiplies in; None where that is the activations' own type."""

    def __init__(self, tensors: dict[str, Tensor | None], **fields: Any) -> None:
        if not self.spec.zero_points and tensors.get("weight_zero_point") is not None:
            raise ValueError(f"{self.format} multiplies no weights with zero points; leave zero_points out.")
        super().__init__(tensors, **fields)

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device` cannot run it, or None."""
        if importlib.util.find_spec(cls.library) is None:
            return f"{cls.format} needs {cls.spec.distribution}, which is not installed"
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < cls.least_capability:
            least = ".".join(map(str, cls.least_capability))
            return f"{cls.format} needs compute capability {least}, which {torch.cuda.get_device_name(device)} lacks"
        return None

    @property
    def operand(self) -> Kind:
        """The library quantizes the activations itself."""
        return "bfloat16"

    @property
    def arithmetic(self) -> str | None:
        """`multiplies_in`."""
        return self.multiplies_in

    @classmethod
    def _runs_on(cls, device: torch.device) -> bool:
        return device.type in cls.spec.devices and cls.unsupported(device) is None

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        if not cls._runs_on(device):
            return "reference"
        installed = str(cls.spec.distribution)
        return f"{installed} {importlib.metadata.version(installed)}: {cls.product}"

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The inverse of `fields` and `tensors`, handed over where the library runs.

        Raises:
            ValueError: Tensors that do not fit the fields, or a shape that the library does not multiply.
        """
        layer = super().from_tensors(fields, tensors)
        layer._handed_over(tensors["weight_packed"].device)
        return layer

    def hand_over(self, device: torch.device) -> Any:
        """What the library makes of the tensors on `device`, which it runs on."""
        raise NotImplementedError

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product, bias included."""
        raise NotImplementedError

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N]."""
        made = self._handed_over(operand.device)
        if made is None:
            return torch_reference.linear(operand, self.dequantized().to(operand.dtype), self.bias)
        # No library takes float64.
        dtype = torch.float32 if operand.dtype == torch.float64 else operand.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return self.call(made, operand.to(dtype), bias).to(operand.dtype)

    def _handed_over(self, device: torch.device) -> Any:
        """What `hand_over` made, or None where the library does not run."""
        return self._derive(functools.partial(self._hand_over, device))

    def _hand_over(self, device: torch.device) -> Any:
        if not self._runs_on(device):
            return None
        if device.type == "cuda" and any(side % self.multiple_of for side in (self.in_features, self.out_features)):
            raise ValueError(
                f"{self.format} multiplies sides that are multiples of {self.multiple_of}, not "
                f"{self.in_features} -> {self.out_features}; keep that layer by the variant's policy."
            )
        # A tensor made inside inference_mode could not be used by a later pass with gradients.
        with torch.inference_mode(False), torch.no_grad():
            made = self.hand_over(device)
        if self.rearranges:
            for name, tensor in self._weights().items():
                self._buffers[name] = tensor.cpu()
        return made

    def hidden_bytes(self) -> int:
        """Bytes of what the library made, less those of ours where it stands for them."""
        is_theirs = self.rearranges and self.derived.tensors()
        return super().hidden_bytes() - (self.packed_bytes() if is_theirs else 0)
