"""How long the exported networks of a front take on this machine, noted beside their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from boundnas.cost import Cost, Latency
from boundnas.deploy.formats import FILES, Format
from boundnas.deploy.networks import Handover, note_latency, timed, verify
from boundnas.engine.machine import cpu_model
from boundnas.latency.runtimes import runtime_of
from boundnas.latency.whole import whole
from boundnas.search import FrontNetwork
from boundnas.store.times import NETWORK, LatencyRecord, TimesRecord
from boundnas.supernet.extract import extract
from boundnas.supernet.supernet import Supernet


@dataclass(frozen=True)
class Deployment:
    """Where networks are to run.

    Args:
        runtime: One of `boundnas.latency.RUNTIMES`, by its name.
        threads: So many threads compute.
        batch: Samples in a pass.
    """

    runtime: str
    threads: int = 1
    batch: int = 1

    def files(self, formats: Sequence[Format]) -> tuple[str, ...]:
        """Names of the files of a network that run there; none where it runs no files."""
        runs = ("onnx", "int8") if self.runtime == "onnxruntime" else ()
        return tuple(FILES[kind] for kind in formats if kind in runs)


def deployment(
    costs: Iterable[Cost], formats: Sequence[Format], latency: bool | None
) -> Deployment | None:
    """Where the exported networks of a run are timed; none if they are not.

    Args:
        costs: Those of the run; the runtime of a latency table among them is the one.
        formats: Which files the networks are written as.
        latency: Whether they are timed; by default where a cost is latency.
    """
    tables = [cost.table for cost in costs if isinstance(cost, Latency)]
    if not (bool(tables) if latency is None else latency):
        return None
    if tables:
        return Deployment(tables[0].runtime, tables[0].threads, tables[0].batch)
    return Deployment("onnxruntime" if {"onnx", "int8"} & {*formats} else "torch")


def time_front(
    model: Supernet,
    networks: Mapping[Path, FrontNetwork],
    handover: Handover,
    place: Deployment,
) -> None:
    """Time all exported networks of a front in turn, and write the times into their folders.

    Where all of them have been timed in this runtime, in this way, nothing is done.

    Args:
        model: The supernet.
        networks: The networks, by the folders that `export_network` wrote.
        handover: What they were exported by; files that the runtime runs are timed, of other
            networks what `extract` gives.
        place: Where they are to run.

    Raises:
        CostError: The runtime cannot run them.
        ExportError: A folder is not what was written.
        RunError: One cannot be written.
    """
    runtime = runtime_of(place.runtime, place.threads)
    where = {
        "runtime": runtime.name,
        "version": runtime.version,
        "threads": place.threads,
        "batch": place.batch,
        "machine": cpu_model(),
    }
    names = place.files(handover.formats) or (NETWORK,)
    subjects: list[nn.Module | bytes] = []
    again = False
    for folder, network in networks.items():
        files = verify(folder, handover.held)
        again |= not _is_timed(timed(files), where, names)
        subjects += [files[n] if n in files else extract(model, network.arch) for n in names]
    if not again:
        return
    found = iter(whole(subjects, place.runtime, place.threads, place.batch))
    for folder, network in networks.items():
        times = {n: TimesRecord.model_validate(vars(next(found))) for n in names}
        record = LatencyRecord.model_validate({**where, "times": times})
        note_latency(network, folder, record, handover)


def _is_timed(
    found: LatencyRecord | None, where: Mapping[str, object], names: Sequence[str]
) -> bool:
    return (
        found is not None
        and found.model_dump(include=set(where)) == where
        and found.times.keys() == set(names)
    )
