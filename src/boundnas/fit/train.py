"""Training a supernet with its boundaries: all checks, then the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from boundnas import guard
from boundnas.cost import Budget, Cost, MACs, paired
from boundnas.cost.budget import CostRange
from boundnas.data import Samples
from boundnas.elastic import native
from boundnas.engine.ranks import agree, rank
from boundnas.engine.threads import warn_of_threads
from boundnas.engine.tuning import tune
from boundnas.fit import identity
from boundnas.fit.average import Average
from boundnas.fit.loop import Trainer
from boundnas.fit.match import check_model, fitted
from boundnas.fit.observers import Observer
from boundnas.fit.place import found, made
from boundnas.fit.recipe import Groups, Recipe
from boundnas.fit.run import Run
from boundnas.fit.schedule import steps_of
from boundnas.fit.start import check_start, start_boundaries
from boundnas.fit.trained import Trained, gentle, is_trained
from boundnas.settings import TrainSettings
from boundnas.store.folder import RunFolder
from boundnas.supernet.supernet import Supernet
from boundnas.task import Classification, Task
from boundnas.typed import checked

_log = logging.getLogger(__name__)


@checked
def fit(
    model: Supernet,
    data: Samples,
    *,
    cost_range: CostRange | Sequence[CostRange],
    cost: Cost | Sequence[Cost] | None = None,
    settings: TrainSettings | None = None,
    seed: int = 0,
    folder: RunFolder | Path | str | None = None,
    task: Task | None = None,
    optimizer: Callable[[Groups], Optimizer] | None = None,
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
    observers: Sequence[Observer] = (),
    trained: bool | None = None,
) -> Run:
    """Train a supernet and its boundaries (Algorithm 1, App. A.2).

    Args:
        model: The supernet, on the device to train on.
        data: Images; only ``data.train`` is used.
        cost_range: The range of costs the networks are wanted for, in what ``cost(arch)`` counts:
            multiply-accumulates, bytes, nanoseconds (not in millions or milliseconds, as in a
            configuration); of several costs a list of ranges, in their order.
        cost: MACs by default; or a list of costs, all of which are penalized and searched for.
        settings: By default 30 epochs.
        seed: Fixes every random draw but the initial weights, which are the caller's.
        folder: Logs and checkpoints go there; a run that was interrupted there continues. A path
            that nothing is at yet is made a run folder, once nothing refuses the run.
        task: What the networks are to do; by default to tell the classes of the data apart.
        optimizer: Makes the optimizer of the weights from parameter groups, the second of which,
            biases and norms, has no weight decay; SGD as the settings say by default:
            ``lambda groups: torch.optim.AdamW(groups, lr=1e-3)``.
        schedule: Makes the schedule of its step sizes from the optimizer and the number of steps;
            linear warm-up and cosine decay by default:
            ``lambda optimizer, steps: CosineAnnealingLR(optimizer, steps)``.
        observers: Told of steps and checkpoints as they come.
        trained: Whether the model's weights are trained already. By default they are where it was
            made of a network by `boundnas.elasticize`. ``learning_rate`` is then 0.01 and
            ``start_std`` 0.5 if none are asked for, and in the end the largest network is
            compared with how it came.

    Returns:
        The trained model, boundaries and logs. With ``settings.ema`` the model ends with the
        averaged weights.

    Raises:
        DataError: The images are not what the model was built for, or fewer than a batch, or
            targets do not fit model and task.
        TaskError: A function of the task is not what it is to be.
        SpaceError: The model would train wrongly, see `boundnas.guard.check`; found before
            anything is trained.
        CostError: The cost range cannot be met; likewise.
        ExportError: A network of the space cannot be extracted; found before that, too.
        TrainingError: The optimizer or the schedule cannot be trained with, or a loss or gradient
            is not finite; the model is as before that step.
        RankError: Another of several processes is about to train something else, or is gone.
        RunError: The folder cannot be written, or holds another run: of another model, other
            training images, cost, range, settings or seed; nothing was changed.
    """
    tune()
    settings, asked = settings or TrainSettings(epochs=30), task or Classification()
    from_trained = is_trained(model, trained)
    settings = gentle(settings, optimizer is None) if from_trained else settings
    pairs, recipe = paired(cost, cost_range), Recipe(optimizer, schedule)
    kept = found(folder)
    path = None if kept is None else kept.path
    agree(
        lambda: {
            "at work": "training",
            "start": "trained weights" if from_trained else "new weights",
            **identity.of_settings(settings, "train"),
            **identity.of_run(model, data, pairs, seed, path),
            **identity.of_task(asked),
            **recipe.tried(settings, steps_of(settings, len(data.train))),
        },
        "before the first step",
    )
    check_model(model)
    guard.check(model, settings.ghost_fraction)  # before what else runs the model
    budgets = tuple(Budget(each or MACs(model), limits) for each, limits in pairs)
    check_start(model, data, budgets, settings, asked)
    recipe.tried(settings, steps_of(settings, len(data.train)))
    task = fitted(asked, data, model)
    boundaries = start_boundaries(model, settings, seed, budgets)
    kept = made(folder, kept, [budget.cost for budget in budgets])
    average = None if settings.ema is None else Average(model, settings.ema)
    came = Trained(model, data, task, seed) if from_trained else None
    run = Run(model, data, task, boundaries, budgets, settings, seed, kept, recipe, average, came)
    if run.clip is not None and rank() == 0:
        _log.info("%s", run.clip.record.said)
    warn_of_threads()
    if next(model.parameters()).device.type == "cpu":
        native.warn_if_missing()
    trainer = Trainer(run, observers)
    with nullcontext() if kept is None or rank() else kept.locked():
        trainer.train()
    return run
