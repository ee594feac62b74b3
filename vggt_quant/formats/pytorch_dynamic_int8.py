"""pytorch_dynamic_int8: what `torch.ao.quantization.quantize_dynamic` makes, on the CPU, stored as plain tensors.

    weight_packed      int8   [N, K]
    weight_scale       fp64   []       one scale for the whole weight, as torch's default observer chooses
    weight_zero_point  int64  []
    bias               fp32   [N]

Activations are quantized per tensor at run time by torch's own kernel (fbgemm, oneDNN or QNNPACK), in float32. The
integers are packed for the machine's kernel at load; torch's packed object lies in no parameter and no buffer, so it
counts itself in `packed_bytes`. There is no CUDA kernel: an object packed while its model was on CUDA fails with
"apply_dynamic is not implemented for this packed parameter type", and moving it to the CPU afterwards does not heal it.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic


class PackedLinear(nn.Module):
    """A torch dynamic-quantized Linear with plain tensors at its door."""

    format = "pytorch_dynamic_int8"
    devices = ("cpu",)

    def __init__(self, linear: dynamic.Linear):
        super().__init__()
        if linear.weight().qscheme() != torch.per_tensor_affine:
            raise ValueError(f"Only per-tensor weights can be stored, but this one is {linear.weight().qscheme()}.")
        self.linear = linear

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PackedLinear":
        """Repack the integers for this machine's kernel."""
        rows, columns = fields["out_features"], fields["in_features"]
        integers = tensors["weight_packed"]
        if tuple(integers.shape) != (rows, columns):
            raise ValueError(f"weight_packed has shape {tuple(integers.shape)}, but should have {(rows, columns)}.")
        with warnings.catch_warnings():
            # torch announces that quantized tensor types will go; this format is here to measure them while they last.
            warnings.filterwarnings("ignore", message=".*(quint8|qint8|quantized).*", category=UserWarning)
            weight = torch._make_per_tensor_quantized_tensor(
                integers.contiguous(), tensors["weight_scale"].item(), tensors["weight_zero_point"].item()
            )
            linear = dynamic.Linear(columns, rows, bias_="bias" in tensors, dtype=torch.qint8)
            linear.set_weight_bias(weight, tensors.get("bias"))
        return cls(linear)

    def fields(self) -> dict[str, Any]:
        """Sizes, as JSON."""
        sizes = {"in_features": self.linear.in_features, "out_features": self.linear.out_features}
        return {"format": self.format, **sizes}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint, unpacked from torch's object."""
        weight, bias = self.linear.weight(), self.linear.bias()
        tensors = {
            "weight_packed": weight.int_repr(),
            "weight_scale": torch.tensor(weight.q_scale(), dtype=torch.float64),
            "weight_zero_point": torch.tensor(weight.q_zero_point(), dtype=torch.int64),
        }
        return tensors if bias is None else {**tensors, "bias": bias.detach()}

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return self.linear.weight().dequantize()

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.linear.in_features * self.linear.out_features

    def packed_bytes(self) -> int:
        """Bytes of weights, scale and zero point, without the bias."""
        return sum(tensor.nbytes for name, tensor in self.tensors().items() if name != "bias")

    @staticmethod
    def kernel(device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return f"torch: quantized::linear_dynamic ({torch.backends.quantized.engine})"

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] float32 -> [..., N] float32."""
        return self.linear(x)
