"""Image files of every kind: their pixels against a computation of their own, or a refusal."""

import math
import struct
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tests.image_files import cut, png, raw_png, raw_tiff

from boundnas.data import Decoding, ImageFiles
from boundnas.data.decode import crop_box, decoded_size, read_crop, read_image
from boundnas.errors import DataError
from boundnas.randomness import stream

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (8, 8), np.uint8)
ALPHA = RANDOM.integers(0, 256, (8, 8), np.uint8)
TRUTHS = RANDOM.integers(0, 2, (8, 8), np.uint8)
SIXTEEN = RANDOM.integers(0, 65_536, (8, 8), np.uint16)
SIXTEEN[0, :4] = 0, 128, 129, 65_535
INDICES = RANDOM.integers(0, 4, (8, 8), np.uint8)
PALETTE = np.array([[10, 20, 30], [250, 240, 0], [0, 99, 200], [255, 255, 255]], np.uint8)
BLOCKS = np.repeat(np.repeat(COLOURS, 16, 0), 16, 1)
INKS = RANDOM.integers(0, 256, (8, 8, 4), np.uint8)

BEHIND = {"white": 255, "black": 0, "grey": 128}


def save(pixels, mode=None, **options):
    """How a file of pixels in one of Pillow's modes is written."""
    return lambda path: Image.fromarray(pixels, mode).save(path, **options)


def save_palette(**options):
    def write(path):
        image = Image.fromarray(INDICES, "P")
        image.putpalette(PALETTE.tobytes())
        image.save(path, **options)

    return write


def save_smooth(mode, **options):
    """A JPEG that keeps its colours: each of its blocks of 8x8 pixels has only one."""
    return lambda path: Image.fromarray(BLOCKS).convert(mode).save(path, **options)


def deep_map(values, most):
    return lambda path: path.write_bytes(b"P5 8 8 %d\n" % most + values.astype(">u2").tobytes())


def negative(path):
    raw_tiff(path, GREY.tobytes(), 8, 8, 8, white_is_zero=True)


def nibbles(path, **chunks):
    raw_png(path, packed(NIBBLES, 4), 8, 4, 0, **chunks)


def packed(values, bits):
    """Rows of values of 1, 2 or 4 bits."""
    each = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]
    return [row.tobytes() for row in np.packbits(each.reshape(8, -1), axis=1)]


def of_inks(inks):
    ink = inks.astype(float) / 255
    return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])


def mask(truths):
    return np.where(truths, 255, 0)


def stack(*channels):
    return np.stack(channels, 2)


NIBBLES = GREY >> 4
QUARTERS = GREY >> 6

