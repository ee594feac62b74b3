"""Attention in pieces: what a CPU runs for long bfloat16 sequences, against PyTorch's own in float64."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vggt_quant.model import layers


def heads(*shape):
    """Query, key and value [B, H, N, E] as the model hands them over: views of tokens."""
    generator = torch.Generator().manual_seed(len(shape) + shape[2])
    batch, count, tokens, width = shape
    packed = torch.randn(3, batch, tokens, count, width, generator=generator).bfloat16()
    return packed.transpose(2, 3).unbind()


@pytest.mark.parametrize("shape", [(1, 2, 512, 64), (2, 3, 700, 32), (1, 1, 1025, 16)])
def test_pieces_are_the_exact_attention_up_to_bfloat16(shape):
    q, k, v = heads(*shape)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    with torch.inference_mode():
        error = (layers.attend_in_pieces(q, k, v) - exact).norm() / exact.norm()
    # Scores, probabilities and sums are rounded to 8 bits: 47 dB; 46 where the scaled queries are rounded, too (widths
    # that are no power of 4).
    assert error < 10 ** (-45 / 20)


def test_what_is_not_finite_stays_so():
    q, k, v = heads(1, 2, 600, 16)
    q[0, 1, 599, 3] = torch.nan
    with torch.inference_mode():
        out = layers.attend_in_pieces(q, k, v)
    assert out[0, 1, 599].isnan().all() and out[0, 0].isfinite().all() and out[0, 1, :599].isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "dtype", "grad", "in_pieces"),
    [
        (512, torch.bfloat16, False, True),
        (511, torch.bfloat16, False, False),
        (512, torch.float32, False, False),
        (512, torch.bfloat16, True, False),
    ],
)
def test_only_long_bfloat16_sequences_without_gradients_go_in_pieces(tokens, dtype, grad, in_pieces):
    q, k, v = (x.to(dtype) for x in heads(1, 2, tokens, 16))
    with torch.set_grad_enabled(grad):
        got = layers.attend(q, k, v)
    usual = scaled_dot_product_attention(q, k, v)
    with torch.inference_mode():
        pieces = layers.attend_in_pieces(q, k, v)
    assert torch.equal(got, pieces if in_pieces else usual) and not torch.equal(usual, pieces)
