"""Attention in float8 against the exact one, for queries of both kinds: with and without a bound on their scores."""

from math import inf, nan

import pytest
import torch
from kernel_cases import INTERPRETED, generator, on_both
from torch.nn.functional import scaled_dot_product_attention

from vggt_quant.results.decibels import sqnr_db

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.inference.attention import _choice as attention
from vggt_quant.kernels import attention_fp8, attention_fp8_pack
from vggt_quant.kernels.torch_reference import FLOAT8

E = 64
CASES = on_both([(1, 2), (5, 1), (130, 2), (300, 1)], [(1, 2), (5, 16), (130, 16), (4650, 16), (9300, 2)])


def heads(tokens, num_heads, device, size=1.0):
    """Packed rows as they leave the norms: query and key of size 1 per value, keys with a mean, values of any size."""
    qkv = torch.randn(tokens, 3, num_heads, E, generator=generator(tokens, num_heads))
    qkv[:, 0] *= size
    qkv[:, 1] += 2 * torch.randn(num_heads, E, generator=generator(num_heads))
    qkv[:, 2] *= 1000
    qkv[:, 2, -1] /= 1e6
    return qkv.flatten(1).to(device, torch.bfloat16)


def exact_attention(q, k, v):
    """float64 [M, H, E] of [H, M, E]."""
    return scaled_dot_product_attention(q.double(), k.double(), v.double()).transpose(0, 1)


def unpacked(packed):
    """What the kernel multiplies, [H, M, E] each."""
    tokens = packed.tokens
    v_HEN = packed.v_HEN.float().unflatten(2, (-1, 4, 2, 2)).transpose(-2, -3).flatten(2)  # back in their order
    v = v_HEN.transpose(1, 2) * packed.v_scale_H[:, None, None]
    return packed.q_HNE.float()[:, :tokens], packed.k_HNE.float()[:, :tokens], v[:, :tokens]


def worst_head_db(exact, got):
    return min(sqnr_db(exact[:, head], got.view(exact.shape)[:, head]) for head in range(exact.shape[1]))


@pytest.mark.parametrize(("device", "tokens", "num_heads"), CASES)
@pytest.mark.parametrize(("size", "least_db"), [(0.0, 27), (0.25, 25), (0.65, 25), (1.0, 24), (8.0, 16), (40.0, 8)])
def test_attention_is_the_exact_one_up_to_float8(device, tokens, num_heads, size, least_db):
    qkv = heads(tokens, num_heads, device, size)
    packed = attention_fp8_pack.pack(qkv, num_heads)
    got = attention_fp8.attend(packed)
    assert got.shape == (tokens, num_heads * E) and got.dtype == torch.bfloat16
    # e4m3 keeps 31 dB of normal data, in values as in probabilities; what keys and queries lose grows with the scores.
    exact = exact_attention(*qkv.view(tokens, 3, num_heads, E).permute(1, 2, 0, 3))
    assert worst_head_db(exact, got) >= least_db
    # With what was rounded before, only the probabilities are taken from their logarithm and rounded.
    assert worst_head_db(exact_attention(*unpacked(packed)), got) >= 27


@pytest.mark.parametrize("device", on_both([()], [()]))
@pytest.mark.parametrize(("size", "bounded"), [(0.25, True), (4.0, False)])
def test_both_ways_to_keep_the_probabilities_in_range_are_tested(device, size, bounded):
    """Small scores have a bound that is known beforehand, large ones need a running maximum."""
    packed = attention_fp8_pack.pack(heads(130, 2, device, size), 2)
    longest_H = packed.q_HNE.float().norm(dim=-1).amax(-1)
    bounds_H = longest_H * packed.k_longest_H * E**-0.5 * attention_fp8.LOG2_E
    assert ((bounds_H <= attention_fp8.RANGE) == bounded).all()
    _, k, _ = unpacked(packed)
    # Rounding moves the mean of the keys a little; their lengths are those of the rounded ones.
    assert (k.mean(1).norm(dim=-1) <= 0.02 * packed.k_longest_H).all()
    torch.testing.assert_close(packed.k_longest_H, k.norm(dim=-1).amax(-1))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("device", on_both([()], [()]))
