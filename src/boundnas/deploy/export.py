"""A plain network as a file that runs without BoundNAS: ONNX or a torch.export program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import torch
from torch import Tensor, nn

from boundnas.deploy.formats import WRITERS, input_names, quiet, traced
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs, mapped
from boundnas.store.files import cannot_write, write_bytes
from boundnas.supernet.inputs import as_example, noise_like
from boundnas.supernet.modes import evaluating
from boundnas.typed import checked

TOLERANCE = 1e-3
"""Largest difference of a logit between a file and the network, relative to the largest logit."""


@checked
def export(net: nn.Module, path: Path | str, input_shape: tuple[int, ...] | None = None) -> Path:
    """Write a network to a file and check the file against it.

    The file takes a batch of any size: ``images`` ``(N, C, H, W)``, of the network's precision,
    to ``logits`` ``(N, classes)``; inputs that are no images have the names of `input_names`. It
    computes what the network does in evaluation.

    Args:
        net: What `boundnas.extract` returned, or any plain module; it is left as it is.
        path: Ends in ``.onnx`` or ``.pt2``; written atomically.
        input_shape: Channels, height and width, or the shape of another sample of float32; an
            extracted network knows its own inputs.

    Returns:
        The path.

    Raises:
        ExportError: Another suffix, or the file does not compute what the network computes.
        RunError: The file cannot be written.
    """
    path = Path(path)
    known = getattr(net, "meta", {}).get("example")
    example = known if input_shape is None else as_example(input_shape)
    if path.suffix not in WRITERS:
        raise ExportError(
            f"{path}: the suffix must be one of {', '.join(WRITERS)}, found "
            f"{path.suffix or 'none'}; rename the file"
        )
    if example is None:
        raise ExportError(
            f"{path}: the shape of one image is not known of this {type(net).__name__}; export "
            "what extract(model, arch) gives, or pass input_shape=(channels, height, width)"
        )
    write_bytes(path, file_of(net, path, example))
    return path


def file_of(
    net: nn.Module,
    path: Path,
    example: Inputs,
    reference: Callable[[Inputs], Tensor] | None = None,
) -> bytes:
    """The content of a model file, checked against ``reference``, by default the network."""
    write, run = WRITERS[path.suffix]
    held = next(net.parameters(), torch.empty(0))
    if held.device.type != "cpu":
        net = copy.deepcopy(net).to("cpu")
    weight = torch.empty(0, dtype=held.dtype)
    images = noise_like(example, 4, torch.Generator().manual_seed(0), weight)
    try:
        with evaluating(net), TemporaryDirectory() as place, quiet():
            file = Path(place, f"model{path.suffix}")
            write(traced(net, images), file, input_names(example))
            for batch in (images, mapped(lambda x: x[:1], images)):
                with torch.no_grad():
                    expected = (reference or net)(batch)
                _check(path, expected, run(file, batch))
            return file.read_bytes()
    except (BoundNASError, MemoryError):
        raise
    except OSError as error:
        size = sum(4 * p.numel() for p in net.parameters())
        raise cannot_write(Path(gettempdir(), path.name), size, error) from error
    except Exception as error:  # of the writers and the runtimes, which have no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: no such file can be made of this network: {reason}") from error


def _check(path: Path, expected: object, found: Tensor) -> None:
    if not isinstance(expected, Tensor):
        raise ExportError(
            f"{path}: a file has one output, a tensor of logits; this network's is a "
            f"{type(expected).__name__}"
        )
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: the written file differs from the network by {difference:.2g} of its largest "
            f"output, more than {TOLERANCE}; the file was not kept"
        )
