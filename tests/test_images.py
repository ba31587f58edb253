"""Every kind of file becomes the right pixels or one clear sentence."""

import errno
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from io import BytesIO
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pillow_heif
import pytest
import tifffile
from faces import one_sentence, picture, save, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers import images, paths

IMAGE = picture(3)
GREY = cv2.cvtColor(IMAGE, cv2.COLOR_RGB2GRAY)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """A folder in place of `runs/<data name>`."""
    folder = tmp_path / "runs"
    monkeypatch.setattr(images, "run_dir", lambda: folder)
    return folder


def read(path):
    image = images.read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return image.astype(int)


def close(image, expected, within):
    assert image.shape == expected.shape
    assert np.abs(image - expected.astype(int)).max() <= within


# What is handled


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".tiff"])
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    close(read(save(tmp_path / f"a{suffix}", 3)), IMAGE, 0)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".jfif", ".webp"])
def test_lossy_formats_are_read(tmp_path, suffix):
    how = {"quality": 95, "format": {".webp": "WEBP"}.get(suffix, "JPEG")}
    assert np.abs(read(save(tmp_path / f"a{suffix}", 3, **how)) - IMAGE).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_greyscale(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"a{suffix}", quality=100)
    image = read(tmp_path / f"a{suffix}")
    close(image, np.dstack([GREY] * 3), 0 if suffix == ".png" else 3)


