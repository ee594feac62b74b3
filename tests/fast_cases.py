"""How the tests of the fast pass compare it: with the plain model, both against float32."""

import copy

import torch
from torch import nn

from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.results import decibels


def run(forward, images):
    with torch.inference_mode():
        return forward(images)


def sqnr_db(reference, outputs):
    """SQNR of each output of some scenes; the poses of all iterations are one."""

    def together(name, scenes):
        return torch.cat([torch.cat(x[name]) if name == "pose_enc_list" else x[name] for x in scenes])

    names = set(reference[0]) - {"images", "pose_enc"}
    return {name: decibels.sqnr_db(together(name, reference), together(name, outputs)) for name in names}


def shapes(outputs):
    """Names, shapes and types."""
    flat = {name: value if isinstance(value, list) else [value] for name, value in outputs.items()}
    return {name: [(tensor.shape, tensor.dtype) for tensor in value] for name, value in flat.items()}


def as_close_as_plain(fp32, plain, forward, scenes, *, least_db=20, within_db=3):
    """Assert that a pass gives VGGT's dictionary about as close to float32 as the plain model does; return the last.

    Two ways of rounding give poses, here of three frames or more, SQNRs up to 2 dB apart.
    """
    reference, expected, got = ([run(one, images) for images in scenes] for one in (fp32, plain, forward))
    for one, other in zip(got, expected, strict=True):
        assert shapes(one) == shapes(other)
    plain_db, got_db = sqnr_db(reference, expected), sqnr_db(reference, got)
    assert all(got_db[name] >= plain_db[name] - within_db for name in plain_db), (plain_db, got_db)
    # That rule alone would pass if both were wrong.
    assert all(level >= least_db for level in plain_db.values()), plain_db
    return got[-1]


def dequantized(model):
    """A float32 copy with the weights that its packed layers stand for: what is left is the rounding of activations."""
    twin = copy.deepcopy(model).float()
    for name, layer in packed_layers(model).items():
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        linear.weight = nn.Parameter(layer.dequantized(), requires_grad=False)
        if layer.bias is not None:
            linear.bias = nn.Parameter(layer.bias.float(), requires_grad=False)
        twin.set_submodule(name, linear)
    return twin
