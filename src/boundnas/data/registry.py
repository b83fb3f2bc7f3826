"""Data sets by their short names, as a configuration gives them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path

from boundnas.data.cifar import cifar10, cifar100
from boundnas.data.downsampled import imagenet_d
from boundnas.data.fashion import fashion_mnist
from boundnas.data.folder import image_folder
from boundnas.data.handwritten import digits
from boundnas.data.ilsvrc import imagenet
from boundnas.data.image_data import ImageData
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


@checked
def load(
    name: str,
    folder: Path | str | None = None,
    image_size: int | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
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
    }
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
    return LOADERS[name](**given, seed=seed)
