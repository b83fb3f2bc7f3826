"""Where labelled images come from: memory, files, or a part of another source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundnas.data.decoding import Decoding
from boundnas.data.names import escaped
from boundnas.data.tensors import as_images, as_labels, as_positions
from boundnas.engine.pool import ThreadPool
from boundnas.errors import DataError


class Source(Protocol):
    """A fixed, ordered set of labelled images that can be read at any positions."""

    def __len__(self) -> int:
        """Number of images."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images at ``indices``, in that order.

        Args:
            indices: Positions from 0 to ``len(self) - 1``, int64, shape ``(n,)``.

        Returns:
            Images, uint8, shape ``(n, C, H, W)`` in any memory format, and labels, int64,
            shape ``(n,)``.
        """


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images held as one tensor.

    Args:
        images: uint8, shape ``(n, C, H, W)``, a tensor or an array of numpy.
        labels: Class numbers, whole numbers of any type, shape ``(n,)``; kept as int64.

    Raises:
        DataError: Another type or shape; says what it looks like, and how to make images of it.

    Examples:
        >>> source = InMemory(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> source.take(torch.tensor([3, 0]))[1]
        tensor([3, 0])
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", as_images(self.images))
        object.__setattr__(self, "labels", as_labels(self.labels, len(self.images)))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Source.take``."""
        indices = as_positions(indices, len(self))
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files that are decoded when they are taken; no pixel is kept.

    As many threads decode as PyTorch computes on. All that is measured in a run is measured on the
    same images, so that a file that was written since this was made is refused.

    Args:
        paths: The files, as paths or text.
        labels: Class numbers, whole numbers of any type, shape ``(n,)``; kept as int64.
        decoding: What an image becomes: its size, colours, and how it is made a square.

    Raises:
        DataError: Labels that do not fit the paths; from ``take``, an image that cannot be read, or
            is not the one that was there.
    """

    paths: Sequence[Path]
    labels: Tensor
    decoding: Decoding
    _marks: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.paths, str | Path):
            raise DataError(f"paths must be a list of files, found one: {self.paths}")
        object.__setattr__(self, "paths", tuple(map(Path, self.paths)))
        object.__setattr__(self, "labels", as_labels(self.labels, len(self.paths)))
        marks = np.array([_mark(path) for path in self.paths], np.int64).reshape(-1, 2)
        object.__setattr__(self, "_marks", marks)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Source.take``."""
        from boundnas.data.decode import read_image  # with Pillow, which is an extra

        return self._decoded(indices, lambda row, path: read_image(path, self.decoding))

    def crops(self, indices: Tensor, smallest: float, draws: Tensor) -> tuple[Tensor, Tensor]:
        """As ``take``, with a random part of each image in place of all that it shows.

        Args:
            indices: As for ``take``.
            smallest: Least share of an image's area, in ``(0, 1]``.
            draws: Uniform numbers in ``[0, 1)`` that say which part, shape ``(n, 10, 4)``; see
                ``decode.read_crop``.
        """
        from boundnas.data.decode import read_crop  # with Pillow, which is an extra

        return self._decoded(
            indices, lambda row, path: read_crop(path, self.decoding, smallest, draws[row])
        )

    def _decoded(
        self, indices: Tensor, read: Callable[[int, Path], NDArray[np.uint8]]
    ) -> tuple[Tensor, Tensor]:
        size, indices = self.decoding.size, as_positions(indices, len(self))
        images = torch.empty(len(indices), size, size, self.decoding.channels, dtype=torch.uint8)
        pixels, chosen = images.numpy(), indices.tolist()

        def same(row: int, i: int) -> NDArray[np.uint8]:
            path = self.paths[i]
            image = read(row, path)
            if _mark(path) != tuple(self._marks[i]):
                raise DataError(
                    f"{escaped(path)}: was written since this data set was read first; what a run "
                    "measures is of the same images: put it back, or begin another run with it"
                )
            return image

        # Pillow lets other threads run while it decodes and resizes.
        with ThreadPool(torch.get_num_threads()) as threads:
            for row, image in enumerate(threads.map(same, range(len(chosen)), chosen)):
                pixels[row] = image
        return images.permute(0, 3, 1, 2), self.labels.index_select(0, indices)


def _mark(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was written; zeros where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of another source.

    Args:
        source: Where they are.
        indices: Their positions there, whole numbers of any type, shape ``(n,)``; kept as int64.

    Raises:
        DataError: A position outside the source, or indices of another type or shape.
    """

    source: Source
    indices: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", as_positions(self.indices, len(self.source)))

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Source.take``."""
        indices = as_positions(indices, len(self))
        return self.source.take(self.indices.index_select(0, indices))


def are_files(source: Source) -> bool:
    """Whether images are decoded when they are taken."""
    while isinstance(source, Subset):
        source = source.source
    return isinstance(source, ImageFiles)


def random_crops(
    source: Source,
    indices: Tensor,
    generator: torch.Generator,
    smallest: float,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """A random part of each image, resized; pure in its arguments and the generator's state.

    Args:
        source: Image files, or a part of them.
        indices: Positions in ``source``, int64, shape ``(n,)``.
        generator: A CPU generator.
        smallest: Least share of an image's area, in ``(0, 1]``.
        part: Which of them to read. An image comes out the same whatever is read with it.

    Returns:
        Images and labels as ``Source.take`` gives them.

    Raises:
        DataError: The images are no files, or one of them cannot be read.
    """
    indices, source = whole(source, indices)
    if not isinstance(source, ImageFiles):
        raise DataError(
            f"random parts are taken of image files only, found {type(source).__name__}"
        )
    draws = torch.rand(len(indices), 10, 4, generator=generator, dtype=torch.float32)
    return source.crops(indices[part], smallest, draws[part])


def batches(source: Source, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images at ``order``, a batch at a time; the last batch may be short.

    Args:
        source: What to read.
        order: Positions in ``source``, int64, shape ``(n,)``.
        batch_size: Images per batch.

    Yields:
        Images and labels as ``Source.take`` gives them.

    Raises:
        DataError: ``batch_size`` below 1.

    Examples:
        >>> source = InMemory(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> [labels.tolist() for _, labels in batches(source, torch.arange(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, found {batch_size}")
    for start in range(0, len(order), batch_size):
        yield source.take(order[start : start + batch_size])


def whole(source: Source, indices: Tensor) -> tuple[Tensor, Source]:
    """Positions in a part of another source, as positions in that one, and that one."""
    while isinstance(source, Subset):
        indices, source = source.indices.index_select(0, indices), source.source
    return indices, source


def labels_of(source: Source) -> Tensor:
    """The labels of all images, int64, shape ``(n,)``, without reading images where that can be."""
    if isinstance(source, InMemory | ImageFiles):
        return source.labels
    if isinstance(source, Subset):
        return labels_of(source.source).index_select(0, source.indices)
    parts = [labels for _, labels in batches(source, torch.arange(len(source)), 256)]
    return as_labels(torch.cat(parts), len(source))
