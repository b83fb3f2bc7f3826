"""Threads of computation: more of them than there are cores wait for one another."""

from __future__ import annotations

import logging
import os

import torch

_log = logging.getLogger(__name__)


def cores() -> int:
    """Cores that this process may use; a container or ``taskset`` may have taken some away."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def use_threads(asked: int | None) -> None:
    """Compute with so many threads, but at most one a core.

    A step of small layers meets dozens of barriers. With a thread too many each of them waits for
    the operating system to give the last one its turn: 64 threads on two cores did 2 steps in the
    time in which one thread does 800.

    Args:
        asked: ``threads`` of the configuration; by default what PyTorch has now, which
            ``OMP_NUM_THREADS`` decides.
    """
    wanted, most = asked or torch.get_num_threads(), cores()
    if wanted > most:
        place = "OMP_NUM_THREADS" if asked is None else "threads"
        _log.warning(
            "%s asks for %d threads, and this process may use %d cores; %d are taken. Set %s to "
            "at most %d",
            place, wanted, most, most, place, most,
        )  # fmt: skip
    if asked is not None or wanted > most:
        torch.set_num_threads(min(wanted, most))


def warn_of_threads() -> None:
    """Say when PyTorch computes with more threads than there are cores."""
    found, most = torch.get_num_threads(), cores()
    if found > most:
        _log.warning(
            "PyTorch computes with %d threads, and this process may use %d cores, which makes a "
            "step many times slower; call torch.set_num_threads(%d), or set OMP_NUM_THREADS=%d",
            found, most, most, most,
        )  # fmt: skip
