"""Threads beyond the cores there are: one warning, and the command does not take them."""

import errno
import logging

import pytest
import torch
from tests.small import COST_RANGE, few_digits, mobilenet, threads

import boundnas as bn
from boundnas.engine import pool
from boundnas.engine.progress import Progress
from boundnas.engine.threads import cores, use_threads, warn_of_threads


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("asked", "now", "taken", "place"),
    [
        (1, 1, 1, None),
        (2, 1, 2, None),
        (3, 1, 2, "threads"),
        (4096, 1, 2, "threads"),
        (None, 1, 1, None),
        (None, 2, 2, None),
        (None, 64, 2, "OMP_NUM_THREADS"),
        (1, 64, 1, None),
    ],
)
def test_the_command_takes_a_thread_a_core(asked, now, taken, place, monkeypatch, caplog):
    held = [now]
    monkeypatch.setattr(torch, "get_num_threads", lambda: held[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: held.__setitem__(0, n))
    use_threads(asked)
    warn_of_threads()  # says nothing again
    assert held == [taken]
    assert [record.getMessage() for record in caplog.records] == (
        []
        if place is None
        else [
            f"{place} asks for {asked or now} threads, and this process may use 2 cores; 2 are "
            f"taken. Set {place} to at most 2"
        ]
    )


def test_from_python_too_many_are_named_and_left(caplog):
    most = cores()
    with threads(most + 1), caplog.at_level(logging.WARNING):
        settings = bn.TrainSettings(steps=1, batch_size=16)
        bn.fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings)
        assert torch.get_num_threads() == most + 1
    [record] = caplog.records
    assert record.getMessage() == (
        f"PyTorch computes with {most + 1} threads, and this process may use {most} cores, which "
        f"makes a step many times slower; call torch.set_num_threads({most}), or set "
        f"OMP_NUM_THREADS={most}"
    )


def test_a_machine_that_tells_no_affinity_has_its_number_of_cores(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert cores() == 7


def test_no_thread_is_started_that_has_no_memory_to_say_that_it_is_there(monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with pool.ThreadPool(1) as threads:
        assert threads.submit(abs, -3).result() == 3
    monkeypatch.setattr(pool, "mmap", full)
    with pool.ThreadPool(1) as threads, pytest.raises(MemoryError, match="none for a thread"):
        threads.submit(abs, -3)
    monkeypatch.setattr("threading.Thread.start", lambda _: pytest.fail("it was started"))
    with Progress(1, "train") as progress:  # it does without
        progress.advance()
    assert "train  1/1  100 %" in capsys.readouterr().err.replace("step ", "")
