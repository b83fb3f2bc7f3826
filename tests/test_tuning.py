"""Importing changes nothing in the process; training and the commands switch on what is faster."""

import os
import platform
import subprocess
import sys

import pytest
from tests.reliability.tiny import configure

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
import resource
import torch
import boundnas
from boundnas.engine.tuning import tune
if {tuned}:
    tune()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def maps(times):
    for _ in range(times):
        torch.ones(10 << 20).relu()  # two maps of 40 MiB: 10,240 pages each
maps(10)  # until freed memory has gathered in places large enough
before = faults()
maps(20)
print(faults() - before)
"""
SETTLED = {
    "tuned": (True, {}, True),
    "only imported": (False, {}, False),
    "settled by the user": (True, {"MALLOC_TRIM_THRESHOLD_": "131072"}, False),
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("tuned", "variables", "kept"), SETTLED.values(), ids=SETTLED)
def test_maps_reuse_the_pages_of_earlier_ones_once_that_was_asked_for(tuned, variables, kept):
    rest = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "BOUNDNAS_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(tuned=tuned)],
        env={**rest, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    faults = int(done.stdout)
    assert faults < 10_240 if kept else faults > 100_000, faults


FITTED = """
import os
import torch
import boundnas as bn
from boundnas.engine import tuning
calls = []
tuning._keep_freed_memory = lambda: calls.append(1)
torch.set_num_threads(1)
model = bn.models.MobileNet(bn.models.StemTable((2, 4)), (), 4, 8, 1)
run = bn.fit(model, bn.data.digits(), cost_range=(1e3, 1e5),
             settings=bn.TrainSettings(steps=1, batch_size=8))
print(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY"), len(calls))
os.environ.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
bn.search(run, bn.SearchSettings(initial=2, rounds=0, calibration_images=8))
print(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY"), len(calls))
"""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ["16384 1", "16384 2"]),
        ({"BOUNDNAS_TUNE": "0"}, ["None 0", "None 0"]),
        ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, ["7 1", "16384 2"]),
    ],
    ids=str,
)
def test_training_and_search_begin_by_it_unless_the_user_settled_it(variables, said):
    known = ("ONEDNN_PRIMITIVE", "BOUNDNAS_")
    rest = {k: v for k, v in os.environ.items() if not k.startswith(known)}
    done = subprocess.run(
        [sys.executable, "-c", FITTED],
        env={**rest, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == said


COMMAND = """
import os
from boundnas.app import cli
from boundnas.engine import tuning
tuning._keep_freed_memory = lambda: print("memory")
read = cli.read_config
def noted(path):
    print(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
    return read(path)
cli.read_config = noted
cli.app(["train", "nowhere.yaml"])
"""


def test_a_command_begins_by_it_before_anything_is_computed(tmp_path):
    configure(tmp_path)
    rest = {k: v for k, v in os.environ.items() if not k.startswith("ONEDNN_PRIMITIVE")}
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, env=rest, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (2, ["memory", "16384"])
