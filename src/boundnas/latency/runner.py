"""Times the networks of a plan on this machine: ``python measure.py [--threads N]``.

It needs Python 3.10 or later, numpy and onnxruntime, and nothing else. Whatever ends it, the same
command goes on from what was timed before. It writes times.json beside itself; take that file, or
the whole folder, back to where the plan was made and collect it there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boundnas.engine.machine import fingerprint
from boundnas.latency.timing import Times, in_turn

VERSION = 1
"""Of the plan and of the times; another one means something else."""

PLAN, MODELS, TIMES = "plan.json", "models.zip", "times.json"
"""Files of a plan: what is timed, the networks, and their times."""

REFERENCE = "reference.onnx"
"""A network that is timed with every group: it says how noisy the machine is."""

ACCEPTED, TRIES = 0.05, 4
"""Where the reference's quartiles lie farther apart, or it is off by more from what it was, a group
is timed again with twice the rounds, so often at most."""

TYPES = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool"}
"""What ONNX calls types of numbers, and numpy; others have the same name."""


class PlanError(Exception):
    """Something is wrong with the folder of a plan; says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time what is not timed yet; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="threads that compute (1)")
    parser.add_argument(
        "--minutes", type=float, help="stop after so many, once the coarsest grid is timed"
    )
    asked = parser.parse_args(arguments)
    try:
        Measurement(Path(__file__).resolve().parent, asked.threads).run(asked.minutes)
    except PlanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


class Measurement:
    """The folder of a plan, and the times that are known.

    Args:
        folder: Where the plan lies.
        threads: So many threads compute.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime  # where it is missing, --help works

        if threads < 1:
            raise PlanError(f"--threads is 1 or more, found {threads}")
        self.folder = folder
        self.plan = _read(folder / PLAN)
        if self.plan.get("version") != VERSION:
            raise PlanError(
                f"{PLAN} is of version {self.plan.get('version')}, and this program reads version "
                f"{VERSION}; take plan and program from one folder"
            )
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads, self.options.inter_op_num_threads = threads, 1
        self.options.log_severity_level = 3
        self.known = {
            "version": VERSION,
            "plan": self.plan["plan"],
            "runtime": "onnxruntime",
            "runtime_version": onnxruntime.__version__,
            "threads": threads,
            "machine": fingerprint(),
            "times": {},
            "references": [],
        }
        self._go_on()
        self._check_models()

    def _go_on(self) -> None:
        """Take up the times that are there.

        Raises:
            PlanError: They are of another plan, machine, runtime or number of threads.
        """
        if not (self.folder / TIMES).exists():
            return
        held = _read(self.folder / TIMES)
        for name, value in self.known.items():
            if name not in ("times", "references") and held.get(name) != value:
                raise PlanError(
                    f"{TIMES} was measured with {name} {held.get(name)}, and this is {value}; "
                    "move it away to begin anew, or measure as before"
                )
        self.known["times"], self.known["references"] = held["times"], held["references"]

    def _check_models(self) -> None:
        """Refuse networks that are not those of the plan."""
        found = hashlib.sha256()
        try:
            with (self.folder / MODELS).open("rb") as file:
                while part := file.read(1 << 20):
                    found.update(part)
        except OSError as error:
            raise PlanError(f"{MODELS}: cannot be read ({error.strerror})") from error
        if found.hexdigest() != self.plan["models"]:
            raise PlanError(f"{MODELS} is not what the plan says; copy the folder again")

    def run(self, minutes: float | None = None) -> None:
        """Time group by group, until all are timed or the time is over."""
        waiting = [g for g in self.plan["groups"] if g["files"][0] not in self.known["times"]]
        start = time.monotonic()
        for done, group in enumerate(waiting):
            passed = time.monotonic() - start
            if minutes is not None and passed > 60 * minutes and group["level"] > 0:
                print(f"\n{minutes:g} minutes are over; finer grids are left out.", end="")
                break
            _show(done, len(waiting), passed)
            self._time(group["files"], group["rounds"])
        else:
            _show(len(waiting), len(waiting), time.monotonic() - start)
        print(f"\nWrote {self.folder / TIMES}. {self._noise()}")

    def _time(self, names: Sequence[str], rounds: int) -> None:
        with zipfile.ZipFile(self.folder / MODELS) as archive:
            calls = [self._loaded(archive.read(name)) for name in (REFERENCE, *names)]
        for turn in range(TRIES):
            reference, *found = in_turn(calls, rounds * 2**turn, time.perf_counter_ns)
            if self._is_quiet(reference):
                break
        self.known["references"].append(_row(reference))
        self.known["times"] |= dict(zip(names, map(_row, found), strict=True))
        _write(self.folder / TIMES, self.known)

    def _is_quiet(self, reference: Times) -> bool:
        before = [median for median, _, _ in self.known["references"]] or [reference.median]
        drift = abs(reference.median / float(np.median(before)) - 1)
        return max(reference.spread, drift) <= ACCEPTED

    def _loaded(self, content: bytes) -> Callable[[], object]:
        import onnxruntime

        session = onnxruntime.InferenceSession(
            content, self.options, providers=["CPUExecutionProvider"]
        )
        generator = np.random.default_rng(0)
        given = {each.name: _noise(each, generator) for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        return lambda: session.run(names, given)

    def _noise(self) -> str:
        """How far times lay apart, in words."""
        spreads = [Times(*row).spread for row in self.known["references"]]
        return f"Half of the times of one and the same network lay within {np.median(spreads):.1%}."


def _row(times: Times) -> list[int]:
    return [times.median, times.lower, times.upper]


def _noise(each: Any, generator: np.random.Generator) -> Any:
    """Normal noise for an input; zeros where it takes no numbers to compute with."""
    kind = each.type[len("tensor(") : -1]
    noise = generator.standard_normal(each.shape, dtype=np.float32)
    kind = TYPES.get(kind, kind)
    return noise.astype(kind) if kind.startswith("float") else np.zeros(each.shape, kind)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise PlanError(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PlanError(f"{path.name}: is damaged ({error})") from error
    if not isinstance(found, dict):
        raise PlanError(f"{path.name}: is damaged, it holds no object")
    return found


def _write(path: Path, value: object) -> None:
    """Replace a file at once, so that it is whole whenever this process dies."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _show(done: int, total: int, passed: float) -> None:
    left = f", about {_clock(passed * (total - done) / done)} left" if done else ""
    print(f"\r{done} of {total} groups, {_clock(passed)}{left}   ", end="", flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


if __name__ == "__main__":
    raise SystemExit(main())
