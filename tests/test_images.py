"""Photos become the tensor VGGT was trained on; the folders they come from are in test_image_folders.py."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vggt_quant.data.images import load_images
from vggt_quant.model import NAMED, VGGT

GOLDEN = Path(__file__).parent / "golden" / "images"
GOLDEN_CASES = json.loads((GOLDEN / "expected.json").read_text())["cases"]


def write_photo(path: Path, size: tuple[int, int] = (28, 28), mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode(errors="surrogateescape"))
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=lambda case: f"{case['mode']}-{'+'.join(case['files'])}")
def test_photos_become_the_originals_tensor_bit_for_bit(case: dict) -> None:
    images = load_images([GOLDEN / name for name in case["files"]], case["mode"])
    assert list(images.shape) == case["shape"]
    assert images.dtype == torch.float32
    assert hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest() == case["sha256_float32"]


def test_a_tall_photo_in_pad_mode_stands_between_white_borders() -> None:
    """The one golden photo whose pixels differ between Pillow versions, in 0.24 % of the values."""
    images = load_images([GOLDEN / "tall_100x700.png"], "pad")
    assert images.shape == (1, 3, 518, 518)
    left = (518 - 70) // 2
    assert (images[..., :left] == 1).all() and (images[..., left + 70 :] == 1).all()
    assert (images[..., left] < 1).any() and (images[..., left + 69] < 1).any()


def test_photos_of_one_shape_are_stacked_in_the_given_order(tmp_path: Path) -> None:
    paths = [write_photo(tmp_path / name) for name in ("b.png", "a.png")]
    both = load_images(paths, size=28)
    assert both.shape == (2, 3, 28, 28)
    assert all(torch.equal(both[i], load_images([path], size=28)[0]) for i, path in enumerate(paths))


def test_a_photo_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "exact.png", (42, 28))
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert torch.equal(load_images([path], size=42)[0], pixels.float() / 255)
    padded = load_images([path], "pad", size=42)[0]
    assert torch.equal(padded[:, 7:35], pixels.float() / 255)
    assert (padded[:, :7] == 1).all() and (padded[:, 35:] == 1).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.tuples(st.integers(20, 120), st.integers(20, 120)),
    patches=st.integers(1, 6),
    mode=st.sampled_from(["crop", "pad"]),
)
def test_every_shape_ends_at_multiples_of_14_within_the_size(
    tmp_path: Path, sides: tuple[int, int], patches: int, mode: str
) -> None:
    size = 14 * patches
    # Thinner ones, whose short side rounds to 0, have a test of their own.
    assume(min(sides) * size / max(sides) > 7)
    images = load_images([write_photo(tmp_path / "photo.png", sides)], mode, size=size)
    rows, columns = images.shape[-2:]
    assert images.shape[:2] == (1, 3) and images.min() >= 0 and images.max() <= 1
    assert columns == size and rows % 14 == 0 and 0 < rows <= size
    assert mode == "crop" or rows == size


def test_mixed_shapes_are_centred_on_white_and_a_warning_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide, square = write_photo(tmp_path / "wide.png", (56, 14)), write_photo(tmp_path / "square.png", (56, 56))
    with caplog.at_level(logging.WARNING, logger="vggt_quant.data.images"):
        images = load_images([wide, square], size=56)
    assert images.shape == (2, 3, 56, 56)
    assert torch.equal(images[0, :, 21:35], load_images([wide], size=56)[0])
    assert (images[0, :, :21] == 1).all() and (images[0, :, 35:] == 1).all()
    assert [record.getMessage() for record in caplog.records] == [
        "The photos have different shapes (14 x 56, 56 x 56, height x width); white borders make them equal."
    ]


def test_equal_shapes_bring_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_images([write_photo(tmp_path / name) for name in ("a.png", "b.png")], size=28)
    assert caplog.records == []


def test_a_photo_too_thin_is_refused_by_name(tmp_path: Path) -> None:
    strip, pole = write_photo(tmp_path / "strip.png", (1000, 8)), write_photo(tmp_path / "pole.png", (8, 1000))
    with pytest.raises(ValueError, match=r"strip.png is too thin: 1000 x 8 pixels become 518 x 0 as its height rounds"):
        load_images([strip])
    with pytest.raises(ValueError, match=r"pole.png is too thin: 8 x 1000 pixels become 0 x 518 as its width rounds"):
        load_images([pole], "pad")


def test_impossible_requests_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="At least 1 image is required"):
        load_images([])
    with pytest.raises(ValueError, match="Mode must be either 'crop' or 'pad', not 'fit'"):
        load_images([path], "fit")
    for size in (0, -14, 500):
        with pytest.raises(ValueError, match=f"image size {size} must be a positive multiple of 14"):
            load_images([path], size=size)
    with pytest.raises(ValueError, match=r"absent.png cannot be used \(damaged or unreadable: No such file"):
        load_images([tmp_path / "absent.png"])


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_is_one_photo(tmp_path: Path, kind: type) -> None:
    path = write_photo(tmp_path / "a.png", (42, 28))
    assert torch.equal(load_images(kind(path)), load_images([path]))


def test_photos_get_the_size_of_their_model(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = VGGT(NAMED["tiny"])
    path = write_photo(tmp_path / "a.png", (42, 28))
    assert load_images(path, model=model).shape == (1, 3, 70, 112)
    assert load_images(path).shape == (1, 3, 350, 518)
    with pytest.raises(ValueError, match=r"Both a size \(518\) and a model \(of 112\) are given; leave one out"):
        load_images(path, size=518, model=model)