def test_black_and_white(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    close(read(tmp_path / "a.png"), np.dstack([(GREY > 127) * 255] * 3), 0)


@pytest.mark.parametrize("colour", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, colour):
    base = IMAGE if colour == "RGBA" else GREY[..., None]
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    Image.fromarray(np.dstack([base, alpha]).copy(), colour).save(tmp_path / "a.png")
    weight = alpha[..., None] / 255
    expected = (np.broadcast_to(base, IMAGE.shape) * weight + 255 * (1 - weight)).round()
    image = read(tmp_path / "a.png")
    assert (image[:10] == 255).all()
    close(image, expected, 1)


def test_cmyk(tmp_path):
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "a.tif")
    close(read(tmp_path / "a.tif"), IMAGE, 1)
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read(tmp_path / "a.jpg") - IMAGE).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_palette(tmp_path, suffix):
    flat = Image.fromarray(IMAGE).quantize(16)
    flat.save(tmp_path / f"a{suffix}")
    close(read(tmp_path / f"a{suffix}"), np.asarray(flat.convert("RGB")), 0)


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_palette_with_a_transparent_colour(tmp_path, suffix):
    flat = Image.fromarray(IMAGE).quantize(16)
    index = np.asarray(flat)[0, 0]
    flat.save(tmp_path / f"a{suffix}", transparency=int(index))
    expected = np.asarray(flat.convert("RGB")).copy()
    expected[np.asarray(flat) == index] = 255
    assert (expected[0, 0] == 255).all()
    close(read(tmp_path / f"a{suffix}"), expected, 0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a{suffix}")
    image = read(tmp_path / f"a{suffix}")
    close(image, np.dstack([ramp // 257] * 3), 1)
    assert len(np.unique(image)) == 256


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_is_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    colour = np.dstack([ramp, ramp[::-1], ramp.T])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), colour[..., ::-1])
    close(read(tmp_path / f"a{suffix}"), colour // 257, 1)


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("colours", [1, 3, 4])
def test_sixteen_bits_that_hold_fewer_are_not_black(tmp_path, kind, bits, colours):
    base = GREY if colours == 1 else IMAGE[..., ::-1]
    values = (base * ((2**bits - 1) / 255)).round().astype(np.uint16)
    if colours == 4:
        values = np.dstack([values, np.full(GREY.shape, 65535, np.uint16)])
    cv2.imwrite(str(tmp_path / f"a.{kind}"), values)
    close(read(tmp_path / f"a.{kind}"), np.dstack([GREY] * 3) if colours == 1 else IMAGE, 2)
    close(images.decode(BytesIO((tmp_path / f"a.{kind}").read_bytes())), read(tmp_path / f"a.{kind}"), 0)


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    dark = GREY.astype(np.uint16) * 64
    Image.fromarray(dark).save(tmp_path / "a.png")
    close(read(tmp_path / "a.png"), np.dstack([dark // 257] * 3), 1)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [(">u2", 16), (">u2", 257), ("<u4", 1), ("<u4", 257), ("<u4", 16_843_009), ("<i2", 1), ("<i2", 16), ("<i2", 128)]
    + [("<i4", 257), ("<i4", 8_421_504), (">u4", 1), (">u4", 16_843_009)],
)
def test_whole_numbers_of_any_width_and_order_are_scaled(tmp_path, kind, scale):
    values = (GREY.astype(np.int64) * scale).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=kind[0])
    close(read(tmp_path / "a.tif"), np.dstack([GREY] * 3), 2)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white(tmp_path, kind):
    values = (255 - GREY).astype(kind) * (257 if kind == np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    close(read(tmp_path / "a.tif"), np.dstack([GREY] * 3), 1)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_twelve_bit_colours_that_lie_on_their_side_come_upright(tmp_path, orientation):
    tags = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.astype(np.uint16) * 16, photometric="rgb", extratags=tags)
    close(read(tmp_path / "a.tif"), UPRIGHT[orientation](IMAGE), 2)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_grey_tiff_that_lies_on_its_side_comes_upright(tmp_path, kind, orientation):
    values = GREY.astype(kind) * kind(np.iinfo(kind).max // 255)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(0x0112, "H", 1, orientation, True)])
    close(read(tmp_path / "a.tif"), UPRIGHT[orientation](np.dstack([GREY] * 3)), 1)


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("alpha_bits", [8, 12, 16])
def test_sixteen_bits_that_hold_fewer_keep_their_transparency(tmp_path, kind, bits, alpha_bits):
    alpha = np.zeros(GREY.shape)
    alpha[10:20], alpha[20:] = 0.5, 1
    values = [IMAGE[..., ::-1] * ((2**bits - 1) / 255), alpha * (2**alpha_bits - 1)]
    cv2.imwrite(str(tmp_path / f"a.{kind}"), np.dstack(values).round().astype(np.uint16))
    close(read(tmp_path / f"a.{kind}"), (255 + (IMAGE - 255.0) * alpha[..., None]).round(), 2)


@pytest.mark.parametrize("values", [GREY / np.float32(255), GREY.astype(np.int16) - 100])
def test_fractions_and_values_below_zero_are_refused_with_the_remedy(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.tif")
    one_sentence(error.value, tmp_path / "a.tif", "save it with 8 or 16 bits")


def test_a_raw_photo_is_not_taken_for_its_preview(tmp_path):
    tifffile.imwrite(tmp_path / "a.dng", IMAGE, photometric="rgb", subfiletype=1)
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.dng")
    one_sentence(error.value, tmp_path / "a.dng", "a raw photo", "save it as JPEG")


UPRIGHT = {  # what undoes each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotated_pictures_come_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    close(read(save(tmp_path / "a.png", 3, exif=exif)), UPRIGHT[orientation](IMAGE), 0)
    jpeg = read(save(tmp_path / "a.jpg", 3, exif=exif, quality=95))  # cameras write JPEG
    assert np.abs(jpeg - UPRIGHT[orientation](IMAGE)).mean() < 4


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_photos_of_phones_come_upright_whatever_their_name(tmp_path, kind, orientation):
    pillow_heif.register_heif_opener()  # to write one
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{kind}", 3, exif=exif.tobytes(), quality=95, chroma=444)
    for name in (f"a.{kind}", "b.jpg", "without", "c.jpeg.download"):
        path = path.rename(tmp_path / name)
        image = read(path)
        assert image.shape == UPRIGHT[orientation](IMAGE).shape
        assert np.abs(image - UPRIGHT[orientation](IMAGE)).mean() < 4
    assert images.inspect(tmp_path, [path.name])["error"].isna().all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.txt", "a", "a.heic", "a.mp4"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    save(tmp_path / "picture.png", 3).rename(tmp_path / name)
    close(read(tmp_path / name), IMAGE, 0)


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "heic", "mpo", "webp"])
def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path, suffix):
    pillow_heif.register_heif_opener()
    save(tmp_path / f"a.{suffix}", 3, save_all=True, append_images=[Image.fromarray(255 - IMAGE)])
    assert np.abs(read(tmp_path / f"a.{suffix}") - IMAGE).mean() < 8


def exif_block(*fields):
    """Return an EXIF block with `fields`, each `(tag, type, count, value of 4 bytes)`, right or wrong."""
    entries = b"".join(struct.pack("<HHI", *field[:3]) + field[3] for field in sorted(fields))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


@pytest.mark.parametrize("tag", [0x0128, 0x0100, 0x0111])  # unit of resolution, width, offsets
def test_a_photo_whose_other_exif_fields_are_wrong_is_read_and_turned(tmp_path, tag):
    exif = exif_block((0x0112, 3, 1, b"\6\0\0\0"), (tag, 2, 4, b"two\0"))  # a text where the standard has a number
    jpeg = read(save(tmp_path / "a.jpg", 3, exif=exif, quality=95))
    assert np.abs(jpeg - UPRIGHT[6](IMAGE)).mean() < 4


@pytest.mark.parametrize("kind, value", [(3, b"\0\0\0\0"), (3, b"\x09\0\0\0"), (2, b"up!\0")])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, kind, value):
    exif = exif_block((0x0112, kind, 4 if kind == 2 else 1, value))
    jpeg = read(save(tmp_path / "a.jpg", 3, exif=exif, quality=95))
    assert np.abs(jpeg - IMAGE.astype(int)).mean() < 4


# What is refused


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = save(tmp_path / f"half é{suffix}", 3)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError) as error:
        images.read_image(path)
    one_sentence(error.value, path, "replace or remove it")
    assert str(error.value).count(str(path)) == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    suffix=st.sampled_from(["jpg", "png", "gif", "bmp", "webp"]),
    at=st.floats(0, 0.2, allow_subnormal=False),
    value=st.binary(max_size=6),
)
def test_damaged_bytes_give_a_picture_or_one_sentence(tmp_path_factory, suffix, at, value):
    path = save(tmp_path_factory.mktemp("damaged") / f"a.{suffix}", 3)
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + len(value)] = value
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        one_sentence(error, path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<html>"])
def test_files_that_only_pretend_to_be_pictures(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.jpg")
    one_sentence(error.value, tmp_path / "a.jpg", "replace or remove it")


@pytest.mark.parametrize("name", ["notes.txt", "faces.csv", "face", "film.mov", "IMG_1.AAE"])
def test_other_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / name)
    one_sentence(error.value, name, "is not a picture file", "JPEG or PNG")


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name, says in {"gone.jpg": "does not exist", "folder.jpg": "cannot be decoded"}.items():
        with pytest.raises(ValueError) as error:
            images.read_image(tmp_path / name)
        one_sentence(error.value, tmp_path / name, says, "remove it")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    save(tmp_path / "a.jpg")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.jpg")
    monkeypatch.undo()
    one_sentence(error.value, tmp_path / "a.jpg", "(Permission denied)")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.jpg")
    one_sentence(error.value, tmp_path / "a.jpg", "no file")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (31, 31), (32, 31)])
