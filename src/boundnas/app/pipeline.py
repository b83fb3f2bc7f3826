"""The whole job from a configuration: train, search, export, report; each step resumable."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from boundnas import guard
from boundnas.app.networks import made
from boundnas.app.own import Own
from boundnas.config import RunConfig, read_config, write_config
from boundnas.cost import COSTS, Budget, Cost, Latency, LatencyTable, check_budgets, paired
from boundnas.cost.budget import as_written
from boundnas.data import Samples, TrainingOrder
from boundnas.deploy.export import check_formats
from boundnas.deploy.formats import require_formats
from boundnas.deploy.front import export_front
from boundnas.deploy.timing import deployment
from boundnas.engine.launch import launched
from boundnas.engine.output import SideChannel
from boundnas.engine.ranks import agree, connected, rank, share, wait
from boundnas.engine.threads import use_threads
from boundnas.errors import BoundNASError, ConfigError, CostError, ExportError, RankError
from boundnas.extras import require
from boundnas.fit import identity
from boundnas.fit.clip import of_settings
from boundnas.fit.match import check_match, check_model, fitted
from boundnas.fit.observers import Observer
from boundnas.fit.recipe import Recipe
from boundnas.fit.run import Run
from boundnas.fit.schedule import steps_of
from boundnas.fit.start import check_start, preferred
from boundnas.fit.train import fit
from boundnas.fit.trained import gentle, is_trained
from boundnas.latency.runtimes import runtime_of
from boundnas.method.policy import BOUNDARIES
from boundnas.report import write_report
from boundnas.search import Front, search
from boundnas.search.kept import kept, read_front, recorded_settings, searched_for
from boundnas.search.origin import of_front
from boundnas.search.sampled import METHODS
from boundnas.search.wanted import measured_by, named, wanted
from boundnas.settings import Bounds, CostSettings, TrainSettings, Use
from boundnas.store.files import set_aside
from boundnas.store.folder import RunFolder
from boundnas.store.records import Ranges
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task

_log = logging.getLogger(__name__)

TIMEOUT = 600.0
"""Seconds that one of several processes waits for the others."""


@dataclass(frozen=True)
class Job:
    """A configuration made real: data, supernet, task and costs, all of it checked.

    Args:
        config: The configuration.
        data: What is trained and selected on.
        model: The supernet, with initial weights.
        budgets: The costs, each with its range.
        task: What the networks are to do.
        own: What else the configuration names.
    """

    config: RunConfig
    data: Samples
    model: Supernet
    budgets: tuple[Budget, ...]
    task: Task
    own: Own

    @classmethod
    def prepare(cls, config: RunConfig) -> Job:
        """Load the images, build the supernet and check that the cost range can be met.

        Nothing is created on disk but what reading the data keeps beside it (docs/data.md).

        Raises:
            ExtraError: A library that the data, the search or the export needs is missing.
            DataError: The images are missing, damaged or fewer than a batch.
            SpaceError: The space cannot be built, or the prior does not fit it.
            CostError: The cost range cannot be met.
        """
        if config.search.method in METHODS:
            require(f"search.method: {config.search.method}", "optuna")
        require_formats(config.export.formats)
        use_threads(config.threads)
        with torch.random.fork_rng(devices=[]):
            own, data, model = made(config)
            model = model.to(_device(config.device))
            there = {"seed": config.seed, "data": data, "example": data.example, "model": model}
            task = own.made("task", **there) if config.task else Classification()
            budgets = budgets_of(config, model, own, there)
        job = cls(config, data, model, budgets, task, own)
        check_match(job.model, data, job.task)
        paired([budget.cost for budget in budgets], [budget.range for budget in budgets])
        if not own:
            check_budgets(job.budgets)
        for boundary in BOUNDARIES:
            preferred(model.space, boundary, config.train, budgets)
        # These two refuse a batch size.
        TrainingOrder(len(data.train), config.train.batch_size, config.seed)
        share(config.train.batch_size, config.train.accumulate, config.train.mixes)
        return job

    @property
    def said(self) -> list[str]:
        """What a person is told of it before the work begins."""
        clip = of_settings(self.model.space, self.config.train, self.budgets)
        return [str(self.data), *([] if clip is None else [clip.record.said.capitalize()])]

    @property
    def settings(self) -> TrainSettings:
        """Those of the training, which are gentler where weights are trained already."""
        config = self.config
        if is_trained(self.model, config.trained):
            return gentle(config.train, with_sgd=config.optimizer is None)
        return config.train

    def check(self) -> None:
        """Refuse what would be noticed later, before a folder is made.

        Networks that come with BoundNAS are known to pass.

        Raises:
            BoundNASError: As of `boundnas.fit`.
        """
        self._check_timing()
        if not self.own:
            return
        settings = self.settings
        check_model(self.model)
        guard.check(self.model, settings.ghost_fraction)
        check_start(self.model, self.data, self.budgets, settings, self.task)
        recipe = Recipe(self.own.caller("optimizer"), self.own.caller("schedule"))
        recipe.tried(settings, steps_of(settings, len(self.data.train)))
        fitted(self.task, self.data, self.model)
        try:
            check_formats(self.model, self.config.export.formats)
        except ExportError as error:
            raise ConfigError(
                f"export.formats: {error}; leave this format out, or change the network"
            ) from error

    def _check_timing(self) -> None:
        """Refuse to time written networks where this machine cannot."""
        asked, costs = self.config.export, [budget.cost for budget in self.budgets]
        place = deployment(costs, asked.formats, asked.latency)
        if place is None or not asked.formats:
            return
        try:
            runtime_of(place.runtime, place.threads)
        except CostError as error:
            raise CostError(
                f"written networks are to be timed on this machine as by the table, and {error}; "
                "or set export.latency: false"
            ) from error

    def observers(self, folder: RunFolder) -> Sequence[Observer]:
        """Those that the configuration names, which are told of all that is done in a folder."""
        there = {"seed": self.config.seed, "data": self.data, "example": self.data.example}
        there |= {"model": self.model, "folder": folder.path}
        return () if rank() else self.own.each("observers", **there)

    def identity(self) -> identity.Identity:
        """What all processes must share before any of them writes."""
        device = next(self.model.parameters()).device
        return {
            **identity.of_machine(device),
            **identity.of_model(self.model),
            **identity.of_data(self.data),
        }

    def train(self, folder: RunFolder) -> Run:
        """Train, or go on where an interrupted training stopped."""
        return fit(
            self.model,
            self.data,
            cost_range=[budget.range for budget in self.budgets],
            cost=[budget.cost for budget in self.budgets],
            settings=self.config.train,
            seed=self.config.seed,
            folder=folder,
            task=self.task,
            optimizer=self.own.caller("optimizer"),
            schedule=self.own.caller("schedule"),
            observers=self.observers(folder),
            trained=self.config.trained,
        )

    def search(
        self,
        run: Run,
        ranges: Ranges | None = None,
        bounds: Bounds | None = None,
        task: Task | None = None,
    ) -> Front:
        """Search, or read the front of this very search that is there already.

        A front of other weights, data or settings is set aside under another name.

        Args:
            run: The trained run.
            ranges: What networks are wanted for now, by the names of costs and in their own units;
                by default what the run was trained for.
            bounds: Which part of the space is searched; by default as the configuration says.
            task: What networks are measured by; likewise.
        """
        folder, settings = run.folder, self.config.search
        assert folder is not None
        settings = settings.model_copy(update={"bounds": bounds or settings.bounds})
        if ranges:
            costs = [named(run, name) for name in ranges]
            run = wanted(run, settings, costs, list(ranges.values()))
        run = measured_by(run, task)
        if rank() == 0:
            _set_aside(folder, of_front(run, settings))
        wait("before the front is read")
        if folder.front.exists():
            return read_front(run, settings)
        return search(run, settings, self.observers(folder))

    def found(self, run: Run, task: Task | None = None) -> Front:
        """The front that lies in the folder, whatever costs it was searched for; else a search."""
        assert run.folder is not None
        held = kept(run.folder)
        if held is not None:
            settings = recorded_settings(held)
            same = settings.model_copy(update={"bounds": self.config.search.bounds})
            asked = searched_for(measured_by(run, task), held, settings)
            if same == self.config.search and held.identity == of_front(asked, settings):
                return read_front(asked, settings)
        return self.search(run, task=task)

    def named_task(self, use: Use) -> Task:
        """A task that networks are to be measured by, in place of the configuration's."""
        there = {"seed": self.config.seed, "data": self.data, "example": self.data.example}
        return Own([(("task",), use)]).made("task", **there, model=self.model)

    def export(self, run: Run, front: Front) -> None:
        """Write every network of the front that is not there yet."""
        asked = self.config.export
        if asked.formats:
            export_front(run, front, asked.formats, asked.latency)


