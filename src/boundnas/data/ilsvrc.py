"""ImageNet as published: a folder of JPEG files per class, read as they are needed."""

from __future__ import annotations

import os
from pathlib import Path

from boundnas.data.decoding import Decoding
from boundnas.data.folder import list_splits
from boundnas.data.image_data import ImageData, assemble
from boundnas.data.listing import Links, folders
from boundnas.data.readable import Damaged
from boundnas.data.source import ImageFiles
from boundnas.errors import DataError
from boundnas.typed import checked

PAGE = "https://image-net.org/download-images.php"
"""Where the set is published, as ILSVRC2012; needs an account."""

_CENTRE = 224 / 256
_STATISTICS_IMAGES = 2048


@checked
def imagenet(
    folder: Path | str,
    image_size: int,
    validation_fraction: float = 0.04,
    seed: int = 0,
    *,
    links: Links = "refuse",
    damaged: Damaged = "refuse",
) -> ImageData:
    """1,281,167 training and 50,000 test images of a thousand classes (ILSVRC2012).

    The set's validation images are the test images here, and validation is carved from training. A
    random part of each training image, resized and perhaps mirrored, is trained on; elsewhere the
    square in the middle counts that measures 224/256 of the shorter side. Every image is decoded
    once to see that it can be, which takes some minutes (docs/data.md).

    Args:
        folder: Where ``train/`` and ``val/`` are, each with a sub-folder of images per class,
            such as ``train/n01440764/n01440764_10026.JPEG``.
        image_size: Height and width of the images, in pixels; 224 in the paper.
        validation_fraction: Share of the training images for validation, in ``(0, 1)``.
        seed: Draws the validation set and the sample for mean and standard deviation.
        links: What is done about symbolic links, as in ``image_folder``.
        damaged: What is done about images that cannot be read, likewise.

    Raises:
        DataError: A folder is missing, or as ``image_folder``.
    """
    root = Path(folder)
    missing = [name for name in ("train", "val") if not os.path.isdir(root / name)]
    if missing:
        raise DataError(
            f"ImageNet: no folder {' and no folder '.join(missing)} in {root}.\n"
            f"Get the ILSVRC2012 training and validation images from {PAGE} and unpack them there, "
            "a folder of images per class: train/n01440764/*.JPEG, val/n01440764/*.JPEG."
        )
    root = root.resolve()
    if not folders(root / "val", links):
        raise DataError(
            f"ImageNet: {root / 'val'} has no sub-folders; the archive of validation images is "
            "flat, so move each image into a folder named after its class, as in train/ "
            f"(the classes are in the development kit from {PAGE})"
        )
    # One image for training and one for validation.
    places = {"train": root / "train", "test": root / "val"}
    listings, _ = list_splits(root, places, 2, links, damaged)
    decoding = Decoding(image_size, fit="crop", centre=_CENTRE)
    train, test = (
        ImageFiles(listing.paths, listing.labels, decoding) for listing in listings.values()
    )
    return assemble(
        "imagenet",
        train,
        train.labels,
        test,
        listings["train"].classes,
        validation_fraction=validation_fraction,
        seed=seed,
        padding=0,
        flip=True,
        resized_crops=True,
        statistics_images=_STATISTICS_IMAGES,
    )