def test_pictures_of_a_pixel_or_a_few(tmp_path, size):
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.png")
    one_sentence(error.value, tmp_path / "a.png", f"{size[1]}×{size[0]} pixels", "32×32", "replace or remove it")


def test_the_smallest_picture_that_is_taken(tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").shape == (32, 32, 3)


# Geometry


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_square_is_the_largest_and_in_the_centre(height, width):
    rows, columns = np.mgrid[:height, :width]
    cut = images.square(np.dstack([rows, columns, rows]).astype(np.uint8))
    side = min(height, width)
    assert cut.shape == (side, side, 3)
    for axis, length in ((0, height), (1, width)):
        before = int(cut[0, 0, axis])
        after = length - 1 - int(cut[-1, -1, axis])
        assert after - before in (0, 1)


@pytest.mark.parametrize("side", [1, 32, 64, 127, 128, 200, 500])
def test_resize_keeps_an_even_colour_and_the_orientation(side):
    image = np.full((side, side, 3), (200, 100, 50), np.uint8)
    assert (images.resize(image) == (200, 100, 50)).all() and images.resize(image).shape == (128, 128, 3)
    corner = np.zeros((64, 64, 3), np.uint8)
    corner[:32, :32, 0] = 255
    large = images.resize(corner)
    assert large[10, 10].tolist() == [255, 0, 0] and large[10, 117].tolist() == large[117, 10].tolist() == [0, 0, 0]


def test_shrinking_averages():
    board = np.indices((512, 512)).sum(0) % 2 * 255
    assert np.abs(images.resize(np.dstack([board] * 3).astype(np.uint8)).astype(int) - 127.5).max() <= 1


def test_sharpness_falls_with_blur_and_noise_level_measures_noise():
    image = picture(3, (128, 128))
    assert images.sharpness(cv2.GaussianBlur(image, (0, 0), 3)) < images.sharpness(image)
    assert images.sharpness(np.full((40, 40, 3), 90, np.uint8)) == 0
    rng = np.random.default_rng(0)
    grey = np.full((128, 128, 1), 128.0)
    for sigma in (4, 10):
        noisy = np.repeat((grey + rng.normal(0, sigma, grey.shape)).round().astype(np.uint8), 3, 2)
        assert images.noise_level(noisy) == pytest.approx(sigma, rel=0.1)


def test_cleaning_keeps_shape_and_type():
    for image in (picture(1, (50, 70)), np.zeros((33, 33, 3), np.uint8), np.full((32, 400, 3), 255, np.uint8)):
        out = images.prepare(image)
        assert out.shape == (128, 128, 3) and out.dtype == np.uint8
        for clean in (images.denoise, images.deblur):
            assert clean(image).shape == image.shape and clean(image).dtype == np.uint8


# All the pictures of a folder


def test_inspect_tells_what_is_stored_and_what_is_wrong(tmp_path):
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(tmp_path / "grey.png")
    save(tmp_path / "b.jpg", 1)
    (tmp_path / "bad.jpg").write_bytes(b"x")
    names = ["grey.png", "bad.jpg", "b.jpg", None, "gone.png"]
    before = snapshot(tmp_path)
    table = images.inspect(tmp_path, names)
    assert snapshot(tmp_path) == before
    assert len(table) == 5
    assert table.loc[0, ["format", "mode", "width", "height"]].tolist() == ["PNG", "L", 60, 40]
    assert table.loc[0, ["brightness", "contrast", "sharpness"]].tolist() == [90, 0, 0]
    assert table.loc[2, "format"] == "JPEG" and len(table.loc[2, "digest"]) == 64
    assert table["error"].notna().tolist() == [False, True, False, True, True]
    for i in (1, 3, 4):
        one_sentence(table.loc[i, "error"], names[i] or "no path")
        assert str(tmp_path) not in table.loc[i, "error"]  # the audit names files as the table does


def test_the_digest_is_of_the_pixels_and_the_shape(tmp_path):
    flat = np.full((40, 60, 3), 9, np.uint8)
    for name, image in {"a.png": flat, "a.bmp": flat, "b.png": flat.transpose(1, 0, 2), "c.png": flat + 1}.items():
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name)
    a, same, turned, other = images.inspect(tmp_path, ["a.png", "a.bmp", "b.png", "c.png"])["digest"]
    assert a == same and len({a, turned, other}) == 3


