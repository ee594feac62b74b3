"""What several test files start from."""

import pytest
from safetensors.torch import save

from vggt_quant.model.pretrained import load_state, resolve


@pytest.fixture(scope="module")
def state():
    """The nano model's weights."""
    return load_state(resolve("nano-random"))


@pytest.fixture(scope="module")
def content(state):
    """The same as the bytes of a safetensors file."""
    return save(state)
