"""Ctrl-C on a comparison: every run is asked once for its end, waited for, and no more begin."""

import importlib
import os
import signal
import sys
import time

import pytest
import studies.__main__
from tests.reliability.child import fork, replaced
from tests.reliability.tiny import text

from boundnas.config import read_config

reproduce = importlib.import_module("studies.reproduce")

RUN = """\
#!{python} -IS
import os, signal, sys
asked = {{signal.SIGINT, signal.SIGTERM, signal.SIGHUP}}
signal.pthread_sigmask(signal.SIG_BLOCK, asked)
name = sys.argv[-3][:-5]
os.close(os.open(name + ".started", os.O_CREAT))
got = [signal.Signals(signal.sigwait(asked)).name]
while (more := signal.sigtimedwait(asked, 0.2)):
    got.append(signal.Signals(more.si_signo).name)
with open(name + ".saved", "w") as file:
    file.write(" ".join(got))
sys.exit(143)
"""
"""Stands for ``python -m boundnas run``: notes the signals that it gets until it ends."""


@pytest.fixture
def comparison(tmp_path):
    """``python -m studies`` of three runs, two at a time, as the leader of a session."""
    (tmp_path / "run.yaml").write_text(text())
    config = read_config(tmp_path / "run.yaml")
    script = tmp_path / "python"
    script.write_text(RUN.format(python=sys.executable))
    script.chmod(0o755)

    def configured(_, variant, seed, *__):
        return config.model_copy(update={"name": f"{variant}-{seed}", "seed": seed})

    def work():
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # whatever the tests were started to ignore
        with (
            replaced(sys, "executable", lambda _: str(script)),
            replaced(reproduce, "configuration", lambda _: configured),
        ):
            studies.__main__.run(["fig3", "--seeds", "3", "--jobs", "2", "--out", "out"])

    return work


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_the_terminal_costs_no_run_a_step(
    number, comparison, tmp_path
):
    child = fork(comparison, tmp_path)
    runs = tmp_path / "out" / "runs"
    while len(list(runs.glob("*.started"))) < 2:
        time.sleep(0.01)
    os.killpg(child.pid, number)
    assert child.wait() == 128 + number, child.text
    assert child.text.splitlines()[-1] == (
        f"Stopped by {number.name}. The same command goes on from here."
    )
    assert [path.read_text() for path in runs.glob("*.saved")] == ["SIGTERM"] * 2
    assert len(list(runs.glob("*.started"))) == 2
    assert "Traceback" not in child.text
