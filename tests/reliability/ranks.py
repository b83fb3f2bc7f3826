"""Several processes that work together, forked off this one as torchrun would start them."""

import os
import socket

from tests.reliability.child import fork

TIMEOUT = 1
"""Seconds that a process waits for others that do not come."""

TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
"""Sensible variables of one of two processes; nobody is at port 9."""

ALONE = {
    "a size of letters": {"WORLD_SIZE": "abc"},
    "a size of none": {"WORLD_SIZE": "0"},
    "a size below none": {"WORLD_SIZE": "-1"},
    "a size alone": {"WORLD_SIZE": "2"},
    "a rank alone": {"RANK": "1"},
    "a rank of letters": {**TWO, "RANK": "abc"},
    "a rank of two lines": {**TWO, "RANK": "1\nError: 2"},
    "a rank beyond": {**TWO, "RANK": "5"},
    "a rank below": {**TWO, "RANK": "-1"},
    "a local rank of letters": {"LOCAL_RANK": "abc"},
    "a local rank beyond": {**TWO, "LOCAL_RANK": "2"},
    "a port of letters": {**TWO, "MASTER_PORT": "abc"},
    "a port of none": {**TWO, "MASTER_PORT": "0"},
    "a port beyond": {**TWO, "MASTER_PORT": "99999"},
    "an empty port": {**TWO, "MASTER_PORT": ""},
    "no address": {**TWO, "MASTER_ADDR": None},
    "an address nobody knows": {**TWO, "MASTER_ADDR": "nowhere.invalid"},
    "an address nobody can know": {**TWO, "MASTER_ADDR": "a" * 300},
    "an address of dots": {**TWO, "MASTER_ADDR": "..", "RANK": "1"},
    "an address of two lines": {**TWO, "MASTER_ADDR": "a\nError: b", "RANK": "1"},
    "an address of half a character": {**TWO, "MASTER_ADDR": "\udcff", "RANK": "1"},
    "an address of another machine": {**TWO, "MASTER_ADDR": "192.0.2.1"},
    "nobody there": {**TWO, "RANK": "1"},
    "nobody comes": {**TWO, "MASTER_PORT": "29517"},
    "nobody serves": {**TWO, "TORCHELASTIC_USE_AGENT_STORE": "True"},
}
"""What the variables of torchrun may say when no other process is there: nobody can work."""


def together(work, folder, size=2):
    """Start ``work`` in ``size`` children, each with its rank; gives the children."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

    def ranked(rank):
        def start():
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            work()

        return start

    return [fork(ranked(rank), folder) for rank in range(size)]


def finish(children, seconds=120):
    """Exit codes of the children, and what each of them printed."""
    codes = [child.wait(seconds) for child in children]
    return codes, [child.text for child in children]
