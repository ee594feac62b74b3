"""Norm and rotation of query and key in place, against the model's own norm and `apply_rotary`."""

import pytest
import torch
from kernel_cases import generator, on_both, worst_rounding, worst_row_error
from torch.nn import functional

from vggt_quant.model.layers import apply_rotary, rotary_table

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.kernels.rotary import HeadNorms, norm_rotate

CASES = on_both(
    [(2, 64, 1, 5), (4, 16, 3, 6), (1, 8, 17, 1)], [(16, 64, 5, 930), (4, 64, 2, 69), (4, 16, 3, 6), (1, 128, 1, 1)]
)


def twin(qkv, norms, table, heads):
    """The rows [M, 3D] as the model computes them, in float32."""
    q, k, v = qkv.float().unflatten(1, (3, heads, -1)).unbind(1)

    def turned(x_MHE, weight, bias):
        normed = functional.layer_norm(x_MHE, weight.shape, weight.float(), bias.float(), norms.eps)
        return apply_rotary(normed.transpose(0, 1)[None], table)[0].transpose(0, 1)

    q, k = turned(q, norms.q_weight_E, norms.q_bias_E), turned(k, norms.k_weight_E, norms.k_bias_E)
    return torch.stack((q, k, v), 1).flatten(1)


@pytest.mark.parametrize(("device", "heads", "width", "frames", "tokens"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_query_and_key_are_normalised_and_turned_and_values_stay(device, heads, width, frames, tokens, dtype):
    random = generator(heads, width, tokens)
    table = rotary_table(torch.randint(0, 37, (tokens, 2), generator=random), width, 100.0).to(device)
    rows = torch.randn(frames * tokens, 3 * heads * width + 8, generator=random).to(device, dtype)
    rows[-1] *= 1e4
    weights = [torch.randn(width, generator=random).to(device, dtype) for _ in range(4)]
    norms = HeadNorms(**dict(zip(("q_weight_E", "q_bias_E", "k_weight_E", "k_bias_E"), weights, strict=True)))
    # Rows with a stride of their own; what lies between them stays as it is.
    qkv, between = rows[:, :-8], rows[:, -8:].clone()
    exact, values = twin(qkv, norms, table, heads), qkv[:, 2 * heads * width :].clone()
    norm_rotate(qkv, norms, table, heads)
    if dtype == torch.float32:
        assert worst_row_error(qkv, exact) <= 1e-5  # float32 sums in another order
    else:
        assert worst_rounding(qkv, exact, slack=1e-5) <= 1
    assert torch.equal(qkv[:, 2 * heads * width :], values)
    assert torch.equal(rows[:, -8:], between)


def test_tokens_of_half_a_frame_are_refused():
    table, weight = torch.zeros(2, 4, 8), torch.ones(8)
    norms = HeadNorms(q_weight_E=weight, q_bias_E=weight, k_weight_E=weight, k_bias_E=weight)
    with pytest.raises(AssertionError):
        norm_rotate(torch.zeros(6, 24), norms, table, 1)
