"""Decoding gives the right bytes for every kind of image."""

import numpy as np
import pytest
from PIL import Image

from data.datasets.rgbnt100 import RGBNT100
from data.loading.decode import decode_sample, read_rgb
from data.sample import Sample
from tests.helpers.trees import write_image, write_rgbnt100
from utils.errors import UserError


def test_tiles_are_cut_left_to_right(tmp_path):
    write_rgbnt100(tmp_path)
    sample = RGBNT100.parse(tmp_path)["train"][0]
    whole = np.asarray(Image.open(sample.paths[0])).astype(int)
    pixels = decode_sample(sample, (32, 64))
    for m in range(3):
        np.testing.assert_array_equal(pixels[m], np.moveaxis(whole[:, 64 * m : 64 * (m + 1)], -1, 0))
    assert len({tuple(tile.mean((1, 2)).round()) for tile in pixels}) == 3  # the three tiles differ


def test_a_file_that_is_not_three_tiles_is_named(tmp_path):
    path = write_image(tmp_path / "0001_c0001_000.jpg", 0, size_hw=(8, 25))
    with pytest.raises(UserError, match=r"0001_c0001_000\.jpg is 25 pixels wide"):
        decode_sample(Sample((path,) * 3, pid=0, camera=0, tiled=True), (16, 8))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    path = tmp_path / f"grey.{suffix}"
    values = np.array([[0, 128, 129, 257], [32767, 32896, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(path)
    expected = np.round(values / 257).astype(np.uint8)  # no tie: 257 is odd
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), np.repeat(expected[..., None], 3, axis=-1))
    assert expected.tolist() == [[0, 0, 1, 1], [127, 128, 255, 255]]


def test_big_endian_sixteen_bits_are_scaled_to_eight(tmp_path):
    path = tmp_path / "grey.tif"
    Image.frombytes("I;16B", (2, 1), np.array([257, 65535], ">u2").tobytes()).save(path)
    assert np.asarray(read_rgb(path))[0].tolist() == [[1] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("L", 77, (77, 77, 77)), ("1", 1, (255,) * 3), ("RGBA", (9, 8, 7, 0), (9, 8, 7)), ("LA", (50, 3), (50, 50, 50))],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, expected):
    path = tmp_path / "image.png"
    Image.new(mode, (4, 4), colour).save(path)
    assert (np.asarray(read_rgb(path)) == expected).all()


def test_a_palette_with_transparency_keeps_its_colours(tmp_path, recwarn):
    path = tmp_path / "image.png"
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(path, transparency=bytes([0, 128]))
    assert (np.asarray(read_rgb(path)) == (200, 100, 50)).all()
    assert not recwarn.list


def test_exif_orientation_is_honoured(tmp_path):
    path = tmp_path / "turned.png"
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # The image is to be turned a quarter clockwise.
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), np.rot90(pixels, -1))


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 0.5), (np.int32, 70000), (np.int32, -1)])
def test_pixels_without_a_known_range_are_refused(tmp_path, dtype, value):
    path = tmp_path / "raw.tif"
    Image.fromarray(np.full((4, 4), value, dtype)).save(path)
    with pytest.raises(UserError, match=r"raw\.tif.*8 or 16 bits"):
        read_rgb(path)
