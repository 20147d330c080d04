"""A mask says where the object is, at the size of the images and as the share of each patch."""

import numpy as np
import pytest
from PIL import Image

from data.masks import load_masks, patch_coverage
from data.sample import Sample
from utils.errors import UserError


def sample_with(path, pixels):
    """Write a mask to `path` and return a sample that has it; the images are not read."""
    Image.fromarray(pixels).save(path)
    return Sample((path,) * 3, pid=0, camera=0, mask=path)


def test_shares_match_a_case_worked_by_hand(tmp_path):
    """A mask of 4 x 4 pixels covers 2 x 2 patches, row by row."""
    pixels = np.zeros((4, 4), np.uint8)
    pixels[:2, :2] = 255
    pixels[2, 2] = 255
    samples = [sample_with(tmp_path / "a.png", pixels), sample_with(tmp_path / "b.png", 255 - pixels)]
    expected = [[1, 0, 0, 0.25], [0, 1, 1, 0.75]]
    np.testing.assert_allclose(patch_coverage(samples, (2, 2)), expected, atol=1 / 255)  # bytes are rounded


def test_rows_come_before_columns(tmp_path):
    pixels = np.repeat(np.array([[255, 0]], np.uint8), 8, axis=0)  # the left half
    assert patch_coverage([sample_with(tmp_path / "a.png", pixels)], (3, 2)).tolist() == [[1, 0] * 3]


def test_one_sample_without_a_mask_means_none(tmp_path):
    with_mask = sample_with(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    assert patch_coverage([with_mask, Sample(with_mask.paths, pid=1, camera=0)], (2, 2)) is None


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:60]), lambda p: p.unlink()])
def test_a_broken_mask_is_named(tmp_path, damage):
    mask = tmp_path / "mask.png"
    sample = sample_with(mask, np.random.default_rng(0).integers(0, 256, (64, 32), np.uint8))
    expected = np.asarray(Image.open(mask).resize((2, 4), Image.Resampling.BOX), np.float32).ravel() / 255
    np.testing.assert_array_equal(patch_coverage([sample], (4, 2))[0].numpy(), expected)
    damage(mask)
    with pytest.raises(UserError, match=r"mask\.png"):
        patch_coverage([sample], (4, 2))


@pytest.mark.parametrize("workers", [1, 3])
def test_masks_are_loaded_in_order_at_the_size_of_the_images(tmp_path, workers):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 10), np.uint8)
    samples = [sample_with(tmp_path / f"{i}.png", mask) for i, mask in enumerate(pixels)]
    whole = load_masks(samples, (20, 10), workers=workers)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, pixels)
    smaller = load_masks(samples, (8, 6), workers=workers)
    expected = [Image.fromarray(mask).resize((6, 8), Image.Resampling.BILINEAR) for mask in pixels]
    np.testing.assert_array_equal(smaller, np.stack(expected))


def test_a_sample_without_a_mask_is_named_with_the_remedies(tmp_path):
    masked = sample_with(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    bare = Sample((tmp_path / "bare.jpg",) * 3, pid=1, camera=0)
    with pytest.raises(UserError, match=r"bare\.jpg.*DATASETS\.NAMES: synthetic.*another MODEL\.SDTPS_SCORE"):
        load_masks([masked, bare], (2, 2))


def test_a_mask_that_is_gone_is_named(tmp_path):
    samples = [sample_with(tmp_path / f"{i}.png", np.zeros((4, 4), np.uint8)) for i in range(3)]
    samples[1].mask.unlink()
    with pytest.raises(UserError, match=r"1\.png is missing"):
        load_masks(samples, (2, 2), workers=2)
