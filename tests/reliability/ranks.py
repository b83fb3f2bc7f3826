"""Several processes that work together, forked off this one as torchrun would start them."""

import os
import socket

from tests.reliability.child import fork


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