def test_prepare_all_prepares_each_picture_once(tmp_path, runs, monkeypatch):
    folder = tmp_path / "my photos"
    names = [save(folder / f"{age}" / f"é {age}.bmp", age).relative_to(folder).as_posix() for age in range(20, 26)]
    before = snapshot(folder)
    array = images.prepare_all(folder, names)
    assert array.shape == (6, 128, 128, 3) and array.dtype == np.uint8
    for i, name in enumerate(names):
        assert (array[i] == images.prepare(images.read_image(folder / name))).all()
    assert snapshot(folder) == before
    files = list((runs / "cache").iterdir())
    assert len(files) == 1

    decoded = []
    monkeypatch.setattr(images, "read_image", lambda path: decoded.append(path) or IMAGE)
    assert (images.prepare_all(folder, names) == array).all() and not decoded
    images.prepare_all(folder, names[::-1])  # another order is another array
    assert len(decoded) == 6
    save(folder / names[0], 77)  # a changed file, of the same size, must not be read from the cache
    os.utime(folder / names[0], ns=(1, 1))
    images.prepare_all(folder, names)
    assert len(decoded) == 12
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    images.prepare_all(folder, names)
    assert len(decoded) == 18


def test_prepare_all_leaves_no_half_array(tmp_path, runs):
    names = [save(tmp_path / "p" / f"{i}.png", i).name for i in range(3)]
    (tmp_path / "p" / "1.png").write_bytes(b"x")
    with pytest.raises(ValueError) as error:
        images.prepare_all(tmp_path / "p", names)
    one_sentence(error.value, "1.png", "replace or remove it")
    assert not list((runs / "cache").iterdir())
    (tmp_path / "p" / "2.png").unlink()
    with pytest.raises(ValueError) as error:
        images.prepare_all(tmp_path / "p", names)
    one_sentence(
        error.value, "2.png cannot be read any more (No such file or directory)", "run the notebooks from 02 again"
    )


