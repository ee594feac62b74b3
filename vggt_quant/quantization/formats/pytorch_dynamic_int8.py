"""pytorch_dynamic_int8: what `torch.ao.quantization.quantize_dynamic` makes, on the CPU, stored as plain tensors.

    weight_packed      int8   [N, K]
    weight_scale       fp64   []       one scale for the whole weight, as torch's default observer chooses
    weight_zero_point  int64  []
    bias               fp32   [N]

Activations are quantized per tensor at run time by torch's own kernel (fbgemm, oneDNN or QNNPACK), in float32. The
integers are packed for the machine's kernel at load; torch's packed object lies in no parameter and no buffer, so it
counts itself in `hidden_bytes`. There is no CUDA kernel: an object packed while its model was on CUDA fails with
"apply_dynamic is not implemented for this packed parameter type", also after it is moved to the CPU.
"""

import warnings
from typing import Any, Self

import torch
from torch import Tensor
from torch.ao.nn.quantized import dynamic

from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.base import Layout, PackedBase, check_tensors

# kernel_error: activations have one int8 scale per tensor, which costs 1 percent.
SPEC = FormatSpec(bits=8, integers=False, devices=("cpu",), method="pytorch_dynamic", least_db=28, kernel_error=0.03)


class PackedLinear(PackedBase):
    """A torch dynamic-quantized Linear; its tensors are in torch's object, and leave and enter it as plain ones."""

    format = "pytorch_dynamic_int8"
    spec = SPEC

    def __init__(self, linear: dynamic.Linear, *, has_bias: bool) -> None:
        super().__init__({}, in_features=linear.in_features, out_features=linear.out_features)
        self.linear, self.has_bias = linear, has_bias  # torch's object tells only after unpacking the whole weight

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name."""
        rows, columns = fields["out_features"], fields["in_features"]
        return {
            "weight_packed": (torch.int8, (rows, columns)),
            "weight_scale": (torch.float64, ()),
            "weight_zero_point": (torch.int64, ()),
            "bias": (torch.float32, (rows,)),
        }

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Repack the integers for this machine's kernel.

        Raises:
            ValueError: Tensors that do not fit the fields, or are not on the CPU.
        """
        check_tensors(tensors, cls.layout(fields))
        if tensors["weight_packed"].device.type != "cpu":
            raise ValueError('pytorch_dynamic_int8 runs on the CPU only; load it with device="cpu".')
        with warnings.catch_warnings():
            # torch announces that quantized tensor types will go; this format is here to measure them while they last.
            warnings.filterwarnings("ignore", message=".*(quint8|qint8|quantized).*", category=UserWarning)
            weight = torch._make_per_tensor_quantized_tensor(
                tensors["weight_packed"], tensors["weight_scale"].item(), int(tensors["weight_zero_point"].item())
            )
            # The constructor packs a weight of zeros, which takes as long as the real one: so a tiny one comes first.
            linear = dynamic.Linear(1, 1, dtype=torch.qint8)  # type: ignore[no-untyped-call]  # PyTorch's
            linear.in_features, linear.out_features = fields["in_features"], fields["out_features"]
            linear.set_weight_bias(weight, tensors.get("bias"))
        return cls(linear, has_bias="bias" in tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint, unpacked from torch's object (slow, and a copy).

        Raises:
            ValueError: The weight has a scale per channel, so it was not made by torch's default settings.
        """
        weight, bias = self.linear._packed_params._weight_bias()
        if weight.qscheme() != torch.per_tensor_affine:
            raise ValueError(f"Only per-tensor weights can be stored, but this one is {weight.qscheme()}.")
        tensors = {
            "weight_packed": weight.int_repr(),
            "weight_scale": torch.tensor(weight.q_scale(), dtype=torch.float64),
            "weight_zero_point": torch.tensor(weight.q_zero_point(), dtype=torch.int64),
        }
        return tensors if bias is None else {**tensors, "bias": bias.detach()}

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        weight: Tensor = self.linear.weight()  # type: ignore[no-untyped-call]  # PyTorch's
        return weight.dequantize()

    @property
    def arithmetic(self) -> str:
        """Activations are rounded inside."""
        return "int8"

    def packed_bytes(self) -> int:
        """Bytes of weights, scale and zero point, without the bias; counted, because to unpack them takes seconds."""
        return self.num_weights + 16

    def hidden_bytes(self) -> int:
        """Bytes that lie in no parameter and no buffer: torch's packed object, bias included."""
        return self.packed_bytes() + (4 * self.out_features if self.has_bias else 0)

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return f"torch: quantized::linear_dynamic ({torch.backends.quantized.engine})"

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N] in the operand's type; torch's kernel itself takes and gives float32."""
        out_MN: Tensor = self.linear(operand.float())
        return out_MN.to(operand.dtype)
