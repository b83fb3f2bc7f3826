"""All networks of a front, each in a folder of its own beside the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from boundnas.cost import Latency, LatencyTable
from boundnas.deploy.formats import Format, require_formats
from boundnas.deploy.networks import Handover, export_network
from boundnas.deploy.timing import deployment, time_front
from boundnas.engine.forked import Crew
from boundnas.engine.progress import Progress
from boundnas.engine.ranks import agree, rank
from boundnas.errors import ArgumentError
from boundnas.fit.identity import Identity
from boundnas.fit.run import Run
from boundnas.fit.told import digest
from boundnas.search import Front
from boundnas.search.workers import number_of
from boundnas.store.times import LATENCY
from boundnas.typed import checked


@checked
def export_front(
    run: Run,
    front: Front | None = None,
    formats: Sequence[Format] = ("onnx", "pt2"),
    latency: bool | None = None,
) -> list[Path]:
    """Write every network of a run's front into the run's folder, with its card and sums.

    What is there already and whole is left as it is. This is what ``boundnas export`` does with a
    run of a configuration.

    Args:
        run: A searched run that is kept in a folder.
        front: What `boundnas.search` returned for it; by default what its last search found.
        formats: Which files each network is written as.
        latency: Whether the written networks are timed on this machine; by default where a cost of
            the run is latency.

    Returns:
        The folders, ``networks/COST`` in that of the run, in the order of ``front.networks``.

    Raises:
        ArgumentError: The run is kept in no folder, or no format is asked for.
        RunError: It was not searched yet, or a file cannot be written.
        ExtraError: A library that a format needs is missing.
        CalibrationError: The front is of other weights than the run's model has.
        ExportError: A file does not compute what the supernet does, or a folder that is there is
            damaged, or holds what no export writes.
        RankError: Another of several processes is about to export something else, or is gone.
    """
    if run.folder is None:
        raise ArgumentError(
            "export_front: this run is kept in no folder; train with boundnas.fit(..., "
            "folder='runs/mine'), or write single networks by boundnas.export"
        )
    if not formats:
        raise ArgumentError(
            "export_front: formats is empty; name one of onnx, pt2, int8, safetensors"
        )
    require_formats(formats)
    front = run.front if front is None else front
    agree(partial(_described, front, formats), "before the export")
    folders = {run.folder.path / front.folder(n): n for n in front.networks}
    if rank():
        return list(folders)
    held, table = run.folder.held, _table(run, front)
    handover = Handover(run.data, formats, held, run.seed, front.task or run.task, table)
    place = deployment(run.costs, formats, latency)
    work = list(folders.items())

    def export(number: int) -> None:
        folder, network = work[number]
        export_network(run.model, network, folder, handover)

    def exported(question: bytes) -> bytes:
        export(int(question))
        return b"done"

    on_cpu = next(run.model.parameters()).device.type == "cpu"
    questions = [str(number).encode() for number in range(len(work))]
    with run.folder.locked():
        with (
            Progress(len(folders), "export", unit="network") as progress,
            Crew(exported, number_of(run.searching) if on_cpu else 1, "export networks") as crew,
            closing(crew(questions)) as answers,
        ):
            for number, answer in enumerate(answers):
                if not answer:
                    export(number)
                progress.advance()
        if place is not None:
            time_front(run.model, folders, handover, place)
    return list(folders)


def _table(run: Run, front: Front) -> LatencyTable | None:
    """What predicted the latency of a front; none where its search was handed another cost."""
    found = next((cost for cost in run.costs if isinstance(cost, Latency)), None)
    networks = [n for n in front.networks if LATENCY in n.costs]
    if found is None or any(found(n.arch) != n.costs[LATENCY] for n in networks):
        return None
    return found.table


def _described(front: Front, formats: Sequence[Format]) -> Identity:
    """What all processes must share before the first of them exports."""
    found = json.dumps([n.to_json() for n in front.networks])
    return {"at work": "exporting", "formats": str(formats), "front": digest(found)}
