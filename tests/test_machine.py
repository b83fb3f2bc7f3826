"""What is said of a machine, by the file in which Linux describes its processors."""

import platform
from pathlib import Path

import pytest

from boundnas.engine import machine

X86 = """\
processor\t: 0
model name\t: AMD EPYC 9654: 96-Core
flags\t\t: fpu vme sse4_2 fma avx512f avx2 avx

processor\t: 1
model name\t: another
flags\t\t: avx999
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"

MACHINES = {  # what the file holds, if there is one; processor, instructions
    "x86": (X86, "AMD EPYC 9654: 96-Core", "avx avx2 avx512f fma sse4_2"),
    "arm": (ARM, "the processor", "asimd bf16 sve"),
    "no instructions for many numbers": ("flags: fpu\n", "the processor", "the kind"),
    "no such file": (None, "the processor", "the kind"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_its_processor_its_instructions_and_its_cores(name, monkeypatch):
    text, processor, instructions = MACHINES[name]

    def read_text(path):
        assert path == Path("/proc/cpuinfo")
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(platform, "processor", lambda: "the processor")
    monkeypatch.setattr(platform, "machine", lambda: "the kind")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 12)
    assert machine.fingerprint() == {
        "cpu": processor,
        "instructions": instructions,
        "cores": "12",
    }


def test_a_processor_without_a_name_is_called_by_its_kind(monkeypatch):
    monkeypatch.setattr(machine, "_of_cpu", lambda name: "")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "the kind")
    assert machine.cpu_model() == "the kind"


@pytest.mark.parametrize(
    ("runtime", "found"),
    [("onnxruntime", "1.2"), ("compile", "1.2"), ("a user's own", None), ("torch", None)],
)
def test_a_runtime_that_is_not_known_or_not_there_has_no_version(runtime, found, monkeypatch):
    def version(name):
        if found is None:
            raise machine.PackageNotFoundError
        assert name == {"onnxruntime": "onnxruntime", "compile": "torch"}[runtime]
        return found

    monkeypatch.setattr(machine, "version", version)
    assert machine.installed(runtime) == found