def test_scores_beyond_half_precision_still_find_the_largest(device):
    """Two keys that point against each other, so long that their scores are plus and minus 5.8 million."""
    q_k_v = torch.full((2, 3, 1, E), 300.0)
    q_k_v[0, 1] = -300
    q_k_v[:, 2, 0] = torch.randn(2, E, generator=generator(2))
    got = attention_fp8.attend(attention_fp8_pack.pack(q_k_v.flatten(1).to(device, torch.bfloat16), 1))
    assert sqnr_db(q_k_v[1, 2, 0].expand(2, E).to(device), got) >= 28


@pytest.mark.parametrize("device", on_both([()], [()]))
def test_float8_takes_one_long_sequence_and_leaves_the_others(device):
    place = torch.device(device)
    exact, float8 = attention.attend(place, E), attention.attend(place, E, "float8", tokens=100)
    for tokens, sequences in ((98, 1), (130, 2)):
        qkv = heads(tokens, 2, device)
        assert torch.equal(float8(qkv, sequences, 2), exact(qkv, sequences, 2))
    qkv = heads(130, 2, device)
    assert torch.equal(float8(qkv, 1, 2), attention_fp8.attend(attention_fp8_pack.pack(qkv, 2)))
    assert not torch.equal(float8(qkv, 1, 2), exact(qkv, 1, 2))


def test_heads_of_another_width_have_no_float8_attention():
    assert attention.unsupported(torch.device("cpu"), 32, "float8") == "heads are 32 wide, not 64"
    assert attention.unsupported(torch.device("cpu"), 64, "float8") is None
    assert attention.unsupported(torch.device("cpu"), 32, "bfloat16") is None


@pytest.mark.parametrize(("device", "tokens"), on_both([(300,)], [(300,), (18_600,), (93_000,)]))
@pytest.mark.parametrize("size", [0.25, 4.0])
def test_values_with_a_mean_are_summed_in_full_however_long_the_sequence(device, tokens, size):
    """Float8 units drop what is less than a 2^13th of a sum: of 18,600 values near 1, a fifth of the sum."""
    qkv = torch.randn(tokens, 3, 1, E, generator=generator(tokens)).to(device)
    qkv[:, 0] *= size
    qkv[:, 2] = 1 + 0.5 * qkv[:, 2]
    qkv = qkv.bfloat16()
    packed = attention_fp8_pack.pack(qkv.flatten(1), 1)
    got = attention_fp8.attend(packed)[:128].double()
    q, k, v = unpacked(packed)
    exact = exact_attention(q[:, :128], k, v).flatten(1)
    assert abs((got.mean() / exact.mean()).item() - 1) < 0.003
    assert sqnr_db(exact, got) >= 27


@pytest.mark.parametrize("device", on_both([()], [()]))
@pytest.mark.parametrize("sign", [1, -1])
def test_blocks_of_keys_a_thousand_octaves_apart_may_come_in_any_order(device, sign):
    q_k_v = torch.randn(256, 3, 1, E, generator=generator(256))
    q_k_v[:, 0], q_k_v[:128, 1], q_k_v[128:, 1] = 30, 2 * sign, -2 * sign
    q_k_v = q_k_v.to(device, torch.bfloat16)
    exact = exact_attention(*q_k_v.permute(1, 2, 0, 3))
    assert worst_head_db(exact, attention_fp8.attend(attention_fp8_pack.pack(q_k_v.flatten(1), 1))) >= 27


@pytest.mark.parametrize("device", on_both([()], [()]))
@pytest.mark.parametrize("length", [0.25, 3.5, 448.0])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_no_score_lifts_a_probability_above_the_largest_float8(device, length):
    """A key of 1 to 64 equal components, queries of every float8 along it: scores are bounds, up to 13 million."""
    every = torch.arange(1, 127, dtype=torch.uint8).view(FLOAT8).float()
    q, k = torch.zeros(2, E, 128, E)
    along = torch.ones(E, E).tril()  # one head for each number of components
    q[:, :126] = every[:, None] * along[:, None]
    k[:, 0] = length * along
    v = torch.full((E, E, 128), -1.0)
    v[:, :, 0] = 1
    packed = attention_fp8_pack.Float8Heads(
        q_HNE=q.to(device, FLOAT8), k_HNE=k.to(device, FLOAT8), v_HEN=v.to(device, FLOAT8),
        v_scale_H=torch.ones(E, device=device), k_longest_H=k.norm(dim=-1).amax(-1).to(device), tokens=126,
    )  # fmt: skip
    got = attention_fp8.attend(packed).view(126, E, E)[..., 0].cpu().double()
    weight = torch.softmax((q @ k.mT)[:, :126, :126].double() * E**-0.5, -1)[..., 0].T
    # Of the first key 6 %, by taking its logarithm for its float8.
    torch.testing.assert_close(got, 2 * weight - 1, atol=0.07, rtol=0)