def _set_aside(folder: RunFolder, now: dict[str, str]) -> None:
    """Rename a front that was found under other conditions, and say which.

    Raises:
        RunError: It is damaged or was edited.
    """
    held = kept(folder)
    different = None if held is None else identity.difference(held.identity, now)
    if different is not None:
        _log.warning(
            "%s: was found with %s; it is kept as %s and the search is made anew",
            folder.front,
            different,
            set_aside(folder.front, folder.held).name,
        )


def run(config: RunConfig, runs: Path, timeout: float = TIMEOUT) -> tuple[RunFolder, Front]:
    """Train, search, export and report; what an earlier call has done is not done again.

    Args:
        config: The configuration.
        runs: Folder that the run's own folder is made in.
        timeout: Seconds that one of several processes waits for the others.
    """
    with working(config, runs / config.name, timeout) as (job, folder):
        trained = job.train(folder)
        front = job.search(trained)
        job.export(trained, front)
        if rank() == 0:
            write_report(folder.path)
    return folder, front


@contextmanager
def working(
    config: RunConfig, path: Path, timeout: float = TIMEOUT
) -> Iterator[tuple[Job, RunFolder]]:
    """The job of a configuration and its run folder, in which no other job works meanwhile.

    Joins the processes that torchrun started with this one, if it did.

    Args:
        config: The configuration.
        path: The run folder; made when missing.
        timeout: Seconds that one of several processes waits for the others.

    Raises:
        RunError: Something else is in the way, or at work there.
        RankError: The processes do not come together, or do not do the same.
    """
    with connected(timeout), ExitStack() as stack:
        # Where the data lie may differ from rank to rank; what they hold is compared below.
        agree(partial(identity.of_settings, config, "", ("data.folder",)), "at the start")
        folder = None
        if rank() == 0 and os.path.lexists(path):
            folder = _entered(RunFolder.open(path), config, stack)  # before any work
        job = Job.prepare(config)
        if not os.path.lexists(path):
            job.check()
        if rank() == 0:
            print(*job.said, sep="\n", file=SideChannel(sys.stderr), flush=True)
        agree(job.identity, "before the run folder is made")
        if rank() == 0 and folder is None:
            # Last of all that may be refused, so that a refusal leaves nothing behind.
            folder = _entered(_created(path, config), config, stack)
        wait("before the run folder is there")
        try:
            yield job, folder or RunFolder.open(path)
        except BoundNASError as error:
            error.begun = True
            raise


