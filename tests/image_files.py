"""Small image files, and looking into data sets."""

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


def sixteen_bits(path):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path, "PNG")


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
