"""Going on from a checkpoint: what it must share with the run, and what of the run it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boundnas.engine.ranks import rank, spread
from boundnas.errors import RankError, RunError
from boundnas.fit import identity
from boundnas.fit.identity import Identity
from boundnas.fit.run import Run
from boundnas.fit.schedule import steps_of
from boundnas.store import checkpoint
from boundnas.store.checkpoint import Checkpoint
from boundnas.store.folder import RunFolder
from boundnas.store.lines import check_rows

AVERAGE = "average"
"""Name of the averaged weights in a checkpoint."""


def of_training(run: Run) -> Identity:
    """What decides a training, and so must be the same when it goes on.

    Not among it: the initial weights, which the checkpoint replaces; validation and test images,
    which training never sees; and the machine, of which a change is warned of.
    """
    return {
        **identity.of_settings(run.settings, "train", identity.WITHOUT_EFFECT),
        "seed": str(run.seed),
        **({} if run.trained is None else {"start": "trained weights"}),
        **identity.of_task(run.task),
        **run.recipe.tried(run.settings, steps_of(run.settings, len(run.data.train))),
        **identity.of_structure(run.model),
        **identity.of_costs(run.budgets, run.model.space),
        **run.data.facts(),
        **identity.of_split(run.data, "train"),
    }


@dataclass(frozen=True)
class State:
    """Everything that training changes.

    Args:
        modules: Model and policies by name.
        optimizers: Theirs, by name.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        found = {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in self.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                found |= {f"{name}/{i}/{k}": v for k, v in state.items() if v is not None}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave.

        Raises:
            RuntimeError: There are other tensors than it has; ValueError and KeyError likewise.
        """
        left = dict(tensors)

        def take(prefix: str) -> dict[str, Tensor]:
            keys = [key for key in left if key.startswith(f"{prefix}/")]
            return {key.removeprefix(f"{prefix}/"): left.pop(key) for key in keys}

        for name, module in self.modules.items():
            module.load_state_dict(take(name))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in take(name).items():
                i, _, entry = key.partition("/")
                state.setdefault(int(i), {})[entry] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        if left:
            raise RuntimeError(f"unknown tensors {', '.join(left)}")


def resume(folder: RunFolder | None, now: Identity, state: State) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint, if there is one, and say which step comes next.

    Returns:
        The step, and what else the checkpoint holds.

    Args:
        folder: Where the run is kept, if it is.
        now: What the run is that would go on, as `of_training` describes it.
        state: Where the checkpoint is loaded to.

    Raises:
        RunError: The checkpoint is of another run; nothing was loaded.
        RankError: The processes have different ones.
    """
    saved = None if folder is None else newest_checkpoint(folder)
    starts = spread([0 if saved is None else saved.step], "at the start")
    if len(set(starts)) > 1:
        raise RankError(
            f"rank {rank()}: the ranks would go on from the checkpoints of steps {starts}; "
            "give them one folder that all of them see"
        )
    if saved is None:
        return 0, {}
    assert folder is not None
    which = f"{folder.checkpoints}: the checkpoint of step {saved.step}"
    different = identity.difference(saved.values.get("identity"), now)
    if different is not None:
        raise RunError(
            f"{which} is of a run with {different}; go on with the same settings, model and data, "
            "or start a new run in another folder"
        )
    try:
        state.load(saved.tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(
            f"{which} does not fit this model ({str(error).splitlines()[0]}); give the folder of "
            "this very run, or start a new one"
        ) from error
    return saved.step, saved.values


def newest_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """The newest checkpoint whose logs are there, row for row.

    After lost or damaged rows that is an older one, from which training makes them anew.
    """

    def fits(saved: Checkpoint) -> None:
        match saved.values:
            case {"logs": {"metrics": dict(metrics), "boundaries": dict(boundaries)}}:
                check_rows(folder.metrics, saved.step, metrics, folder.held)
                check_rows(folder.boundaries, saved.step, boundaries, folder.held)
            case _:
                raise RunError(f"the checkpoint of step {saved.step} holds no state of a run")

    return checkpoint.newest(folder.checkpoints, folder.held, fits)
