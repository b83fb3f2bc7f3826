"""Fashion-MNIST, read from its four published files."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from boundnas.data.idx import read_idx
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.source import InMemory
from boundnas.errors import DataError
from boundnas.typed import checked

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@checked
def fashion_mnist(
    folder: Path | str | None = None, validation_fraction: float = 0.1, seed: int = 0
) -> ImageData:
    """60,000 training and 10,000 test images of clothes, 28x28 grey pixels.

    Args:
        folder: Where the four idx files are, gzipped (``.gz``) or not; by default the place
            where Debian's package ``dataset-fashion-mnist`` puts them.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``.
        seed: Draws the validation set.

    Raises:
        DataError: A file is missing or damaged, or ``validation_fraction`` is out of range.
    """
    paths = _find(DEBIAN_FOLDER if folder is None else Path(folder))
    train = _read_split(*paths[:2])
    return assemble(
        "fashion_mnist",
        train,
        train.labels,
        _read_split(*paths[2:]),
        CLASSES,
        validation_fraction=validation_fraction,
        seed=seed,
        padding=4,
        flip=True,
    )


def _find(folder: Path) -> tuple[Path, ...]:
    found = [
        next((p for p in (folder / name, folder / f"{name}.gz") if os.path.isfile(p)), None)
        for name in _FILES
    ]
    missing = [name for name, path in zip(_FILES, found, strict=True) if path is None]
    if missing:
        raise DataError(
            f"Fashion-MNIST: {len(missing)} of 4 files not found in {folder}, "
            f"neither plain nor with .gz: {', '.join(missing)}.\n"
            f"Either `apt-get install dataset-fashion-mnist`, which puts them into "
            f"{DEBIAN_FOLDER}, or name a folder that holds {', '.join(_FILES)}."
        )
    return tuple(path for path in found if path)


def _read_split(images_path: Path, labels_path: Path) -> InMemory:
    images = read_idx(images_path, (28, 28))[:, None]
    labels = _read_labels(labels_path)
    if len(labels) != len(images):
        raise DataError(
            f"{labels_path}: has {len(labels)} labels for the {len(images)} images of {images_path}"
        )
    return InMemory(images, labels)


def _read_labels(path: Path) -> Tensor:
    labels = read_idx(path, ()).to(torch.int64)
    if int(labels.max()) >= len(CLASSES):
        raise DataError(
            f"{path}: labels must lie in 0 to {len(CLASSES) - 1}, found {int(labels.max())}"
        )
    return labels
