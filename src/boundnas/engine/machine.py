"""What a machine is, as far as it decides how long networks take on it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_INSTRUCTIONS = ("avx", "fma", "f16c", "amx", "sse4_2", "asimd", "sve", "i8mm", "bf16")
"""What the names of instruction sets for many numbers at once begin with."""

_DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "torch": "torch", "compile": "torch"}
"""Runtimes by their names here, and the packages that they are of."""


def fingerprint() -> dict[str, str]:
    """Processor, instruction sets and number of cores.

    Examples:
        >>> list(fingerprint())
        ['cpu', 'instructions', 'cores']
    """
    flags = {*_of_cpu("flags").split(), *_of_cpu("Features").split()}
    known = sorted(flag for flag in flags if flag.startswith(_INSTRUCTIONS))
    return {
        "cpu": cpu_model(),
        "instructions": " ".join(known) or platform.machine(),
        "cores": str(os.cpu_count()),
    }


def cpu_model() -> str:
    """The processor's name."""
    return _of_cpu("model name") or platform.processor() or platform.machine()


def _of_cpu(name: str) -> str:
    """What the system says of the first processor; only Linux has this file."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def installed(runtime: str) -> str | None:
    """The version of a runtime on this machine; none of one that is not known or not there."""
    with suppress(PackageNotFoundError):
        if runtime in _DISTRIBUTIONS:
            return version(_DISTRIBUTIONS[runtime])
    return None