# Suffix, how the file is written, its colours (grey has one), its alpha if any, and how far a
# number may be off.
KINDS = {
    "rgb png": (".png", save(COLOURS), COLOURS, None, 0),
    "rgb bitmap": (".bmp", save(COLOURS), COLOURS, None, 0),
    "rgb tiff": (".tif", save(COLOURS), COLOURS, None, 0),
    "rgb map": (".ppm", save(COLOURS), COLOURS, None, 0),
    "rgb webp": (".webp", save(COLOURS, lossless=True), COLOURS, None, 0),
    "rgb jpeg": (".jpg", save_smooth("RGB", quality=100, subsampling=0), BLOCKS, None, 3),
    "phone jpeg": (
        ".jpg",
        save_smooth("RGB", quality=100, subsampling=0, format="MPO"),
        BLOCKS,
        None,
        3,
    ),
    "grey png": (".png", save(GREY), GREY, None, 0),
    "grey bitmap": (".bmp", save(GREY), GREY, None, 0),
    "grey tiff": (".tiff", save(GREY), GREY, None, 0),
    "grey gif": (".gif", save(GREY), GREY, None, 0),
    "grey map": (".pgm", save(GREY), GREY, None, 0),
    "negative tiff": (".tif", negative, 255 - GREY, None, 0),
    "rgba png": (".png", save(np.dstack([COLOURS, ALPHA])), COLOURS, ALPHA, 0),
    "rgba tiff": (".tif", save(np.dstack([COLOURS, ALPHA])), COLOURS, ALPHA, 0),
    "rgba webp": (
        ".webp",
        save(np.dstack([COLOURS, ALPHA]), lossless=True, exact=True),
        COLOURS,
        ALPHA,
        0,
    ),
    "grey and alpha png": (".png", save(stack(GREY, ALPHA), "LA"), GREY, ALPHA, 0),
    "grey and alpha tiff": (".tif", save(stack(GREY, ALPHA), "LA"), GREY, ALPHA, 0),
    "rgb with a transparent colour": (
        ".png",
        save(PALETTE[INDICES], transparency=tuple(PALETTE[1].tolist())),
        PALETTE[INDICES],
        mask(INDICES != 1),
        0,
    ),
    "grey with a transparent grey": (
        ".png",
        save(NIBBLES, transparency=5),
        NIBBLES,
        mask(NIBBLES != 5),
        0,
    ),
    "palette png": (".png", save_palette(), PALETTE[INDICES], None, 0),
    "palette gif": (".gif", save_palette(), PALETTE[INDICES], None, 0),
    "palette bitmap": (".bmp", save_palette(), PALETTE[INDICES], None, 0),
    "palette tiff": (".tif", save_palette(), PALETTE[INDICES], None, 0),
    "palette png, one transparent": (
        ".png",
        save_palette(transparency=1),
        PALETTE[INDICES],
        mask(INDICES != 1),
        0,
    ),
    "palette png of alphas": (
        ".png",
        save_palette(transparency=bytes([255, 0, 128, 9])),
        PALETTE[INDICES],
        np.array([255, 0, 128, 9])[INDICES],
        0,
    ),
    "palette gif, one transparent": (
        ".gif",
        save_palette(transparency=2),
        PALETTE[INDICES],
        mask(INDICES != 2),
        0,
    ),
    "one bit png": (".png", save(TRUTHS.astype(bool)), mask(TRUTHS), None, 0),
    "one bit bitmap": (".bmp", save(TRUTHS.astype(bool)), mask(TRUTHS), None, 0),
    "one bit tiff": (".tif", save(TRUTHS.astype(bool)), mask(TRUTHS), None, 0),
    "one bit map": (".pgm", save(TRUTHS.astype(bool), format="PPM"), mask(TRUTHS), None, 0),
    "four bits png": (".png", nibbles, NIBBLES * 17, None, 0),
    "four bits, a transparent grey": (
        ".png",
        partial(nibbles, tRNS=struct.pack(">H", 5)),
        NIBBLES * 17,
        mask(NIBBLES != 5),
        0,
    ),
    "two bits, a transparent grey": (
        ".png",
        lambda p: raw_png(p, packed(QUARTERS, 2), 8, 2, 0, tRNS=struct.pack(">H", 3)),
        QUARTERS * 85,
        mask(QUARTERS != 3),
        0,
    ),
    "one bit, a transparent grey": (
        ".png",
        lambda p: raw_png(p, packed(TRUTHS, 1), 8, 1, 0, tRNS=struct.pack(">H", 1)),
        mask(TRUTHS),
        mask(TRUTHS != 1),
        0,
    ),
    "sixteen bits png": (".png", save(SIXTEEN), SIXTEEN / 257, None, 0),
    "sixteen bits tiff": (".tif", save(SIXTEEN), SIXTEEN / 257, None, 0),
    "sixteen bits tiff, other byte order": (
        ".tif",
        lambda p: Image.frombytes("I;16B", (8, 8), SIXTEEN.astype(">u2").tobytes()).save(p),
        SIXTEEN / 257,
        None,
        0,
    ),
    "sixteen bits map": (".pgm", deep_map(SIXTEEN, 65_535), SIXTEEN / 257, None, 0),
    "ten bits map": (
        ".pgm",
        deep_map(SIXTEEN >> 6, 1023),
        (SIXTEEN >> 6) / 1023 * 255,
        None,
        0,
    ),
    "sixteen bits, a transparent grey": (
        ".png",
        lambda p: raw_png(
            p, [r.tobytes() for r in SIXTEEN.astype(">u2")], 8, 16, 0, tRNS=struct.pack(">H", 129)
        ),
        SIXTEEN / 257,
        mask(SIXTEEN != 129),
        0,
    ),
    "sixteen bits a colour": (
        ".png",
        lambda p: raw_png(
            p, [r.tobytes() for r in stack(SIXTEEN, SIXTEEN.T, SIXTEEN).astype(">u2")], 8, 16, 2
        ),
        stack(SIXTEEN, SIXTEEN.T, SIXTEEN) / 257,
        None,
        1,  # Pillow cuts the lower byte off
    ),
    "cmyk tiff": (".tif", save(INKS, "CMYK"), of_inks(INKS), None, 1),
    "cmyk jpeg": (".jpg", save_smooth("CMYK", quality=100), BLOCKS, None, 4),
}  # fmt: skip


