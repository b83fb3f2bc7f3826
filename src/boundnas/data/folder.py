"""A user's own images: a folder with a sub-folder for each class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from boundnas.data.copied import tell_copies
from boundnas.data.decoding import Background, Decoding, Fit
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.listing import Links, Listing, check_ends, check_enough, folders, list_images
from boundnas.data.names import check_name, escaped
from boundnas.data.readable import Damaged, check_readable, log_shapes
from boundnas.data.source import ImageFiles, Source, Subset
from boundnas.data.split import split_by_name
from boundnas.errors import DataError
from boundnas.typed import checked

_STATISTICS_IMAGES = 2048

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of split folders, in any case, by what they hold."""

_ROLES = {name: role for role, names in SPLITS.items() for name in names}


@checked
def image_folder(
    folder: Path | str,
    image_size: int,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    *,
    channels: int = 3,
    fit: Fit = "resize",
    background: Background = "white",
    links: Links = "refuse",
    damaged: Damaged = "refuse",
) -> ImageData:
    """Images in one sub-folder per class, read from disk as they are needed.

    Where the sub-folders are named as in `SPLITS`, in any case, they are the splits, and the
    class folders lie in each of them. A split that is not given is taken out of the training
    images, of each class about the same share: the test set is the same for every seed. Whether an
    image is taken depends on its own class and file name alone, so that an image that is added or
    removed moves no other one from split to split.

    Images lie directly in the folder of their class. Hidden files and those that systems leave
    behind (``Thumbs.db``, ``__MACOSX``) are passed over; so are files without an image's suffix, of
    which one line tells how many. Every image is decoded once to see that it can be.

    Args:
        folder: The folder.
        image_size: Height and width of the images, in pixels.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``; not used
            where the split is given.
        test_fraction: Share of all images for the test, in ``(0, 1)``; likewise.
        seed: Draws the validation set and the sample for mean and standard deviation.
        channels: 3 for RGB or 1 for grey, whatever the files are.
        fit: How an image becomes a square; see ``Decoding``.
        background: What is put behind transparent parts, and at the sides by ``fit="pad"``.
        links: Symbolic links are refused, as what they lead to can lie outside the folder or be an
            image of another split, or followed: then one line names those that lead out, and two
            that lead to one image are refused.
        damaged: Images that cannot be read are refused, or left out with a line that names them.

    Raises:
        DataError: No such folder, folders that may be splits or classes, splits with different
            classes, fewer than two classes, a class with too few images, unreadable images (all
            in one list), a symbolic link, or a number out of range.
    """
    decoding = Decoding(image_size, channels, fit, background)
    root = _existing(folder)
    name = root.name or "images"
    check_name(name)
    usable, sizes = _usable(root, links, damaged, fit)
    splits = _with_test(usable, test_fraction)
    files = {
        role: ImageFiles(listing.paths, listing.labels, decoding)
        for role, listing in splits.items()
    }
    train: Source = files["train"]
    validation: Source | None = files.get("validation")
    listing = splits["train"]
    if validation is None:
        draw = f"validation_split {seed}"
        rest, taken = split_by_name(listing.names, listing.labels, validation_fraction, draw)
        train, validation = Subset(train, rest), Subset(train, taken)
        splits |= {"train": listing.part(rest), "validation": listing.part(taken)}
    tell_copies(root, sizes, {role: splits[role].paths for role in SPLITS})
    return assemble(
        name,
        train,
        splits["train"].labels,
        files["test"],
        listing.classes,
        validation=validation,
        seed=seed,
        padding=image_size // 8,
        flip=True,
        statistics_images=_STATISTICS_IMAGES,
    )


