"""Who is told what happens in a run: its steps, checkpoints, candidates and front."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from boundnas.engine.progress import Progress
from boundnas.engine.ranks import rank
from boundnas.extras import require
from boundnas.fit.run import Run
from boundnas.store.records import Metric

_log = logging.getLogger(__name__)

Event = Literal["begin", "step", "checkpoint", "candidate", "front"]


class Observer:
    """Base of what is told of a run's events; override those that are wanted.

    It only looks on: an observer that fails is named in the log and told nothing more of this
    training or search, which goes on. Of several processes the first one tells. A run that
    continues tells of what follows.
    """

    def begin(self, run: Run, step: int) -> None:
        """Training begins, or goes on after ``step`` steps."""

    def step(self, row: Mapping[str, Any]) -> None:
        """A step was done: its row of ``metrics.jsonl``."""

    def checkpoint(self, step: int) -> None:
        """The state after ``step`` steps is on disk."""

    def candidate(self, evaluation: Any) -> None:
        """A network was measured, or found in the journal: a `boundnas.search.Evaluation`.

        In a screened search its score is an estimate, from as many samples as it says.
        """

    def front(self, front: Any) -> None:
        """The search has ended: its `boundnas.Front`."""


class Audience:
    """Observers that are told the same; see `Observer` for what becomes of one that fails.

    Args:
        observers: Those to tell, in this order.
    """

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._listening = [] if rank() else list(observers)

    @contextmanager
    def joined(self, observer: Observer) -> Iterator[None]:
        """Within it one more is told, in every process, before the others."""
        self._listening.insert(0, observer)
        try:
            yield
        finally:
            if observer in self._listening:
                self._listening.remove(observer)

    def tell(self, event: Event, *about: Any) -> None:
        """Call ``event`` of every observer."""
        for observer in tuple(self._listening):
            try:
                getattr(observer, event)(*about)
            except Exception:
                self._listening.remove(observer)
                _log.warning(
                    "%s failed at %s and is told nothing more; the work goes on",
                    type(observer).__name__, event, exc_info=True,
                )  # fmt: skip


class Bar(Observer):
    """The progress of a search.

    Args:
        progress: Counts candidates.
        metric: What their scores are.
    """

    def __init__(self, progress: Progress, metric: Metric) -> None:
        self._progress, self._metric = progress, metric

    def candidate(self, evaluation: Any) -> None:
        """One more, with its score."""
        score = self._metric.shown(evaluation.score)
        self._progress.advance(**{self._metric.name: score})


class TensorBoard(Observer):
    """Writes losses, costs, penalties and scores for TensorBoard (``pip install tensorboard``).

    Steps of training go under ``train/``, candidates in the order of measuring under ``search/``.

    Args:
        folder: Where the event files go, such as ``"runs/x/tensorboard"``.

    Raises:
        ExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        require("TensorBoard's observer", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._candidates = 0

    def step(self, row: Mapping[str, Any]) -> None:
        """Every number of the row."""
        for name, value in row.items():
            numbers = value if isinstance(value, Mapping) else {"": value}
            for part, number in numbers.items():
                if name != "step" and number is not None:
                    self._writer.add_scalar(f"train/{name} {part}".rstrip(), number, row["step"])

    def checkpoint(self, step: int) -> None:
        """What was told so far is on disk too."""
        self._writer.flush()

    def candidate(self, evaluation: Any) -> None:
        """Score and costs of the candidate."""
        for name, number in {"score": evaluation.score, **evaluation.costs}.items():
            self._writer.add_scalar(f"search/{name}", number, self._candidates)
        self._candidates += 1

    def front(self, front: Any) -> None:
        """The search has ended, and so have the files."""
        self._writer.close()