def _created(path: Path, config: RunConfig) -> RunFolder:
    table = next((c.table.data for c in config.cost if c.table is not None), None)
    return RunFolder.create(path, write_config(config, path), table)


def _entered(folder: RunFolder, config: RunConfig, stack: ExitStack) -> RunFolder:
    """A run folder of this configuration, kept from other processes until the stack ends."""
    stack.enter_context(folder.locked())
    with suppress(ConfigError):  # the text may differ: an older release wrote fewer keys
        if read_config(folder.config) == config:
            return folder
    folder.refuse_other_config(write_config(config, folder.path))
    return folder


def budgets_of(
    config: RunConfig, model: Supernet, own: Own, there: Mapping[str, Any]
) -> tuple[Budget, ...]:
    """The costs of a configuration, each with its range in its own unit.

    Args:
        config: The configuration.
        model: Its supernet.
        own: What it names.
        there: What a cost of one's own may be called with.
    """

    def cost(number: int, settings: CostSettings) -> Cost:
        if settings.table is not None:
            where = str(settings.table.path)
            return Latency(model, LatencyTable.parsed(settings.table.data, where), where)
        if isinstance(settings.metric, str):
            return COSTS[settings.metric](model)
        made: Cost = own.made("cost", number, "metric", **there)
        return made

    found = [(cost(i, c), c) for i, c in enumerate(config.cost)]
    return tuple(
        Budget(c, (as_written(s.lower, c.per_unit), as_written(s.upper, c.per_unit)))
        for c, s in found
    )


def _device(name: str) -> str:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    local, there = launched().local, torch.cuda.device_count()
    if local >= there:
        raise RankError(f"LOCAL_RANK is {local}, but this machine has {there} GPUs, from 0")
    return f"cuda:{local}"
