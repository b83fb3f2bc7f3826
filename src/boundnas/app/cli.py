"""The command line: ``boundnas run CONFIG`` and its steps one by one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from boundnas.app import budget, pipeline
from boundnas.app import latency as tables
from boundnas.app.opening import configuration
from boundnas.app.proposal import about, propose
from boundnas.config import RunConfig, named_task, read_config
from boundnas.engine.entry import STOPPED
from boundnas.engine.foreign import answer
from boundnas.engine.interruption import Interrupted, interruptible
from boundnas.engine.output import SideChannel
from boundnas.engine.progress import alive
from boundnas.engine.ranks import rank
from boundnas.engine.tuning import tune
from boundnas.errors import ConfigError
from boundnas.report import write_report
from boundnas.report.compare import compare as compare_runs
from boundnas.search import Front
from boundnas.settings import Bounds
from boundnas.store.files import write_text
from boundnas.store.folder import RunFolder
from boundnas.store.records import said_ranges
from boundnas.store.times import LATENCY, said_amount
from boundnas.task import Task


@contextmanager
def orderly() -> Iterator[None]:
    """Whatever happens within is one message on stderr and a documented exit code.

    The output is a side channel, which may fail.
    """
    out, err = SideChannel(sys.stdout), SideChannel(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with _answered():
                yield
        finally:
            out.flush()
            if not isinstance(out.failure, BrokenPipeError | None):  # as of a pager that ended
                reason = getattr(out.failure, "strerror", None) or out.failure
                print(f"Nothing more can be printed ({reason}).", file=err)
            err.flush()


class _Group(TyperGroup):
    """All commands."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command in order."""
        with orderly():
            return super().main(*args, **kwargs)


@contextmanager
def _answered() -> Iterator[None]:
    """Turn whatever escapes into a message and an exit."""
    try:
        yield
    except Interrupted as stop:
        print(STOPPED.format(stop), file=sys.stderr)
        raise SystemExit(128 + stop.number) from None
    except Exception as error:
        text, code = answer(error)
        speaker = f"rank {rank()}: " if rank() else ""
        print(f"{speaker}{text}", file=sys.stderr)
        raise SystemExit(code) from None


SMALL = 10_000
"""Below so many multiply-accumulates millions would say little."""

app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train one supernet, learn the bounds of its search space, deploy a family of networks.",
)


def expanded(path: Path | None) -> Path | None:
    """Refuse a home that the shell left for us to find: it would become a folder named ~."""
    if path is not None and (home := os.path.expanduser(path)) != str(path):
        raise typer.BadParameter(f"the shell did not expand {path.parts[0]}; give {home}")
    return path