def test_the_cache_goes_by_content_and_settings(tmp_path, runs, monkeypatch):
    folder, other = tmp_path / "p", tmp_path / "moved"
    names = [save(folder / f"{i}.bmp", i).name for i in range(3)]
    images.prepare_all(folder, names)
    decoded, read = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: decoded.append(path) or read(path))
    folder.rename(other)
    (other / "0.bmp").rename(other / "first.bmp")
    os.utime(other / "1.bmp", ns=(1, 1))
    images.prepare_all(other, ["first.bmp", *names[1:]])
    assert not decoded  # another place, name and time, but the same pictures

    stamp = os.stat(other / "1.bmp").st_mtime_ns
    save(other / "1.bmp", 9)  # the same size
    os.utime(other / "1.bmp", ns=(stamp, stamp))
    array = images.prepare_all(other, ["first.bmp", *names[1:]])
    assert len(decoded) == 3 and (array[1] == images.prepare(read(other / "1.bmp"))).all()
    for name in ("NOISY", "BLURRED"):
        monkeypatch.setattr(images, name, getattr(images, name) + 1)
        images.prepare_all(other, ["first.bmp", *names[1:]])
    assert len(decoded) == 9 and len(list((runs / "cache").iterdir())) == 4


def test_two_processes_may_prepare_the_same_pictures_at_once(tmp_path, runs, monkeypatch):
    names = [save(tmp_path / "p" / f"{i}.png", i).name for i in range(4)]
    read, inner = images.read_image, []

    def meanwhile(path):  # when the first is half way, another begins and ends
        if path.name == "2.png" and not inner:
            inner.append(None)
            inner[0] = images.prepare_all(tmp_path / "p", names)
        return read(path)

    monkeypatch.setattr(images, "read_image", meanwhile)
    outer = images.prepare_all(tmp_path / "p", names)
    assert (outer == inner[0]).all() and len(list((runs / "cache").iterdir())) == 1
    for i, name in enumerate(names):
        assert (outer[i] == images.prepare(read(tmp_path / "p" / name))).all()


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers import images

