"""Row 10: whatever happens to one rank, all end in time and say so, and a restart goes on."""

import math
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from tests.reliability.child import fork, replaced
from tests.reliability.ranks import finish, together
from tests.reliability.tiny import STEPS, clear, configure, outcome, run

from boundnas.app import cli
from boundnas.engine import ranks
from boundnas.method.sandwich import Sandwich
from boundnas.store.folder import RunFolder
from boundnas.store.lines import read_jsonl

TIMEOUT = {"killed": 60, "raising": 60, "hanging": 5, "not a number": 60}
"""Seconds a rank waits for the others, by what happens to one."""


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def raising():
    raise ZeroDivisionError("a bug")


def hanging():
    time.sleep(100)


FAULTS = {
    "killed": (killed, -signal.SIGKILL),
    "raising": (raising, 1),
    "hanging": (hanging, -signal.SIGKILL),
    "not a number": (None, 1),
}
"""What a rank does in the middle of a step, and how it ends; one that hangs is killed then."""


def failing(kind, rank, step):
    """Run, with a fault in one step of one rank."""

    def make(old):
        def faulty(self, images, labels, number, *rest, **more):
            if (ranks.rank(), number) != (rank, step):
                return old(self, images, labels, number, *rest, **more)
            if kind != "not a number":
                FAULTS[kind][0]()
            weight = next(self.model.parameters())
            handle = weight.register_hook(lambda gradient: gradient * math.nan)
            try:
                return old(self, images, labels, number, *rest, **more)
            finally:
                handle.remove()

        return faulty

    def work():
        with replaced(Sandwich, "step", make):
            cli.app(["run", "run.yaml", "--timeout", str(TIMEOUT[kind])])

    return work


@pytest.fixture(scope="module")
def whole(whole, tmp_path_factory):
    """The outcome of two ranks that nothing happened to, forked off a process that ran alone."""
    folder = configure(tmp_path_factory.mktemp("whole"))
    codes, texts = finish(together(run, folder))
    assert codes == [0, 0], texts
    return outcome(folder)


def test_all_ranks_end_in_time_and_a_restart_ends_in_the_same_bytes(whole, tmp_path, full, figure):
    rng = random.Random(0)
    cases = [kind for kind in FAULTS for _ in range(25 if full else 1)]
    for kind in cases:
        configure(tmp_path)
        rank, step = rng.randrange(2), rng.randrange(1, STEPS)
        children = together(failing(kind, rank, step), tmp_path)
        other = children[1 - rank]
        code = other.wait(60)
        assert code == 1, other.text
        assert f"rank {1 - rank}" in other.text or kind == "not a number"
        assert f"step {step}" in other.text
        assert "Traceback" not in other.text
        if kind == "hanging":  # what torchrun does when a rank has failed
            children[rank].send(signal.SIGKILL)
        rows = read_jsonl(RunFolder(tmp_path / "runs" / "tiny").metrics)
        assert len(rows) == step
        assert children[rank].wait(10) == FAULTS[kind][1], children[rank].text
        if kind == "not a number":
            message = rf"step {step}: the max network has a gradient of nan at stem"
            assert re.search(message, children[rank].text)
        codes, texts = finish(together(run, tmp_path))
        assert codes == [0, 0], texts
        assert outcome(tmp_path) == whole
        clear(tmp_path)
    figure(f"{len(cases)} faults, no rank hung")


def test_a_hanging_rank_is_noticed_within_the_timeout(tmp_path):
    configure(tmp_path)
    children = together(failing("hanging", 1, 3), tmp_path)
    while not RunFolder(tmp_path / "runs" / "tiny").metrics.exists():
        time.sleep(0.01)
    started = time.monotonic()
    assert children[0].wait(60) == 1
    assert time.monotonic() - started < TIMEOUT["hanging"] + 5
    children[1].send(signal.SIGKILL)
    children[1].wait()


@pytest.mark.parametrize("size", [1, 4])
def test_another_number_of_ranks_goes_on_from_the_checkpoint(size, tmp_path):
    configure(tmp_path)
    finish(together(failing("killed", 1, 5), tmp_path))
    codes, texts = finish(together(run, tmp_path, size))
    assert codes == [0] * size, texts
    rows = read_jsonl(RunFolder(tmp_path / "runs" / "tiny").metrics)
    assert [row["step"] for row in rows] == list(range(STEPS))


def test_a_signal_to_one_rank_stops_all_after_the_same_step(whole, tmp_path):
    configure(tmp_path)

    def make(old):
        def step(self, images, labels, number, *rest, **more):
            if (ranks.rank(), number) == (1, 4):
                os.kill(os.getpid(), signal.SIGTERM)
            return old(self, images, labels, number, *rest, **more)

        return step

    def work():
        with replaced(Sandwich, "step", make):
            run()

    codes, texts = finish(together(work, tmp_path))
    assert codes == [128 + signal.SIGTERM] * 2, texts
    checkpoints = sorted((tmp_path / "runs" / "tiny" / "checkpoints").iterdir())
    assert checkpoints[-1].name == "step-00000005"
    codes, texts = finish(together(run, tmp_path))
    assert codes == [0, 0], texts
    assert outcome(tmp_path) == whole


def breaking():
    """Run; the second rank dies in the middle of it, once."""

    def make(old):
        def step(self, images, labels, number, *rest, **more):
            if number == 5 and os.environ["RANK"] == "1" and not Path("broke").exists():
                Path("broke").touch()
                killed()
            return old(self, images, labels, number, *rest, **more)

        return step

    with replaced(Sandwich, "step", make), pytest.raises(SystemExit) as stop:
        run()
    if stop.value.code:
        raise stop.value


def agent():
    """What ``torchrun --standalone --nproc-per-node 2 --max-restarts 1`` is, with forked ranks."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # takes long to import

    settings = LaunchConfig(
        1, 1, 2, run_id="breaking", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=1, start_method="fork",
    )  # fmt: skip
    elastic_launch(settings, breaking)()


def test_torchrun_starts_again_and_goes_on(whole, tmp_path):
    configure(tmp_path)
    child = fork(agent, tmp_path)
    assert child.wait() == 0, child.text
    assert (tmp_path / "broke").exists()
    assert outcome(tmp_path) == whole
