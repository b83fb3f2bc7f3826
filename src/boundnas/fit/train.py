"""Training a supernet with its boundaries: optimizers, schedule, checkpoints, logs (App. A.2).

Every process of several draws the same architectures, takes its part of each batch and averages
gradients with the others once a step, after all networks of the sandwich; the first one writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from boundnas import guard
from boundnas.cost import Cost, MACs
from boundnas.data import ImageData, TrainingOrder, normalize
from boundnas.engine import interruption
from boundnas.engine.progress import Progress
from boundnas.engine.ranks import agree, average, rank, share, wait
from boundnas.engine.threads import warn_of_threads
from boundnas.fit import identity
from boundnas.fit.match import check_model
from boundnas.fit.resume import State, of_training, resume
from boundnas.fit.start import check_start, start_policy
from boundnas.method.sandwich import Sandwich
from boundnas.policy import BOUNDARIES, Policy, allowed_options
from boundnas.randomness import stream
from boundnas.settings import TrainSettings
from boundnas.space import Allowed
from boundnas.store import checkpoint
from boundnas.store.environment import note_environment
from boundnas.store.files import write_json
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines, read_jsonl
from boundnas.store.vouched import vouched
from boundnas.supernet import modes, weights
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task
from boundnas.typed import checked

POLICY_PATH = 45.0
"""How far Adam may carry a logit in a whole run, by default. The paper's step size of 5e-4 comes to
10 on CIFAR and 75 on ImageNet; in short runs it leaves the boundaries where they start."""

BOUNDARY_ROWS = 200
"""About so many rows of the boundaries' trajectories are logged in a run."""


@dataclass(frozen=True)
class Run:
    """A trained supernet with its learned boundaries, and what it was trained on.

    Args:
        sandwich: Model, policies, cost, settings and seed.
        data: The images.
        folder: Where the run is kept, if it is.
        metrics: One row of numbers per step, of this process.
        boundaries: The policies' expected values and deviations over time, of this process.
    """

    sandwich: Sandwich
    data: ImageData
    folder: RunFolder | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    boundaries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> Supernet:
        """The supernet."""
        return self.sandwich.model

    @property
    def allowed(self) -> Allowed:
        """The options between the learned boundaries."""
        s = self.sandwich
        return allowed_options(s.max_policy, s.min_policy, s.settings.tau, s.settings.eq6)


