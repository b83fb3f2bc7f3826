"""Data of any kind, from Datasets of (input, target)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from boundnas.data.beside import Moments, tell
from boundnas.data.description import sizes
from boundnas.data.drawn import Batch, Drawn, read
from boundnas.data.image_data import SPLITS
from boundnas.data.names import check_classes, check_name, escaped
from boundnas.data.order import TrainingOrder
from boundnas.data.split import carve_any
from boundnas.data.survey import DRAW, Survey, survey, targets_of
from boundnas.data.tensors import are_classes
from boundnas.errors import DataError
from boundnas.nested import Inputs, described, leaves, mapped, sent
from boundnas.typed import checked

KEPT = 1 << 30
"""Bytes of a split that is kept in memory once it was read; larger ones are read every time."""

CHUNK = 32
"""Samples that a process reads together, where no gradient waits for them."""


class Split:
    """The samples of one split: a `Source` of them without random transforms.

    Args:
        found: The Dataset they lie in.
        workers: Processes that read them.
        indices: Where they lie, ascending; by default all.
        plain: The Dataset without random transforms, by default the same.
    """

    def __init__(
        self,
        found: Survey,
        workers: int,
        indices: Tensor | None = None,
        plain: Survey | None = None,
    ) -> None:
        self.found, self.plain, self.workers = found, plain or found, workers
        self.indices = torch.arange(len(found.inputs)) if indices is None else indices
        self._held: Batch | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def marks(self) -> set[tuple[bytes, bytes]]:
        """Digests of input and target of each sample."""
        inputs, targets = self.plain.inputs, self.plain.targets
        return {(inputs[i], targets[i]) for i in self.indices.tolist()}

    @property
    def moments(self) -> Moments:
        """Of the inputs of the Dataset that they lie in."""
        return self.plain.moments

    def take(self, indices: Tensor) -> Batch:
        """Inputs and targets at these positions; a split that fits in `KEPT` is read once."""
        size = len(self) * sum(x.nbytes for _, x in leaves(self.plain.example))
        if size > KEPT:
            return self._read(self.indices[indices])
        with self._lock:
            if self._held is None:
                self._held = self._read(self.indices)
        inputs, targets = self._held
        return mapped(lambda x: x[indices], inputs), targets[indices]

    def _read(self, chosen: Tensor) -> Batch:
        keys = [[(DRAW, i) for i in some.tolist()] for some in chosen.split(CHUNK)]
        parts = list(read(self.plain.samples, keys, self.workers if len(keys) > 1 else 0))
        inputs = mapped(lambda *x: torch.cat(x), *(x for x, _ in parts))
        return inputs, torch.cat([y for _, y in parts])


class Data:
    """Samples in three splits, from map-style Datasets of ``(input, target)``.

    An input is a tensor or array, or a tuple or dict of such, and ``model(x, arch)`` gets a batch
    of it as it is; a target is a number, a tensor or an array. Numbers become float32 or int64.
    Every Dataset is read once here, so that what is wrong with any sample is said before training.

    Sample ``i`` of epoch ``e`` depends on the run's seed, ``e`` and ``i`` alone, also where
    transforms draw from the global generators of torch, numpy or random: a resumed run, any number
    of workers and of processes see the same.

    Args:
        train: What is trained on.
        test: What the final front is measured on, once.
        validation: What the search selects on; carved from ``train`` where it is not given.
        plain: The samples of ``train`` in the same order without random transforms, for the
            validation split that is carved and for BatchNorm statistics. Needed where ``train`` is
            random and no ``validation`` is given.
        validation_fraction: Share of ``train`` that is carved, in ``(0, 1)``, from each class alike
            where targets are classes; by default a tenth.
        classes: Names of the classes, if there are any.
        name: For logs and reports.
        workers: Processes that read ahead; 0 reads in this one.
        seed: Draws the validation split.

    Raises:
        DataError: Samples that cannot be read or do not fit one another; names the sample. A
            validation or test split that is random.
    """

    @checked
    def __init__(
        self,
        train: Any,
        *,
        test: Any,
        validation: Any = None,
        plain: Any = None,
        validation_fraction: float | None = None,
        classes: Sequence[str] | None = None,
        name: str = "data",
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        check_name(name)
        if validation is not None and validation_fraction is not None:
            raise DataError(f"{name}: give validation or validation_fraction, not both")
        if not 0 <= workers <= 256:
            raise DataError(f"{name}: workers must lie in 0 to 256, found {workers}")
        self.name, self.workers = name, workers
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None:
            check_classes(name, self.classes)
        trained = self._read(train, "train")
        cleaned = trained if plain is None else self._cleaned(trained, plain)
        self.test = Split(self._fixed(self._read(test, "test"), "test"), workers)
        rest = None
        if validation is not None:
            found = self._fixed(self._read(validation, "validation"), "validation")
            self.validation = Split(found, workers)
        else:
            self._fixed(cleaned, "train")
            share = 0.1 if validation_fraction is None else validation_fraction
            rest, taken = carve_any(len(trained.inputs), trained.kept, share, seed)
            self.validation = Split(cleaned, workers, taken)
        self.train = Split(trained, workers, rest, cleaned)
        self._check_alike()
        tell(name, self.train, {"validation": self.validation, "test": self.test})

    @property
    def example(self) -> Inputs:
        """One input without the batch axis, such as a `Supernet` is built with."""
        return self.train.found.example

    def training(
        self, order: TrainingOrder, first: int, last: int, part: slice
    ) -> Generator[Batch, None, None]:
        """The batches of some training steps, read ahead.

        Args:
            order: Which samples each step sees.
            first: The first step.
            last: The step after the last one.
            part: Which part of each batch is read.
        """

        def keys(step: int) -> list[tuple[str, int]]:
            draw = f"{order.seed}/epoch {step // order.steps_per_epoch}"
            chosen = self.train.indices[order.indices(step)[part]]
            return [(draw, i) for i in chosen.tolist()]

        return read(self.train.found.samples, map(keys, range(first, last)), self.workers)

    @property
    def origin(self) -> str:
        """How inputs come to be, for the card of a network."""
        kind = type(self.train.plain.samples.dataset).__name__
        return f"As the Dataset gives them that the network was trained with ({kind})."

    def targets(self, split: str) -> Iterator[Tensor]:
        """The targets of a split, in order, in parts."""
        whole: Split = getattr(self, split)
        return targets_of(whole.found, whole.indices, self.workers)

    def ready(self, inputs: Inputs, device: torch.device) -> Inputs:
        """A batch as the model takes it."""
        return sent(inputs, device)

    def facts(self) -> dict[str, str]:
        """What the data are but their name and samples."""
        return {"data.classes": str(self.classes), "data.shape": described(self.example)}

    def identity(self, split: str) -> dict[str, str]:
        """Number of samples of a split, and digests of all its inputs and targets."""
        whole: Split = getattr(self, split)
        found = {"number": str(len(whole))}
        found["inputs"], found["targets"] = whole.found.digest(whole.indices)
        if whole.plain is not whole.found:
            found["plain inputs"] = whole.plain.digest(whole.indices)[0]
        return {f"{name} of data.{split}": value for name, value in found.items()}

    @property
    def counts(self) -> dict[str, tuple[int, ...]] | None:
        """Samples of each class, by split; none where targets are no positions in ``classes``."""
        if self.classes is None or self.train.found.first[1].ndim:  # a map is read for nothing
            return None
        number = len(self.classes)
        targets = {split: torch.cat([*self.targets(split)]) for split in SPLITS}
        if not all(are_classes(found, number) for found in targets.values()):
            return None
        return {s: tuple(t.bincount(minlength=number).tolist()) for s, t in targets.items()}

    def __str__(self) -> str:
        """Sizes of the splits, and what a sample is."""
        train, validation, test = map(len, (self.train, self.validation, self.test))
        how = "drawn anew in every epoch" if self.train.found.random else "as they are"
        said = (
            f"{escaped(self.name)}: {train:,} training, {validation:,} validation and {test:,} "
            f"test samples of {described(self.example)}; training samples are {how}"
        )
        counts = self.counts
        return said if counts is None else f"{said}\n  {sizes(self.classes or (), counts)}"

    def _read(self, dataset: Any, split: str) -> Survey:
        return survey(Drawn(dataset, f"{self.name}: {split}"), self.workers)

    def _fixed(self, found: Survey, split: str) -> Survey:
        """Refuse random samples where numbers are compared."""
        if not found.random:
            return found
        if split == "train":
            raise DataError(
                f"{self.name}: train is random, and the validation split would be carved from it; "
                "give plain=, the same samples without random transforms, or validation="
            )
        raise DataError(
            f"{self.name}: {split} is random: every network would be measured on samples that a "
            "transform has changed; leave random transforms out of it"
        )

    def _cleaned(self, trained: Survey, plain: Any) -> Survey:
        found = self._fixed(self._read(plain, "plain"), "plain")
        if len(found.inputs) != len(trained.inputs):
            raise DataError(
                f"{self.name}: plain has {len(found.inputs)} samples and train "
                f"{len(trained.inputs)}; give the same samples in the same order"
            )
        pairs = zip(found.targets, trained.targets, strict=True)
        differ = [i for i, (one, other) in enumerate(pairs) if one != other]
        if differ and not trained.random_targets:
            raise DataError(
                f"{self.name}: plain has another target than train at sample {differ[0]}; give the "
                "same samples in the same order"
            )
        return found

    def _check_alike(self) -> None:
        form = described(self.example)
        others = {"plain": self.train.plain}
        others |= {s: getattr(self, s).found for s in ("validation", "test")}
        for split, found in others.items():
            if described(found.example) != form:
                raise DataError(
                    f"{self.name}: {split} gives inputs of {described(found.example)}, train of "
                    f"{form}; bring them to one form"
                )
