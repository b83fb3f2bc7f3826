"""Checkpoints that are whole or absent: safetensors and JSON under a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from boundnas.errors import RunError
from boundnas.store.files import cannot_write, canonical_json, sync_folder, write_synced

FORMAT = 1

_TENSORS, _VALUES, _MANIFEST = "state.safetensors", "state.json", "manifest.json"

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
    folder: Path, step: int, tensors: Mapping[str, Tensor], values: object, keep: int = 2
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
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        if not _is_whole(path, step):
            _write(path, data)
            _verified(path, step)
        older = [s for s in _steps(folder) if s < step]
        for s in older[: max(0, len(older) + 1 - keep)]:
            _remove(_path(folder, s))
    except OSError as error:
        raise cannot_write(path, sum(map(len, data.values())), error) from error


def clean(folder: Path) -> None:
    """Remove what a process left that was killed while it saved or deleted a checkpoint."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; none when there is no checkpoint at all.

    Size and SHA-256 of every file are compared with the manifest before anything is parsed.
    Damaged checkpoints are passed over with a warning in the log.

    Raises:
        RunError: There are checkpoints, but none is whole.
    """
    faults = []
    for step in reversed(_steps(folder)):
        try:
            return _read(_path(folder, step), step)
        except RunError as error:
            _log.warning("passed over a damaged checkpoint: %s", error)
            faults.append(str(error))
    if faults:
        raise RunError(
            f"{folder}: none of its checkpoints is whole ({'; '.join(faults)}); "
            "put back a copy of one, or remove the folder to train from the start"
        )
    return None


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08}"


def _steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, whole or not, in ascending order."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found = (re.fullmatch(r"step-(\d{8,})", path.name) for path in paths)
    return sorted(int(match[1]) for match in found if match)


def _manifest(step: int, data: Mapping[str, bytes]) -> bytes:
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in data.items()
    }
    return canonical_json({"format": FORMAT, "step": step, "files": files}).encode()


def _verified(path: Path, step: int) -> dict[str, bytes]:
    """The files of a checkpoint, provided that they are byte for byte what was saved.

    The manifest is a function of the other files, so it is compared as a whole: a damaged
    manifest vouches for nothing either.
    """
    try:
        data = {name: (path / name).read_bytes() for name in (_TENSORS, _VALUES, _MANIFEST)}
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if data.pop(_MANIFEST) != _manifest(step, data):
        raise RunError(f"{path}: the files differ from what {_MANIFEST} says was written")
    return data


def _is_whole(path: Path, step: int) -> bool:
    try:
        return bool(_verified(path, step))
    except RunError:
        return False


def _read(path: Path, step: int) -> Checkpoint:
    data = _verified(path, step)
    try:  # can fail only when somebody made up the manifest as well
        return Checkpoint(step, safetensors.torch.load(data[_TENSORS]), json.loads(data[_VALUES]))
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: holds no state of a run ({error})") from error


def _write(path: Path, data: Mapping[str, bytes]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.mkdir()
        for name, content in data.items():
            write_synced(partial / name, content)
        sync_folder(partial)
        if path.exists():
            _remove(path)  # damaged, and so worth nothing
        partial.rename(path)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _remove(path: Path) -> None:
    """Delete a checkpoint; under its own name it is there as a whole or not at all."""
    removed = path.with_name(f".{path.name}.removed")
    path.rename(removed)
    shutil.rmtree(removed)
