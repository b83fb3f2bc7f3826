"""What can go wrong below a program: a call that fails, a process that ends, a full disk."""

import os
import resource
from contextlib import contextmanager
from itertools import count

import pytest

WRITING = ("fsync", "rename", "replace")
"""The calls of ``os`` that make a change durable or visible."""

CHANGING = (*WRITING, "mkdir", "unlink", "rmdir", "ftruncate")
"""Those, and the calls that make and remove names and cut files."""


class Killed(BaseException):
    """The end of the process, so far as a test in the same process can have it."""


@contextmanager
def failing_at(number, error, calls=WRITING):
    """The ``number``-th of these calls of ``os`` raises; gives the counter of calls."""
    counter = count(1)

    def wrapped(call):
        def run(*args, **kwargs):
            if next(counter) == number:
                raise error
            return call(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield counter


@contextmanager
def largest_file(size):
    """Writing beyond ``size`` bytes of a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damages(data, every=1):
    """A flipped bit in every byte and every truncation, or those of some bytes; and one byte more.

    Args:
        data: What is damaged.
        every: Bytes from one that is damaged to the next.
    """
    for offset in range(0, len(data), every):
        yield data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]
        yield data[:offset]
    yield data + b"\n"
