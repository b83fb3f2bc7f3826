"""What lies in a folder of class folders."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from boundnas.data.decode import SUFFIXES
from boundnas.data.names import check_classes, escaped, some
from boundnas.engine.ranks import rank
from boundnas.errors import DataError

# Beside what begins with a dot: what systems and tools leave behind.
_LITTER = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information",
     "lost+found", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
)  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one split: sorted paths, and labels of shape ``(n,)``."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor

    @property
    def names(self) -> list[str]:
        """Class and file name of each image."""
        return [f"{path.parent.name}/{path.name}" for path in self.paths]

    def part(self, indices: Tensor) -> Listing:
        """The images at ``indices``, int64, in that order."""
        paths = tuple(self.paths[i] for i in indices.tolist())
        return Listing(self.classes, paths, self.labels[indices])


def list_images(folder: Path, at_least: int) -> Listing:
    """The images in the class folders of a folder.

    Files in a class folder that have no image's suffix are passed over, with one line that says
    how many and which.

    Args:
        folder: Holds a folder of images for each class.
        at_least: Images that every class needs.

    Raises:
        DataError: Fewer than two classes or too few images, an image outside a class, a folder
            within a class, a symbolic link, or names that cannot be written.
    """
    outside = [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]
    outside = [path for path in outside if not os.path.isdir(path)]
    if outside:
        raise DataError(
            f"{escaped(outside[0])}: is one of {len(outside)} images beside the class folders of "
            f"{escaped(folder)}; move each into the folder of its class or out of this one, or, if "
            f"{escaped(folder.name)} is itself a class, put all classes into a folder train/"
        )
    others: Counter[str] = Counter()
    by_class = {path.name: _images(path, others) for path in folders(folder)}
    check_classes(f"{escaped(folder)}, where each sub-folder is a class", tuple(by_class))
    few = [f"{escaped(name)} has {len(p)}" for name, p in by_class.items() if len(p) < at_least]
    if few:
        raise DataError(
            f"{folder}: every class needs at least {at_least} images "
            f"({', '.join(sorted(SUFFIXES))}); {some(few, ', ')}"
        )
    if others and not rank():
        _log.warning("%s: passed over %s", escaped(folder), _passed_over(others))
    counts = torch.tensor([len(paths) for paths in by_class.values()])
    paths = tuple(path for paths in by_class.values() for path in paths)
    return Listing(tuple(by_class), paths, torch.arange(len(counts)).repeat_interleave(counts))


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without what is hidden.

    Raises:
        DataError: The folder cannot be listed, or holds a symbolic link.
    """
    return [path for path in entries(folder) if os.path.isdir(path)]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what is hidden."""
    try:
        # By name and not by path, whose order depends on the operating system.
        found = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{escaped(folder)}: cannot be listed ({error.strerror})") from error
    visible = [path for path in found if path.name[0] != "." and path.name not in _LITTER]
    for path in visible:
        if os.path.islink(path) and (os.path.isdir(path) or path.suffix.lower() in SUFFIXES):
            raise DataError(
                f"{escaped(path)}: is a symbolic link, which is not followed as it may leave the "
                "folder or repeat an image of another split; put a copy in its place"
            )
    return visible


def _images(folder: Path, others: Counter[str]) -> list[Path]:
    """The images of a class; counts the other files by their suffix."""
    found = entries(folder)
    inner = next((path for path in found if os.path.isdir(path)), None)
    if inner is not None:
        raise DataError(
            f"{escaped(inner)}: is a folder inside of what would be the class "
            f"{escaped(folder.name)!r}; images lie directly in the folder of their class, and "
            "splits are named train, val and test: move the images up, or rename the folders"
        )
    suffixes = {path: path.suffix.lower() for path in found}
    others.update(s or "no suffix" for s in suffixes.values() if s not in SUFFIXES)
    return [path for path, suffix in suffixes.items() if suffix in SUFFIXES]


def _passed_over(others: Counter[str]) -> str:
    kinds = [f"{count} {escaped(suffix)}" for suffix, count in sorted(others.items())]
    plural = "s" if others.total() > 1 else ""
    return (
        f"{others.total()} file{plural} in class folders without the suffix of an image "
        f"({some(kinds, ', ')})"
    )
