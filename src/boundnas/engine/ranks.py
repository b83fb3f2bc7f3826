"""Several processes, as torchrun starts them, that train and search as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from boundnas.engine.launch import launched, meet, number
from boundnas.errors import DataError, RankError

T = TypeVar("T")


@contextmanager
def connected(timeout: float) -> Iterator[None]:
    """Join the processes that torchrun started; a process started alone stays alone.

    Args:
        timeout: Seconds that a process waits for the others before it gives up, at the start and
            whenever it waits for them.

    Raises:
        RankError: The others do not come, or the variables that say who they are make no sense.
    """
    if dist.is_initialized():
        yield
        return
    launch, end = launched(), time.monotonic() + timeout
    if launch.size == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = meet(launch, timeout)
    with _named("at the start"):
        left = timedelta(seconds=max(1.0, end - time.monotonic()))
        store.set_timeout(left)
        dist.init_process_group(
            backend,
            timeout=timedelta(seconds=timeout),
            store=store,
            rank=launch.rank,
            world_size=launch.size,
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; the first one writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else number()


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agree(described: Callable[[], Mapping[str, str]], when: str) -> None:
    """Refuse to go on unless all processes describe what they are about to do alike.

    Args:
        described: Names and values of all that must be equal; called only among several.
        when: For an error: what is about to happen.

    Raises:
        RankError: Names the first difference, and which rank has which value; or this process
            was started as one of several and has not joined the others.
    """
    if size() == 1:
        if not dist.is_initialized() and (started := launched()).size > 1:
            raise RankError(
                f"WORLD_SIZE is {started.size}, but this process has not joined the others; call "
                "torch.distributed.init_process_group, or work within "
                "boundnas.engine.ranks.connected(seconds), first; to run alone, unset WORLD_SIZE "
                "and RANK"
            )
        return
    everyone: list[dict[str, str]] = [{} for _ in range(size())]
    with _named(when):
        dist.all_gather_object(everyone, dict(described()))
    names = dict.fromkeys(name for each in everyone for name in each)
    different = [n for n in names if len({each.get(n) for each in everyone}) > 1]
    if different:
        rest = len(different) - 1
        more = f"; {rest} more: {_listed(different[1:])}" if rest else ""
        raise RankError(
            f"rank {rank()}, {when}: the ranks do not do the same: "
            f"{_values(different[0], everyone)}{more}. "
            "Start all of them with the same configuration, data, model, versions and threads"
        )


def _values(name: str, everyone: Sequence[Mapping[str, str]]) -> str:
    """Which ranks have which value."""
    holders: dict[str, list[int]] = {}
    for number_, each in enumerate(everyone):
        holders.setdefault(each.get(name, "missing"), []).append(number_)
    parts = [
        f"{value[:200]} in rank {_listed([str(r) for r in ranks])}"
        for value, ranks in holders.items()
    ]
    return f"{name} is {' and '.join(parts)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def share(batch_size: int, accumulate: int = 1, pairs: bool = False) -> slice:
    """This process's part of a batch; all parts are equal, so that means of them are the mean.

    Args:
        batch_size: Images of the batch.
        accumulate: So many parts of its own each process computes one after the other.
        pairs: Whether each of these is of pairs, which are mixed.

    Raises:
        DataError: The batch does not divide.
    """
    unit = size() * accumulate * (1 + pairs)
    if batch_size % unit:
        each = f" in {accumulate} parts each (train.accumulate)" if accumulate > 1 else ""
        each += " of pairs (train.mixup, train.cutmix)" if pairs else ""
        raise DataError(
            f"train.batch_size is {batch_size}, which {size()} processes cannot share equally"
            f"{each}; take a multiple of {unit}, or another number of processes"
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
