"""Offers this package to the judge of the golden data, and to our own tests, in one vocabulary.

`forward`, `units`, `preprocess` and `state_dict` have the signatures that `check_reference.py` asks for. A unit is
found by the longest prefix of its name in `UNITS`.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vggt_quant.data.geometry import (
    cameras_to_pose,
    invert_rigid,
    matrix_to_quaternion,
    pose_to_cameras,
    quaternion_to_matrix,
    unproject_depth,
)
from vggt_quant.data.images import load_images
from vggt_quant.model import NAMED, VGGT, VGGTConfig
from vggt_quant.model.camera_head import activate_pose
from vggt_quant.model.dpt_head import FusionBlock, activate_dense, plane_code
from vggt_quant.model.layers import apply_rotary, grid_positions, rotary_table
from vggt_quant.model.track_correlation import CorrelationPyramid, axis_code, motion_code, place_code, sample_features
from vggt_quant.model.vit import resize_positions


def as_tensor(output: Tensor | list[Tensor]) -> Tensor:
    return torch.stack(output) if isinstance(output, list) else output


def worst_deviation(got: Tensor, reference: Tensor) -> float:
    """Largest |difference| / (rms + |reference|), the measure of the golden data's tolerances."""
    assert got.shape == reference.shape, (got.shape, reference.shape)
    got, reference = got.double(), reference.double()
    scale = reference.square().mean().sqrt() + reference.abs() + 1e-30
    return float(((got - reference).abs() / scale).max())


def build_model(config: dict, weights: dict[str, Tensor]) -> VGGT:
    with torch.device("meta"):
        model = VGGT(VGGTConfig.from_dict(config))
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def forward(config: dict, weights: str, images: np.ndarray, query_points: np.ndarray) -> dict:
    model = build_model(config, load_file(weights))
    return observe(model, torch.from_numpy(images), torch.from_numpy(query_points))


def observe(model: VGGT, images: Tensor, query_points: Tensor) -> dict:
    """Everything the golden files know: outputs, cameras and points derived from them, tokens of the inside."""
    middle = _record_middle(model)
    with torch.inference_mode():
        out = model(images, query_points)
    image_size = tuple(images.shape[-2:])
    extrinsic, intrinsic = pose_to_cameras(out["pose_enc"], image_size)
    derived = {
        "extrinsic": extrinsic,
        "intrinsic": intrinsic,
        "pose_enc_roundtrip": cameras_to_pose(extrinsic, intrinsic, image_size),
        "world_points_from_depth": unproject_depth(out["depth"].squeeze(-1), extrinsic, intrinsic),
    }
    return out | derived | middle()


def _record_middle(model: VGGT):
    """Hook what the golden files keep of the inside; the returned function gives it under their names."""
    seen: dict[str, object] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda module, arguments, output: seen.__setitem__(name, output))

    aggregator = model.aggregator
    for i, blocks in enumerate(zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True)):
        keep(f"frame_{i}", blocks[0])
        keep(f"global_{i}", blocks[1])
    keep("mid.patch_tokens", aggregator.patch_embed)
    keep("mid.depth_head.fused", model.depth_head.scratch.output_conv1)
    keep("mid.depth_head.logits", model.depth_head.scratch.output_conv2)
    keep("mid.track_head.feature_maps", model.track_head.feature_extractor)
    keep("track_head", model.track_head)

    def middle() -> dict:
        named = {name: value for name, value in seen.items() if name.startswith("mid.")}
        batch = len(seen["global_0"])
        for i in range(len(aggregator.frame_blocks)):
            frames = [
                seen[f"{kind}_{i}"].reshape(batch, -1, *seen["frame_0"].shape[1:]) for kind in ("frame", "global")
            ]
            named[f"mid.tokens_{i}"] = torch.cat(frames, dim=-1)
        return named | {"track_list": seen["track_head"][0]}

    return middle


def state_dict() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = VGGT(NAMED["vggt-1b"])
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def preprocess(paths: list[str], mode: str) -> Tensor:
    return load_images(paths, mode)


def units(name: str, params: dict, inputs: dict) -> dict | None:
    prefixes = [prefix for prefix in UNITS if name.startswith(prefix)]
    if not prefixes:
        return None
    tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
    return UNITS[max(prefixes, key=len)](params, **tensors)


