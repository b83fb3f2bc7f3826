"""Importing changes nothing in the process; training and the commands switch on what is faster."""

import os
import platform
import subprocess
import sys
from io import StringIO

import pytest
from tests.reliability.child import fork, replaced
from tests.small import COST_RANGE, few_digits, mobilenet

import boundnas as bn
from boundnas.app import cli
from boundnas.engine import tuning

IMPORTED = """
import ctypes, logging, os, random, signal, sys, warnings
import moocore, numpy, pydantic, rich.progress, ruamel.yaml, safetensors.torch, torch, typer
import torch._dynamo, torch.export

def surroundings():
    root = logging.getLogger()
    return {
        "variables": dict(os.environ),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's generator": torch.random.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "numpy's generator": repr(numpy.random.get_state()),
        "filters of warnings": list(warnings.filters),
        "handlers of logs": [*root.handlers, *logging.getLogger("boundnas").handlers],
        "levels of logs": (root.level, logging.getLogger("boundnas").level),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "hooks": (sys.excepthook, sys.displayhook, sys.meta_path[:], sys.path[:]),
        "dtype": (torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "modes": (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
        "folder": os.getcwd(),
    }

def refused(*_):
    raise AssertionError("the C library was asked for something")

ctypes.CDLL = refused
before = surroundings()
import boundnas, boundnas.app.cli
after = surroundings()
for name, value in before.items():
    assert after[name] == value, name
"""


def test_importing_changes_nothing_in_the_process():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FAULTS = """
import os, resource, sys
import torch
import boundnas
from boundnas.engine.tuning import tune

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def maps(times):
    for _ in range(times):
        torch.ones(10 << 20).relu()  # two maps of 40 MiB: 10,240 pages each

def measured():
    maps(4)  # until freed memory has gathered in places large enough
    before = faults()
    maps(6)
    return faults() - before

def tuned():
    tune()
    return measured()

def settled():
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "131072"
    return tuned()

for work in (tuned, measured, settled):
    if not os.fork():
        print(work(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_maps_reuse_the_pages_of_earlier_ones_once_that_was_asked_for():
    rest = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "BOUNDNAS_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=rest, capture_output=True, text=True, check=True
    )
    tuned, only_imported, settled_by_the_user = map(int, done.stdout.split())
    assert tuned < 10_240
    assert only_imported > 100_000
    assert settled_by_the_user > 100_000


VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def said_by(work, variables, folder):
    """What some work prints, in a process with these variables and none that was tuned before."""

    def alone():
        for name in (VARIABLE, "BOUNDNAS_TUNE"):
            os.environ.pop(name, None)
        os.environ.update(variables)
        with replaced(sys, "stderr", lambda _: StringIO()):
            work()

    child = fork(alone, folder)
    return child.wait(), child.text.splitlines()


def trained_and_searched():
    calls = []

    def told():
        print(os.environ.get(VARIABLE), len(calls))

    with replaced(tuning, "_keep_freed_memory", lambda _: lambda: calls.append(1)):
        settings = bn.TrainSettings(steps=1, batch_size=16)
        run = bn.fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings)
        told()
        os.environ.pop(VARIABLE, None)
        bn.search(run, bn.SearchSettings(initial=2, rounds=0, calibration_images=16))
        told()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ["16384 1", "16384 2"]),
        ({"BOUNDNAS_TUNE": "0"}, ["None 0", "None 0"]),
        ({VARIABLE: "7"}, ["7 1", "16384 2"]),
    ],
    ids=str,
)
def test_training_and_search_begin_by_it_unless_the_user_settled_it(variables, said, tmp_path):
    assert said_by(trained_and_searched, variables, tmp_path) == (0, said)


def commanded():
    def noted(read):
        def reading(path):
            print(os.environ[VARIABLE])
            return read(path)

        return reading

    with (
        replaced(tuning, "_keep_freed_memory", lambda _: lambda: print("memory")),
        replaced(cli, "read_config", noted),
    ):
        cli.app(["train", "nowhere.yaml"])


def test_a_command_begins_by_it_before_anything_is_computed(tmp_path):
    assert said_by(commanded, {}, tmp_path) == (2, ["memory", "16384"])