def list_splits(
    root: Path,
    places: Mapping[str, Path],
    train_at_least: int,
    links: Links = "refuse",
    damaged: Damaged = "refuse",
) -> tuple[dict[str, Listing], dict[Path, tuple[int, int]]]:
    """The images of the splits, which are of the same classes, all of them decoded once.

    Args:
        root: Where links should end, itself no link.
        places: Folder of each split; ``"train"`` among them.
        train_at_least: Images that every class needs for training.
        links: As in ``image_folder``.
        damaged: As in ``image_folder``.

    Returns:
        The splits, and width and height of each image.

    Raises:
        DataError: As ``image_folder``.
    """
    _check_classes(places, links)
    splits = {role: list_images(place, links) for role, place in places.items()}

    def check() -> None:
        for role, listing in splits.items():
            check_enough(places[role], listing, train_at_least if role == "train" else 1)

    check()  # before anything is decoded
    paths = [path for listing in splits.values() for path in listing.paths]
    sizes = check_readable(paths, damaged)
    if len(sizes) < len(paths):
        splits = {role: listing.only(sizes) for role, listing in splits.items()}
        check()
    if links == "follow":
        check_ends(root, sizes)
    return splits, sizes


def _check_classes(places: Mapping[str, Path], links: Links) -> None:
    """Refuse splits of different classes."""
    classes = {r: {path.name for path in folders(place, links)} for r, place in places.items()}
    for role, place in places.items():
        only = [
            f"only in {escaped(one.name)}/: {', '.join(map(escaped, sorted(extra)))}"
            for one, extra in (
                (places["train"], classes["train"] - classes[role]),
                (place, classes[role] - classes["train"]),
            )
            if extra
        ]
        if only:
            raise DataError(
                f"{escaped(place.parent)}: {escaped(places['train'].name)}/ and "
                f"{escaped(place.name)}/ must hold the same classes; found {'; '.join(only)}"
            )


def _existing(folder: Path | str) -> Path:
    root = Path(folder)
    if os.path.isdir(root):
        return root.resolve()
    found = "is no folder" if os.path.lexists(root) else "no such folder"
    raise DataError(f"{escaped(root)}: {found}; give a folder with a sub-folder for each class")


def _usable(
    root: Path, links: Links, damaged: Damaged, fit: Fit
) -> tuple[dict[str, Listing], dict[Path, tuple[int, int]]]:
    """The splits that are given, of images that can be read, and width and height of each."""
    places = _given_splits(root, links) or {"train": root}
    # One image for training, and one for each split that is taken out.
    enough = len(SPLITS) + 1 - len(places)
    splits, sizes = list_splits(root, places, enough, links, damaged)
    log_shapes(root, sizes, fit)
    return splits, sizes


def _with_test(splits: dict[str, Listing], fraction: float) -> dict[str, Listing]:
    """The splits, with a test set that is taken out of the training images where none is."""
    if "test" in splits:
        return splits
    train = splits["train"]
    # Of what stays, one image of each class is for validation where that is taken out too.
    keep = 1 if "validation" in splits else 2
    rest, taken = split_by_name(train.names, train.labels, fraction, "test_split", keep)
    return splits | {"train": train.part(rest), "test": train.part(taken)}


def _given_splits(root: Path, links: Links) -> dict[str, Path]:
    """The split folders by what they hold; none where the sub-folders are classes."""
    inside = folders(root, links)
    roles = {path: _ROLES.get(path.name.strip().casefold()) for path in inside}
    splits = [path for path, role in roles.items() if role is not None]
    others = [path for path, role in roles.items() if role is None]
    if not splits:
        return {}
    if others:
        raise DataError(
            f"{escaped(root)}: {_names(splits)} would be "
            f"{'a split' if len(splits) == 1 else 'splits'} and {_names(others)} "
            f"{'a class' if len(others) == 1 else 'classes'}; name every sub-folder as a split "
            "(train, val, test), with the class folders inside, or none of them; what is neither "
            "goes elsewhere, and a class of that name into a folder train/"
        )
    for role in SPLITS:
        same = [path for path in splits if roles[path] == role]
        if len(same) > 1:
            raise DataError(
                f"{escaped(root)}: {_names(same)} are names of one split ({role}); "
                "put the images into one folder"
            )
    if "train" not in roles.values():
        raise DataError(
            f"{escaped(root)}: there is {_names(splits)} but no folder train/; add the training "
            "images, or, if these are classes, put them into a folder train/"
        )
    return {role: path for role in SPLITS for path in splits if roles[path] == role}


def _names(paths: list[Path]) -> str:
    return ", ".join(f"{escaped(path.name)}/" for path in paths)
