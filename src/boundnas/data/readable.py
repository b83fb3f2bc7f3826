"""Whether image files can be read, before anything is trained on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from boundnas.data.decoding import Fit
from boundnas.data.names import escaped, some
from boundnas.engine.pool import ThreadPool
from boundnas.engine.progress import Progress
from boundnas.engine.ranks import rank
from boundnas.errors import DataError
from boundnas.extras import require

Damaged = Literal["refuse", "skip"]

SHOWN = 20
"""So many unreadable images are named."""

_CHUNK = 1024

_log = logging.getLogger(__name__)


def check_readable(
    paths: Sequence[Path], damaged: Damaged = "refuse"
) -> dict[Path, tuple[int, int]]:
    """Decode every image once, so that one that is damaged is not met after training.

    Takes about a second for 2,000 JPEG files of 256x256 pixels on one thread; as many threads
    decode as PyTorch computes on.

    Args:
        paths: The files of all splits.
        damaged: Whether one that cannot be read is refused, or left out with a line that names it.

    Returns:
        Width and height of those that can be read.

    Raises:
        DataError: How many cannot be read, and the first `SHOWN` with the reason; nothing but
            such images is there; or they are not to be left out.
    """
    require("reading image files", "PIL")
    sizes: dict[Path, tuple[int, int]] = {}
    faults: list[str] = []
    with (
        ThreadPool(torch.get_num_threads()) as threads,
        Progress(len(paths), "check images", unit="image") as progress,
    ):
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            for path, found in zip(chunk, threads.map(_size_or_fault, chunk), strict=True):
                if isinstance(found, str):
                    faults.append(found)
                else:
                    sizes[path] = found
            progress.advance(len(chunk))
    if faults:
        _answer(faults, len(paths), damaged)
    return sizes


def log_shapes(where: Path, sizes: Mapping[Path, tuple[int, int]], fit: Fit) -> None:
    """Say in a line how many images are no squares, and what making squares of them does.

    Args:
        where: How the line names them.
        sizes: Width and height of each image.
        fit: How they are made squares; of ``"pad"``, which does nothing to them, nothing is said.
    """
    ratios = [max(size) / min(size) for size in sizes.values() if size[0] != size[1]]
    if not ratios or fit == "pad" or rank():
        return
    middle, most = median(ratios), max(ratios)
    if fit == "crop":
        what = f"lose {1 - 1 / middle:.0%} of their area at the sides (median; {1 - 1 / most:.0%}"
        advice = "fit: pad or resize keeps all of them"
    else:
        what = f"have the ratio of their sides changed by {middle:.2f} (median; {most:.2f}"
        advice = "fit: pad keeps it"
    _log.warning(
        "%s: %s of %s images are no squares and %s at most); %s",
        escaped(where), len(ratios), len(sizes), what, advice,
    )  # fmt: skip


def _size_or_fault(path: Path) -> tuple[int, int] | str:
    try:
        from boundnas.data.decode import decoded_size  # with Pillow, which is an extra

        return decoded_size(path)
    except DataError as error:
        return str(error)


def _answer(faults: Sequence[str], of: int, damaged: Damaged) -> None:
    """Refuse images that cannot be read, or log that they are left out."""
    listed = some(faults, "\n  ", SHOWN)
    if damaged == "refuse":
        raise DataError(
            f"{len(faults)} of {of} images cannot be used; mend or remove them, or set damaged to "
            f"skip:\n  {listed}"
        )
    if not rank():
        _log.warning(
            "%s of %s images cannot be used and are left out:\n  %s", len(faults), of, listed
        )
