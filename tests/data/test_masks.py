"""A mask gives the share of each patch that lies on the object."""

import numpy as np
import pytest
from PIL import Image

from data.masks import patch_coverage
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
