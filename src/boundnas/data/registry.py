"""Data sets by their short names, as a configuration gives them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from boundnas.data.cifar import cifar10, cifar100
from boundnas.data.decoding import Background, Fit
from boundnas.data.downsampled import imagenet_d
from boundnas.data.fashion import fashion_mnist
from boundnas.data.folder import image_folder
from boundnas.data.handwritten import digits
from boundnas.data.ilsvrc import imagenet
from boundnas.data.image_data import ImageData
from boundnas.data.listing import Links
from boundnas.data.readable import Damaged
from boundnas.errors import DataError
from boundnas.typed import checked

LOADERS: dict[str, Callable[..., ImageData]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet_d": imagenet_d,
    "imagenet": imagenet,
    "folder": image_folder,
}
"""The loader behind each name that ``load`` knows."""

CROPPED = ("imagenet", "folder")
"""Sets of image files, of which random parts can be trained on."""


@checked
def load(
    name: str,
    folder: Path | str | None = None,
    image_size: int | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    *,
    channels: int | None = None,
    fit: Fit | None = None,
    background: Background | None = None,
    links: Links | None = None,
    damaged: Damaged | None = None,
    mirror: bool | None = None,
    shift: int | None = None,
    smallest_crop: float | None = None,
) -> ImageData:
    """The data set of a registered name.

    Args:
        name: A name in `LOADERS`.
        folder: Where the files are; required by all but ``"digits"``, which takes none, and
            ``"fashion_mnist"``.
        image_size: Height and width in pixels; for ``"imagenet"`` and ``"folder"``, required there.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``; by
            default what suits the data set.
        seed: The run's seed.
        channels: Of ``"folder"``, as the next two; see ``image_folder``.
        fit: How an image becomes a square.
        background: What is put behind transparent parts.
        links: What is done about symbolic links; for ``"imagenet"`` and ``"folder"``.
        damaged: What is done about images that cannot be read; likewise.
        mirror: Whether training images are mirrored at random; by default what suits the set.
        shift: Pixels that training images are shifted by at random at most; likewise.
        smallest_crop: Least share of the area of the random part that each training image is
            cropped to, in ``(0, 1]``; for ``"imagenet"``, and for ``"folder"``, whose images are
            by default shifted instead.

    Raises:
        DataError: An unknown name, an option that the data set does not take or that it needs,
            or what its loader finds wrong.

    Examples:
        >>> load("digits").classes[:3]
        ('0', '1', '2')
        >>> load("digit")
        Traceback (most recent call last):
        boundnas.errors.DataError: no data set is named 'digit'; did you mean 'digits'?
    """
    if name not in LOADERS:
        close = difflib.get_close_matches(name, LOADERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(LOADERS)}"
        raise DataError(f"no data set is named {name!r}; {hint}")
    options = {
        "folder": folder,
        "image_size": image_size,
        "validation_fraction": validation_fraction,
        "channels": channels,
        "fit": fit,
        "background": background,
        "links": links,
        "damaged": damaged,
    }
    given = _taken(name, options)
    data = LOADERS[name](**given, seed=seed)
    return _augmented(data, name, mirror, shift, smallest_crop)


def _taken(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given.

    Raises:
        DataError: The loader does not take one of them, or needs one more.
    """
    given = {option: value for option, value in options.items() if value is not None}
    parameters = inspect.signature(LOADERS[name]).parameters
    unused = [option for option in given if option not in parameters]
    needed = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty and option not in given
    ]
    if unused or needed:
        raise DataError(
            f"data set {name!r} takes {', '.join(o for o in options if o in parameters)}; "
            f"given but not taken: {', '.join(unused) or 'none'}; "
            f"needed but not given: {', '.join(needed) or 'none'}"
        )
    return given


def _augmented(
    data: ImageData,
    name: str,
    mirror: bool | None,
    shift: int | None,
    smallest_crop: float | None,
) -> ImageData:
    """The data set with another augmentation than its own, where one is given."""
    changes: dict[str, Any] = {}
    if smallest_crop is not None:
        if name not in CROPPED:
            raise DataError(
                f"smallest_crop goes with {' and '.join(CROPPED)} only, whose images are read from "
                f"files; for {name!r} give shift"
            )
        changes |= {"resized_crops": True, "smallest_crop": smallest_crop, "padding": 0}
    if shift is not None:
        changes["padding"] = shift
    if mirror is not None:
        changes["flip"] = mirror
    return replace(data, **changes)
