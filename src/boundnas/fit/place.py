"""Where a run is kept: a folder that is there, or one made once nothing refuses the run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from boundnas.cost import Cost, Latency
from boundnas.engine.ranks import rank, wait
from boundnas.store.folder import RunFolder

TEXT = "# Made by boundnas.fit: what decides this run stands in bounds.json and the checkpoints.\n"
"""What takes the place of a configuration."""

Place = RunFolder | Path | str | None


def found(place: Place) -> RunFolder | None:
    """The run folder, if it is there already.

    Raises:
        RunError: Something else is there.
    """
    if place is None or isinstance(place, RunFolder):
        return place
    return RunFolder.open(Path(place)) if os.path.lexists(place) else None


def made(place: Place, there: RunFolder | None, costs: Iterable[Cost]) -> RunFolder | None:
    """The run folder; one that is not there yet is made, by the first of several processes.

    Args:
        place: Where it is asked for.
        there: What `found` gave.
        costs: Those of the run, of which a latency table is kept.

    Raises:
        RunError: It cannot be written.
    """
    if there is not None or place is None or isinstance(place, RunFolder):
        return there
    if rank() == 0:
        table = next((cost.file for cost in costs if isinstance(cost, Latency)), None)
        RunFolder.create(Path(place), TEXT, table)
    wait("before the run folder is there")
    return RunFolder.open(Path(place))
