"""What holds for every test: one thread of computation, and nothing left behind."""

import gc
import os
import threading
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from hypothesis import settings
from tests.once import once_for_all
from tests.reliability import tiny

from boundnas.engine.tuning import tune

tune()  # as what trains does, so that no test is the first to change variables
torch.set_num_threads(1)  # bits agree between equal numbers of threads only
settings.register_profile("boundnas", deadline=None)  # a busy machine is no fault
settings.load_profile("boundnas")


gc.set_threshold(10_000, 20, 20)  # by default it takes a sixth of the suite's time


def pytest_configure(config):
    """Have the runs that are interrupted as long as is promised, or shorter."""
    if config.getoption("--full"):
        tiny.promised()


def pytest_collection_finish():
    """Never walk again through all that was imported."""
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="check every law on as many cases as is promised"
    )


@pytest.fixture(scope="session")
def full(request):
    """Whether the laws are checked on as many cases as the guarantees say."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session", autouse=True)
def _once(full):
    """Networks that are built alike are checked before the first training of them alone."""
    with nullcontext() if full else once_for_all():
        yield


@pytest.fixture
def figure(record_property):
    """Call with a sentence that says how much was checked; it is printed after the tests."""
    return partial(record_property, "figure")


def pytest_terminal_summary(terminalreporter):
    """Print what the tests said of how much they checked."""
    figures = [
        f"{report.nodeid.partition('::')[0]}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in sorted(figures):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _leaves_no_trace():
    """Fail a test that draws from the global generator or leaks threads or variables."""
    generator, threads, variables = _surroundings()
    yield
    for thread in _threads() - threads:
        thread.join(1)  # those that were told to stop
    generator_after, threads_after, variables_after = _surroundings()
    assert torch.equal(generator, generator_after), "drew from torch's global generator"
    assert threads_after <= threads, f"left threads running: {threads_after - threads}"
    assert variables_after == variables, "changed environment variables"


# By pytest, and by torch when it loads its compiler.
SET_BY_OTHERS = {
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
}


def _surroundings():
    variables = {k: v for k, v in os.environ.items() if k not in SET_BY_OTHERS}
    return torch.random.get_rng_state(), _threads(), variables


def _threads():
    """Those running, without the watch of tqdm, which the exporter may start and which stays."""
    return {t for t in threading.enumerate() if t.name != "tqdm_monitor"}
