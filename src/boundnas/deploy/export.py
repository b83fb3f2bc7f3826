"""Plain sub-networks as files that run without BoundNAS: ONNX and torch.export programs."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Literal

import torch
from torch import Tensor, nn

from boundnas.cost import COSTS
from boundnas.data import ImageData
from boundnas.data.description import preparation
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs, leaves, mapped
from boundnas.report.markup import markdown
from boundnas.search import FrontNetwork
from boundnas.store.files import cannot_write, read_bytes, write_bytes, write_new
from boundnas.store.held import HeldFolder, folder_at
from boundnas.store.temporary import clean, remove_at_once, temporary
from boundnas.supernet.extract import extract
from boundnas.supernet.inputs import as_example, noise_like
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights import digest
from boundnas.typed import checked

Format = Literal["onnx", "pt2"]

TOLERANCE = 1e-3
"""Largest difference of a logit between a file and the network, relative to the largest logit."""

SUMS = "SHA256SUMS"
"""File of hashes in the folder of an exported network."""

LARGEST = 1 << 32
"""Bytes of the largest file of an exported network that is read, 4 GiB."""


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
    if path.suffix not in _WRITERS:
        raise ExportError(
            f"{path}: the suffix must be one of {', '.join(_WRITERS)}, found "
            f"{path.suffix or 'none'}; rename the file"
        )
    if example is None:
        raise ExportError(
            f"{path}: the shape of one image is not known of this {type(net).__name__}; export "
            "what extract(model, arch) gives, or pass input_shape=(channels, height, width)"
        )
    write_bytes(path, _content(net, path, example))
    return path


def export_network(
    model: Supernet,
    network: FrontNetwork,
    data: ImageData,
    folder: Path,
    formats: Sequence[Format],
    held: HeldFolder | None = None,
) -> None:
    """Write one network of a front into a folder of its own: complete, or not there at all.

    Args:
        model: The supernet.
        network: The network.
        data: What it was trained on; its card names the normalization and the classes.
        folder: Will hold ``model.onnx``, ``model.pt2``, ``architecture.json``, ``card.md`` and
            ``SHA256SUMS`` of them. One that is there already and whole is left as it is if it
            holds this very network, by its weights and statistics, architecture, numbers, classes,
            normalization and formats; another network's is replaced.
        formats: Which model files to write.
        held: The run folder that it lies in, if it does.

    Raises:
        CalibrationError: The model's weights are not those that the network was calibrated with.
        ExportError: A file does not compute what the supernet does, or the folder is there but
            damaged, or holds what no export writes.
        RunError: A file cannot be written.
    """
    net = extract(model, network.arch)
    metric = network.metric.model_dump()
    known = {**network.to_json(), "metric": metric, "network": _identity(net)}
    files = {
        "architecture.json": (json.dumps(known, indent=2) + "\n").encode(),
        "card.md": card(network, data, formats).encode(),
    }
    names = [f"model.{name}" for name in formats]
    if _exists(folder, held) and _holds(folder, held, files, names):
        return

    def slice_of(images: Inputs) -> Tensor:
        device = next(model.parameters()).device
        with evaluating(model):
            output: Tensor = model(mapped(lambda x: x.to(device), images), network.arch).cpu()
        return output

    files |= {n: _content(net, folder / n, model.example, slice_of) for n in names}
    files[SUMS] = _sums(files).encode()
    _put(files, folder, held)


def _put(files: Mapping[str, bytes], folder: Path, held: HeldFolder | None) -> None:
    """Write a folder of these files in place of what was there: complete, or not there at all.

    Raises:
        RunError: It cannot be written.
    """
    try:
        with folder_at(folder.parent, held, make=True) as parent:
            clean(parent)
            with temporary(parent, is_folder=True) as (partial, inside):
                for name, content in files.items():
                    write_new(inside, name, content)
                os.fsync(inside)
                with suppress(FileNotFoundError):
                    remove_at_once(parent, folder.name)
                os.rename(partial, folder.name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
    except OSError as error:
        raise cannot_write(folder, sum(map(len, files.values())), error) from error


def _identity(net: nn.Module) -> str:
    """SHA-256 of what a network computes and of every weight and statistic in it."""
    return hashlib.sha256(f"{getattr(net, 'code', '')} {digest(net)}".encode()).hexdigest()


def _holds(
    folder: Path, held: HeldFolder | None, known: Mapping[str, bytes], names: Sequence[str]
) -> bool:
    """Whether a folder is that of the network whose known files, and names of others, these are.

    Raises:
        ExportError: It is not what was written, or no export wrote it.
    """
    files = verify(folder, held)
    foreign = sorted(files.keys() - {*known, SUMS, *(f"model{suffix}" for suffix in _WRITERS)})
    if foreign:
        raise ExportError(
            f"{folder / foreign[0]}: is no file of an exported network, and is in the way of one; "
            "move it out of this folder"
        )
    return files.keys() == {*known, *names, SUMS} and known.items() <= files.items()


def verify(folder: Path, held: HeldFolder | None = None) -> dict[str, bytes]:
    """Check an exported network as ``sha256sum --check`` does, and that no file was added.

    Args:
        folder: A folder that `export_network` wrote.
        held: The run folder that it lies in, if it does.

    Returns:
        The contents of its files, by name.

    Raises:
        ExportError: It is not byte for byte what was written.
    """
    try:
        with folder_at(folder, held) as inside:
            names = os.listdir(inside)
        files = {n: read_bytes(folder / n, LARGEST, held, ExportError) for n in names}
    except (OSError, BoundNASError) as error:
        raise ExportError(f"{folder}: cannot be checked ({error}); {_AGAIN}") from error
    wanted = _sums(files).encode()
    if files.get(SUMS) != wanted:
        other = set(files.get(SUMS, b"").splitlines()) ^ set(wanted.splitlines())
        name = min(other, default=b"")[66:].decode(errors="replace") or SUMS
        raise ExportError(f"{folder / name}: is not what was written, by {SUMS}; {_AGAIN}")
    return files


_AGAIN = "do not use this network, remove its folder and export again"


def _sums(files: Mapping[str, bytes]) -> str:
    """Hash and name of every file but the one that holds them, as sha256sum writes them."""
    return "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n"
        for name in sorted(files)
        if name != SUMS
    )


def _exists(folder: Path, held: HeldFolder | None) -> bool:
    try:
        with folder_at(folder, held):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_write(folder, 0, error) from error


def card(network: FrontNetwork, data: ImageData, formats: Sequence[Format]) -> str:
    """What a person needs to know to use the network: numbers, input, output, how to load it."""
    channels, height, width = data.shape
    metric, name = network.metric, markdown(network.metric.name)
    usage = {
        "onnx": (
            "```python\nimport onnxruntime\n\n"
            'session = onnxruntime.InferenceSession("model.onnx")\n'
            'logits = session.run(None, {"images": images})[0]  # float32 numpy array\n```\n'
        ),
        "pt2": (
            "```python\nimport torch\n\n"
            'net = torch.export.load("model.pt2").module()\n'
            "logits = net(images)  # float32 tensor\n```\n"
        ),
    }
    others = "".join(
        f"| Cost {markdown(cost)} | {value:,} |\n"
        for cost, value in network.costs.items()
        if cost not in COSTS
    )
    settings = "\n".join(
        f"| {markdown(key)} | {markdown(value)} |" for key, value in network.arch.values.items()
    )
    how = preparation(data.test)
    prepared = f" Image files are first {how}." if how else ""
    return (
        f"# Network of {network.macs / 1e6:.4g} MMACs for {markdown(data.name)}\n\n"
        "| | |\n|---|---|\n"
        f"| MACs of one image | {network.macs:,} |\n"
        f"| Parameters | {network.parameters:,} |\n{others}"
        f"| Validation {name} (selected by) | {metric.shown(network.validation)} |\n"
        f"| Test {name} | {metric.shown(network.test)} |\n\n"
        f"Input `images`: float32, shape (N, {channels}, {height}, {width}), any N. From pixel "
        "values 0 to 255, per channel: `(pixel / 255 - mean) / std` with "
        f"mean {list(data.mean)} and std {list(data.std)}.{prepared}\n\n"
        f"Output `logits`: float32, shape (N, {len(data.classes)}); the largest one is the class, "
        f"in this order:\n\n    {json.dumps(data.classes, ensure_ascii=False)}\n\n"
        + "".join(usage[kind] + "\n" for kind in formats)
        + f"| Dimension | Value |\n|---|---|\n{settings}\n"
    )


def _content(
    net: nn.Module,
    path: Path,
    example: Inputs,
    reference: Callable[[Inputs], Tensor] | None = None,
) -> bytes:
    """The content of a model file, checked against ``reference``, by default the network."""
    write, run = _WRITERS[path.suffix]
    held = next(net.parameters(), torch.empty(0))
    if held.device.type != "cpu":
        net = copy.deepcopy(net).to("cpu")
    weight = torch.empty(0, dtype=held.dtype)
    images = noise_like(example, 4, torch.Generator().manual_seed(0), weight)
    try:
        with evaluating(net), TemporaryDirectory() as place, _quiet():
            file = Path(place, f"model{path.suffix}")
            write(_program(net, images), file, input_names(example))
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


def input_names(example: Inputs) -> list[str]:
    """What the inputs of a file are called: ``images``, ``input``, or by their place.

    Example:
        >>> input_names({"ids": torch.zeros(3), "mask": torch.zeros(3)}), input_names((
        ...     torch.zeros(3), torch.zeros(3)))
        (['ids', 'mask'], ['input_0', 'input_1'])
    """
    if isinstance(example, Tensor):
        return ["images" if example.dim() == 3 and example.is_floating_point() else "input"]
    words = [re.sub(r"\W+", "_", name).strip("_") for name, _ in leaves(example)]
    return [f"input_{word}" if word[:1].isdigit() else word for word in words]


def _program(net: nn.Module, images: Inputs) -> torch.export.ExportedProgram:
    """The traced network, without what tells one machine, or one time, from another."""
    batch = torch.export.Dim("batch")
    shapes = (mapped(lambda _: {0: batch}, images),)
    try:
        with _quiet():
            program = torch.export.export(net, (images,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export has no common base of its errors
        raise ExportError(
            f"torch.export cannot follow this network: {str(error).splitlines()[0]}"
        ) from error
    for node in program.graph.nodes:
        for traced in ("stack_trace", "from_node"):  # paths of source files, addresses in memory
            node.meta.pop(traced, None)
    return program


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


def _write_pt2(program: torch.export.ExportedProgram, path: Path, names: list[str]) -> None:
    archive = BytesIO()  # into a file, it would be named after the partial one inside
    torch.export.save(program, archive)
    path.write_bytes(archive.getvalue())


def _run_pt2(path: Path, images: Inputs) -> Tensor:
    with torch.no_grad():
        output: Tensor = torch.export.load(path).module()(images)
        return output


def _write_onnx(program: torch.export.ExportedProgram, path: Path, names: list[str]) -> None:
    written = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        input_names=names,
        output_names=["logits"],
    )
    assert written is not None
    written.save(path)


def _run_onnx(path: Path, images: Inputs) -> Tensor:
    import onnxruntime  # takes long to import, and only an export needs it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = zip(session.get_inputs(), leaves(images), strict=True)
    return torch.from_numpy(session.run(None, {i.name: x.numpy() for i, (_, x) in given})[0])


_WRITERS: dict[
    str,
    tuple[
        Callable[[torch.export.ExportedProgram, Path, list[str]], None],
        Callable[[Path, Inputs], Tensor],
    ],
] = {".onnx": (_write_onnx, _run_onnx), ".pt2": (_write_pt2, _run_pt2)}


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporters warn about their own insides; nothing a user could act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
