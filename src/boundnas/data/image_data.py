"""A data set as training wants it: three splits and the facts about them."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundnas.data.ahead import ahead
from boundnas.data.augment import augment, normalize
from boundnas.data.description import augmentation, preparation, sizes
from boundnas.data.names import check_classes, check_name, check_order, escaped, some
from boundnas.data.order import TrainingOrder
from boundnas.data.source import Source, Subset, are_files, batches, labels_of, random_crops
from boundnas.data.split import carve
from boundnas.data.tensors import as_labels, describe
from boundnas.errors import DataError
from boundnas.nested import sent
from boundnas.randomness import stream
from boundnas.typed import check_argument

SPLITS = ("train", "validation", "test")

_KINDS = {"padding": int, "flip": bool, "resized_crops": bool, "smallest_crop": float}
"""What text would be taken for: ``"no"`` is true."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images in three disjoint splits.

    Args:
        name: For logs and reports.
        train: What the weights and the boundaries are trained on.
        validation: What the search selects on; carved from the training images.
        test: What the final front is measured on, once.
        classes: Class names; a label is a position here.
        shape: ``(channels, height, width)`` of every image.
        mean: Mean of each channel over training images, in units where white is 1.
        std: Standard deviation of each channel, likewise; above 0.
        padding: Zero pixels added on each side before the random crop of ``augment``.
        flip: Whether ``augment`` may mirror an image left to right.
        resized_crops: Whether a random part of each training image, resized, is trained on;
            see ``random_crops``.
        smallest_crop: Least share of an image's area that such a part has, in ``(0, 1]``.

    Attributes:
        counts: Images of each class, in the order of ``classes``, by split.

    Raises:
        DataError: An empty split, images of another shape, labels that are no positions in
            ``classes``, classes of another split that no training image is of, names that no
            file can hold, or numbers that do not fit.
    """

    name: str
    train: Source
    validation: Source
    test: Source
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    resized_crops: bool = False
    smallest_crop: float = 0.08
    counts: dict[str, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for each, kind in _KINDS.items():
            check_argument(type(self).__name__, each, getattr(self, each), kind)
        check_name(self.name)
        check_classes(self.name, self.classes)
        for split in SPLITS:
            _check_split(f"{self.name}: {split}", getattr(self, split), self.shape)
        labels = {split: labels_of(getattr(self, split)) for split in SPLITS}
        _check_labels(self.name, self.classes, labels)
        counts = {s: found.bincount(minlength=len(self.classes)) for s, found in labels.items()}
        object.__setattr__(self, "counts", {s: tuple(c.tolist()) for s, c in counts.items()})
        channels, numbers = self.shape[0], (*self.mean, *self.std)
        fits = len(self.mean) == channels == len(self.std) and all(map(math.isfinite, numbers))
        if not fits or min(self.std) <= 0:
            raise DataError(
                f"{self.name}: mean and std need {channels} numbers each, one per channel, std "
                f"above 0; found mean {self.mean} and std {self.std}"
            )
        if not 0 <= self.padding < min(self.shape[1:]):
            raise DataError(
                f"{self.name}: padding must be 0 or more and below {min(self.shape[1:])}, the side "
                f"of the images, found {self.padding}"
            )
        if not 0 < self.smallest_crop <= 1:
            raise DataError(
                f"{self.name}: smallest_crop must be above 0 and at most 1, a share of an image's "
                f"area, found {self.smallest_crop}"
            )

    def __str__(self) -> str:
        """Sizes of the splits and their classes, and what is done to the images."""
        train, validation, test = (len(getattr(self, split)) for split in SPLITS)
        crops = self.smallest_crop if self.resized_crops else None
        how = preparation(self.test)
        lines = [
            f"{escaped(self.name)}: {train:,} training, {validation:,} validation and {test:,} "
            f"test images of {'x'.join(map(str, self.shape))} and {len(self.classes)} classes",
            sizes(self.classes, self.counts),
            f"training images are {augmentation(self.padding, self.flip, crops)}",
            *([f"image files are {how}"] if how else []),
        ]
        return "\n  ".join(lines)

    @property
    def example(self) -> Tensor:
        """One image without the batch axis, such as a `Supernet` is built with."""
        return torch.zeros(self.shape, dtype=torch.float32)

    def training(
        self, order: TrainingOrder, first: int, last: int, part: slice
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of some training steps.

        Args:
            order: Which images each step sees; its seed draws what is done to them.
            first: The first step.
            last: The step after the last one.
            part: Which part of each batch is read.
        """
        batches = (
            self.augmented(order.indices(step), stream(order.seed, "augment", step), part)
            for step in range(first, last)
        )
        yield from ahead(batches) if are_files(self.train) else batches

    def ready(self, images: Tensor, device: torch.device) -> Tensor:
        """A batch as the model takes it: normalized."""
        return normalize(sent(images, device), self.mean, self.std)

    @property
    def origin(self) -> str:
        """How inputs come to be, for the card of a network."""
        how = preparation(self.test)
        prepared = f" Image files are first {how}." if how else ""
        return (
            "From pixel values 0 to 255, per channel: `(pixel / 255 - mean) / std` with "
            f"mean {list(self.mean)} and std {list(self.std)}.{prepared}"
        )

    def facts(self) -> dict[str, str]:
        """What the data are but their name and images, for a run's identity."""
        facts = ["classes", "shape", "mean", "std", "padding", "flip", "resized_crops"]
        if self.resized_crops:
            facts.append("smallest_crop")
        return {f"data.{fact}": str(getattr(self, fact)) for fact in facts}

    def targets(self, split: str) -> Iterator[Tensor]:
        """The labels of a split, in order, in parts."""
        yield from labels_of(getattr(self, split)).split(65_536)

    def augmented(
        self, indices: Tensor, generator: torch.Generator, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Training images at ``indices``, each cropped and mirrored at random.

        Args:
            indices: Positions in ``train``, int64, shape ``(n,)``.
            generator: A CPU generator; equal states give equal images.
            part: Which of them to read. An image comes out the same whatever is read with it.

        Returns:
            Images and labels as ``Source.take`` gives them.
        """
        if self.resized_crops:
            images, labels = random_crops(self.train, indices, generator, self.smallest_crop, part)
        else:
            images, labels = self.train.take(indices[part])
        batch = len(indices)
        return augment(images, generator, self.padding, self.flip, batch, part), labels


def assemble(
    name: str,
    train: Source,
    train_labels: Tensor,
    test: Source,
    classes: Sequence[str],
    *,
    validation: Source | None = None,
    validation_fraction: float | None = None,
    seed: int,
    padding: int,
    flip: bool,
    resized_crops: bool = False,
    statistics_images: int | None = None,
) -> ImageData:
    """Carve the validation set if none is given, measure mean and deviation, put all together.

    Args:
        name: For logs and reports.
        train: Training images.
        train_labels: Their class numbers, shape ``(len(train),)``, as ``train`` gives them.
        test: Test images.
        classes: Class names; a label is a position here.
        validation: Validation images, where they are given.
        validation_fraction: Share of ``train`` for validation, in ``(0, 1)``, where they are not.
        seed: The run's seed; it draws the validation set and the sample for the statistics.
        padding: As in ``ImageData``.
        flip: As in ``ImageData``.
        resized_crops: As in ``ImageData``.
        statistics_images: At most so many training images are read for mean and standard
            deviation; by default all are.

    Raises:
        DataError: Images and labels that do not fit one another.

    Examples:
        >>> from boundnas.data import InMemory
        >>> images = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
        >>> labels = torch.arange(10) % 2
        >>> source = InMemory(images, labels)
        >>> data = assemble("blank", source, labels, source, ("even", "odd"),
        ...                 validation_fraction=0.2, seed=0, padding=1, flip=False)
        >>> len(data.train), len(data.validation), data.shape
        (8, 2, (1, 8, 8))
    """
    if (validation is None) == (validation_fraction is None):
        raise DataError(f"{name}: give either validation images or the validation_fraction")
    check_argument("assemble", "seed", seed, int)
    check_order(name, classes)
    classes, labels = tuple(classes), as_labels(train_labels, len(train))
    # Before any split, whose complaint would be about the consequence.
    check_range(f"{name}: train", labels, len(classes))
    if not torch.equal(labels, labels_of(train)):
        raise DataError(f"{name}: train_labels are not the labels that the training images have")
    rest = train
    if validation is None:
        assert validation_fraction is not None
        rest, validation = carve(train, labels, validation_fraction, seed)
    if len(rest) == 0:
        raise DataError(f"{name}: train has no images")
    sample = torch.randperm(len(rest), generator=stream(seed, "statistics"))
    measured = rest if statistics_images is None else Subset(rest, sample[:statistics_images])
    mean, std = channel_statistics(measured)
    channels, height, width = rest.take(torch.tensor([0]))[0].shape[1:]
    return ImageData(
        name=name,
        train=rest,
        validation=validation,
        test=test,
        classes=classes,
        shape=(channels, height, width),
        mean=mean,
        std=std,
        padding=padding,
        flip=flip,
        resized_crops=resized_crops,
    )


def channel_statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all images, in units where white is 1.

    The sums are of integers and so exact: they depend neither on the order of the images nor on
    the number of threads. A constant channel gets the deviation of one grey level, 1/255, so that
    ``normalize`` can divide by it.

    Args:
        source: At least one image.

    Returns:
        Two tuples of one number per channel.

    Examples:
        >>> from boundnas.data import InMemory
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> channel_statistics(InMemory(images, torch.zeros(2, dtype=torch.int64)))
        ((0.5,), (0.5,))
    """
    count, total, squares = 0, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for images, _ in batches(source, torch.arange(len(source)), 256):
        values = images.to(torch.int64)
        count += values[:, 0].numel()
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    mean = tuple(t / count / 255 for t in total.tolist())
    # count * squares - total^2 stays a Python integer, so nothing cancels.
    std = tuple(
        max(1.0, math.sqrt(count * s - t * t) / count) / 255
        for t, s in zip(total.tolist(), squares.tolist(), strict=True)
    )
    return mean, std


def check_range(where: str, labels: Tensor, classes: int) -> None:
    """Refuse labels that are no positions among the classes.

    Raises:
        DataError: Names the range that is there.
    """
    if len(labels) == 0:
        return
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        shifted = low == 1 and high == classes
        raise DataError(
            f"{where}: labels must lie in 0 to {classes - 1} for {classes} classes, found {low} to "
            f"{high}" + ("; these count from 1, pass labels - 1" if shifted else "")
        )


def _check_labels(name: str, classes: tuple[str, ...], labels: Mapping[str, Tensor]) -> None:
    for split, found in labels.items():
        check_range(f"{name}: {split}", found, len(classes))
    trained = set(labels["train"].unique().tolist())
    for split, found in labels.items():
        if unknown := set(found.unique().tolist()) - trained:
            names = [escaped(classes[label]) for label in sorted(unknown)]
            raise DataError(
                f"{name}: {split} has images of {len(names)} classes that no training image is of: "
                f"{some(names, ', ')}; add training images, or take these out"
            )


def _check_split(where: str, source: Source, shape: tuple[int, int, int]) -> None:
    if len(source) == 0:
        raise DataError(f"{where} has no images")
    images, labels = source.take(torch.tensor([0]))
    if images.dtype != torch.uint8 or images.shape != (1, *shape):
        raise DataError(
            f"{where} must give one image as uint8 of shape {(1, *shape)}, found {describe(images)}"
        )
    if labels.dtype != torch.int64 or labels.shape != (1,):
        raise DataError(
            f"{where} must give one label as int64 of shape (1,), found {describe(labels)}"
        )
