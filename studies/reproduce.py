"""Run a whole comparison of the paper, several seeds of it, and read it off its run folders."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from threading import Lock
from typing import IO

from boundnas.config import RunConfig, write_config
from boundnas.engine.pool import ThreadPool
from boundnas.engine.progress import Progress
from boundnas.errors import ConfigError, RunError
from boundnas.report.compare import compare
from boundnas.store.files import cannot_write, write_text
from boundnas.store.folder import RunFolder
from studies.figures import FIGURES, SCALES, configuration

WATCH_SECONDS = 1.0
"""So often the progress is shown anew while runs of hours are under way."""


def reproduce(
    figure: str,
    out: Path,
    scale: str = "small",
    seeds: int = 3,
    jobs: int = 1,
    data: Path | None = None,
) -> list[Path]:
    """Train and search every variant and seed that is not there yet, then compare them.

    Args:
        figure: Which comparison: a name in `studies.figures.FIGURES`.
        out: Runs go to ``out/runs``, where other figures find theirs again; the comparison goes
            to ``out/FIGURE-DATASET``.
        scale: ``"small"`` (Fashion-MNIST or words, two cores) or ``"paper"`` (A.2).
        seeds: So many, from 0 on.
        jobs: Runs at a time, each in a process of its own.
        data: Folder with a folder per data set, at the paper's scale.

    Returns:
        The folders of the comparisons, one per data set.

    Raises:
        ConfigError: No such figure or scale.
        RunError: A run failed; the others' work is kept, and the same call goes on.
    """
    if figure not in FIGURES:
        raise ConfigError(f"no comparison {figure!r}; there are {', '.join(FIGURES)}")
    if scale not in SCALES:
        raise ConfigError(f"no scale {scale!r}; there are {', '.join(SCALES)}")
    sets = FIGURES[figure].sets if scale == "paper" else (FIGURES[figure].small,)
    if not sets:
        raise ConfigError(f"{figure} has no space of the paper's; run it at the scale small")
    by_set = {
        name: [
            configuration(figure, variant, seed, scale, name, data)
            for seed in range(seeds)
            for variant in FIGURES[figure].variants
        ]
        for name in sets
    }
    runs = out / "runs"
    _run_all([config for configs in by_set.values() for config in configs], runs, jobs)
    folders = []
    for name, configs in by_set.items():
        folder = out / f"{figure}-{name}"
        compare([runs / config.name for config in configs], folder)
        folders.append(folder)
    return folders


def _run_all(configs: list[RunConfig], runs: Path, jobs: int) -> None:
    missing = [c for c in configs if not RunFolder(runs / c.name).front.exists()]
    if not missing:
        return
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(runs, 0, error) from error
    done = len(configs) - len(missing)
    children = _Children()
    with (
        ThreadPool(jobs) as pool,
        Progress(len(configs), "reproduce", unit="run", done=done) as progress,
    ):
        try:
            pending = {pool.submit(_run, config, runs, children) for config in missing}
            while pending:
                ended, pending = wait(pending, WATCH_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    future.result()
                progress.advance(len(ended))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise  # when the pool's workers have seen their children end


class _Children:
    """The processes at work, which stop together.

    Each has a session of its own: Ctrl-C in a terminal reaches all processes of its session, and
    a child that gets it beside our SIGTERM has two signals, so it stops at once and loses a step.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def run(self, command: list[str], output: IO[bytes]) -> int | None:
        """Exit code of a command; nothing when it was not started any more."""
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._processes.append(process)
        return process.wait()

    def stop(self) -> None:
        """Ask all for a checkpoint and their end, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()


def _run(config: RunConfig, runs: Path, children: _Children) -> None:
    """One run in a process of its own; what it says goes to a file beside its folder."""
    file, log = runs / f"{config.name}.yaml", runs / f"{config.name}.log"
    write_text(file, write_config(config))
    command = [sys.executable, "-m", "boundnas", "run", str(file), "--runs", str(runs)]
    try:
        with log.open("wb") as output:
            code = children.run(command, output)
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
    except OSError as error:
        raise cannot_write(log, 0, error) from error
    if code:
        raise RunError(
            f"{config.name}: the run ended with code {code} and said {said[-1]!r}; all of it is in "
            f"{log}. The same command goes on with what is missing"
        )
