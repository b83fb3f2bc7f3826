"""Run a whole comparison of the paper, several seeds of it, and read it off its run folders."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from boundnas.config import RunConfig, write_config
from boundnas.errors import ConfigError, RunError
from boundnas.progress import Progress
from boundnas.store.files import write_text
from boundnas.store.folder import RunFolder
from boundnas.studies.compare import compare
from boundnas.studies.figures import FIGURES, SCALES, configuration


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
        figure: Which comparison: a name in `boundnas.studies.figures.FIGURES`.
        out: Runs go to ``out/runs``, where other figures find theirs again; the comparison goes
            to ``out/FIGURE-DATASET``.
        scale: ``"small"`` (Fashion-MNIST, two cores) or ``"paper"`` (A.2).
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
    sets = FIGURES[figure].sets if scale == "paper" else ("fashion_mnist",)
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
    done = len(configs) - len(missing)
    processes: list[subprocess.Popen[bytes]] = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        Progress(len(configs), "reproduce", unit="run", done=done) as progress,
    ):
        futures = [pool.submit(_run, config, runs, processes) for config in missing]
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()  # it writes a checkpoint first
            raise


def _run(config: RunConfig, runs: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """One run in a process of its own; what it says goes to a file beside its folder."""
    runs.mkdir(parents=True, exist_ok=True)
    file, log = runs / f"{config.name}.yaml", runs / f"{config.name}.log"
    write_text(file, write_config(config))
    command = [sys.executable, "-m", "boundnas", "run", str(file), "--runs", str(runs)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        processes.append(process)
        code = process.wait()
    if code:
        last = (log.read_text().strip().splitlines() or ["nothing"])[-1]
        raise RunError(
            f"{config.name}: the run ended with code {code} and said {last!r}; all of it is in "
            f"{log}. The same command goes on with what is missing"
        )
