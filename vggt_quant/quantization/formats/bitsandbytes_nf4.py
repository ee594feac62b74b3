"""bitsandbytes_nf4: NormalFloat4 of bitsandbytes, 16-bit activations.

    weight_packed  uint8  [N * K / 2]    weights in row-major order, the first of two in the high half of a byte
    weight_scale   fp32   [N * K / 64]   the largest magnitude of 64 weights in a row
    bias           as the model stores it, or absent

Cost: 0.5 + 4/64 bytes per weight. A weight is one of 16 values that split a normal distribution into equal shares,
times the scale of its block (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, appendix E). The scales are not quantized a
second time, which the library can do, too.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.base import Layout

BLOCK = 64
VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


# kernel_error: bitsandbytes 0.50 takes wrong scales on CPUs where a row is narrower than a block.
SPEC = FormatSpec(bits=4, integers=False, distribution="bitsandbytes", least_db=19, kernel_error=0.05)


class PackedLinear(Library):
    """A Linear over NF4 weights."""

    format = "bitsandbytes_nf4"
    spec = SPEC
    library = "bitsandbytes"
    product = "matmul_4bit nf4"

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name."""
        weights = fields["out_features"] * fields["in_features"]
        return {
            "weight_packed": (torch.uint8, (-(-weights // 2),)),
            "weight_scale": (torch.float32, (-(-weights // BLOCK),)),
            "bias": (None, (fields["out_features"],)),
        }

    @classmethod
    def from_codes(cls, codes_NK: Tensor, scale_B: Tensor, bias_N: Tensor | None) -> Self:
        """Pack indices into `VALUES` and the scale of each block."""
        rows, columns = codes_NK.shape
        codes = functional.pad(codes_NK.to(torch.uint8).flatten(), (0, rows * columns % 2))
        tensors = {"weight_packed": (codes[::2] << 4) | codes[1::2], "weight_scale": scale_B, "bias": bias_N}
        return cls(tensors, out_features=rows, in_features=columns)

    @classmethod
    def from_weight(cls, weight_NK: Tensor, bias_N: Tensor | None, **settings: Any) -> Self:
        """The nearest of the 16 values under the largest magnitude of each block, which runs on from row to row."""
        flat = weight_NK.float().flatten()
        blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        scale_B = blocks.abs().amax(1)
        values = torch.tensor(VALUES, device=flat.device)
        middles = (values[1:] + values[:-1]) / 2
        codes = torch.bucketize(blocks / scale_B.clamp(min=torch.finfo(torch.float32).tiny)[:, None], middles)
        return cls.from_codes(codes.flatten()[: len(flat)].view_as(weight_NK), scale_B, bias_N)

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        codes = torch.stack((self.weight_packed >> 4, self.weight_packed & 15), dim=1).flatten()[: self.num_weights]
        scales = self.weight_scale.repeat_interleave(BLOCK)[: self.num_weights]
        values = torch.tensor(VALUES, device=codes.device)[codes.long()] * scales
        return values.view(self.out_features, self.in_features)

    def hand_over(self, device: torch.device) -> Any:
        """A `QuantState` over our scales."""
        from bitsandbytes.functional import QuantState

        return QuantState(
            self.weight_scale.to(device),
            shape=torch.Size((self.out_features, self.in_features)),
            code=torch.tensor(VALUES, device=device),
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=torch.bfloat16,
        )

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product."""
        import bitsandbytes

        out_MN: Tensor = bitsandbytes.matmul_4bit(x_MK, self.weight_packed, made, bias=bias_N)
        return out_MN
