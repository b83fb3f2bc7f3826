"""The folder of an exported network of a front: its files, its card, and the sums over them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from boundnas.cost import LatencyTable
from boundnas.data import Samples
from boundnas.deploy.card import card
from boundnas.deploy.export import WEIGHTS, files_of, weights_of
from boundnas.deploy.formats import FILES, Format
from boundnas.deploy.quantize import calibration_images, images_of, int8, measure
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs, mapped
from boundnas.search import FrontNetwork
from boundnas.store.base import Record
from boundnas.store.files import cannot_write, read_bytes, write_new
from boundnas.store.held import HeldFolder, folder_at
from boundnas.store.records import ExportRecord, Int8Record
from boundnas.store.temporary import clean, remove_at_once, temporary
from boundnas.store.times import LatencyRecord
from boundnas.supernet.extract import extract
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights import digest
from boundnas.task import Classification, Task

SUMS = "SHA256SUMS"
"""File of hashes in the folder of an exported network."""

TIMES = "latency.json"
"""File of measured times there, if there are any."""

LARGEST = 1 << 32
"""Bytes of the largest file of an exported network that is read, 4 GiB."""


@dataclass(frozen=True)
class Handover:
    """What is alike for all networks of a front that are handed over.

    Args:
        data: What they were trained on; their cards say how inputs come to be and name the classes,
            and INT8 files are made and measured with its samples.
        formats: Which model files there are.
        held: The run folder that theirs lie in, if they do.
        seed: The run's; it draws the images that an INT8 file's ranges are measured on.
        task: What they were trained to do, and INT8 files are measured by.
        table: What predicted their latency, if that was a cost.
    """

    data: Samples
    formats: Sequence[Format]
    held: HeldFolder | None = None
    seed: int = 0
    task: Task = field(default_factory=Classification)
    table: LatencyTable | None = None


def export_network(
    model: Supernet, network: FrontNetwork, folder: Path, handover: Handover
) -> None:
    """Write one network of a front into a folder of its own: complete, or not there at all.

    Args:
        model: The supernet.
        network: The network.
        folder: Will hold the file of each format, ``architecture.json``, ``card.md`` and
            ``SHA256SUMS`` of them. One that is there already and whole is left as it is if it
            holds this very network, by its weights and statistics, architecture, numbers, classes,
            normalization and formats; another network's is replaced.
        handover: What it shares with the other networks of the front.

    Raises:
        CalibrationError: The model's weights are not those that the network was calibrated with.
        ExportError: A file does not compute what the supernet does, or the folder is there but
            damaged, or holds what no export writes.
        RunError: A file cannot be written.
    """
    net = extract(model, network.arch)
    data, formats, seed = handover.data, handover.formats, handover.seed
    describe = partial(_described, handover, network, _identity(net))
    on = images_of(data, seed, handover.task) if "int8" in formats else ""
    if _exists(folder, handover.held) and _holds(folder, handover, describe, on):
        return

    def slice_of(images: Inputs) -> Tensor:
        device = next(model.parameters()).device
        with evaluating(model):
            output: Tensor = model(mapped(lambda x: x.to(device), images), network.arch).cpu()
        return output

    names = dict.fromkeys(FILES["onnx" if f == "int8" else f] for f in formats)
    paths = [folder / name for name in names if not name.endswith(WEIGHTS)]
    written = files_of(net, paths, model.example, slice_of, handover.task.output_name)
    made = {path.name: content for path, content in zip(paths, written, strict=True)}
    files = {
        name: weights_of(net, folder / name) if name.endswith(WEIGHTS) else made[name]
        for name in (FILES[f] for f in formats if f != "int8")
    }
    measured = None
    if "int8" in formats:
        path = folder / FILES["int8"]
        images = calibration_images(data, seed)
        files[path.name], _ = int8(path, made[FILES["onnx"]], images)
        measured = measure(files[path.name], data, on, handover.task)
    files |= describe({f: len(files[FILES[f]]) for f in formats}, measured, None)
    files[SUMS] = _sums(files).encode()
    _put(files, folder, handover.held)


def _described(
    handover: Handover,
    network: FrontNetwork,
    identity: str,
    sizes: Mapping[Format, int],
    measured: Int8Record | None,
    latency: LatencyRecord | None = None,
) -> dict[str, bytes]:
    """The files that say what a network is, by name."""
    said, data, task, table = network.to_json(), handover.data, handover.task, handover.table
    record = ExportRecord(**said, metric=network.metric, network=identity, int8=measured)
    found = {
        "architecture.json": _json(record),
        "card.md": card(network, data, task, sizes, measured, latency, table).encode(),
    }
    return found if latency is None else {**found, TIMES: _json(latency)}


def _json(record: Record) -> bytes:
    return (record.model_dump_json(indent=2, exclude_none=True) + "\n").encode()


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
    folder: Path,
    handover: Handover,
    describe: Callable[
        [Mapping[Format, int], Int8Record | None, LatencyRecord | None], dict[str, bytes]
    ],
    on: str,
) -> bool:
    """Whether a folder is that of the network which ``describe`` describes, in all its formats.

    Raises:
        ExportError: It is not what was written, or no export wrote it.
    """
    files, formats = verify(folder, handover.held), handover.formats
    foreign = sorted(files.keys() - {"architecture.json", "card.md", TIMES, SUMS, *FILES.values()})
    if foreign:
        raise ExportError(
            f"{folder / foreign[0]}: is no file of an exported network, and is in the way of one; "
            "move it out of this folder"
        )
    if not {FILES[f] for f in formats} <= files.keys():
        return False
    measured = _measured(files, on) if "int8" in formats else None
    known = describe({f: len(files[FILES[f]]) for f in formats}, measured, timed(files))
    names = {*known, SUMS, *(FILES[f] for f in formats)}
    return files.keys() == names and known.items() <= files.items()


def note_latency(
    network: FrontNetwork, folder: Path, latency: LatencyRecord, handover: Handover
) -> None:
    """Write how long an exported network takes into its folder, and into its card.

    Args:
        network: The network.
        folder: What `export_network` wrote.
        latency: What was measured.
        handover: What it was exported by.

    Raises:
        ExportError: The folder is not what was written.
        RunError: It cannot be written.
    """
    files = verify(folder, handover.held)
    known = ExportRecord.model_validate_json(files["architecture.json"])
    sizes = {kind: len(files[FILES[kind]]) for kind in handover.formats}
    files |= _described(handover, network, known.network, sizes, known.int8, latency)
    files[SUMS] = _sums(files).encode()
    _put(files, folder, handover.held)


def timed(files: Mapping[str, bytes]) -> LatencyRecord | None:
    """What was measured of an exported network with these files, if anything was."""
    try:
        return LatencyRecord.model_validate_json(files.get(TIMES, b""))
    except ValidationError:
        return None


def _measured(files: Mapping[str, bytes], on: str) -> Int8Record | None:
    """What the INT8 file of a folder was measured to be, if that was on these images."""
    try:
        found = ExportRecord.model_validate_json(files.get("architecture.json", b"")).int8
    except ValidationError:
        return None
    return found if found is not None and found.images == on else None


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
