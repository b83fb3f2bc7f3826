"""What lies in a folder of class folders."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from boundnas.data.decoding import SUFFIXES
from boundnas.data.names import check_classes, escaped, some
from boundnas.engine.ranks import rank
from boundnas.errors import DataError

# Beside what begins with a dot: what systems and tools leave behind, in lower case.
_LITTER = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information",
     "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"}
)  # fmt: skip

Links = Literal["refuse", "follow"]

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

    def only(self, paths: Collection[Path]) -> Listing:
        """Those images that are among ``paths``."""
        return self.part(torch.tensor([i for i, p in enumerate(self.paths) if p in paths]).long())


def list_images(folder: Path, links: Links) -> Listing:
    """The images in the class folders of a folder.

    Files in a class folder that have no image's suffix are passed over, with one line that says
    how many and which.

    Args:
        folder: Holds a folder of images for each class.
        links: What is done about symbolic links.

    Raises:
        DataError: Fewer than two classes, an image outside a class, a folder within a class, a
            symbolic link that is not to be followed or leads nowhere, or names that cannot be
            written.
    """
    outside = [path for path in entries(folder, links) if path.suffix.lower() in SUFFIXES]
    outside = [path for path in outside if not os.path.isdir(path)]
    if outside:
        raise DataError(
            f"{escaped(outside[0])}: is one of {len(outside)} images beside the class folders of "
            f"{escaped(folder)}; move each into the folder of its class or out of this one, or, if "
            f"{escaped(folder.name)} is itself a class, put all classes into a folder train/"
        )
    others: Counter[str] = Counter()
    by_class = {path.name: _images(path, links, others) for path in folders(folder, links)}
    check_classes(f"{escaped(folder)}, where each sub-folder is a class", tuple(by_class))
    if others and not rank():
        _log.warning("%s: passed over %s", escaped(folder), _passed_over(others))
    _tell_hidden(folder)
    counts = torch.tensor([len(paths) for paths in by_class.values()])
    paths = tuple(path for paths in by_class.values() for path in paths)
    return Listing(tuple(by_class), paths, torch.arange(len(counts)).repeat_interleave(counts))


def _tell_hidden(folder: Path) -> None:
    """Say which hidden folders beside the classes hold images, as a class ``.net`` would."""
    named = []
    for path in sorted(folder.glob(".*/")):
        with suppress(OSError):  # a folder that nobody may look into, such as .Trash
            number = sum(file.suffix.lower() in SUFFIXES for file in path.iterdir())
            named += [f"{escaped(path.name)}/ ({number} images)"] if number else []
    if named and not rank():
        _log.warning(
            "%s: passed over hidden folders with images, %s; a class needs a name without a dot "
            "in front", escaped(folder), some(named, ", "),
        )  # fmt: skip


def check_enough(folder: Path, listing: Listing, at_least: int) -> None:
    """Refuse a class of too few images.

    Raises:
        DataError: Names the classes and what can be done.
    """
    counts = listing.labels.bincount(minlength=len(listing.classes)).tolist()
    named = zip(listing.classes, counts, strict=True)
    few = [f"{escaped(name)} has {count}" for name, count in named if count < at_least]
    if few:
        raise DataError(
            f"{escaped(folder)}: every class needs at least {at_least} images "
            f"({', '.join(sorted(SUFFIXES))}), so that there is one for training and one for each "
            f"split that is taken out; {some(few, ', ')}: add images to these classes, or move "
            "their folders elsewhere"
        )


def folders(folder: Path, links: Links = "refuse") -> list[Path]:
    """The folders in a folder, sorted by name, without what is hidden.

    Raises:
        DataError: The folder cannot be listed, or holds a symbolic link that cannot be used.
    """
    return [path for path in entries(folder, links) if os.path.isdir(path)]


def entries(folder: Path, links: Links) -> list[Path]:
    """What is in a folder, sorted by name, without what is hidden."""
    try:
        # By name and not by path, whose order depends on the operating system.
        found = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{escaped(folder)}: cannot be listed ({error.strerror})") from error
    visible = [path for path in found if not passed_over(path.name)]
    for path in filter(os.path.islink, visible):
        _check_link(path, links)
    return visible


def passed_over(name: str) -> bool:
    """Whether something is hidden, or was left behind by systems and tools."""
    return name[0] == "." or name.lower() in _LITTER


def check_ends(root: Path, paths: Collection[Path]) -> None:
    """Say which links lead out of a folder, and refuse two that lead to one image.

    Args:
        root: The folder, itself no link.
        paths: Images in it, some of them behind links.

    Raises:
        DataError: Names the images that are one file: of two splits, or of two classes, it would
            be trained on and tested with.
    """
    ends: dict[str, Path] = {}
    same, away = [], []
    for path in paths:
        end = os.path.realpath(path)
        if not end.startswith(f"{root}{os.sep}"):
            away.append(f"{escaped(path)} to {escaped(end)}")
        if (first := ends.setdefault(end, path)) is not path:
            same.append(f"{escaped(first)} and {escaped(path)}")
    if same:
        raise DataError(
            f"{escaped(root)}: {len(same)} images are there twice, by symbolic links to one file; "
            "remove all but one of each:\n  " + some(same, "\n  ", 20)
        )
    if away and not rank():
        _log.warning(
            "%s: %s of %s images lie outside of it, by symbolic links: %s",
            escaped(root), len(away), len(paths), some(away, ", ", 3),
        )  # fmt: skip


def _check_link(path: Path, links: Links) -> None:
    end = escaped(os.path.realpath(path))
    if not os.path.exists(path):
        raise DataError(
            f"{escaped(path)}: is a symbolic link to {end}, where nothing is; mend or remove it"
        )
    if links == "refuse" and (os.path.isdir(path) or path.suffix.lower() in SUFFIXES):
        raise DataError(
            f"{escaped(path)}: is a symbolic link, to {end}, which is not followed unless asked, "
            "as it may leave the folder or repeat an image of another split; set links to follow, "
            "or put a copy in its place"
        )


def _images(folder: Path, links: Links, others: Counter[str]) -> list[Path]:
    """The images of a class; counts the other files by their suffix."""
    found = entries(folder, links)
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
