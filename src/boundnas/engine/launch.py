"""How this process was started among others, from the variables that torchrun sets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import TypeVar

from torch.distributed import (  # type: ignore[attr-defined]
    PrefixStore,
    Store,
    TCPStore,
)

from boundnas.engine.pool import check_room
from boundnas.errors import RankError

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """This process's place among those that were started together.

    Args:
        rank: Its number, from 0.
        size: How many there are.
        local: Its number on this machine, from 0.
    """

    rank: int
    size: int
    local: int


def launched() -> Launch:
    """What RANK, WORLD_SIZE and LOCAL_RANK say; alone where none of them is set.

    Raises:
        RankError: One of them, MASTER_ADDR or MASTER_PORT is missing or nonsense.
    """
    size = _whole("WORLD_SIZE", 1, 1, MOST)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if size > 1 and not os.environ.get(name):
            raise RankError(f"WORLD_SIZE is {size}, but {name} is not set; {_HINT}")
    if size > 1:
        _check_name(os.environ["MASTER_ADDR"])
        _whole("MASTER_PORT", 0, 1, 65535)
    return Launch(_whole("RANK", 0, 0, size - 1), size, _whole("LOCAL_RANK", 0, 0, size - 1))


def number() -> int:
    """What RANK says, for messages: 0 where it is missing or nonsense; raises nothing."""
    try:
        return launched().rank
    except RankError:
        return 0


def meet(launch: Launch, seconds: float) -> Store:
    """The store through which the processes find one another, when all of them are there.

    Args:
        launch: This process's place.
        seconds: How long it waits for the others, all in all.

    Raises:
        RankError: Not all came in time, or they were started as different numbers of processes.
    """
    end = time.monotonic() + seconds
    try:
        _await_server(launch, end)
        store = _within(end, lambda: _store(launch, end))
        if store is None:
            raise RankError(f"{_where(launch)}: rank 0 did not answer in time; {_HINT}")
        # After a restart torchrun's store still has what the processes before put there.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        prefixed = PrefixStore(f"attempt {attempt}", store)
        _check_in(launch, prefixed, end)
        return prefixed
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise RankError(f"{_where(launch)}: cannot meet there ({reason}); {_HINT}") from error


def _check_in(launch: Launch, store: Store, end: float) -> None:
    """Tell the others that this process is there, and wait until all are."""
    if store.add(f"processes of rank {launch.rank}", 1) > 1:
        raise RankError(f"{_where(launch)}: another process has this rank too; {_HINT}")
    store.set(f"size in rank {launch.rank}", str(launch.size))
    for other in range(launch.size):
        if not _arrives(store, f"size in rank {other}", end):
            missing = [r for r in range(launch.size) if not store.check([f"size in rank {r}"])]
            listed = ", ".join(map(str, missing[:10]))
            raise RankError(f"{_where(launch)}: rank {listed} did not come in time; {_HINT}")
        size = int(store.get(f"size in rank {other}"))
        if size != launch.size:
            store.set(f"rank {launch.rank} has seen it", "")
            if launch.rank == 0:  # whose end would take the store from the others
                _arrives(store, f"rank {other} has seen it", min(end, time.monotonic() + 2))
            raise RankError(
                f"{_where(launch)}: WORLD_SIZE is {launch.size} here and {size} in rank {other}; "
                f"{_HINT}"
            )


def _arrives(store: Store, key: str, end: float) -> bool:
    """Whether a key is set before the end; ``store.wait`` would print its own complaint."""
    while not store.check([key]):
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def _serves(launch: Launch) -> bool:
    """Whether this process keeps the store, rather than rank 0 or torchrun's own process."""
    return launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _await_server(launch: Launch, end: float) -> None:
    """Knock until somebody answers; torch's own client would fill the screen meanwhile."""
    address, reason = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), ""

    def knock() -> bool:
        if _serves(launch):  # the name must be known, but nobody can answer yet
            socket.getaddrinfo(*address)
        else:
            socket.create_connection(address, max(0.01, end - time.monotonic())).close()
        return True

    while time.monotonic() < end:
        try:
            if _within(end, knock):
                return
        except (OSError, ValueError) as error:
            reason = f" ({getattr(error, 'strerror', None) or error})"
            time.sleep(POLL)
    raise RankError(f"{_where(launch)}: nobody answers there in time{reason}; {_HINT}")


def _store(launch: Launch, end: float) -> Store:
    serves = _serves(launch)
    return TCPStore(
        # It serves on every address of its machine; where the one that the others are told is of
        # another machine, torch's client would print all its calls, and who waits says so anyway.
        "localhost" if serves else os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=serves,
        timeout=timedelta(seconds=max(0.01, end - time.monotonic())),
        wait_for_workers=False,
        multi_tenant=True,
    )


def _within(end: float, work: Callable[[], T]) -> T | None:
    """What ``work`` gives or raises; None where it has not ended in time and is left to itself.

    Looking up a name and talking to a server that says nothing cannot be given a time.
    """
    found: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # handed to the caller
            raised.append(error)

    thread = Thread(target=run, daemon=True)
    check_room()
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    if raised:
        raise raised[0]
    return found[0] if found else None


def _check_name(text: str) -> None:
    """Refuse what can be neither a name nor an address of a machine."""
    if len(text) > LONGEST or not text.isprintable() or " " in text:
        raise RankError(
            f"MASTER_ADDR must be the name or address of a machine, found {text[:50]!r}; {_HINT}"
        )


def _whole(name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number in the environment."""
    text = os.environ.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not lowest <= value <= highest:
        allowed = f"a whole number from {lowest} to {highest}" if highest > lowest else str(lowest)
        of = ", since " + _set("WORLD_SIZE") if name in ("RANK", "LOCAL_RANK") else ""
        raise RankError(f"{name} must be {allowed}{of}, found {text[:50]!r}; {_HINT}")
    return value


def _set(name: str) -> str:
    value = os.environ.get(name)
    return f"{name} is not set" if value is None else f"{name} is {value}"


def _where(launch: Launch) -> str:
    place = f"{os.environ['MASTER_ADDR']} port {os.environ['MASTER_PORT']}"
    return f"rank {launch.rank} of {launch.size}, at the start, at {place}"


POLL = 0.05
"""Seconds between two looks at what may have come."""

MOST = 100_000
"""Processes; more is taken for a mistake."""

LONGEST = 253
"""Characters of a machine's name, as RFC 1035 has it."""

_HINT = (
    "torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT alike in all "
    "processes; to run alone, unset WORLD_SIZE and RANK"
)
