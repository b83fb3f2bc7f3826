"""The folder of an exported network of a front: its files, its card, and the sums over them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor, nn

from boundnas.data import ImageData
from boundnas.deploy.card import card
from boundnas.deploy.export import file_of
from boundnas.deploy.formats import WRITERS, Format
from boundnas.errors import BoundNASError, ExportError
from boundnas.nested import Inputs, mapped
from boundnas.search import FrontNetwork
from boundnas.store.files import cannot_write, read_bytes, write_new
from boundnas.store.held import HeldFolder, folder_at
from boundnas.store.records import ExportRecord
from boundnas.store.temporary import clean, remove_at_once, temporary
from boundnas.supernet.extract import extract
from boundnas.supernet.modes import evaluating
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.weights import digest

SUMS = "SHA256SUMS"
"""File of hashes in the folder of an exported network."""

LARGEST = 1 << 32
"""Bytes of the largest file of an exported network that is read, 4 GiB."""


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
    said = network.to_json()
    record = ExportRecord(**said, metric=network.metric, network=_identity(net))
    files = {
        "architecture.json": (record.model_dump_json(indent=2) + "\n").encode(),
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

    files |= {n: file_of(net, folder / n, model.example, slice_of) for n in names}
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
    foreign = sorted(files.keys() - {*known, SUMS, *(f"model{suffix}" for suffix in WRITERS)})
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
