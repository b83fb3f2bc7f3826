"""BatchNorm statistics of one sub-network, recomputed from training images (Sec. 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from boundnas.elastic.normalization import batch_moments
from boundnas.errors import CalibrationError
from boundnas.nested import Inputs, count, leaves, structure
from boundnas.space import Architecture, Statistics
from boundnas.supernet.inputs import zeros
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights import Weights
from boundnas.typed import checked


@dataclass(frozen=True)
class Calibrated(Statistics):
    """The statistics of one architecture, as `calibrate` computes them, and what they belong to.

    Args:
        moments: Mean and biased variance by layer name, shape ``(c,)`` each.
        indices: Those of the architecture that they were computed for.
        weights: The weights that they were computed with.
    """

    moments: Mapping[str, tuple[Tensor, Tensor]]
    indices: tuple[int, ...]
    weights: Weights

    def of(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The statistics ``layer`` was calibrated to.

        Raises:
            CalibrationError: There are none of it.
        """
        if layer not in self.moments:
            raise CalibrationError(
                f"{layer}: no statistics under this name; they were calibrated on another model, "
                f"with {', '.join(self.moments) or 'no BatchNorm layers'}"
            )
        return self.moments[layer]

    def check(self, arch: Architecture, model: nn.Module, surely: bool) -> None:
        """Refuse a model, or weights of it, that the statistics were not computed with.

        Args:
            arch: The architecture that carries them.
            model: The supernet that is about to compute with them.
            surely: Compare the weights' values, not only whether they were written since.

        Raises:
            CalibrationError: Names what differs.
        """
        if not self.moments:
            return
        if self.indices != arch.indices:
            held = Architecture(arch.space, self.indices)
            raise CalibrationError(
                f"these statistics were calibrated for another architecture ({held}) than "
                f"this one ({arch}); use what calibrate(model, arch, images) returns for it"
            )
        if not (self.weights.are_surely_of if surely else self.weights.are_of)(model):
            raise CalibrationError(
                f"these statistics were calibrated with other weights than {type(model).__name__} "
                "has now: it was trained on, changed, or is another model; call "
                "calibrate(model, arch, images) again"
            )