@checked
def fit(
    model: Supernet,
    data: ImageData,
    *,
    cost_range: tuple[float, float],
    cost: Cost | None = None,
    settings: TrainSettings | None = None,
    seed: int = 0,
    folder: RunFolder | None = None,
    task: Task | None = None,
) -> Run:
    """Train a supernet and its boundaries (Algorithm 1, App. A.2).

    Args:
        model: The supernet, on the device to train on.
        data: Images; only ``data.train`` is used.
        cost_range: The range of costs the networks are wanted for, in the cost's own unit (not
            millions).
        cost: MACs by default.
        settings: By default 30 epochs.
        seed: Fixes every random draw but the initial weights, which are the caller's.
        folder: Logs and checkpoints go there; a run that was interrupted there continues.
        task: What the networks are to do; by default to tell the classes of the data apart.

    Returns:
        The trained model, boundaries and logs.

    Raises:
        DataError: The images are not what the model was built for, or fewer than a batch.
        SpaceError: The model would train wrongly, see `boundnas.guard.check`; found before
            anything is trained.
        CostError: The cost range cannot be met; likewise.
        ExportError: A network of the space cannot be extracted; found before that, too.
        TrainingError: A loss or gradient is not finite; the model is as before that step.
        RankError: Another of several processes is about to train something else, or is gone.
        RunError: The folder cannot be written, or holds another run: of another model, other
            training images, cost, range, settings or seed; nothing was changed.
    """
    settings, task = settings or TrainSettings(epochs=30), task or Classification()
    path = None if folder is None else folder.path
    agree(
        lambda: {
            "at work": "training",
            **identity.of_settings(settings, "train"),
            **identity.of_run(model, data, cost, cost_range, seed, path),
            **identity.of_task(task),
        },
        "before the first step",
    )
    check_model(model)
    guard.check(model)  # before what else runs the model
    cost = cost or MACs(model)
    check_start(model, data, cost, cost_range, settings, task)
    device = next(model.parameters()).device
    max_policy, min_policy = (
        start_policy(model, boundary, settings, seed).to(device) for boundary in BOUNDARIES
    )
    sandwich = Sandwich(model, max_policy, min_policy, cost, cost_range, settings, seed, task)
    run = Run(sandwich, data, folder)
    warn_of_threads()
    trainer = _Trainer(run)
    with nullcontext() if folder is None or rank() else folder.locked():
        trainer.train()
    return run


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up, then cosine decay to zero (App. A.2)."""
    warmup = round(settings.warmup_fraction * steps)
    if step < warmup:
        start, peak = settings.warmup_start, settings.learning_rate
        return start + (peak - start) * step / warmup
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def policy_learning_rate(steps: int, settings: TrainSettings) -> float:
    """The step size asked for, or one that lets Adam carry a logit by `POLICY_PATH` in a run."""
    if settings.policy_learning_rate is not None:
        return settings.policy_learning_rate
    return settings.policy_every * min(POLICY_PATH / steps, 0.05)


def bounds_json(run: Run) -> dict[str, Any]:
    """The learned bounds per dimension, and how peaked the policies' start was."""
    s = run.sandwich
    space = run.model.space
    rows = zip(
        space.dimensions,
        s.max_policy.probabilities.tolist(),
        s.min_policy.probabilities.tolist(),
        run.allowed,
        strict=True,
    )
    start = [_peak(start_policy(run.model, b, s.settings, s.seed)) for b in BOUNDARIES]
    return {
        "p_largest": start[0],
        "p_smallest": start[1],
        "dimensions": [
            {
                "name": d.name,
                "kind": d.kind,
                "choices": list(d.choices),
                "max": phi[: len(d)],
                "min": theta[: len(d)],
                "allowed": [d.choices[j] for j in options],
            }
            for d, phi, theta, options in rows
        ],
    }


def _peak(policy: Policy) -> float:
    """Probability of the most likely option, averaged over the dimensions."""
    return float(policy.probabilities.amax(-1).mean())


