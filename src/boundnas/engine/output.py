"""What a person reads on the way: output that fails is switched off, and the work goes on."""

from __future__ import annotations

import os
from contextlib import suppress
from io import TextIOBase
from typing import TextIO


class SideChannel(TextIOBase):
    """A text stream whose failures end the output and nothing else.

    The disk may be full, the reader or the terminal gone, the stream closed. Characters that the
    stream's encoding lacks are written as escapes.

    Args:
        stream: Where to write; ``None``, as Python has it for a closed one, for nowhere.

    Examples:
        >>> with open("/dev/full", "w") as stream:
        ...     full = SideChannel(stream)
        ...     print("12 of 24 steps", file=full, flush=True)
        >>> full.failure
        OSError(28, 'No space left on device')
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal is at the other end; of a closed stream, no."""
        with suppress(ValueError, OSError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Its descriptor, as of any stream."""
        return super().fileno() if self._stream is None else self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, or do nothing once that has failed."""
        if self._stream is not None:
            try:
                encodable = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
                self._stream.write(encodable)
            except (OSError, ValueError) as error:
                self._switch_off(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, or do nothing once that has failed."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        """Point the descriptor to the null device, since Python flushes the rest of it at exit."""
        self.failure = error
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError):  # no descriptor, or a closed one
            assert stream is not None
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