@dataclass(frozen=True)
class Seen(Statistics):
    """Has every layer normalize by its batch, training or not, and keeps what it saw.

    Args:
        moments: Mean and biased variance by layer name, shape ``(c,)`` each: of every batch, and
            within a batch of every call of the layer.
        sizes: Of several batches that pass together, one after the other, their images.
    """

    moments: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    sizes: Sequence[int] = ()
    _pass: dict[str, list[Sequence[tuple[Tensor, Tensor]]]] = field(default_factory=dict)

    def of(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's own mean and variance, which are kept; of several batches a row of each."""
        if len(self.sizes) < 2:
            found = batch_moments(x)
            self.moments.setdefault(layer, []).append(found)
            return found
        if len(x) != sum(self.sizes):
            raise CalibrationError(
                f"{layer}: batches of {', '.join(map(str, self.sizes))} images cannot pass "
                f"together, as the first axis of what it normalizes has {len(x)} entries"
            )
        each = [batch_moments(part) for part in x.split(list(self.sizes))]
        self._pass.setdefault(layer, []).append(each)
        mean, var = (torch.stack(rows) for rows in zip(*each, strict=True))
        return mean, var

    def passed(self) -> None:
        """A pass of several batches is over: what was seen is put in the order of the batches."""
        for layer, calls in self._pass.items():
            held = self.moments.setdefault(layer, [])
            held.extend(moments for batch in zip(*calls, strict=True) for moments in batch)
        self._pass.clear()

    def averaged(self, sizes: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """The mean over all batches, each weighted by its number of images."""
        # Exactly 1 for equal batches.
        shares = torch.tensor(sizes, dtype=torch.float64) * len(sizes) / sum(sizes)
        found = {
            layer: (_mean([m for m, _ in seen], shares), _mean([v for _, v in seen], shares))
            for layer, seen in self.moments.items()
        }
        for layer, moments in found.items():
            if not torch.stack(moments).isfinite().all():
                raise CalibrationError(
                    f"{layer}: the statistics of the calibration batches are not finite; the "
                    "inputs or the model's weights hold NaN or infinity: check the data, or train "
                    "with a lower learning rate"
                )
        return found


def alike(one: Statistics | None, other: Statistics | None, tolerance: float) -> bool:
    """Whether two calibrations came to the same statistics, but for rounding.

    Args:
        one: Of an architecture that `calibrate` gave.
        other: Of another.
        tolerance: Of each channel's mean, relative to its deviation, and of its variance.
    """
    assert isinstance(one, Calibrated)
    assert isinstance(other, Calibrated)
    if one.moments.keys() != other.moments.keys():
        return False
    for layer, (mean, var) in one.moments.items():
        own_mean, own_var = other.moments[layer]
        least = torch.finfo(var.dtype).eps
        if ((mean - own_mean).abs() > tolerance * (var + least).sqrt()).any():
            return False
        if ((var - own_var).abs() > tolerance * (var + least)).any():
            return False
    return True


def _mean(values: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The mean over batches; a layer that is called several times has as many values of each."""
    stacked = torch.stack(list(values))
    shares = shares.repeat_interleave(len(values) // len(shares)).to(stacked)
    return (stacked * shares[:, None]).mean(0)


def _checked(batch: object, model: Supernet, number: int) -> int:
    """The number of images of a batch.

    Raises:
        CalibrationError: It is none that the model takes, or of one image, whose statistics are
            those of no batch: in layers of one pixel its variance is zero.
    """
    held = next(model.parameters())
    forms = list(leaves(zeros(model, 1)))
    fits = structure(batch) == structure(model.example) and all(
        (part.shape[1:], part.dtype, part.device) == (like.shape[1:], like.dtype, like.device)
        for (_, part), (_, like) in zip(leaves(batch), forms, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            f"(N, {', '.join(map(str, x.shape[1:]))}), {x.dtype}{f' at {name}' if name else ''}"
            for name, x in forms
        )
        raise CalibrationError(
            f"calibration batch {number}: a batch is a tensor of normalized images {wanted}, on "
            f"{held.device}; found {_found(batch)}; bn.data.normalize(images, mean, std) makes "
            "pixels such, and a single batch is given in a list"
        )
    size = count(batch)
    if size < 2:
        raise CalibrationError(
            f"calibration batch {number}: {size} image has no statistics of a batch; leave "
            "it out, or join it to another batch"
        )
    return size


def _parts(images: int, size: int | None) -> list[int]:
    """Numbers of images of a batch that are normalized together.

    Raises:
        CalibrationError: The batch does not hold whole such parts.
    """
    if size is None or size == images:
        return [images]
    if size < 2 or images % size:
        raise CalibrationError(
            f"calibration: a batch of {images} images is not made of parts of {size}; take a "
            "divisor of two or more"
        )
    return [size] * (images // size)


def _found(batch: Inputs) -> str:
    if not isinstance(batch, Tensor):
        held = ", ".join(f"{tuple(getattr(x, 'shape', ()))}" for _, x in leaves(batch))
        return f"a {type(batch).__name__} of {held or 'nothing'}"
    return f"{tuple(batch.shape)}, {batch.dtype}, on {batch.device}"


@checked
@torch.no_grad()
def calibrate(
    model: Supernet, arch: Architecture, images: Iterable[Inputs], size: int | None = None
) -> Architecture:
    """Compute the BatchNorm statistics of ``arch`` on the given images.

    Args:
        model: The supernet.
        arch: The sub-network.
        images: Batches of training inputs without augmentation, such as normalized images of shape
            ``(N, C, H, W)``, of two or more. Mean and variance are averaged over the batches,
            weighted by their images: ``var = sum_b n_b var_b / sum_b n_b``, the variance within a
            batch that training normalizes by, not that of the whole.

        size: Images that are normalized together, where a batch holds several such; by default
            all of a batch. Many passes of few small images take longer than one of many.

    Returns:
        The architecture, alone with its statistics: ``model(x, calibrated)`` evaluates it, and it
        is ready to extract and export. They belong to these weights: once they change, or with
        another model, it is refused. A copy of the model, or equal weights that were loaded, are
        the same weights.

    Raises:
        CalibrationError: There are no images, a batch does not fit the model or has only one, or
            statistics are not finite.
    """
    seen, sizes = Seen(), list[int]()
    with evaluating(model):
        for batch in images:
            own = _parts(_checked(batch, model, len(sizes)), size)
            held = replace(seen, sizes=own)
            model(batch, arch.plain.carrying(statistics=held))
            held.passed()
            sizes += own
    if not sizes:
        raise CalibrationError("calibration needs at least one batch of images, found none")
    statistics = Calibrated(seen.averaged(sizes), arch.indices, Weights(model))
    return arch.plain.carrying(statistics=statistics)
