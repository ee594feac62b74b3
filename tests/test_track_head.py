"""What holds for the tracker whatever its weights; the original's own values are in test_model_reference.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from reference_adapter import worst_deviation
from torch import Tensor, nn

from vggt_quant.model.config import TrackHeadConfig
from vggt_quant.model.track_correlation import (
    CorrelationPyramid,
    axis_code,
    motion_code,
    place_code,
    sample_bilinear,
    sample_features,
)
from vggt_quant.model.track_head import Tracker, TrackHead
from vggt_quant.model.track_transformer import TrackTransformer

IMAGE_SIZE = (56, 70)
CONFIG = TrackHeadConfig(
    dim_in=32, features=16, out_channels=(8, 8, 16, 16), intermediate_layer_idx=(0, 0, 1, 1), corr_levels=3,
    corr_radius=2, hidden_size=16, tracker_depth=2, tracker_num_heads=2, num_virtual_tracks=4, max_scale=70,
)  # fmt: skip
QUERIES = torch.tensor([[[10.0, 20.0], [60.5, 40.25], [0.0, 55.0], [69.0, 0.0]]])


def build_head() -> TrackHead:
    torch.manual_seed(0)
    return TrackHead(CONFIG).eval()


@pytest.fixture(scope="module")
def head() -> TrackHead:
    return build_head()


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return torch.randn(1, 4, 16, 28, 35, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def track(tracker: Tracker, maps: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tracks, visibility, confidence = tracker(maps, queries)
    return torch.stack(tracks), visibility, confidence


def test_a_head_answers_in_float32_with_a_track_per_iteration(head: TrackHead) -> None:
    tokens = {layer: torch.randn(1, 2, 20, CONFIG.dim_in) for layer in (0, 1)}
    with torch.inference_mode():
        tracks, visibility, confidence = head(tokens, IMAGE_SIZE, QUERIES)
    assert [tuple(points.shape) for points in tracks] == [(1, 2, 4, 2)] * CONFIG.iters
    assert visibility.shape == confidence.shape == (1, 2, 4)
    assert {x.dtype for x in (*tracks, visibility, confidence)} == {torch.float32}


def test_the_first_frame_stays_where_the_query_is_and_later_frames_move(head: TrackHead, maps: Tensor) -> None:
    tracks, _, _ = track(head.tracker, maps, QUERIES)
    assert all(torch.equal(points[:, 0], QUERIES) for points in tracks)
    assert ((tracks[-1][:, 1:] - QUERIES.unsqueeze(1)).norm(dim=-1) > 0.01).all()


def test_without_corrections_a_track_stands_still(maps: Tensor) -> None:
    tracker = build_head().tracker
    nn.init.zeros_(tracker.updateformer.flow_head.weight)
    nn.init.zeros_(tracker.updateformer.flow_head.bias)
    tracks, _, _ = track(tracker, maps, QUERIES)
    assert torch.equal(tracks, QUERIES.expand_as(tracks))


def test_a_constant_correction_adds_up_in_image_pixels(maps: Tensor) -> None:
    tracker = build_head().tracker
    nn.init.zeros_(tracker.updateformer.flow_head.weight)
    nn.init.zeros_(tracker.updateformer.flow_head.bias)
    with torch.no_grad():
        tracker.updateformer.flow_head.bias[:2] = torch.tensor([1.0, -0.5])
    tracks, _, _ = track(tracker, maps, QUERIES)
    for i in range(CONFIG.iters):
        moved = QUERIES + (i + 1) * CONFIG.stride * torch.tensor([1.0, -0.5])
        assert torch.equal(tracks[i, :, 1:], moved.unsqueeze(1).expand(-1, 3, -1, -1))


def test_points_may_be_asked_in_any_order(head: TrackHead, maps: Tensor) -> None:
    order = [2, 0, 3, 1]
    expected, shuffled = track(head.tracker, maps, QUERIES)[0], track(head.tracker, maps, QUERIES[:, order])[0]
    # Attention sums over the points in another order. From the second iteration on the motion code amplifies rounding.
    assert worst_deviation(shuffled[0], expected[0][..., order, :]) <= 1e-6


def test_points_influence_each_other_through_the_virtual_tracks(head: TrackHead, maps: Tensor) -> None:
    together, alone = track(head.tracker, maps, QUERIES)[0], track(head.tracker, maps, QUERIES[:, :1])[0]
    assert worst_deviation(together[0, :, :, :1], alone[0]) > 1e-4


def test_later_frames_may_come_in_any_order(head: TrackHead, maps: Tensor) -> None:
    order = [0, 3, 1, 2]
    expected, shuffled = track(head.tracker, maps, QUERIES)[0], track(head.tracker, maps[:, order], QUERIES)[0]
    # Attention sums over the frames in another order; the first iteration, as above.
    assert worst_deviation(shuffled[0], expected[0][:, order]) <= 1e-6


def test_scenes_of_a_batch_are_tracked_alone(head: TrackHead, maps: Tensor) -> None:
    both = track(head.tracker, torch.cat((maps.flip(1), maps)), torch.cat((QUERIES.flip(1), QUERIES)))[0]
    # Larger matrix products round differently; the first iteration, as above.
    assert worst_deviation(both[0, 1:], track(head.tracker, maps, QUERIES)[0][0]) <= 1e-6


def test_bfloat16_weights_leave_the_coordinates_float32(maps: Tensor) -> None:
    head = build_head().bfloat16()
    # 69.0625 pixels is no bfloat16 number; a coordinate that was one for a moment would come back as 69.
    queries = QUERIES + 0.0625
    tracks, visibility, _ = track(head.tracker, maps.bfloat16(), queries)
    assert tracks.dtype == visibility.dtype == torch.float32
    assert torch.equal(tracks[-1][:, 0], queries)
    exact, _, _ = track(build_head().tracker, maps, queries)
    # The first correction, before the motion code amplifies anything: bfloat16 leaves 1 % of its size.
    correction = (exact[0] - queries.unsqueeze(1)).square().mean().sqrt()
    assert 0 < (tracks[0] - exact[0]).square().mean().sqrt() <= 0.03 * correction


def test_autocast_leaves_the_coordinates_float32(head: TrackHead, maps: Tensor) -> None:
    queries = QUERIES + 0.0625
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tracks, visibility, _ = track(head.tracker, maps, queries)
    assert tracks.dtype == visibility.dtype == torch.float32
    assert torch.equal(tracks[-1][:, 0], queries)


def test_images_too_small_for_the_pyramid_are_refused_in_a_sentence() -> None:
    four_levels = TrackHead(replace(CONFIG, corr_levels=4))
    tokens = {layer: torch.randn(1, 1, 2, CONFIG.dim_in) for layer in (0, 1)}
    with pytest.raises(ValueError, match="Images are 14 x 28 pixels; tracking needs at least 16 a side"):
        four_levels(tokens, (14, 28), QUERIES)


def test_the_smallest_images_of_the_full_pyramid_can_be_tracked() -> None:
    """Seven levels end in one pixel at 128 pixels a side; 126, the multiple of 14 below, has no seventh."""
    with torch.device("meta"):
        assert TrackHead(TrackHeadConfig()).min_side == 128
    pyramid = CorrelationPyramid(torch.randn(1, 2, 64, 64), num_levels=7, radius=4)
    assert pyramid.levels[-1].shape == (1, 2, 1, 1)


def test_correlations_are_scalar_products_with_the_window_around_a_point() -> None:
    torch.manual_seed(2)
    maps, features = torch.randn(1, 8, 12, 16), torch.randn(1, 1, 8)
    correlations = CorrelationPyramid(maps, num_levels=2, radius=1).correlate(features, torch.tensor([[[6.0, 4.0]]]))
    fine = [maps[0, :, 4 + dy, 6 + dx] @ features[0, 0] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    halved = maps[0].reshape(8, 6, 2, 8, 2).mean((2, 4))
    coarse = [halved[:, 2 + dy, 3 + dx] @ features[0, 0] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    expected = torch.stack(fine + coarse) / math.sqrt(8)
    # Float32 rounding of eight products, and of pixel positions that pass through [-1, 1].
    torch.testing.assert_close(correlations[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_correlations_outside_the_map_are_zero_and_features_there_are_the_borders() -> None:
    maps = torch.rand(1, 3, 6, 7) + 1
    far = torch.tensor([[[100.0, -50.0]]])
    pyramid = CorrelationPyramid(maps, num_levels=2, radius=2)
    assert torch.equal(pyramid.correlate(torch.ones(1, 1, 3), far), torch.zeros(1, 1, 50))
    assert torch.equal(sample_features(maps, far)[0, 0], maps[0, :, 0, 6])


def test_a_point_between_pixels_gets_their_weighted_mean() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    # The map is x + 4 y. Float32 rounding of positions that pass through [-1, 1].
    torch.testing.assert_close(
        sample_bilinear(maps, torch.tensor([[[[1.25, 0.5]]]]), "zeros").squeeze(), torch.tensor(3.25), rtol=0, atol=1e-5
    )


def test_an_axis_of_one_pixel_is_constant() -> None:
    line = torch.arange(5.0).view(1, 1, 1, 5)
    points = torch.tensor([[[2.0, -3.0], [2.0, 0.0], [2.0, 9.0]]])
    assert torch.equal(sample_features(line, points), torch.full((1, 3, 1), 2.0))


def test_the_code_of_a_place_is_the_planes_code_sampled_there() -> None:
    code_x, code_y = axis_code(6, 9), axis_code(6, 7)
    plane = torch.cat((code_x[:, None, :].expand(-1, 7, -1), code_y[:, :, None].expand(-1, -1, 9)))
    points = torch.tensor([[[0.0, 0.0], [3.3, 5.7], [8.0, 6.0], [-2.0, 40.0]]])
    # Two interpolations in another order round differently.
    torch.testing.assert_close(
        place_code(code_x, code_y, points), sample_features(plane[None], points), rtol=0, atol=1e-6
    )


def test_no_motion_has_the_code_of_sines_0_and_cosines_1() -> None:
    assert torch.equal(motion_code(torch.zeros(3, 2), 4), torch.tensor([0.0, 1.0] * 4).expand(3, -1))


def test_motion_along_x_changes_the_first_half_of_the_code_only() -> None:
    code = motion_code(torch.tensor([0.001, 0.0]), 4)
    # Frequencies 0 and 500 of 1000.
    expected = torch.tensor([0.0, 1.0, math.sin(0.5), math.cos(0.5), 0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(code, expected, rtol=1e-6, atol=0)


def test_a_frame_reaches_another_through_time_attention_only() -> None:
    torch.manual_seed(4)
    transformer = TrackTransformer(
        dim_in=8, dim_out=3, hidden_size=8, depth=2, num_heads=2, num_virtual_tracks=2
    ).eval()
    for block in transformer.time_blocks:
        nn.init.zeros_(block.attn.out_proj.weight)
    tokens = torch.randn(1, 3, 4, 8)
    changed = tokens.clone()
    changed[:, 1, 2] = torch.randn(8)
    with torch.inference_mode():
        difference = (transformer(changed) - transformer(tokens)).abs().amax(-1)[0]
    assert (difference[:, 2] > 1e-6).all()
    # Other frames share nothing but matrix products, which may round differently.
    assert difference[:, [0, 1, 3]].max() <= 1e-6


def test_attention_keeps_the_weights_that_torch_reads_directly() -> None:
    names = set(build_head().tracker.updateformer.time_blocks[0].attn.state_dict())
    assert names == {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}


def test_a_tracker_can_be_trained(maps: Tensor) -> None:
    head = build_head()
    tracks, visibility, confidence = head.tracker(maps, QUERIES)
    (tracks[-1].mean() + visibility.mean() + confidence.mean()).backward()
    for name in ("query_ref_token", "updateformer.virual_tracks", "corr_mlp.fc1.weight", "fmap_norm.weight"):
        assert head.tracker.get_parameter(name).grad.abs().sum() > 0, name
