"""Image files as users have them are converted to exactly the right pixels or refused by name."""

import io
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.loading.decode import decode_sample, read_rgb
from data.sample import Sample
from utils.errors import UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 4, 3), np.uint8)
SIDEWAYS = {  # Maps each EXIF orientation to what makes the stored pixels upright.
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: np.rot90(p),
}


def saved(path, image, **options):
    image.save(path, **options)
    return path


def read(path):
    return np.asarray(read_rgb(path))


@pytest.mark.parametrize("orientation", SIDEWAYS)
def test_all_eight_orientations_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.png", Image.fromarray(PIXELS), exif=exif)
    np.testing.assert_array_equal(read(path), SIDEWAYS[orientation](PIXELS))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "odd.png", Image.fromarray(PIXELS), exif=exif)
    np.testing.assert_array_equal(read(path), PIXELS)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, ink, expected, suffix):
    path = saved(tmp_path / f"ink.{suffix}", Image.new("CMYK", (16, 16), ink))
    assert Image.open(path).mode == "CMYK" and (read(path) == expected).all()


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_a_grey_jpeg_is_repeated_in_three_channels(tmp_path, grey):
    path = saved(tmp_path / "grey.jpg", Image.new("L", (16, 16), grey))
    assert Image.open(path).mode == "L" and (read(path) == grey).all()


def test_a_turned_sixteen_bit_image_is_scaled_and_resized(tmp_path):
    """The image is scaled to 8 bits, turned, resized and repeated in three channels."""
    values = np.repeat(np.arange(0, 65536, 8224, dtype=np.uint16)[None], 4, axis=0)  # (4, 8), steps of 32 * 257
    exif = Image.Exif()
    exif[0x0112] = 8
    path = saved(tmp_path / "deep.png", Image.fromarray(values), exif=exif)
    upright = np.rot90((values // 257).astype(np.uint8))  # (8, 4)
    expected = Image.fromarray(upright).resize((2, 4), Image.Resampling.BICUBIC)
    pixels = decode_sample(Sample((path, None, None), pid=0, camera=0), (4, 2))
    np.testing.assert_array_equal(pixels[0], np.repeat(np.asarray(expected)[None], 3, axis=0))


@pytest.mark.parametrize("mode", ["P", "PA", "RGBA", "LA", "1", "L", "YCbCr", "LAB", "HSV"])
def test_white_survives_every_mode(tmp_path, mode):
    """Modes that no format can hold are replaced by another one."""
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode) if mode not in ("PA", "LAB", "HSV") else None
    if image is None:
        image = Image.new({"PA": "LA", "LAB": "RGB", "HSV": "RGB"}[mode], (8, 8), "white")
    suffix = "jpg" if mode == "YCbCr" else "png"
    assert (read(saved(tmp_path / f"image.{suffix}", image)) == 255).all()


@pytest.mark.parametrize(("true", "name"), [("PNG", "photo.jpg"), ("JPEG", "photo.png"), ("BMP", "photo.jpeg")])
def test_a_wrong_extension_does_not_matter(tmp_path, true, name):
    """Pillow goes by what the file begins with."""
    path = saved(tmp_path / name, Image.fromarray(PIXELS), format=true)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format=true)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(buffer).convert("RGB")))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (7, 5), (512, 256)])
def test_any_size_is_resized_bicubically(tmp_path, size_hw):
    pixels = RNG.integers(0, 256, (*size_hw, 3), np.uint8)
    path = saved(tmp_path / "any.png", Image.fromarray(pixels))
    got = decode_sample(Sample((path,) * 3, pid=0, camera=0), (16, 8))
    expected = np.asarray(Image.fromarray(pixels).resize((8, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert (got == expected).all() and got.shape == (3, 3, 16, 8)


def test_the_first_of_several_frames_is_used(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    path = saved(tmp_path / "film.png", frames[0], save_all=True, append_images=frames[1:])
    assert (read(path) == (255, 0, 0)).all()


def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(PIXELS))
    before = read(path)
    with open(path, "ab") as file:
        file.write(b"camera maker's own data" * 10)
    np.testing.assert_array_equal(read(path), before)


def a_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 32, 3), np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def a_bomb() -> bytes:
    """Make a PNG header that announces 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


REFUSED = {
    "zero bytes": lambda: b"",
    "only the signature": lambda: a_jpeg()[:3],
    "cut in the header": lambda: a_jpeg()[:200],
    "cut in the middle": lambda: a_jpeg()[: len(a_jpeg()) // 2],
    "zeros from the middle of the header": lambda: a_jpeg()[:100] + bytes(1000),
    "a page of HTML": lambda: b"<html>not found</html>",
    "a pickle": lambda: b"\x80\x04\x95\x00",
    "all zeros": lambda: bytes(4096),
    "a decompression bomb": a_bomb,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_an_image_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "000001_cam1_0_00.jpg"
    path.write_bytes(REFUSED[kind]())
    with pytest.raises(UserError) as error:
        read_rgb(path)
    assert str(path) in str(error.value) and "bytes" in str(error.value) and "\n" not in str(error.value)


def test_a_jpeg_that_is_cut_anywhere_is_refused_or_lacks_no_pixel(tmp_path):
    """A file may lack its end marker without any loss."""
    content, whole = a_jpeg(), np.asarray(Image.open(io.BytesIO(a_jpeg())))
    path = tmp_path / "cut.jpg"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_rgb(path)
    for length in (len(content) - 2, len(content) - 1):
        path.write_bytes(content[:length])
        try:
            pixels = read(path)
        except UserError:
            continue
        np.testing.assert_array_equal(pixels, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero bytes", "cut in the middle", "a page of HTML"])
def test_a_run_names_the_image_and_writes_no_half_store(launch, small, tmp_path, kind):
    victim = next((tmp_path / "data").glob("RGBNT201/train_171/TI/*"))
    good = victim.read_bytes()
    victim.write_bytes(REFUSED[kind]())
    launch("train_net", "--config_file", small).is_refused(str(victim), "cannot be decoded")
    assert len(list((tmp_path / "data" / ".decoded").iterdir())) <= 1, "the test images may be stored by then"
    victim.write_bytes(good)
    launch("train_net", "--config_file", small).ends_well()
    shutil.rmtree(tmp_path / "out")
