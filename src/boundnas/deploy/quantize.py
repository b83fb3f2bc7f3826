"""Networks in 8 bits: static quantization of an ONNX file by ONNX Runtime."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.data import Samples, Source, batches
from boundnas.data.image_data import SPLITS
from boundnas.deploy.formats import input_names, opened, refusing
from boundnas.errors import ExportError
from boundnas.fit import identity
from boundnas.fit.told import digest
from boundnas.nested import Inputs, count, described, leaves, mapped, structure
from boundnas.randomness import stream
from boundnas.store.records import Int8Record
from boundnas.task import Task

CALIBRATION_IMAGES = 512
"""So many training images say how large the values inside a network of a front become."""

_AT_ONCE = 64

_MASKING = {"Add", "Sub", "Where"}
"""ONNX's operators by which a mask comes to scores."""

_BEFORE = _MASKING | {"Cast", "Expand", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""What may stand between scores, or a mask, and their softmax."""

Run = Callable[[Inputs], Tensor]

_log = logging.getLogger(__name__)


def calibration_images(data: Samples, seed: int) -> Inputs:
    """At most `CALIBRATION_IMAGES` training inputs as the network takes them, drawn by the seed."""
    order = torch.randperm(len(data.train), generator=stream(seed, "int8"))
    images, _ = data.train.take(order[:CALIBRATION_IMAGES])
    return _ready(data, images)


def _ready(data: Samples, images: Inputs) -> Inputs:
    return mapped(Tensor.contiguous, data.ready(images, torch.device("cpu")))


def int8(path: Path, onnx: bytes, images: Inputs) -> tuple[bytes, float]:
    """The INT8 form of an ONNX file.

    Weights are held in 7 of the 8 bits, a scale for every output channel: with all 8 the sums
    overflow on processors without instructions for them (VNNI), and the accuracy that was measured
    on one machine would not hold on another. Scores with a mask stay in float up to their softmax:
    beside minus infinity all others are one of 256 steps.

    Args:
        path: What the file will be, for messages.
        onnx: The content of a file of float32.
        images: As the network takes them, or what else it takes; the ranges of all values inside
            are those that these give.

    Returns:
        The content of the new file, and by how much its outputs differ: the root of their mean
        squared difference to those of the float file, over that of the latter.

    Raises:
        ExportError: Nothing in the network can be held in 8 bits, or its outputs say no more of
            the input than zeros would.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        left = _parts(images)

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.left, None)
            if part is None:
                return None
            named = zip(input_names(mapped(lambda x: x[0], part)), leaves(part), strict=True)
            return {name: x.numpy() for name, (_, x) in named}

    with refusing(path, len(onnx)), TemporaryDirectory() as place:
        whole, prepared, written = (Path(place, name) for name in ("float", "prepared", "int8"))
        whole.write_bytes(onnx)
        try:
            quant_pre_process(whole, prepared)
        except Exception:  # it follows fewer operators through symbolic shapes, which are no need
            quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            written,
            Images(),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            nodes_to_exclude=_masked(prepared),
        )
        content = written.read_bytes()
        if b"QuantizeLinear" not in content:
            raise ExportError(f"{path}: nothing in this network can be held in 8 bits; leave it")
        loss = _loss(opened(onnx), opened(content), images)
    if not loss < 1:
        raise ExportError(
            f"{path}: in 8 bits the outputs differ from the network's by {loss:.2g} of their size, "
            "so they say nothing; the file was not kept; use the float file, or a network whose "
            "values differ less in size"
        )
    return content, loss


def _masked(path: Path) -> list[str]:
    """The names of every softmax of masked scores in an ONNX file, and of what masks them."""
    import onnx

    nodes = onnx.load(path).graph.node
    makes = {name: node for node in nodes for name in node.output}
    found: dict[str, None] = {}
    for softmax in (node for node in nodes if node.op_type == "Softmax"):
        before: dict[str, str] = {softmax.name: ""}
        waiting = [softmax]
        while waiting:
            made = (makes[name] for name in waiting.pop().input if name in makes)
            new = [n for n in made if n.op_type in _BEFORE and n.name not in before]
            before.update((n.name, n.op_type) for n in new)
            waiting += new
        if not _MASKING.isdisjoint(before.values()):
            found |= dict.fromkeys(before)
    return list(found)


def images_of(data: Samples, seed: int, task: Task) -> str:
    """Digest of the images that INT8 files are made and measured with, and of the task."""
    splits = [identity.of_split(data, split) for split in SPLITS]
    return digest(json.dumps([*splits, identity.of_task(task), seed]))


def measure(content: bytes, data: Samples, images: str, task: Task) -> Int8Record:
    """What a model file is worth on validation and test images.

    Args:
        content: The file.
        data: The images.
        images: Their digest, as `images_of` gives it.
        task: What networks are measured by.
    """
    run = opened(content)

    def score(source: Source) -> float:
        meter, scores = task.meter(), []
        for batch, targets in batches(source, torch.arange(len(source)), _AT_ONCE):
            outputs = run(_ready(data, batch))
            if meter is None:
                scores.append(task.score(outputs, targets).double())
            else:
                meter.update(outputs, targets)
        found = float(torch.cat(scores).mean() if meter is None else meter.compute())
        return task.checked_score(found, "the INT8 file")

    return Int8Record(images=images, validation=score(data.validation), test=score(data.test))


def check_images(path: Path, net: nn.Module, images: Inputs, example: Inputs) -> None:
    """Refuse images that the network does not take, or that say nothing of the values inside.

    Raises:
        ExportError: Says what was found.
    """
    weight = next(net.parameters(), torch.empty(0))
    wanted = mapped(lambda x: x.to(weight.dtype) if x.is_floating_point() else x, example)
    fits = structure(images) == structure(wanted) and all(
        x.dtype == one.dtype and x.shape[1:] == one.shape and len(x) > 0
        for (_, one), (_, x) in zip(leaves(wanted), leaves(images), strict=True)
    )
    if not fits:
        raise ExportError(
            f"{path}: images must be some of {described(wanted)}, as the network takes them, "
            f"found {described(images)}"
        )
    if not all(bool(x.isfinite().all()) for _, x in leaves(images)):
        raise ExportError(f"{path}: images hold values that are not finite; check them")


def warn_of(path: Path, loss: float, number: int) -> None:
    """Say what the 8 bits cost, as far as that can be told without labels."""
    _log.warning(
        "%s: 8 bits change the outputs by %.2g %% (root mean square on %d images); measure its "
        "accuracy before you use it",
        path,
        100 * loss,
        number,
    )


def _parts(images: Inputs) -> Iterator[Inputs]:
    """The images, some at a time."""
    for start in range(0, count(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield mapped(lambda x, part=part: x[part].cpu(), images)


def _loss(before: Run, after: Run, images: Inputs) -> float:
    """Root mean square of the difference of two files' outputs, over that of the first's."""
    error, size = 0.0, 0.0
    for batch in _parts(images):
        expected, found = before(batch).double(), after(batch).double()
        error += float((found - expected).square().sum())
        size += float(expected.square().sum())
    return (error / max(size, 1e-12)) ** 0.5