read = images.read_image
images.run_dir = lambda: Path(sys.argv[2])
images.read_image = lambda path: os.kill(os.getpid(), signal.SIGKILL) if path.name == "2.png" else read(path)
images.prepare_all(sys.argv[1], sys.argv[3:])
"""


def test_a_killed_preparation_leaves_nothing_that_passes_for_a_cache(tmp_path, runs):
    names = [save(tmp_path / "p" / f"{i}.png", i).name for i in range(4)]
    line = [sys.executable, "-c", KILLED, tmp_path / "p", runs, *names]
    assert subprocess.run(line, cwd=paths.ROOT, capture_output=True).returncode == -signal.SIGKILL
    (half,) = (runs / "cache").iterdir()
    assert half.name.startswith(paths.HALF)
    array = images.prepare_all(tmp_path / "p", names)
    for i, name in enumerate(names):
        assert (array[i] == images.prepare(images.read_image(tmp_path / "p" / name))).all()
    assert half.exists()  # it may be that of another process that is still at work


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
def test_a_full_disk_is_met_before_the_work_and_leaves_nothing(tmp_path, runs, monkeypatch):
    names = [save(tmp_path / "p" / f"{i}.png", i).name for i in range(4)]
    reserved = []

    def full(descriptor, start, size):
        reserved.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(images, "read_image", lambda path: pytest.fail("room is reserved before"))
    with pytest.raises(ValueError) as error:
        images.prepare_all(tmp_path / "p", names)
    one_sentence(error.value, runs / "cache", "0.0 GB", "No space left on device", "make room")
    assert reserved[0] > 4 * 128 * 128 * 3 and not list((runs / "cache").iterdir())


def test_preparing_more_pictures_takes_no_more_memory(tmp_path, runs):
    name = save(tmp_path / "a.png", 3).name
    peaks = []
    for n in (100, 1500):
        tracemalloc.start()
        images.prepare_all(tmp_path, [name] * n)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    picture_in_memory = 128 * 128 * 3
    assert peaks[1] - peaks[0] < 30 * picture_in_memory  # 1400 more


def test_waiting_work_does_not_pile_up():
    taken, n = [], 30 * os.cpu_count()

    class Many:
        def __len__(self):
            return n

        def __iter__(self):
            for i in range(n):
                taken.append(i)
                yield i

    def slowly(i):
        time.sleep(0.02)
        return 2 * i

    results = iter(images._map(slowly, Many(), "doubling"))
    assert next(results) == 0 and len(taken) < n / 2  # a million calls must not wait in memory
    assert list(results) == [2 * i for i in range(1, n)] and len(taken) == n


def test_near_duplicates_are_found_and_strangers_are_not():
    faces = [picture(seed, (128, 128)) for seed in range(8)]
    brighter = (faces[2] * 0.8 + 20).astype(np.uint8)
    smaller = images.resize(images.resize(faces[5], 64))
    groups = images.near_duplicates(np.stack([*faces, brighter, smaller]))
    assert len(groups) == 10 and groups[8] == groups[2] and groups[9] == groups[5]
    assert len(set(groups[:8])) == 8


def all_with_all(pictures, distance=8, alike=0.95):
    """Return the pairs of near-duplicates, found by comparing every picture with every other."""
    hashes = np.array([imagehash.phash(Image.fromarray(image)).hash.ravel() for image in pictures])
    small = np.array([cv2.cvtColor(images.resize(image, 32), cv2.COLOR_RGB2GRAY).ravel() for image in pictures], float)
    differ = (hashes[:, None] != hashes[None]).sum(2)
    return {(i, j) for i, j in zip(*np.nonzero((differ <= distance) & (np.corrcoef(small) > alike))) if i < j}


def test_the_search_finds_what_comparing_all_with_all_finds():
    rng = np.random.default_rng(0)
    faces = [picture(seed, (128, 128)) for seed in range(40)]
    blends = []  # from alike to strangers, on both sides of the limits
    for weight in np.linspace(0.5, 1, 60):
        one, other = rng.choice(40, 2, replace=False)
        blends.append(cv2.addWeighted(faces[one], weight, faces[other], 1 - weight, 0))
    pictures = np.stack([*faces, *blends])
    for distance, alike in ((8, 0.95), (16, 0.8), (2, 0.99)):
        pairs = all_with_all(pictures, distance, alike)
        assert len(pairs) > 5
        left, right = np.array(sorted(pairs)).T
        expected = connected_components(coo_array((np.ones(len(left)), (left, right)), shape=(100, 100)))[1]
        assert images.near_duplicates(pictures, distance, alike).tolist() == expected.tolist()


def test_the_search_compares_few_pairs(monkeypatch):
    compared, count = [], np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda bits: compared.append(len(bits)) or count(bits))
    pictures = np.stack([picture(seed, (64, 64)) for seed in range(1200)])
    assert len(set(images.near_duplicates(pictures))) == 1200
    assert sum(compared) < 0.01 * len(pictures) ** 2  # each with itself is a twelfth of that


@pytest.mark.parametrize("n", [1, 2])
def test_near_duplicates_among_few(n):
    assert images.near_duplicates(np.stack([picture(1, (128, 128))] * n)).tolist() == [0] * n


def test_pictures_of_one_colour_resemble_none():
    flat = np.full((3, 128, 128, 3), 90, np.uint8)
    assert len(set(images.near_duplicates(flat))) == 3


def test_the_cache_lies_under_runs():
    assert images.run_dir is paths.run_dir


def test_sixteen_bit_colours_in_separate_planes_are_refused(tmp_path):
    planes = np.random.default_rng(0).integers(0, 2**16, (3, 64, 64), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path / "a.tif")
    one_sentence(error.value, "a.tif", "separate planes", "8 bits")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files are mapped")
def test_no_file_is_moved_while_it_is_mapped(tmp_path, monkeypatch):
    """Windows would refuse it."""
    save(tmp_path / "a.png", 1)
    move, mapped = os.replace, []

    def watch(source, target):
        mapped.append(str(source) in Path("/proc/self/maps").read_text())
        move(source, target)

    monkeypatch.setattr(paths.os, "replace", watch)
    monkeypatch.setattr(images, "run_dir", lambda: tmp_path / "run")
    images.prepare_all(tmp_path, ["a.png"])
    assert mapped == [False]