class _Trainer:
    """The loop and its state: optimizers and step."""

    def __init__(self, run: Run) -> None:
        self.run, self.sandwich, self.folder = run, run.sandwich, run.folder
        self.writes = run.folder if rank() == 0 else None
        settings, parameters = self.sandwich.settings, list(run.model.parameters())
        self.device = parameters[0].device
        self.order = TrainingOrder(len(run.data.train), settings.batch_size, self.sandwich.seed)
        self.part = share(settings.batch_size)
        self.steps = settings.steps or math.ceil(
            float(settings.epochs or 0) * self.order.steps_per_epoch
        )
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1]},
            # Biases and the scales and shifts of norms do not decay (App. A.2).
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        sgd = torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {"weights": sgd}
        learned = [p.logits for p in self._policies if p.learned]
        if learned:
            rate = policy_learning_rate(self.steps, settings)
            self.optimizers["policies"] = torch.optim.Adam(learned, lr=rate)
        modules = {"model": run.model} | {
            f"{name}_policy": policy
            for name, policy in zip(BOUNDARIES, self._policies, strict=True)
        }
        self.state = State(modules, self.optimizers)
        self.identity = {} if run.folder is None else of_training(self.sandwich, run.data)

    @property
    def _policies(self) -> tuple[Policy, Policy]:
        return self.sandwich.max_policy, self.sandwich.min_policy

    def train(self) -> None:
        modes.train(self.run.model)
        step = resume(self.folder, self.identity, self.state)
        if self.writes is not None:
            held = self.writes.held
            write_json(self.writes.space, self.run.model.space.to_json(), held)
            note_environment(self.writes.environment, held)
        every = max(1, self.steps // BOUNDARY_ROWS)
        save_every = self.sandwich.settings.checkpoint_every
        with (
            interruption.deferred() as stopping,
            _Log(self.run.metrics, self.writes, "metrics", step) as metrics,
            _Log(self.run.boundaries, self.writes, "boundaries", step) as boundaries,
            Progress(self.steps, "train", done=step) as progress,
        ):
            while step < self.steps:
                if step % every == 0:
                    boundaries.append(self._boundaries(step))
                row, stop = self._step(step, stopping)
                metrics.append(row)
                step += 1
                progress.advance(loss=row["loss_max"], **self._score(row))
                if step % save_every == 0 or step == self.steps or stop:
                    self._save(step, metrics, boundaries)
                if stop:
                    wait(f"after step {step}")  # for the checkpoint
                    interruption.stop()
            boundaries.append(self._boundaries(step))
            logs = {log.name: log.sync() for log in (metrics, boundaries)}
        modes.evaluate(self.run.model)
        if self.writes is not None:
            came = {"weights": weights.digest(self.run.model), "logs": logs}
            bounds = {"identity": self.identity, **bounds_json(self.run), **came}
            write_json(self.writes.bounds, vouched(bounds), self.writes.held)

    def _step(self, step: int, stopping: Callable[[], bool]) -> tuple[dict[str, Any], bool]:
        """Train one step; gives the row for the log, and whether any process is asked to stop."""
        data, seed = self.run.data, self.sandwich.seed
        images, labels = data.augmented(
            self.order.indices(step), stream(seed, "augment", step), self.part
        )
        images = normalize(images.to(self.device), data.mean, data.std)
        rate = learning_rate(step, self.steps, self.sandwich.settings)
        for group in self.optimizers["weights"].param_groups:
            group["lr"] = rate
        labels = labels.to(self.device)
        scalars = self.sandwich.step(images, labels, step)
        stop = torch.tensor(float(stopping()), device=self.device)
        means = [value for name, value in scalars.items() if name.startswith(("loss", "score"))]
        average([*self.sandwich.gradients, *means, stop], f"step {step}")
        self.sandwich.check(images, labels, step, scalars)
        if self.sandwich.settings.clip_value is not None:
            # A sub-network of one or two channels may have dead, constant ones, whose BatchNorm
            # multiplies gradients by up to 1 / sqrt(eps) = 316 in every layer. One such step
            # would hold a policy back for a thousand, as Adam divides by what it remembers.
            parameters = self.sandwich.parameters.values()
            nn.utils.clip_grad_value_(parameters, self.sandwich.settings.clip_value)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        row: dict[str, Any] = {name: float(value) for name, value in scalars.items()}
        for name in ("cost_max", "cost_min"):
            row[name] = round(row[name])
        return {"step": step, **row, "learning_rate": rate}, bool(stop)

    def _score(self, row: dict[str, Any]) -> dict[str, Any]:
        """The max network's score on its batch, as it is shown, where samples have scores."""
        task = self.sandwich.task
        return {task.metric: task.shown(row["score_max"])} if "score_max" in row else {}

    def _boundaries(self, step: int) -> dict[str, Any]:
        names = [d.name for d in self.run.model.space.dimensions]
        row: dict[str, Any] = {"step": step}
        for boundary, policy in zip(BOUNDARIES, self._policies, strict=True):
            moments = torch.stack(policy.moments(), 1).tolist()
            row[boundary] = dict(zip(names, moments, strict=True))
        return row

    def _save(self, step: int, *logs: _Log) -> None:
        """Write a checkpoint, which vouches for the rows that the disk has by then."""
        if self.writes is not None:
            values = {"identity": self.identity, "logs": {log.name: log.sync() for log in logs}}
            folder, tensors = self.writes, self.state.tensors()
            checkpoint.save(folder.checkpoints, step, tensors, values, held=folder.held)


class _Log:
    """Rows in memory, and in a file if there is one; a resumed run drops later rows first."""

    def __init__(
        self, rows: list[dict[str, Any]], folder: RunFolder | None, name: str, start: int
    ) -> None:
        self.rows, self.name, self.file = rows, name, None
        if folder is not None:
            self.file = JsonLines(getattr(folder, name), folder.held)
            self.file.truncate_after(start - 1)
            rows[:] = read_jsonl(self.file.path, folder.held)

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.file is not None:
            self.file.append(row)

    def sync(self) -> dict[str, Any]:
        return {} if self.file is None else self.file.sync()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