def wanted(colours, alpha, channels, behind):
    """The pixels of an image in floating point: laid over the background, then made grey."""
    pixels = np.asarray(colours, float)
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    if alpha is not None:
        share = np.asarray(alpha, float)[..., None] / 255
        pixels = share * pixels + (1 - share) * behind
    return pixels if channels == 3 else pixels @ np.array([[0.299], [0.587], [0.114]])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_has_the_pixels_that_it_shows(tmp_path, kind):
    suffix, write, colours, alpha, off = KINDS[kind]
    write(tmp_path / f"image{suffix}")
    for channels in (1, 3):
        for name, behind in BEHIND.items():
            decoding = Decoding(len(colours), channels, background=name)
            found = read_image(tmp_path / f"image{suffix}", decoding)
            expected = wanted(colours, alpha, channels, behind)
            rounded = 0.5 + (channels == 1) * 0.5 + (alpha is not None) * 0.5
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= off + rounded + 1e-9, (channels, name)
            whole = read_crop(tmp_path / f"image{suffix}", decoding, 1.0, torch.full((10, 4), 0.5))
            assert np.array_equal(whole, found), "as it is trained on"


def test_sixteen_bits_are_rounded_to_eight_exactly(tmp_path):
    every = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(every).save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png", Decoding(256, 1))[..., 0]
    assert np.array_equal(found, np.round(every / 257))


def lab(path):
    Image.fromarray(COLOURS, "LAB").save(path)


def deep(kind, **options):
    content = np.zeros(64, kind).tobytes()
    bits = 8 * np.dtype(kind).itemsize
    return lambda path: raw_tiff(path, content, 8, 8, bits, **options)


REFUSED = {
    "L*a*b*": (".tif", lab, "stored as Pillow's mode LAB"),
    "floats": (".tif", deep(np.float32, sample_format=3), "stored as Pillow's mode F"),
    "32 bits": (".tif", deep(np.uint32), "stored as Pillow's mode I;"),
    "signed": (".tif", deep(np.int16, sample_format=2), "stored as Pillow's mode I;"),
    "signed bytes": (".tif", deep(np.int8, sample_format=2), "its numbers are signed;"),
    "12 bits": (".tif", lambda p: raw_tiff(p, bytes(96), 8, 8, 12), "it has 12 bits a channel;"),
    "a deep negative": (
        ".tif",
        deep(np.uint16, white_is_zero=True),
        "a negative of 16 bits, in which 0 is white;",
    ),
    "a deep transparent colour": (
        ".png",
        lambda p: raw_png(p, [bytes(48)] * 8, 8, 16, 2, tRNS=bytes(6)),
        "it has a transparent colour of 16 bits a channel;",
    ),
    "a portable map of floats": (
        ".ppm",
        lambda p: p.write_bytes(b"Pf 2 2 -1.0\n" + bytes(16)),
        "stored as Pillow's mode F;",
    ),
}


