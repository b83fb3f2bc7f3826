"""A plain network as a file that runs without BoundNAS: ONNX or a torch.export program."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor, nn

from boundnas.deploy.formats import (
    FILES,
    WRITERS,
    Format,
    input_names,
    refusing,
    require_formats,
    traced,
)
from boundnas.deploy.quantize import check_images, int8, warn_of
from boundnas.errors import ExportError
from boundnas.nested import Inputs, count, mapped
from boundnas.store.files import write_bytes
from boundnas.supernet.extract import outlined
from boundnas.supernet.inputs import as_example, noise_like
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights_file import weights_file
from boundnas.typed import checked

TOLERANCE = 1e-3
"""Largest difference of a logit between a file and the network, relative to the largest logit."""

WEIGHTS = ".safetensors"
"""Suffix of a file of weights alone."""


@checked
def export(
    net: nn.Module,
    path: Path | str,
    input_shape: tuple[int, ...] | None = None,
    quantize: Literal["int8"] | None = None,
    images: Inputs = None,
) -> Path:
    """Write a network to a file and check the file against it.

    The file takes a batch of any size: ``images`` ``(N, C, H, W)``, of the network's precision,
    to ``output``, ``(N, classes)`` of a classifier; inputs that are no images have the names of
    `input_names`. It computes what the network does in evaluation.

    Args:
        net: What `boundnas.extract` returned, or any plain module; it is left as it is.
        path: Ends in ``.onnx`` or ``.pt2``, or in ``.safetensors`` for weights and statistics
            alone, by their names in ``net``; written atomically.
        input_shape: Channels, height and width, or the shape of another sample of float32; an
            extracted network knows its own inputs.
        quantize: ``"int8"`` for an ONNX file with weights and values in 8 bits. It computes nearly
            what the network does; a warning in the log says how nearly.
        images: Some hundred training images as the network takes them, ``(n, C, H, W)``; the
            ranges of the values inside are measured on them. With ``quantize``.

    Returns:
        The path.

    Raises:
        ExportError: Another suffix, the file does not compute what the network computes, or images
            that do not fit the network or what is asked for.
        RunError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix == WEIGHTS:
        write_bytes(path, weights_of(net, path))
        return path
    known = getattr(net, "meta", {}).get("example")
    example = known if input_shape is None else as_example(input_shape)
    if path.suffix not in WRITERS:
        raise ExportError(
            f"{path}: the suffix must be one of {', '.join([*WRITERS, WEIGHTS])}, found "
            f"{path.suffix or 'none'}; rename the file"
        )
    if example is None:
        raise ExportError(
            f"{path}: the shape of one image is not known of this {type(net).__name__}; export "
            "what extract(model, arch) gives, or pass input_shape=(channels, height, width)"
        )
    require_formats(["onnx" if path.suffix == ".onnx" else "pt2"])
    if quantize is None and images is None:
        write_bytes(path, files_of(net, [path], example)[0])
        return path
    if quantize is None or images is None or path.suffix != ".onnx":
        raise ExportError(
            f"{path}: 8 bits need all of a file .onnx, quantize='int8' and images=, some hundred "
            "training images as the network takes them; give them all, or neither of the last two"
        )
    check_images(path, net, images, example)
    content, loss = int8(path, files_of(net, [path], example)[0], images)
    write_bytes(path, content)
    warn_of(path, loss, count(images))
    return path


def check_formats(model: Supernet, formats: Iterable[Format]) -> None:
    """Refuse formats that networks cannot be written in, before anything is trained.

    The largest network is written and read again; no file stays.

    Args:
        model: The supernet.
        formats: Of 8 bits the file that is then rounded is written.

    Raises:
        ExportError: Names the format and what it lacks.
    """
    net = outlined(model, model.space.largest)
    paths = sorted({Path(FILES[name].replace(".int8", "")) for name in formats})
    for path in paths:
        if path.suffix == WEIGHTS:
            weights_of(net, path)
    files_of(net, [path for path in paths if path.suffix != WEIGHTS], model.example)


def weights_of(net: nn.Module, path: Path) -> bytes:
    """The content of a file of weights and statistics alone.

    Args:
        net: The network.
        path: Named in messages.

    Raises:
        ExportError: It holds what such a file cannot.
    """
    try:
        return weights_file(net.state_dict())
    except ValueError as error:
        raise ExportError(f"{path}: cannot hold this network: {error}; take .pt2") from error


def files_of(
    net: nn.Module,
    paths: Sequence[Path],
    example: Inputs,
    reference: Callable[[Inputs], Tensor] | None = None,
    output: str = "output",
) -> list[bytes]:
    """The contents of model files, checked against ``reference``, by default the network.

    Args:
        net: The network.
        paths: The suffix of each says which file; named in messages.
        example: A sample's inputs.
        reference: What the files are to compute.
        output: What an ONNX file calls its output.
    """
    held = next(net.parameters(), torch.empty(0))
    if held.device.type != "cpu":
        net = copy.deepcopy(net).to("cpu")
    weight = torch.empty(0, dtype=held.dtype)
    images = noise_like(example, 4, torch.Generator().manual_seed(0), weight)
    size = sum(4 * p.numel() for p in net.parameters())
    program, found = None, []
    for path in paths:
        write, open_ = WRITERS[path.suffix]
        with evaluating(net), refusing(path, size), TemporaryDirectory() as place:
            file = Path(place, f"model{path.suffix}")
            program = program or traced(net, images)
            write(program, file, input_names(example), output)
            run = open_(file)
            for batch in (images, mapped(lambda x: x[:1], images)):
                with torch.no_grad():
                    expected = (reference or net)(batch)
                _check(path, expected, run(batch))
            found.append(file.read_bytes())
    return found


def _check(path: Path, expected: object, found: Tensor) -> None:
    if not isinstance(expected, Tensor):
        raise ExportError(
            f"{path}: a file has one output, a tensor; this network's is a "
            f"{type(expected).__name__}"
        )
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: the written file differs from the network by {difference:.2g} of its largest "
            f"output, more than {TOLERANCE}; the file was not kept"
        )
