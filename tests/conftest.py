"""What several test files start from."""

import os
import signal

import pytest
import torch
from safetensors.torch import save

# Without a GPU the Triton kernels are interpreted, which has to be said before Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from vggt_quant.model.weights.pretrained import load_state, resolve

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a test that skips fails: a skip proves nothing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped, which --no-skips forbids: {call.excinfo.value}"
    return report


@pytest.fixture(scope="module")
def state():
    """The nano model's weights."""
    return load_state(resolve("nano-random"))


@pytest.fixture(scope="module")
def content(state):
    """The same as the bytes of a safetensors file."""
    return save(state)
