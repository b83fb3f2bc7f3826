"""The loop of a training: batches, optimizers, checkpoints, logs (App. A.2).

Every process of several draws the same architectures, takes its part of each batch and averages
gradients with the others once a step, after all networks of the sandwich; the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from boundnas.data import TrainingOrder
from boundnas.data.handed import handed
from boundnas.elastic.strided import spared
from boundnas.engine import interruption
from boundnas.engine.progress import Progress
from boundnas.engine.ranks import average, rank, share, wait
from boundnas.engine.tuning import give_back
from boundnas.fit.guard import Guard
from boundnas.fit.logs import Log
from boundnas.fit.observers import Audience, Observer
from boundnas.fit.recipe import advance
from boundnas.fit.replay import replays
from boundnas.fit.resume import AVERAGE, State, of_training, resume
from boundnas.fit.run import Run, bounds_record
from boundnas.fit.schedule import policy_learning_rate, steps_of
from boundnas.method.sandwich import Sandwich
from boundnas.method.variants import chosen
from boundnas.nested import sent
from boundnas.store import checkpoint
from boundnas.store.environment import note_environment
from boundnas.store.files import write_json
from boundnas.store.records import Metric
from boundnas.store.rows import BoundariesRow, MetricsRow
from boundnas.supernet import modes, weights

BOUNDARY_ROWS = 200
"""About so many rows of the boundaries' trajectories are logged in a run."""