@pytest.mark.parametrize(("suffix", "write", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_image_that_would_be_misread_is_refused_by_name(tmp_path, suffix, write, reason):
    path = tmp_path / f"image{suffix}"
    write(path)
    message = f"image{suffix}: cannot be read as an image: .*{reason}.* convert it to 8 bits"
    for read in (decoded_size, partial(read_image, decoding=Decoding(8))):
        with pytest.raises(DataError, match=message.replace("*a*b*", "")):
            read(path)


# --- upright ---------------------------------------------------------------------------------

STORED = np.repeat(RANDOM.integers(0, 256, (32, 16, 1), np.uint8), 3, 2)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}
"""What turns the stored pixels upright, by EXIF's number."""


def turned(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    Image.fromarray(pixels).save(path, exif=exif, **options.get(path.suffix, {}))
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_upright_before_anything_else(tmp_path, suffix, orientation):
    image = turned(tmp_path / f"turned{suffix}", STORED, orientation)
    upright = TURNS[orientation](STORED)
    Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / "upright.png")
    off = 4 if suffix == ".jpg" else 0
    assert decoded_size(image) == (upright.shape[1], upright.shape[0])
    draws = torch.rand(10, 4, generator=stream(orientation, "draws"))
    for read in (
        *(partial(read_image, decoding=Decoding(16, fit=fit)) for fit in ("resize", "pad", "crop")),
        partial(read_crop, decoding=Decoding(16), smallest=0.2, draws=draws),
    ):
        found, expected = (read(path).astype(int) for path in (image, tmp_path / "upright.png"))
        assert np.abs(found - expected).max() <= off


def test_sixteen_bits_are_turned_upright_too(tmp_path):
    turned(tmp_path / "image.png", SIXTEEN, 6)
    found = read_image(tmp_path / "image.png", Decoding(8, 1))[..., 0]
    assert np.array_equal(found, np.round(np.rot90(SIXTEEN, -1) / 257))


def entry(kind, value):
    """EXIF of one tag, the orientation."""
    tag = struct.pack(">HHHI", 1, 0x0112, kind, 1)
    return b"MM\0*\0\0\0\x08" + tag + struct.pack(">HH", value, 0) + b"\0\0\0\0"


DAMAGED_EXIF = {
    "no header": b"garbagegarbagegarbage",
    "a header alone": b"II*\0",
    "cut short": b"II*\0\x08\0\0\0\x05\0\x12\x01",
    "nothing": b"",
    "an orientation that there is not": entry(3, 99),
    "orientation zero": entry(3, 0),
    "an orientation of text": entry(2, 0x6300),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # by Pillow, once
@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
def test_damaged_exif_turns_nothing(tmp_path, suffix, exif):
    options = {".webp": {"lossless": True}}.get(suffix, {})
    for name, more in (("damaged", {"exif": b"Exif\0\0" + exif}), ("plain", {})):
        Image.fromarray(STORED).save(tmp_path / f"{name}{suffix}", **options, **more)
    draws = torch.rand(10, 4, generator=stream(0, "draws"))
    crop = partial(read_crop, decoding=Decoding(16), smallest=0.2, draws=draws)
    for read in (decoded_size, partial(read_image, decoding=Decoding(16)), crop):
        assert np.array_equal(*(read(tmp_path / f"{n}{suffix}") for n in ("damaged", "plain")))


def test_the_turns_in_these_tests_are_right(tmp_path):
    assert TURNS[6](np.array([[1, 2]])).tolist() == [[1], [2]]
    path = turned(tmp_path / "image.png", STORED, 6)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), TURNS[6](STORED))


# --- no squares ------------------------------------------------------------------------------


def sampled(values, size):
    """Each of ``size`` equal parts of a line, averaged."""
    return values.reshape(size, -1, *values.shape[1:]).mean(1)


SHAPES = [(32, 8), (8, 32), (8, 8), (64, 16), (16, 16), (24, 8)]


