"""Checkpoints that are whole or absent: safetensors and JSON under a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, canonical_json, read_bytes, write_new
from boundnas.store.held import HeldFolder, folder_at
from boundnas.store.temporary import clean, remove_at_once, temporary

FORMAT = 1

LARGEST = 1 << 36
"""Bytes of the largest file of a checkpoint, 64 GiB; its manifest says how many there are."""

_TENSORS, _VALUES, _MANIFEST = "state.safetensors", "state.json", "manifest.json"
_MANIFEST_LARGEST = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a training step.

    Args:
        step: The step.
        tensors: By name, on the CPU, each with memory of its own.
        values: What else there is, as JSON gives it back: tuples are lists, keys are text.
    """

    step: int
    tensors: dict[str, Tensor]
    values: Any


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    values: object,
    keep: int = 2,
    held: HeldFolder | None = None,
) -> None:
    """Write ``folder/step-00001200`` and delete the oldest checkpoints beyond ``keep``.

    Whenever the process dies, the folder holds the old checkpoints, the new one, or both, each
    of them whole. Nothing is deleted before the new one was read back. A checkpoint of this step
    that is there and whole is left as it is, since equal runs have equal states.

    Args:
        folder: The checkpoints' folder; made when missing.
        step: The training step, 0 or more.
        tensors: By name, on any device.
        values: Anything JSON can hold.
        keep: How many to keep, at least 1.
        held: The held folder that it lies in, if it does; nothing is written when that is another
            by now.

    Raises:
        RunError: It cannot be written, for instance because the disk is full, or it does not
            read back as it was written; the older checkpoints are untouched.
    """
    data = {
        _TENSORS: safetensors.torch.save(
            {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        ),
        _VALUES: canonical_json(values).encode(),
    }
    data[_MANIFEST] = _manifest(step, data)
    path = _path(folder, step)
    try:
        with folder_at(folder, held, make=True) as inside:
            clean(inside)
            if not _is_whole(path, step, held):
                _write(inside, path.name, data)
                _verified(path, step, held)
            older = [s for s in _steps(inside) if s < step]
            for s in older[: max(0, len(older) + 1 - keep)]:
                remove_at_once(inside, _path(folder, s).name)
    except (OSError, ValueError) as error:
        raise cannot_write(path, sum(map(len, data.values())), error) from error


def newest(
    folder: Path,
    held: HeldFolder | None = None,
    fits: Callable[[Checkpoint], None] = lambda _: None,
) -> Checkpoint | None:
    """The newest checkpoint that is whole and fits; none when there is no checkpoint at all.

    Size and SHA-256 of every file are compared with the manifest before anything is parsed.
    Others are passed over with a warning in the log.

    Args:
        folder: The checkpoints' folder.
        held: The held folder that it lies in, if it does.
        fits: Raises `RunError` for a checkpoint that what stands beside it does not fit.

    Raises:
        RunError: There are checkpoints, but none is whole and fits.
    """
    faults = []
    for step in reversed(_found(folder, held)):
        try:
            checkpoint = _read(_path(folder, step), step, held)
            fits(checkpoint)
            return checkpoint
        except RunError as error:
            _log.warning("passed over the checkpoint of step %d: %s", step, error)
            faults.append(str(error))
    if faults:
        raise RunError(
            f"{folder}: none of its checkpoints is whole and fits the logs ({'; '.join(faults)}); "
            "put back a copy of what is damaged, or remove the folder to train from the start"
        )
    return None


def _found(folder: Path, held: HeldFolder | None) -> list[int]:
    try:
        with folder_at(folder, held) as inside:
            clean(inside)  # a run that died behind its last checkpoint writes no other
            return _steps(inside)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"{folder}: cannot be read ({reason}); check what it is and its permissions"
        ) from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08}"


def _steps(folder: int) -> list[int]:
    """Steps that have a checkpoint, whole or not, in ascending order."""
    found = (re.fullmatch(r"step-(0\d{7}|[1-9]\d{7,17})", name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def _manifest(step: int, data: Mapping[str, bytes]) -> bytes:
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in data.items()
    }
    return canonical_json({"format": FORMAT, "step": step, "files": files}).encode()


def _verified(path: Path, step: int, held: HeldFolder | None) -> dict[str, bytes]:
    """The files of a checkpoint, provided that they are byte for byte what was saved.

    The manifest is a function of the other files, so it is compared as a whole: a damaged
    manifest vouches for nothing either.
    """
    manifest = read_bytes(path / _MANIFEST, _MANIFEST_LARGEST, held)
    data = {}
    for name in (_TENSORS, _VALUES):
        data[name] = read_bytes(path / name, _size(manifest, name), held)
    if manifest != _manifest(step, data):
        raise RunError(f"{path}: the files differ from what {_MANIFEST} says was written")
    return data


def _size(manifest: bytes, name: str) -> int:
    """Bytes that a file of a checkpoint has by its manifest, so that no more are read."""
    try:
        return min(int(json.loads(manifest)["files"][name]["size"]), LARGEST)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return LARGEST  # a damaged manifest, which the files will not fit


def _is_whole(path: Path, step: int, held: HeldFolder | None) -> bool:
    try:
        return bool(_verified(path, step, held))
    except RunError:
        return False


def _read(path: Path, step: int, held: HeldFolder | None) -> Checkpoint:
    data = _verified(path, step, held)
    try:  # can fail only when somebody made up the manifest as well
        values = json.loads(data[_VALUES])
        return Checkpoint(step, safetensors.torch.load(data[_TENSORS]), values)
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: holds no state of a run ({error})") from error


def _write(folder: int, name: str, data: Mapping[str, bytes]) -> None:
    with temporary(folder, is_folder=True) as (partial, inside):
        for file, content in data.items():
            write_new(inside, file, content)
        os.fsync(inside)
        with suppress(FileNotFoundError):
            remove_at_once(folder, name)  # damaged, and so worth nothing
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
