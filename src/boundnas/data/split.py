"""Stratified splits: every class gives the same share, exactly or, by names, about."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from boundnas.data.source import Source, Subset
from boundnas.data.tensors import as_labels
from boundnas.errors import DataError
from boundnas.randomness import stream


def stratified(
    labels: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split positions in two so that each class gives about ``fraction`` of its images.

    Of a class with ``n`` images ``n * fraction`` are taken, rounded, but at least one is taken and
    at least one stays.

    Args:
        labels: Class numbers, int64, shape ``(n,)``.
        fraction: Share to take, in ``(0, 1)``.
        generator: Where the draws come from.

    Returns:
        The positions that stay and those taken, each int64 and ascending.

    Raises:
        DataError: ``fraction`` outside ``(0, 1)``, no images, or a class with a single one.

    Examples:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> rest, taken = stratified(labels, 0.25, stream(0, "demo"))
        >>> labels[taken].tolist()
        [0, 1]
    """
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for members in _classes(labels, fraction):
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        taken[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~taken).nonzero()[:, 0], taken.nonzero()[:, 0]


def split_by_name(
    names: Sequence[str], labels: Tensor, fraction: float, draw: str, keep: int = 1
) -> tuple[Tensor, Tensor]:
    """Split positions in two so that an image's side depends on its own name alone.

    Each is taken with probability ``fraction``, by a hash of its name. A class of which too many or
    none would be taken keeps or gives those that come closest. Images that are added or
    removed move no other one, up to that exception: a trained run outlives a lost test image.

    Args:
        names: A name for each image.
        labels: Class numbers, int64, shape ``(n,)``.
        fraction: Share to take, in ``(0, 1)``.
        draw: Names the draw; another one gives other sides.
        keep: Images of each class that stay at least; one more of each is needed.

    Returns:
        The positions that stay and those taken, each int64 and ascending.

    Raises:
        DataError: As ``stratified``.
    """
    values = [hashlib.sha256(os.fsencode(f"{draw}/{name}")).digest()[:6] for name in names]
    numbers = torch.tensor([int.from_bytes(v) / 2**48 for v in values], dtype=torch.float64)
    taken = numbers < fraction
    for members in _classes(labels, fraction):
        ascending = members[numbers[members].argsort(stable=True)]
        taken[ascending[0]] = True
        taken[ascending[-keep:]] = False
    return (~taken).nonzero()[:, 0], taken.nonzero()[:, 0]


def carve(train: Source, labels: Tensor, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Take a stratified validation set out of the training set.

    Args:
        train: The training images.
        labels: Their class numbers, int64, shape ``(len(train),)``.
        fraction: Share for validation, in ``(0, 1)``.
        seed: The run's seed; the draw is its stream ``"validation_split"``.

    Returns:
        What stays for training, and the validation set.

    Raises:
        DataError: As ``stratified``, or labels that do not fit the images.
    """
    rest, taken = stratified(
        as_labels(labels, len(train)), fraction, stream(seed, "validation_split")
    )
    return Subset(train, rest), Subset(train, taken)


def carve_any(
    number: int, targets: Tensor | None, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Positions that stay for training, and a validation set: stratified where targets are classes.

    Args:
        number: Of samples.
        targets: Theirs, where they are known; classes are int64 of shape ``(number,)``.
        fraction: Share for validation, in ``(0, 1)``.
        seed: The draw is its stream ``"validation_split"``.

    Returns:
        The positions that stay and those taken, each int64 and ascending.

    Raises:
        DataError: As ``stratified``, or fewer than two samples.
    """
    generator = stream(seed, "validation_split")
    if targets is not None and targets.dtype == torch.int64 and targets.dim() == 1:
        classes, counts = targets.unique(return_counts=True)
        if (alone := classes[counts == 1]).numel():
            raise DataError(
                f"target {int(alone[0])} has 1 sample, and a split needs 2 of each class; whole "
                "numbers are taken for classes, so give targets that are none as floats, or give "
                "validation="
            )
        return stratified(targets, fraction, generator)
    return stratified(torch.zeros(number, dtype=torch.int64), fraction, generator)


def fixed_test_split(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """The split for data that come without a test set: the same for every seed.

    Runs of different seeds are compared on the test set, so it must not move between them.
    Arguments, results and errors are those of ``stratified``.
    """
    return stratified(labels, fraction, stream(0, "test_split"))


def _classes(labels: Tensor, fraction: float) -> list[Tensor]:
    """Positions of the images of each class, at least two of each."""
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise DataError(f"the fraction to split off must lie between 0 and 1, found {fraction!r}")
    if len(labels) == 0:
        raise DataError("there are no images to split")
    found = [(labels == label).nonzero()[:, 0] for label in labels.unique().tolist()]
    for members in found:
        if len(members) == 1:
            label = int(labels[members[0]])
            raise DataError(f"label {label} has 1 image, a split needs at least 2 of each class")
    return found
