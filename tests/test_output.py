"""Output that fails is switched off; the work and the exit go on as if it had not."""

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from boundnas.engine.output import SideChannel


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


disk_full = partial(Path("/dev/full").open, "w")
FAILING = {"full": disk_full, "broken pipe": broken_pipe, "closed": closed}


@pytest.mark.parametrize("make", FAILING.values(), ids=FAILING)
def test_a_stream_that_fails_is_left_alone_from_then_on(make):
    stream = make()
    channel = SideChannel(stream)
    assert not channel.isatty()
    for _ in range(3):
        print("a line", file=channel, flush=True)
    assert isinstance(channel.failure, OSError | ValueError)
    stream.close()  # what it held back went nowhere, without an error


def test_there_may_be_no_stream():
    channel = SideChannel(None)
    print("a line", file=channel, flush=True)
    assert (channel.failure, channel.isatty(), channel.encoding) == (None, False, "utf-8")


@pytest.mark.parametrize(("text", "written"), [("a─b", b"a\\u2500b"), ("x\udcff", b"x\\udcff")])
def test_what_the_encoding_lacks_is_escaped(text, written):
    held = io.BytesIO()
    channel = SideChannel(io.TextIOWrapper(held, encoding="ascii"))
    channel.write(text)
    channel.flush()
    assert held.getvalue() == written
    assert channel.failure is None


def test_a_process_whose_output_fails_exits_as_it_would_have():
    code = "import sys; from boundnas.engine.output import SideChannel\n"
    code += "for s in (sys.stdout, sys.stderr): print('x', file=SideChannel(s), flush=True)"
    with disk_full() as stream:
        done = subprocess.run([sys.executable, "-c", code], stdout=stream, stderr=stream)
    assert done.returncode == 0
