"""Image files that are copies of one another in two splits."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from boundnas.data.names import escaped
from boundnas.engine.ranks import rank

_log = logging.getLogger(__name__)


def tell_copies(
    where: Path, sizes: Mapping[Path, tuple[int, int]], splits: Mapping[str, Sequence[Path]]
) -> None:
    """Warn of images of a split that are training images too, byte for byte, whatever their names.

    Only files that have the size of a file of another split are read for it.

    Args:
        where: How the line names them all.
        sizes: Width and height of each image.
        splits: Files of each split; ``"train"`` among them.
    """
    if rank():
        return
    train, *_ = looks = [_looks(splits[split], sizes) for split in ("train", *_others(splits))]
    elsewhere = {look for others in looks[1:] for look in others}
    held = {
        digest: path
        for look in train.keys() & elsewhere
        for path in train[look]
        if (digest := _digest(path)) is not None
    }
    for split, found in zip(_others(splits), looks[1:], strict=True):
        paths = [path for look in found.keys() & train.keys() for path in found[look]]
        copies = sorted((p, held[d]) for p in paths if (d := _digest(p)) in held)
        if copies:
            _log.warning(
                "%s: %s of %s %s images are training images too, byte for byte, such as %s of %s; "
                "what is measured on them is no %s",
                escaped(where), f"{len(copies):,}", f"{len(splits[split]):,}", split,
                *(escaped(path.relative_to(where)) for path in copies[0]), split,
            )  # fmt: skip


def _others(splits: Mapping[str, Sequence[Path]]) -> list[str]:
    return [split for split in splits if split != "train"]


def _looks(
    paths: Sequence[Path], sizes: Mapping[Path, tuple[int, int]]
) -> dict[tuple[int, ...], list[Path]]:
    """Files by their bytes, width and height."""
    found: dict[tuple[int, ...], list[Path]] = {}
    for path in paths:
        with suppress(OSError):  # gone since; it is named when it is needed
            found.setdefault((path.stat().st_size, *sizes[path]), []).append(path)
    return found


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