@pytest.mark.parametrize(("device", "part", "value"), on_both([], [(0, nan), (1, nan), (2, nan), (1, inf), (2, inf)]))
def test_a_query_key_or_value_that_is_no_number_spoils_its_head(device, part, value):
    """On the GPU only: the interpreter's float8 knows no NaN. An infinite query saturates."""
    qkv = heads(130, 2, device, 0.25)
    q_k_v = qkv.view(130, 3, 2, E)
    q_k_v[5, part, 1, 3] = value
    got = attention_fp8.attend(attention_fp8_pack.pack(qkv, 2)).view(130, 2, E)
    assert got[:, 0].isfinite().all()
    spoilt = got[5, 1] if part == 0 else got[:, 1].amax(-1)
    assert not spoilt.isfinite().any()


@pytest.mark.parametrize("device", on_both([()], [()]))
def test_what_is_no_number_is_found_in_any_part_of_a_long_sequence(device):
    """Parts of 512 tokens, 64 of them at a time."""
    part = attention_fp8_pack.MEASURED * attention_fp8_pack.STEPS
    qkv = torch.zeros(66 * part, 3 * E, dtype=torch.bfloat16, device=device)
    qkv[:, 2 * E] = 2
    assert attention_fp8_pack._measured(qkv, 1, E)[1].item() == pytest.approx(2 / 448)
    qkv[part, 2 * E] = nan
    assert attention_fp8_pack._measured(qkv, 1, E)[1].isnan().all()


@INTERPRETED
def test_values_of_millions_of_tokens_lie_where_they_belong():
    """2.2 million tokens, 2,340 images of 350x518: one block of them, whose last lines begin beyond 2^31 values."""
    num_heads, padded = 16, 17_000 * attention_fp8_pack.BLOCK
    lines = num_heads * E
    assert (lines - 1) * padded > 2**31
    # The end of a longer piece: places cut to 32 bits would lie before it. Pages that nobody touches take no memory.
    v_out = torch.empty(2**31 + lines * padded, dtype=torch.uint8)[2**31 :].view(FLOAT8)
    q_out, k_out = (torch.empty(lines * padded, dtype=FLOAT8) for _ in range(2))
    qkv = torch.ones(1, 3 * lines, dtype=torch.bfloat16)
    attention_fp8_pack._pack[(1, num_heads)](
        qkv, torch.zeros(lines), torch.ones(num_heads), q_out, k_out, v_out, torch.zeros(num_heads), 1, padded,
        qkv.stride(0), H=num_heads, E=E, TOKENS=attention_fp8_pack.BLOCK,
    )  # fmt: skip
    assert v_out[(lines - 1) * padded].float() == 1


def test_a_score_becomes_the_byte_of_the_docstrings_example():
    c = torch.tensor(8 * attention_fp8.LOG2_E * 64**-0.5, dtype=torch.float16)
    shift = attention_fp8.HIGHEST.value - 0.5 - 20
    y = (10 * c.double() + shift).half()
    byte = y.view(torch.int16).item() & 0xFF
    assert (round(c.item(), 4), shift, y.item(), byte) == (1.4424, 1129.5, 1144, 120)
    assert torch.tensor([byte], dtype=torch.uint8).view(torch.float8_e4m3fn).item() == 256
    as_half = int(byte * attention_fp8.AS_HALF.value)
    assert torch.tensor([as_half], dtype=torch.int16).view(torch.float16).item() == 1
    # What one multiply-add makes of two values in a register.
    low, high = 120, 77
    both = (attention_fp8.BASE.value, (0x6400 + low) | (0x6400 + high) << 16)
    assert torch.tensor(0x6400, dtype=torch.int16).view(torch.float16).item() == both[0]
    assert (both[1] * 128 + 0xFFCE0000) % 2**32 == low << 7 | (high << 7) << 16
