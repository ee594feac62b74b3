"""Packed checkpoints of any module: shared layers, tied weights, buffers, and what a tensor file cannot hold."""

import pytest
import torch
from torch import nn

import vggt_quant
from vggt_quant.quantization import formats
from vggt_quant.quantization.checkpoint import CheckpointError, load_into, memory_bytes, save
from vggt_quant.runtime.tensor_file import tensor_bytes


def test_any_module_saves_and_loads_into_its_own_architecture(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(64, 64)
            self.again = self.shared
            self.embed = nn.Embedding(10, 64)
            self.head = nn.Linear(64, 10, bias=False)
            self.head.weight = self.embed.weight
            self.norm = nn.LayerNorm(64)

        def forward(self, x):
            return self.head(self.norm(self.again(self.shared(self.embed(x)))))

    net, x = Net().eval(), torch.arange(10)
    vggt_quant.quantize_model(net, "int4_group64")
    assert net.again is net.shared
    assert isinstance(net.shared, formats.layer("w4a16"))
    save(net, tmp_path / "net.safetensors")
    with torch.device("meta"):
        other = Net()
    load_into(other, tmp_path / "net.safetensors")
    assert other.again is other.shared
    assert torch.equal(other.eval()(x), net(x))
    with pytest.raises(CheckpointError, match="holds no VGGT"):
        vggt_quant.load(tmp_path / "net.safetensors")


class Tied(nn.Module):
    """A head with the weight of its embedding, beside a layer that can be quantized."""

    def __init__(self, *, by_storage=False):
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.middle = nn.Linear(32, 32)
        self.head = nn.Linear(32, 64, bias=False)
        self.head.weight = nn.Parameter(self.embed.weight.data) if by_storage else self.embed.weight
        self.third = self.embed.weight

    def forward(self, x):
        return self.head(self.middle(self.embed(x)))


@pytest.mark.parametrize("by_storage", [False, True])
def test_a_tied_weight_is_stored_once_and_is_tied_again_after_loading(tmp_path, by_storage):
    path, x = tmp_path / "tied.safetensors", torch.arange(64)
    net = vggt_quant.quantize_model(Tied(), "int8_symmetric")
    if by_storage:
        net.head.weight = nn.Parameter(net.embed.weight.data)
    save(net, path)
    with torch.device("meta"):
        other = Tied()
    load_into(other, path)
    assert other.head.weight is other.embed.weight is other.third
    assert torch.equal(other(x), net(x))
    assert sum(tensor_bytes(path).values()) == memory_bytes(net) == memory_bytes(other)
    before = path.read_bytes()
    save(other, path)
    assert path.read_bytes() == before


def test_parameters_that_overlap_in_memory_are_stored_apart(tmp_path):
    fused = torch.randn(96, 32)
    model, other = (nn.ModuleList([nn.Linear(32, 64, bias=False) for _ in range(2)]) for _ in range(2))
    model[0].weight, model[1].weight = nn.Parameter(fused[:64]), nn.Parameter(fused[32:])
    save(model, tmp_path / "x.safetensors")
    load_into(other, tmp_path / "x.safetensors")
    assert torch.equal(other[0].weight, fused[:64])
    assert torch.equal(other[1].weight, fused[32:])


def test_a_buffer_that_is_not_saved_needs_a_module_with_values(tmp_path):
    class Scaled(nn.Linear):
        def __init__(self):
            super().__init__(32, 32)
            self.register_buffer("factor", torch.tensor(2.0), persistent=False)

    save(nn.Sequential(Scaled()), tmp_path / "x.safetensors")
    assert load_into(nn.Sequential(Scaled()), tmp_path / "x.safetensors")[0].factor == 2
    with torch.device("meta"):
        empty = nn.Sequential(Scaled())
    with pytest.raises(CheckpointError, match=r"no values for 0\.factor.*on the CPU"):
        load_into(empty, tmp_path / "x.safetensors")


def test_what_a_tensor_file_cannot_hold_is_refused_by_name(tmp_path):
    class Counting(nn.Module):
        def get_extra_state(self):
            return {"count": 1}

    packed = vggt_quant.quantize_model(nn.Sequential(nn.Linear(32, 32)), "int8_symmetric")
    cases = {
        "0._extra_state is a dict": nn.Sequential(Counting()),
        "0.weight is on the meta device": nn.Sequential(nn.Linear(2, 2, device="meta")),
        "itself a packed layer": packed[0],
    }
    for words, model in cases.items():
        with pytest.raises(ValueError, match=words):
            save(model, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save(vggt_quant.quantize_model(nn.Sequential(nn.Linear(64, 32)), "int8_symmetric"), path)
    for model, words in (
        (nn.Sequential(nn.Linear(32, 64)), "is 64 -> 32, but the model has 32 -> 64"),
        (nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32)), "2 tensors are missing"),
        (nn.ModuleDict({"a": nn.Linear(64, 32)}), "does not fit"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_into(model, path)
