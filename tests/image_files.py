"""Small image files, and looking into data sets."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image

from boundnas.data import ImageData, Subset


def png(path, colour=(10, 200, 30), size=(12, 10), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)
    return path


def fill(folder, counts, suffix=".png"):
    """Write ``counts[name]`` images for each class, all of different colours."""
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            png(folder / name / f"{i:03}{suffix}", (20 + 60 * c, 7 * i % 256, 90))
    return folder


def noise(path, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def cut(path, part=0.5, **options):
    """An image whose file ends early."""
    content = noise(path, **options).read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def paths_of(split):
    """The files behind a split of a folder."""
    indices = torch.arange(len(split))
    while isinstance(split, Subset):
        split, indices = split.source, split.indices[indices]
    return [split.paths[i] for i in indices.tolist()]


def everything(source):
    images, labels = source.take(torch.arange(len(source)))
    return images, labels


def same(a: ImageData, b: ImageData, splits=("train", "validation", "test")):
    return all(
        torch.equal(x, y)
        for split in splits
        for x, y in zip(everything(getattr(a, split)), everything(getattr(b, split)), strict=True)
    )


def raw_png(path, rows, width, bits, colour, **chunks):
    """A PNG as it stands in the file: ``rows`` of bytes, and chunks such as ``tRNS``."""

    def chunk(name, content):
        body = name.encode() + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = {"IHDR": header, **chunks, "IDAT": pixels, "IEND": b""}
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items()))


def raw_tiff(path, content, width, height, bits, white_is_zero=False, sample_format=1):
    """A grey TIFF of one strip as it stands in the file."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 0 if white_is_zero else 1),
        (273, 4, 8 + 2 + 12 * 10 + 4),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(content)),
        (339, 3, sample_format),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + struct.pack("<I", 0) + content)