ConfigFile = Annotated[Path, typer.Argument(help="Configuration in YAML; see configs/.")]
RunPath = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/digits.")]
Wait = Annotated[float, typer.Option(min=1, help="Seconds that processes wait for one another.")]
Runs = Annotated[
    Path, typer.Option(callback=expanded, help="Folder that the run's own folder is made in.")
]
Range = Annotated[
    list[str] | None,
    typer.Option(metavar="LOWER..UPPER", help="From so many to so many, as in 1M..5M."),
]
TaskName = Annotated[
    str | None,
    typer.Option(help="Measure by another task's metric: FILE.py:NAME, or one that comes along."),
]
Limit = Annotated[
    list[str] | None, typer.Option(metavar="NUMBER", help="At most so many, as in 5M or 20k.")
]


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """A command that a signal stops in order, on a process that is set up to compute."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        with _answered(), interruptible(), alive(function.__name__):
            tune()
            function(*args, **kwargs)

    return call


def _command(function: Callable[..., None], **options: Any) -> Callable[..., None]:
    """Register a command."""
    return app.command(**options)(guarded(function))


_named_costs = partial(
    _command, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
"""Registers a command that takes limits of any cost of the run by its name."""


def _given(context: typer.Context, **known: list[str] | None) -> list[str]:
    """The words of a command that name costs, those it knows and others."""
    found = [f"--{name}={text}" for name, texts in known.items() for text in texts or ()]
    return [*found, *context.args]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"boundnas {version('boundnas')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@_command
def init(
    data: Annotated[
        Path | None,
        typer.Option(callback=expanded, help="Folder with a folder of images for each class."),
    ] = None,
    out: Annotated[
        Path, typer.Option(callback=expanded, help="File to write; never one that is there.")
    ] = Path("run.yaml"),
) -> None:
    """Write a commented configuration that fits a folder of images."""
    if os.path.lexists(out):
        raise ConfigError(f"{out}: is there already; name another file by --out, or move this away")
    proposal = propose(data)
    print("A few steps of it will tell how long it takes here.", file=sys.stderr)
    time = about(proposal.seconds())
    write_text(out, proposal.text)
    print(f"Wrote {out}. Next: boundnas run {out}\nOn this machine it takes about {time}.")


@_command
def run(config: ConfigFile, runs: Runs = Path("runs"), timeout: Wait = pipeline.TIMEOUT) -> None:
    """Train, search, export and report; an interrupted run continues."""
    folder, front = pipeline.run(read_config(config), runs, timeout)
    _show(front, folder)
    _print(f"Report: {folder.report.resolve()}")


@_command
def train(config: ConfigFile, runs: Runs = Path("runs"), timeout: Wait = pipeline.TIMEOUT) -> None:
    """Train the supernet and its boundaries."""
    settings = read_config(config)
    with pipeline.working(settings, runs / settings.name, timeout) as (job, folder):
        job.train(folder)
    _print(f"Trained: {folder.path.resolve()}")


@_named_costs
def search(
    context: typer.Context,
    run: RunPath,
    macs: Range = None,
    parameters: Range = None,
    bounds: Annotated[
        Bounds | None, typer.Option(help="Part of the space that is searched.")
    ] = None,
    task: TaskName = None,
    timeout: Wait = pipeline.TIMEOUT,
) -> None:
    """Search the Pareto front of a run, after finishing its training if need be.

    For other costs than it was trained for, name each with its range; without training anew:
    --macs 1M..5M --parameters 2k..20k
    """
    ranges = budget.ranges(_given(context, macs=macs, parameters=parameters))
    with pipeline.working(_config(run, "search(run)"), run, timeout) as (job, folder):
        front = job.search(job.train(folder), ranges, bounds, _task(job, task))
    _show(front, folder)


@_command
def export(run: RunPath, task: TaskName = None, timeout: Wait = pipeline.TIMEOUT) -> None:
    """Write the networks of a run's front, after finishing its search if need be.

    Of a front that was searched by another task's metric, name the task again.
    """
    with pipeline.working(_config(run, "export_front(run)"), run, timeout) as (job, folder):
        trained = job.train(folder)
        job.export(trained, job.found(trained, _task(job, task)))
    _print(f"Networks: {folder.networks.resolve()}")


@_named_costs
def best(
    context: typer.Context,
    run: RunPath,
    macs: Limit = None,
    parameters: Limit = None,
    latency: Annotated[
        list[str] | None, typer.Option(metavar="TIME", help="At most so long, as in 8ms.")
    ] = None,
) -> None:
    """Print the most accurate network within a budget, and where its files are.

    Any cost of the run is a limit by its name, with k, M or G for thousands, millions or billions:
    --macs 5M --parameters 20k
    """
    given = _given(context, macs=macs, parameters=parameters, latency=latency)
    print(budget.best(run, budget.budget(given)))


@_command
def latency(
    of: Annotated[Path, typer.Argument(help="Configuration in YAML, or folder of a run.")],
    runtime: Annotated[
        str, typer.Option(help="Where networks run: onnxruntime, torch or compile.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="So many threads compute.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a pass.")] = 1,
    minutes: Annotated[float, typer.Option(help="Time that it may take, about.")] = 15,
    out: Annotated[Path, typer.Option(callback=expanded, help="File of the table.")] = Path(
        "latency.json"
    ),
    plan: Annotated[
        Path | None,
        typer.Option(callback=expanded, help="Folder to write what another device has to time."),
    ] = None,
    collect: Annotated[
        Path | None, typer.Option(callback=expanded, help="Folder of a plan that was timed there.")
    ] = None,
) -> None:
    """Measure a table of latency, by which milliseconds are the cost of a run.

    On this machine; for another device by a plan, which is timed there and collected here.
    """
    if plan is not None and collect is not None:
        raise ConfigError("--plan and --collect are two steps; give one of them")
    if plan is not None:
        print(tables.planned(of, plan, batch))
    elif collect is not None:
        print(tables.collected(of, collect, out))
    else:
        print(tables.measured(of, out, runtime, threads, batch, minutes))


@_command
def report(run: RunPath) -> None:
    """Write the report of a run from what is there so far."""
    print(f"Report: {write_report(RunFolder.open(run).path).resolve()}")


@_command
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of searched runs, in any order.")],
    out: Annotated[
        Path, typer.Option(callback=expanded, help="Folder for tables, figures and raw numbers.")
    ] = Path("comparison"),
) -> None:
    """Compare runs: fronts, scores, accuracy at budgets and boundaries, grouped over seeds."""
    folder = compare_runs(runs, out)
    print((folder / "comparison.md").read_text())
    print(f"Comparison: {(folder / 'comparison.html').resolve()}")


def _config(run: Path, call: str) -> RunConfig:
    """The configuration of an existing run folder.

    Args:
        run: The folder.
        call: What is called in Python instead, with the opened run.

    Raises:
        ArgumentError: The run was made from Python.
    """
    opened = f"run = boundnas.open({str(run)!r}, model=..., data=...)"
    return configuration(RunFolder.open(run), f"do it there: {opened}; boundnas.{call}")


def _task(job: pipeline.Job, name: str | None) -> Task | None:
    return None if name is None else job.named_task(named_task(name))


def _print(text: str) -> None:
    """Print a line, in the first of several processes."""
    if rank() == 0:
        print(text)


def _show(front: Front, folder: RunFolder) -> None:
    """Print the front of a run as a table, in the first of several processes."""
    if rank():
        return
    networks, name = (*front.networks, *front.outside), front.metric.name
    others = [cost for cost in front.ranges if cost not in ("macs", "parameters")]
    small = min(n.macs for n in networks) < SMALL
    table = Table(
        *others, "MACs" if small else "MMACs", "parameters", f"validation {name}", f"test {name}",
        title=f"Front, {said_ranges(front.ranges)}",
    )  # fmt: skip
    for column in table.columns:
        column.justify = "right"
    for n in networks:
        table.add_row(
            *(said_amount(cost, n.costs[cost]) for cost in others),
            f"{n.macs:,}" if small else f"{n.macs / 1e6:.3f}",
            f"{n.parameters:,}",
            n.metric.shown(n.validation),
            n.metric.shown(n.test),
            style="dim" if n in front.outside else None,
        )
    Console().print(table)
    if front.networks and front.outside:
        print(f"The last {len(front.outside)} lie outside the range asked for.")
    if not front.networks:
        print(front.nothing_inside())
    if LATENCY in front.ranges and (doubt := tables.doubt(folder)):
        print(doubt)
