"""One conformance suite over every attention backend that is found: a new one brings no new test file."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vggt_quant.inference import attention
from vggt_quant.inference.attention._choice import ranked
from vggt_quant.results import decibels
from vggt_quant.variants import ATTENTIONS, RunSettings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTH, HEADS = 64, 2


@pytest.mark.parametrize("name", attention.names())
@pytest.mark.parametrize("tokens", [130, 257])
def test_a_backend_is_close_to_exact_attention_or_says_why_it_does_not_run(name, tokens):
    backend = attention.get(name)
    reason = backend.unsupported(DEVICE, WIDTH)
    if reason is not None:
        assert reason and not reason.endswith(".")
        return
    qkv = torch.randn(tokens, 3 * HEADS * WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16().to(DEVICE)
    q, k, v = qkv.double().view(tokens, 3, HEADS, WIDTH).permute(1, 2, 0, 3)
    exact = scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
    got = backend.attend(qkv.clone(), 1, HEADS)
    assert got.shape == exact.shape and got.dtype == torch.bfloat16
    assert decibels.sqnr_db(exact, got.double()) >= backend.least_db


def test_a_backend_runs_where_no_other_does():
    assert ranked()[-1].unsupported(torch.device("cpu"), 12) is None
    assert len({one.rank for one in ranked()}) == len(ranked())


def test_settings_take_the_backends_that_there_are():
    assert set(ATTENTIONS) == {"bfloat16", *attention.names()}
    assert all(RunSettings(attention=name).attention == name for name in ATTENTIONS)


def test_an_unknown_backend_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no attention 'flash5'; there are .*cudnn"):
        attention.get("flash5")


def test_names_are_read_without_torch():
    code = (
        "import sys; from vggt_quant.inference import attention; attention.names(); import vggt_quant.variants;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
