"""What the import asks of the C library's allocator."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
import boundnas
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("settled", [False, True])
def test_maps_reuse_the_pages_of_earlier_ones_unless_the_user_settled_it(settled, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if settled:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    faults = int(done.stdout)
    assert faults > 100_000 if settled else faults < 10_240, faults
