"""Several processes, as torchrun starts them, that train and search as one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from boundnas.errors import DataError, RankError

T = TypeVar("T")


@contextmanager
def connected(timeout: float) -> Iterator[None]:
    """Join the processes that torchrun started; a process started alone stays alone.

    Args:
        timeout: Seconds that a process waits for the others before it gives up.

    Raises:
        RankError: The others do not come.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    limit = timedelta(seconds=timeout)
    with _named("at the start"):
        store, number, count = next(rendezvous("env://", timeout=limit))
        # After a restart torchrun's store still has the addresses of the processes before.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=limit, store=store, rank=number, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; the first one writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch_size: int) -> slice:
    """This process's part of a batch; all parts are equal, so that means of them are the mean.

    Raises:
        DataError: The batch does not divide.
    """
    if batch_size % size():
        raise DataError(
            f"train.batch_size is {batch_size}, which {size()} processes cannot share equally; "
            f"take a multiple of {size()}, or another number of processes"
        )
    length = batch_size // size()
    return slice(rank() * length, (rank() + 1) * length)


def average(tensors: Sequence[Tensor], when: str) -> None:
    """Replace each tensor by its mean over the processes, in one message.

    Args:
        tensors: Of the same shapes in every process, all of one type and device.
        when: For an error: what is going on.

    Raises:
        RankError: Another process died, or was not heard of in time.
    """
    if size() == 1:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    with _named(when):
        dist.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def spread(values: Sequence[T], when: str) -> list[T]:
    """What all processes have, in the order in which `mine` dealt out the work.

    Args:
        values: What this process has: results for `mine` of some sequence.
        when: For an error: what is going on.

    Raises:
        RankError: Another process died, or was not heard of in time.
    """
    if size() == 1:
        return list(values)
    everything: list[list[T]] = [[] for _ in range(size())]
    with _named(when):
        dist.all_gather_object(everything, list(values))
    longest = max(map(len, everything))
    return [part[i] for i in range(longest) for part in everything if i < len(part)]


def mine(work: Sequence[T]) -> Sequence[T]:
    """This process's part of some work: every ``size()``-th piece, none left out."""
    return work[rank() :: size()]


def wait(when: str) -> None:
    """Go on when all processes have come here.

    Raises:
        RankError: Another process died, or was not heard of in time.
    """
    spread([None], when)


@contextmanager
def _named(when: str) -> Iterator[None]:
    """Turn what the transport says into one error that names this process and the moment."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            f"rank {rank()}, {when}: another process is gone, or was not heard of in time "
            f"({str(error).splitlines()[0][:200]}); see what it said. Started again, all go on "
            "from the newest checkpoint"
        ) from error