class Trainer:
    """The loop of one run and its state: optimizers and step."""

    def __init__(self, run: Run, observers: Sequence[Observer] = ()) -> None:
        self.run, self.folder = run, run.folder
        self.audience = Audience(observers)
        self.sandwich = Sandwich(
            run.model,
            run.task,
            run.boundaries,
            run.budgets,
            run.settings,
            run.seed,
            chosen(run.settings, run.budgets[0].cost),
        )
        self.guard = Guard(self.sandwich, run.settings.clip_value)
        self.writes = run.folder if rank() == 0 else None
        settings, parameters = run.settings, list(run.model.parameters())
        self.device = parameters[0].device
        self.order = TrainingOrder(len(run.data.train), settings.batch_size, run.seed)
        self.part = share(settings.batch_size, settings.accumulate, settings.mixes)
        self.steps = steps_of(settings, len(run.data.train))
        optimizer = run.recipe.optimizer_of(parameters, settings)
        self.schedule = run.recipe.schedule_of(optimizer, settings, self.steps)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"weights": optimizer}
        learned = [p for _, b in run.boundaries.items() for p in b.parameters() if p.requires_grad]
        if learned:
            rate = policy_learning_rate(self.steps, settings)
            self.optimizers["policies"] = torch.optim.Adam(learned, lr=rate)
        modules: dict[str, torch.nn.Module] = {"model": run.model}
        modules |= {f"{name}_policy": policy for name, policy in run.boundaries.items()}
        if run.average is not None:
            modules[AVERAGE] = run.average.held
        self.state = State(modules, self.optimizers)
        self.identity = {} if run.folder is None else of_training(run)

    def train(self) -> None:
        """Train from the newest checkpoint, or from the start, to the last step."""
        modes.train(self.run.model)
        step = self._begun()
        advance(self.schedule, min(step, self.steps - 1))
        if self.writes is not None:
            held = self.writes.held
            write_json(self.writes.space, self.run.model.space.to_json(), held)
            note_environment(self.writes.environment, held)
        self.audience.tell("begin", self.run, step)
        every = max(1, self.steps // BOUNDARY_ROWS)
        save_every = self.run.settings.checkpoint_every
        self.batches = self.run.data.training(self.order, step, self.steps, self.part)
        with (
            interruption.deferred() as stopping,
            replays(self.run.model),
            closing(self.batches),
            Log(self.run.metrics, self.writes, "metrics", MetricsRow, step) as metrics,
            Log(self.run.trajectory, self.writes, "boundaries", BoundariesRow, step) as boundaries,
            Progress(self.steps, "train", done=step) as progress,
        ):
            while step < self.steps:
                if step % every == 0:
                    boundaries.append(self._boundaries(step))
                row, stop = self._step(step, stopping)
                metrics.append(row)
                self.audience.tell("step", row)
                step += 1
                progress.advance(loss=row["loss_max"], **self._score(row))
                if step % save_every == 0 or step == self.steps or stop:
                    self._save(step, metrics, boundaries)
                if stop:
                    wait(f"after step {step}")  # for the checkpoint
                    interruption.stop()
            boundaries.append(self._boundaries(step))
            logs = {log.name: log.sync() for log in (metrics, boundaries)}
        self._finish(logs)

    def _begun(self) -> int:
        """The step that comes next, with the state of the newest checkpoint if there is one."""
        step, held = resume(self.folder, self.identity, self.state)
        if self.run.trained is not None:
            self.run.trained.begin(held.get("largest"))
        return step

    def _finish(self, logs: dict[str, dict[str, Any]]) -> None:
        """Leave the model as it is searched, and write down what came of the training."""
        if self.run.average is not None:
            self.run.average.settle()
        modes.evaluate(self.run.model)
        largest = None if self.run.trained is None else self.run.trained.end()
        if self.writes is not None:
            ended = weights.digest(self.run.model)
            bounds = bounds_record(self.run, self.identity, ended, logs, largest)
            write_json(self.writes.bounds, bounds.written(), self.writes.held)

    def _step(self, step: int, stopping: Callable[[], bool]) -> tuple[dict[str, Any], bool]:
        """Train one step; gives the row for the log, and whether any process is asked to stop."""
        images, labels = next(self.batches)
        images = handed(self.run.model, self.run.data, images)
        rate = float(self.optimizers["weights"].param_groups[0]["lr"])
        labels = sent(labels, self.device)
        with spared(self.run.model):
            scalars = self.sandwich.step(images, labels, step, self._after)
        stop = torch.tensor(float(stopping()), device=self.device)
        means = [value for name, value in scalars.items() if name.startswith(("loss", "score"))]
        average([*self.guard.gradients, *means, stop], f"step {step}")
        self.guard.check(images, labels, step, scalars)
        self.guard.cut()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if self.run.average is not None:
            self.run.average.update()
        if step + 1 < self.steps:
            self.schedule.step()
        row: dict[str, Any] = {name: float(value) for name, value in scalars.items()}
        for role in ("max", "min"):
            names = self.run.ranges
            row[f"cost_{role}"] = {name: round(row.pop(f"{role} {name}")) for name in names}
        return {"step": step, **row, "learning_rate": rate}, bool(stop)

    def _after(self, role: str, loss: Tensor) -> None:
        """A network is done; where memory is short it leaves none behind."""
        if self.run.settings.gradient_checkpointing:
            give_back()

    def _score(self, row: dict[str, Any]) -> dict[str, Any]:
        """The max network's score on its batch, as it is shown, where samples have scores."""
        metric = Metric.of(self.run.task)
        return {metric.name: metric.shown(row["score_max"])} if "score_max" in row else {}

    def _boundaries(self, step: int) -> dict[str, Any]:
        names = [d.name for d in self.run.model.space.dimensions]
        row: dict[str, Any] = {"step": step}
        for boundary, policy in self.run.boundaries.items():
            moments = map(tuple, torch.stack(policy.moments(), 1).tolist())
            row[boundary] = dict(zip(names, moments, strict=True))
        return row

    def _save(self, step: int, *logs: Log) -> None:
        """Write a checkpoint, which vouches for the rows that the disk has by then."""
        if self.writes is not None:
            values: dict[str, Any] = {"identity": self.identity}
            values["logs"] = {log.name: log.sync() for log in logs}
            if self.run.trained is not None:
                values["largest"] = self.run.trained.before
            folder, tensors = self.writes, self.state.tensors()
            checkpoint.save(folder.checkpoints, step, tensors, values, held=folder.held)
            self.audience.tell("checkpoint", step)
