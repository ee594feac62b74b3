"""pytorch_dynamic_int8: what `torch.ao.quantization.quantize_dynamic` makes, on the CPU, stored as plain tensors.

    weight_packed      int8   [N, K]
    weight_scale       fp64   []       one scale for the whole weight, as torch's default observer chooses
    weight_zero_point  int64  []
    bias               fp32   [N]

Activations are quantized per tensor at run time by torch's own kernel (fbgemm, oneDNN or QNNPACK), in float32. The
integers are packed for the machine's kernel at load; torch's packed object lies in no parameter and no buffer, so it
counts itself in `hidden_bytes`. There is no CUDA kernel: an object packed while its model was on CUDA fails with
"apply_dynamic is not implemented for this packed parameter type", and moving it to the CPU afterwards does not heal it.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic

from vggt_quant.quantization.formats import check_tensors


class PackedLinear(nn.Module):
    """A torch dynamic-quantized Linear with plain tensors at its door."""

    format = "pytorch_dynamic_int8"
    devices = ("cpu",)
    arithmetic = "int8"

    def __init__(self, linear: dynamic.Linear, *, has_bias: bool):
        super().__init__()
        self.linear, self.has_bias = linear, has_bias  # torch's object tells only after unpacking the whole weight
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PackedLinear":
        """Repack the integers for this machine's kernel.

        Raises:
            ValueError: Tensors that do not fit the fields.
        """
        rows, columns = fields["out_features"], fields["in_features"]
        expected = {
            "weight_packed": (torch.int8, (rows, columns)),
            "weight_scale": (torch.float64, ()),
            "weight_zero_point": (torch.int64, ()),
            "bias": (torch.float32, (rows,)),
        }
        check_tensors(tensors, expected)
        if tensors["weight_packed"].device.type != "cpu":
            raise ValueError('pytorch_dynamic_int8 runs on the CPU only; load it with device="cpu".')
        with warnings.catch_warnings():
            # torch announces that quantized tensor types will go; this format is here to measure them while they last.
            warnings.filterwarnings("ignore", message=".*(quint8|qint8|quantized).*", category=UserWarning)
            weight = torch._make_per_tensor_quantized_tensor(
                tensors["weight_packed"], tensors["weight_scale"].item(), tensors["weight_zero_point"].item()
            )
            # The constructor packs a weight of zeros, which takes as long as the real one: so a tiny one comes first.
            linear = dynamic.Linear(1, 1, dtype=torch.qint8)
            linear.in_features, linear.out_features = columns, rows
            linear.set_weight_bias(weight, tensors.get("bias"))
        return cls(linear, has_bias="bias" in tensors)

    def fields(self) -> dict[str, Any]:
        """Sizes, as JSON."""
        return {"format": self.format, "in_features": self.in_features, "out_features": self.out_features}

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
        return self.linear.weight().dequantize()

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.out_features * self.in_features

    def packed_bytes(self) -> int:
        """Bytes of weights, scale and zero point, without the bias; counted, because to unpack them takes seconds."""
        return self.num_weights + 16

    def hidden_bytes(self) -> int:
        """Bytes that lie in no parameter and no buffer: torch's packed object, bias included."""
        return self.packed_bytes() + (4 * self.out_features if self.has_bias else 0)

    @staticmethod
    def kernel(device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return f"torch: quantized::linear_dynamic ({torch.backends.quantized.engine})"

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N] in the type of `x`; torch's kernel itself takes and gives float32."""
        return self.linear(x.float()).to(x.dtype)
