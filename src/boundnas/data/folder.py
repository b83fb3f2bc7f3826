"""A user's own images: a folder with a sub-folder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from boundnas.data.decode import SUFFIXES, fault
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.source import ImageFiles
from boundnas.data.split import fixed_test_split
from boundnas.errors import DataError

_STATISTICS_IMAGES = 2048
_SHOWN = 5


def image_folder(
    folder: Path | str,
    image_size: int,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> ImageData:
    """Colour images in one sub-folder per class, read from disk as they are needed.

    A folder that holds ``train/`` and ``test/`` is split already; without ``test/``, a ``val/``
    beside ``train/`` is the test set. Otherwise a stratified test set is taken out, the same for
    every seed. Validation always comes out of the training images, so a ``val/`` beside a
    ``test/`` is not read.

    Images are looked for at any depth below a class. Hidden files and files without an image's
    suffix are passed over. Symbolic links are refused: what they lead to can lie outside the
    folder, or be an image of another split. Splits follow from the sorted file names.

    Args:
        folder: The folder.
        image_size: Height and width of the images, in pixels; see ``ImageFiles``.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``.
        test_fraction: Share of all images for the test, in ``(0, 1)``; not used when the folder
            is split already.
        seed: Draws the validation set and the sample for mean and standard deviation.

    Raises:
        DataError: No such folder, fewer than two classes, a class with too few images, an
            unreadable image, a symbolic link, splits with different classes, or a number out of
            range.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder with a sub-folder for each class")
    root = root.resolve()
    train, test = _given_splits(root) or _carved_splits(root, test_fraction)
    train_images = ImageFiles(train.paths, train.labels, image_size)
    test_images = ImageFiles(test.paths, test.labels, image_size)
    _check_headers([*train.paths, *test.paths])
    return assemble(
        root.name,
        train_images,
        train.labels,
        test_images,
        train.classes,
        validation_fraction=validation_fraction,
        seed=seed,
        padding=image_size // 8,
        flip=True,
        statistics_images=_STATISTICS_IMAGES,
    )


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one split: sorted paths, and labels of shape ``(n,)``."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor

    def part(self, indices: Tensor) -> Listing:
        """The images at ``indices``, int64, in that order."""
        paths = tuple(self.paths[i] for i in indices.tolist())
        return Listing(self.classes, paths, self.labels[indices])


def _given_splits(root: Path) -> tuple[Listing, Listing] | None:
    names = {path.name for path in _folders(root)}
    held_out = "test" if "test" in names else "val"
    return split_listings(root, held_out) if {"train", held_out} <= names else None


def split_listings(root: Path, held_out: str) -> tuple[Listing, Listing]:
    """What lies in ``train/`` and in the folder of the test images, of the same classes.

    Raises:
        DataError: As ``image_folder``.
    """
    train, test = root / "train", root / held_out
    only = [
        f"only in {one.name}/: {', '.join(sorted(extra))}"
        for one, other in ((train, test), (test, train))
        if (extra := _class_names(one) - _class_names(other))
    ]
    if only:
        raise DataError(
            f"{root}: {train.name}/ and {test.name}/ must hold the same classes; found "
            + "; ".join(only)
        )
    # One image for training and one for validation.
    return _listing(train, at_least=2), _listing(test, at_least=1)


def _carved_splits(root: Path, test_fraction: float) -> tuple[Listing, Listing]:
    # One image for each of training, validation and test.
    listing = _listing(root, at_least=3)
    rest, test = fixed_test_split(listing.labels, test_fraction)
    return listing.part(rest), listing.part(test)


def _listing(folder: Path, at_least: int) -> Listing:
    by_class = {path.name: tuple(_images_below(path)) for path in _folders(folder)}
    if len(by_class) < 2:
        raise DataError(
            f"{folder}: needs a sub-folder with images for each of at least 2 classes, found "
            f"{', '.join(by_class) or 'none'}"
        )
    few = [f"{name} has {len(p)}" for name, p in by_class.items() if len(p) < at_least]
    if few:
        raise DataError(
            f"{folder}: every class needs at least {at_least} images "
            f"({', '.join(sorted(SUFFIXES))}); {_some(few, ', ')}"
        )
    counts = torch.tensor([len(paths) for paths in by_class.values()])
    paths = tuple(path for paths in by_class.values() for path in paths)
    return Listing(tuple(by_class), paths, torch.arange(len(counts)).repeat_interleave(counts))


def _check_headers(paths: Sequence[Path]) -> None:
    faults = [found for path in paths if (found := fault(path))]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(paths)} images cannot be used; mend or remove them:\n  "
            + _some(faults, "\n  ")
        )


def _class_names(folder: Path) -> set[str]:
    return {path.name for path in _folders(folder)}


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _images_below(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if path.is_dir():
            yield from _images_below(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what is hidden."""
    try:
        # By name and not by path, whose order depends on the operating system.
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    visible = [path for path in entries if not path.name.startswith(".")]
    for path in visible:
        if path.is_symlink() and (path.is_dir() or path.suffix.lower() in SUFFIXES):
            raise DataError(
                f"{path}: is a symbolic link, which is not followed as it may leave the folder "
                "or repeat an image of another split; put a copy in its place"
            )
    return visible


def _some(texts: Sequence[str], separator: str) -> str:
    rest = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return separator.join([*texts[:_SHOWN], *rest])
