"""The compiled kernels beside this file, where the package was installed with a C compiler."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

try:
    import boundnas.elastic._native as _kernels  # type: ignore[import-not-found]
except ModuleNotFoundError:
    _kernels = None

_log = logging.getLogger(__name__)


def available() -> bool:
    """Whether the kernels were built; without them PyTorch does the work."""
    return _kernels is not None


@cache
def warn_if_missing() -> None:
    """Say once that the kernels were not built; an installation without a compiler is silent."""
    if not available():
        _log.warning(
            "the compiled kernels are missing: no C compiler was there at the installation, or it "
            "failed; PyTorch's own, slower ones do the work. Install a compiler and run "
            "pip install --force-reinstall --no-deps --no-cache-dir boundnas"
        )


def takes(x: Tensor) -> bool:
    """Whether the kernels compute on an image's map, channels-last, or on rows: float32, CPU."""
    layout = {2: torch.contiguous_format, 4: torch.channels_last}.get(x.dim())
    return layout is not None and _computable(x) and x.is_contiguous(memory_format=layout)


def takes_flat(x: Tensor) -> bool:
    """Whether the kernels compute on a weight or its gradient: float32, on the CPU, no gaps."""
    return _computable(x) and x.is_contiguous()


def _computable(x: Tensor) -> bool:
    return (
        _kernels is not None
        and x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def empty(
    size: Sequence[int], memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """Memory for a result: float32 on the CPU, whatever other code made the default."""
    return torch.empty(size, dtype=torch.float32, device="cpu", memory_format=memory_format)


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel on the memory of its tensors, with PyTorch's number of threads.

    None stands for a result that is not wanted.

    Args:
        name: Of the kernel.
        arguments: As the kernel takes them, without the number of threads.

    Raises:
        MemoryError: There was no memory for its working space.
        RuntimeError: A tensor is not of the type, layout or size that the kernel reads or writes.
    """
    getattr(_kernels, name)(*arguments, torch.get_num_threads())
