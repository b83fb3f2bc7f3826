"""The first moments of the command: a library stands in for the seconds that imports take."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import boundnas

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def while_importing(tmp_path):
    """Run the command with some code in the place of the first library that it imports."""

    def run(code, arguments=("-m", "boundnas", "run", "run.yaml"), **options):
        (tmp_path / "torch.py").write_text(f"import os, signal\n{code}\n")
        path = os.pathsep.join([str(tmp_path), str(Path(boundnas.__file__).parents[1])])
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            **{"stderr": subprocess.PIPE, **options},
        )

    return run


def heeding(number):
    """In the child, whatever the tests were started with."""
    heed = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return {"preexec_fn": lambda: signal.signal(number, heed)}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_the_imports_is_answered_in_one_line(number, while_importing):
    code = f"os.kill(os.getpid(), {number:d}); import time; time.sleep(9)"
    done = while_importing(code, **heeding(number))
    assert done.stderr == f"Stopped by {number.name}. The same command goes on from here.\n"
    assert done.returncode == 128 + number


def test_a_signal_that_the_command_was_started_to_ignore_stays_ignored(while_importing):
    done = while_importing(
        "signal.raise_signal(signal.SIGHUP); os._exit(7)",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.returncode == 7


ESCAPING = {
    "a missing library": (
        "raise ModuleNotFoundError('no torch', name='torch.nn')",
        "install torch",
    ),
    "a broken library": ("raise ImportError('libtorch.so: undefined')", "libtorch.so: undefined"),
    "no memory": ("raise MemoryError", "out of memory"),
    "no descriptors": ("raise OSError(24, 'Too many open files', 'x.so')", r"ulimit -n"),
}


@pytest.mark.parametrize(("code", "said"), ESCAPING.values(), ids=ESCAPING)
def test_an_error_of_the_imports_is_one_line(code, said, while_importing):
    done = while_importing(code)
    assert done.returncode == 1
    assert said in done.stderr.replace("--force-reinstall ", "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_never_takes_the_number_of_a_closed_stream(number, while_importing):
    done = while_importing(
        "os._exit(os.open(os.devnull, os.O_RDONLY))", preexec_fn=lambda: os.close(number)
    )
    assert done.returncode > 2


def test_a_working_folder_that_is_gone_is_told_before_a_library_ends_the_process(
    while_importing, tmp_path
):
    def leave():
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    done = while_importing("os._exit(9)", preexec_fn=leave)
    assert (done.returncode, done.stderr) == (
        1,
        "RunError: the working folder cannot be found (No such file or directory); change into one "
        "that is there\n",
    )


def test_a_program_that_imports_the_library_keeps_its_own_handlers(while_importing):
    code = "import signal, sys; sys.exit(signal.getsignal(15) is not signal.SIG_DFL)"
    done = while_importing(
        "raise KeyError", ("-c", f"try: import boundnas\nexcept KeyError: {code}")
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["own", "boundnas_own", "own.boundnas"])
def test_a_module_of_another_package_that_imports_the_library_is_no_command(
    module, while_importing, tmp_path
):
    package, _, part = module.partition(".")
    (tmp_path / package).mkdir()
    lines = "import sys\ntry: import boundnas\nexcept KeyError: pass\nprint(sys.excepthook)\n"
    (tmp_path / package / "__init__.py").write_text(lines)
    (tmp_path / package / f"{part or '__main__'}.py").write_text("raise KeyError('mine')")
    done = while_importing("raise KeyError", ("-m", module))
    assert "built-in function excepthook" in done.stdout
    assert done.stderr.endswith("KeyError: 'mine'\n")


@pytest.mark.parametrize("how", [("-m", "boundnas"), ("-mboundnas",), ("-Bm", "boundnas")])
def test_the_command_is_known_however_python_is_told_of_it(how, while_importing):
    done = while_importing("raise MemoryError", (*how, "run", "run.yaml"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
