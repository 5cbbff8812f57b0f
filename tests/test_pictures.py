"""Pictures are read as a person sees them, or refused in one sentence."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from timm_resattn.pictures import find_pictures, read_picture


def pixels(path):
    picture = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def png(path, head, *chunks):
    """Write a PNG of ``head``, its width, height, depth and kind of colour, and of chunks by name."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", *head, 0, 0, 0)), *chunks, (b"IEND", b"")
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def test_orientation(tmp_path):
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    values = pixels(tmp_path / "turned.png")
    assert values.shape == (4, 2, 3)
    assert values[0, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("16 bit.png", np.array([[0, 32896], [16448, 65535]], np.uint16)),
        ("16 bit.tif", np.array([[0, 32896], [16448, 65535]], np.uint16)),
        ("32 bit.tif", np.array([[-100000, 9], [-49961, 100000]], np.int32)),
        ("unit.tif", np.array([[0, 0.502], [0.251, 1]], np.float32)),
        ("float.tif", np.array([[-30, 0.12], [-14.94, 30]], np.float32)),
        ("nan.tif", np.array([[np.nan, 0.502], [0.251, 1]], np.float32)),
    ],
)
def test_deep_greys_are_scaled(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(pixels(tmp_path / name)[..., 0] - [[0, 128], [64, 255]]).max() <= 1


def test_a_constant_grey_is_finite(tmp_path):
    Image.fromarray(np.full((2, 2), -7.5, np.float32)).save(tmp_path / "constant.tif")
    assert pixels(tmp_path / "constant.tif").max() == 0


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = pixels(tmp_path / "red.jpg")[4, 4]
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    picture.convert(mode).save(tmp_path / "picture.png")
    assert pixels(tmp_path / "picture.png")[0, :, 0].tolist() == [255, 0]


def test_transparent_grey_of_sixteen_bits(tmp_path):
    line = b"\0" + struct.pack(">3H", 0, 32896, 65535)
    png(tmp_path / "picture.png", (3, 1, 16, 0), (b"tRNS", b"\0\0"), (b"IDAT", zlib.compress(line)))
    assert pixels(tmp_path / "picture.png")[0, :, 0].tolist() == [255, 128, 255]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    red, _, blue = pixels(tmp_path / f"a{suffix}")[0, 0]
    assert red > 200 and blue < 50


@pytest.mark.filterwarnings("error")
def test_a_hundred_megapixels(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert read_picture(tmp_path / "large.png").size == (10_000, 10_000)


def bomb(path):
    """The head of a PNG of 60000x60000 pixels."""
    png(path, (60_000, 60_000, 8, 2), (b"IDAT", zlib.compress(b"")))


def cut(path):
    Image.effect_noise((64, 64), 9).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bomb, "cannot be read as a picture .*pixels"),
        (cut, "cannot be read as a picture"),
        (
            lambda path: png(path, (1, 101, 8, 0), (b"IDAT", zlib.compress(b"\0\0" * 101))),
            "1 by 101 pixels is too oblong",
        ),
        (lambda path: Image.new("RGB", (9, 9)).save(path, "EPS"), "cannot identify image file"),
        (lambda path: path.touch(), "cannot be read as a picture"),
        (lambda path: path.write_text("text"), "cannot identify image file"),
        (lambda path: path.mkdir(), "is no file"),
        (lambda path: None, "is not there"),
        (lambda path: path.symlink_to(path), "is not there"),
    ],
)
def test_what_is_no_picture_is_one_sentence(tmp_path, make, message):
    path = tmp_path / "picture.png"
    make(path)
    with pytest.raises(ValueError, match=message) as error:
        read_picture(path)
    assert "\n" not in str(error.value)


def test_pictures_of_folders_are_found_by_their_suffixes_in_order(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/notes.txt", "c/folder.png/d.webp", "only.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_pictures([tmp_path / "only.txt", tmp_path, "no_such.png"])
    names = ["only.txt", "a/z.png", "b.JPG", "c/folder.png/d.webp"]
    assert found[:-1] == [tmp_path / name for name in names] and str(found[-1]) == "no_such.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        find_pictures([tmp_path / "b.JPG", empty])
