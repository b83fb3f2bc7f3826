"""What a run runs on, which decides its last bits."""

from __future__ import annotations

import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from boundnas.elastic import native
from boundnas.engine.machine import cpu_model
from boundnas.engine.ranks import size
from boundnas.errors import RunError
from boundnas.store.files import find_bytes, write_json
from boundnas.store.held import HeldFolder
from boundnas.store.lines import parse_row

_LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Variables by which libraries are told which instructions to use."""

_log = logging.getLogger(__name__)


def note_environment(path: Path, held: HeldFolder | None = None) -> None:
    """Write down what a run runs on; where that was done before, warn once of all that changed.

    Args:
        path: ``environment.json``.
        held: The held folder that it lies in, if it does.

    Raises:
        RunError: The file is damaged or cannot be written.
    """
    now = environment()
    data = find_bytes(path, held=held)
    if data is None:
        write_json(path, now, held)
        return
    began = parse_row(data + b"\n")
    if began is None:
        raise RunError(f"{path}: is no JSON object, so it is damaged; remove it and run again")
    changes = [
        f"{name} {began.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in {**now, **began}
        if began.get(name) != now.get(name)
    ]
    if changes:
        _log.warning(
            "%s: the run began with %s; it goes on, but its last bits may differ from those of a "
            "run without this change",
            path.parent,
            ", ".join(changes),
        )


def environment() -> dict[str, str | int]:
    """What decides the last bits of a run: versions, processor, threads, kernels, ranks.

    Examples:
        >>> sorted(environment())
        ['boundnas', 'cpu', 'cpu_capability', 'instructions', 'kernels', 'platform', 'python', \
'ranks', 'threads', 'torch']
    """
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "boundnas": version("boundnas"),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kernels": "compiled" if native.available() else "PyTorch",
        "ranks": size(),
        "instructions": ", ".join(
            f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ
        )
        or "unrestricted",
        "platform": platform.platform(),
    }