def _unit_rotary(params: dict, tokens: Tensor, positions: Tensor) -> dict:
    turned = [
        apply_rotary(one[None], rotary_table(where, one.shape[-1], params["frequency"]))
        for one, where in zip(tokens, positions, strict=True)
    ]
    return {"tokens": torch.cat(turned)}


def _unit_grid(params: dict) -> dict:
    return {"positions": grid_positions(params["height"], params["width"])[None]}


def _unit_resize_positions(params: dict, pos_embed: Tensor) -> dict:
    grid = (params["H"] // params["patch_size"], params["W"] // params["patch_size"])
    return {"pos_embed": resize_positions(pos_embed, grid)}


def _unit_plane_code(params: dict) -> dict:
    code = plane_code(params["channels"], params["h"], params["w"], params["image_W"] / params["image_H"])
    return {"embed": code[params["stored_channels"]]}


def _unit_activate_dense(params: dict, logits: Tensor) -> dict:
    points, points_conf = activate_dense(logits, "inv_log")
    depth, depth_conf = activate_dense(logits[:, :2], "exp")
    return {"points": points, "points_conf": points_conf, "depth": depth, "depth_conf": depth_conf}


def _unit_pose_to_cameras(params: dict, pose_enc: Tensor) -> dict:
    extrinsic, intrinsic = pose_to_cameras(pose_enc, params["image_size_hw"])
    return {"extrinsic": extrinsic, "intrinsic": intrinsic}


def _unit_cameras_to_pose(params: dict, extrinsic: Tensor, intrinsic: Tensor) -> dict:
    return {"pose_enc": cameras_to_pose(extrinsic, intrinsic, params["image_size_hw"])}


def _unit_unproject(params: dict, depth: Tensor, extrinsic: Tensor, intrinsic: Tensor) -> dict:
    return {"world_points": unproject_depth(depth.squeeze(-1), extrinsic, intrinsic)}


def _unit_fusion(params: dict, x: Tensor, skip: Tensor, **weights: Tensor) -> dict:
    block = FusionBlock(x.shape[1], has_skip=True)
    block.load_state_dict({name.removeprefix("w."): weight for name, weight in weights.items()})
    with torch.inference_mode():
        height, width = x.shape[-2:]
        return {"to_8x9": block(x, skip, (8, 9)), "x2": block(x, skip, (2 * height, 2 * width))}


def _unit_grid_code(params: dict) -> dict:
    height, width = params["grid_size"]
    half = params["embed_dim"] // 2
    pixels_yx = grid_positions(height, width)
    code = place_code(axis_code(half, width), axis_code(half, height), pixels_yx.flip(-1)[None].float())
    return {"embedding": code.mT.unflatten(-1, (height, width))}


def _unit_correlate(params: dict, fmaps: Tensor, targets: Tensor, coords: Tensor) -> dict:
    pyramid = CorrelationPyramid(fmaps.flatten(0, 1), params["num_levels"], params["radius"])
    correlations = pyramid.correlate(targets.flatten(0, 1), coords.flatten(0, 1))
    return {"corr": correlations.unflatten(0, fmaps.shape[:2])}


UNITS = {
    "rope2d_": _unit_rotary,
    "position_getter": _unit_grid,
    "pos_embed_": _unit_resize_positions,
    "dpt_pos_embed_": _unit_plane_code,
    "activate_dense": _unit_activate_dense,
    "activate_pose": lambda params, pose: {"pose": activate_pose(pose)},
    "quat_to_mat": lambda params, quat: {"mat": quaternion_to_matrix(quat)},
    "mat_to_quat": lambda params, mat: {"quat": matrix_to_quaternion(mat)},
    "pose_enc_to_cameras": _unit_pose_to_cameras,
    "cameras_to_pose_enc": _unit_cameras_to_pose,
    "inverse_se3": lambda params, se3: {"inverse": invert_rigid(se3)},
    "unproject_depth": _unit_unproject,
    "fusion_block": _unit_fusion,
    "track_flow_embedding": lambda params, flow: {"embedding": motion_code(flow, params["C"])},
    "track_grid_embedding": _unit_grid_code,
    "sample_features4d": lambda params, features, coords: {"samples": sample_features(features, coords)},
    "corr_block": _unit_correlate,
}
