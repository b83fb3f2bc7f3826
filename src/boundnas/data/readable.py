"""Whether image files can be read, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from boundnas.data.decode import fault
from boundnas.data.names import some
from boundnas.engine.progress import Progress
from boundnas.errors import DataError

SHOWN = 20
"""So many unreadable images are named."""

_CHUNK = 1024


def check_readable(paths: Sequence[Path]) -> None:
    """Decode every image once, so that one that is damaged is not met after training.

    Takes about a second for 2,000 JPEG files of 256x256 pixels on one thread; as many threads
    decode as PyTorch computes on.

    Args:
        paths: The files of all splits.

    Raises:
        DataError: How many cannot be read, and the first `SHOWN` with the reason.
    """
    faults: list[str] = []
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as threads,
        Progress(len(paths), "check images", unit="image") as progress,
    ):
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            faults += [found for found in threads.map(fault, chunk) if found is not None]
            progress.advance(len(chunk))
    if faults:
        raise DataError(
            f"{len(faults)} of {len(paths)} images cannot be used; mend or remove them:\n  "
            + some(faults, "\n  ", SHOWN)
        )