def halves(path, width, height, mode="RGB"):
    """An image whose left or upper half is dark, with a bright line at each of the short sides."""
    pixels = np.full((height, width, 3), 200, np.uint8)
    long = pixels if height >= width else pixels.transpose(1, 0, 2)
    long[: len(long) // 2] = 40
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_resize_shows_all_of_an_image_and_leaves_no_border(tmp_path, width, height):
    pixels = halves(tmp_path / "image.png", width, height)
    found = read_image(tmp_path / "image.png", Decoding(8, fit="resize")).astype(float)
    expected = sampled(sampled(pixels.astype(float), 8).transpose(1, 0, 2), 8).transpose(1, 0, 2)
    assert np.abs(found.mean((0, 1)) - expected.mean((0, 1))).max() <= 2
    for side in (found[0, 0], found[-1, -1]):
        assert {abs(side[0] - 40) <= 12, abs(side[0] - 200) <= 12} == {True, False}
    assert abs(found[0, 0, 0] - found[-1, -1, 0]) > 130


# Of a JPEG of the last three, decoded at a half, the ratio of the sides is another one.
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("background", BEHIND)
@pytest.mark.parametrize(("width", "height"), [*SHAPES, (36, 33), (69, 48), (41, 34)])
def test_pad_shows_all_of_an_image_at_its_ratio_between_borders(
    tmp_path, width, height, background, suffix
):
    path = png(tmp_path / f"image{suffix}", (90, 60, 30), (width, height))
    decoding = Decoding(8, fit="pad", background=background)
    found = read_image(path, decoding).astype(int)
    expected = np.full((8, 8, 3), BEHIND[background])
    w, h = (round(8 * side / max(width, height)) for side in (width, height))
    left, top = (8 - w) // 2, (8 - h) // 2
    expected[top : top + h, left : left + w] = 90, 60, 30
    assert np.abs(found - expected).max() <= (0 if suffix == ".png" else 3)


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_has_the_pixels_of_the_recipe_on_a_card(tmp_path, fit, orientation):
    """Turned, decoded at a part, fitted as ``str(Decoding)`` says: here in Pillow's words."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)).save(
        path, exif=exif
    )
    decoding = Decoding(8, fit=fit)
    assert f"keep {decoding.least})" in str(decoding)
    with Image.open(path) as image:
        image.draft(None, (decoding.least, decoding.least))
        assert image.size == (33, 23)
        image = ImageOps.exif_transpose(image)
    size = (8, 8) if fit == "resize" else (8, 6) if orientation == 1 else (6, 8)
    whole = Image.new("RGB", (8, 8), "white")
    place = ((8 - size[0]) // 2, (8 - size[1]) // 2)
    whole.paste(image.resize(size, Image.Resampling.BICUBIC), place)
    assert np.array_equal(read_image(path, decoding), np.asarray(whole))


@pytest.mark.parametrize(("width", "height"), [(30, 10), (10, 30), (8, 8), (4, 6), (400, 100)])
def test_crop_resizes_the_shorter_side_and_takes_the_middle(tmp_path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    short = min(width, height)
    resized = image.resize((width * 8 // short, height * 8 // short), Image.Resampling.BICUBIC)
    left, top = (resized.width - 8) // 2, (resized.height - 8) // 2
    expected = np.asarray(resized.crop((left, top, left + 8, top + 8))).astype(int)
    found = read_image(tmp_path / "image.png", Decoding(8, fit="crop"))
    assert np.abs(found - expected).max() <= 1


ODD = [(1, 1), (1, 5000), (5000, 1), (3, 2), (2700, 1200)]


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), ODD)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_thin_tiny_and_large_images_are_read_too(tmp_path, width, height, fit, suffix):
    path = png(tmp_path / f"image{suffix}", (90, 60, 30), (width, height))
    found = read_image(path, Decoding(8, fit=fit)).astype(int)
    shown = np.abs(found - (90, 60, 30)).max(2) <= 3
    ratio = min(width, height) / max(width, height)
    lines = max(1, round(8 * ratio)) if fit == "pad" else 8
    assert shown.sum() == 8 * lines
    assert (found[~shown] == 255).all()
    draws = torch.rand(10, 4, generator=stream(0, "draws"))
    crop = read_crop(path, Decoding(8, fit=fit), 0.08, draws)
    assert np.abs(crop - (90, 60, 30)).max() <= 3


def test_a_large_jpeg_decoded_at_a_fraction_looks_like_the_whole(tmp_path):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), 2)
    Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=95)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for fit in ("resize", "pad", "crop"):
        jpeg, whole = (
            read_image(tmp_path / f"image.{suffix}", Decoding(32, fit=fit)).astype(int)
            for suffix in ("jpg", "png")
        )
        assert np.abs(jpeg - whole).max() <= 6


# --- what cannot be read ---------------------------------------------------------------------


def taken(path):
    return ImageFiles((path,), [0], Decoding(8)).take(torch.tensor([0]))


def test_an_image_that_breaks_off_is_named_when_it_is_taken(tmp_path):
    cut(tmp_path / "cut.png")
    with pytest.raises(DataError, match=r"cut\.png: cannot be read as an image: .*truncated"):
        taken(tmp_path / "cut.png")


def test_an_image_that_is_gone_is_named_when_it_is_taken(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: cannot be read as an image"):
        taken(tmp_path / "gone.png")


def test_a_crop_of_all_of_the_area_is_a_square_of_it():
    draws = torch.full((10, 4), 0.5)
    assert crop_box(100, 100, 1.0, draws) == pytest.approx((0, 0, 100, 100))
    assert math.isclose(crop_box(100, 100, 0.25, draws)[2] ** 2 / 1e4, 0.66, rel_tol=0.2)
