"""Every sample of a Dataset read once: what is wrong with any is found before training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from boundnas.data.beside import Moments, added, moments
from boundnas.data.drawn import Drawn, Failed, apart, read, stacked
from boundnas.engine.progress import Progress
from boundnas.errors import DataError
from boundnas.nested import Inputs, leaves, mapped

DRAW = "survey"
"""Name of the draw that tells what a Dataset holds."""

TOGETHER = 64
"""Samples that are read together."""

PROBED = 16
"""Samples that are read three times, to see whether they are random."""

HELD = 1 << 28
"""Bytes of targets that are kept; larger ones, such as maps, are read again when asked for."""


@dataclass(frozen=True)
class Survey:
    """What a Dataset holds.

    Args:
        samples: The Dataset.
        inputs: A digest of the input of each sample.
        targets: Likewise of each target.
        kept: All targets, if they are small.
        first: The first sample.
        moments: Of all inputs.
        random: Whether another draw gives another input or target.
        random_targets: Whether it gives another target, as of an image and its map cropped alike.
    """

    samples: Drawn
    inputs: tuple[bytes, ...]
    targets: tuple[bytes, ...]
    kept: Tensor | None
    first: tuple[Inputs, Tensor]
    moments: Moments
    random: bool
    random_targets: bool

    @property
    def example(self) -> Inputs:
        """One input."""
        return self.first[0]

    def digest(self, indices: Tensor) -> tuple[str, str]:
        """Digests of the inputs and of the targets of some samples, in their order."""
        chosen = indices.tolist()
        return _joined(self.inputs, chosen), _joined(self.targets, chosen)


def survey(samples: Drawn, workers: int) -> Survey:
    """Read a Dataset.

    Raises:
        DataError: It is empty, a sample cannot be read or is none, numbers are not finite, or
            samples differ in shape or are drawn from generators that nobody can seed.
    """
    try:
        number = len(samples)
        if isinstance(samples.dataset, DataLoader):
            raise TypeError
    except TypeError as error:
        inside = "; give loader.dataset" if isinstance(samples.dataset, DataLoader) else ""
        raise DataError(
            f"{samples.name}: a map-style Dataset is needed, with len(dataset) and dataset[i], "
            f"found {type(samples.dataset).__name__}{inside}"
        ) from error
    if not number:
        raise DataError(f"{samples.name} has no samples")
    first, random, random_targets = _probe(samples, number)
    keys = [
        [(DRAW, i) for i in range(start, min(start + TOGETHER, number))]
        for start in range(0, number, TOGETHER)
    ]
    inputs, targets, kept = list[bytes](), list[bytes](), list[Tensor]()
    size, whole_moments = 0, moments(())
    with Progress(number, f"read {samples.name}", unit="sample") as progress:
        for found in read(_Digested(samples, first), keys, workers, _noted):
            digests, batch = found
            inputs += [one for one, _, _ in digests]
            targets += [other for _, other, _ in digests]
            whole_moments = added([whole_moments, *(each for _, _, each in digests)])
            size += batch.nbytes
            kept = [*kept, batch] if size <= HELD else []
            progress.advance(len(digests))
    whole = torch.cat(kept) if size <= HELD else None
    return Survey(
        samples,
        tuple(inputs),
        tuple(targets),
        whole,
        first,
        whole_moments,
        random or random_targets,
        random_targets,
    )


def targets_of(found: Survey, indices: Tensor, workers: int) -> Iterator[Tensor]:
    """The targets of some samples, in their order, in parts."""
    if found.kept is not None:
        yield from found.kept.index_select(0, indices).split(65_536)
        return
    keys = [[(DRAW, int(i)) for i in part] for part in indices.split(TOGETHER)]
    for _, targets in read(found.samples, keys, workers):
        yield targets


def _probe(samples: Drawn, number: int) -> tuple[tuple[Inputs, Tensor], bool, bool]:
    """The first sample, and whether inputs and targets are random."""
    spaced = torch.linspace(0, number - 1, min(number, PROBED)).round().long().tolist()
    first, differ = None, [False, False]
    for index in spaced:
        with apart():
            drawn = [samples.sample(draw, index) for draw in (DRAW, DRAW, "another")]
        first = first or mapped(Tensor.clone, drawn[0])
        once, again, another = map(_marks, drawn)
        if once != again:
            raise DataError(
                f"{samples.name}: sample {index} is another one when it is read again: the Dataset "
                "draws from a generator of its own, or changes; draw from the global generators of "
                "torch, numpy or random, which are seeded for each sample, so that a resumed run "
                "sees the same"
            )
        differ = [d or a != b for d, a, b in zip(differ, once, another, strict=True)]
    assert first is not None
    return first, differ[0], differ[1]


@dataclass(frozen=True)
class _Digested:
    """Digests of samples in place of their inputs, which need not be sent then."""

    samples: Drawn
    first: tuple[Inputs, Tensor]

    def __getitem__(self, key: tuple[str, int]) -> Any:
        sample = self.samples[key]
        if isinstance(sample, Failed):
            return sample
        inputs, target = sample
        same = stacked([self.first, sample])
        if isinstance(same, Failed):
            return Failed(f"{self.samples.name}: sample {key[1]}: {same.message}")
        for what, part in (("input", inputs), ("target", target)):
            bad = sum(int((~x.isfinite()).sum()) for _, x in leaves(part) if x.is_floating_point())
            if bad:
                return Failed(
                    f"{self.samples.name}: sample {key[1]}: its {what} has {bad} numbers that are "
                    "not finite; mend it, or leave the sample out"
                )
        return (*_marks(sample), moments(inputs)), target


def _noted(found: Sequence[Any]) -> Any:
    """Digests and stacked targets of samples."""
    for each in found:
        if isinstance(each, Failed):
            return each
    held = stacked([((), target) for _, target in found])
    return held if isinstance(held, Failed) else ([noted for noted, _ in found], held[1])


def _marks(sample: tuple[Inputs, Tensor]) -> tuple[bytes, bytes]:
    """Digests of an input and of a target."""
    inputs, target = sample
    return _mark(list(leaves(inputs))), _mark([("", target)])


def _mark(parts: Sequence[tuple[str, Tensor]]) -> bytes:
    found = hashlib.sha256()
    for name, x in parts:
        found.update(f"{name} {x.dtype} {tuple(x.shape)} ".encode())
        found.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.digest()[:16]


def _joined(marks: Sequence[bytes], chosen: Sequence[int]) -> str:
    found = hashlib.sha256()
    for i in chosen:
        found.update(marks[i])
    return found.hexdigest()[:16]
