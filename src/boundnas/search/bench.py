"""The whole chain of a candidate: its name, whether it is known, who measures it, its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from boundnas.engine.ranks import mine, size, spread
from boundnas.search.journal import Evaluation, Journal
from boundnas.search.screening import Screening
from boundnas.space import Architecture

Name = Callable[[Architecture], Architecture]
"""The one name of the network that an architecture names, as `Canonical` gives it."""

Measure = Callable[[Sequence[Architecture]], Iterable[Evaluation]]
"""Measures different networks, in order, in this process; yields each as soon as it is known."""

PER_MESSAGE = 8
"""Architectures that each of several processes measures before they tell one another."""


class Bench:
    """Measures the candidates of a search: each network once, whatever it is called.

    Args:
        measure: What is done in this process, side by side on its threads: `Evaluator.each`.
        name: Tells which architectures are one network, which is measured by this name.
        journal: Answers for what it has; what is measured is written there at once.
        screening: Where ``measure`` only estimates: measures what would be on the front.
        show: Told each evaluation as it comes.
    """

    def __init__(
        self,
        measure: Measure,
        *,
        name: Name = lambda architecture: architecture,
        journal: Journal | None = None,
        screening: Screening | None = None,
        show: Callable[[Evaluation], None] | None = None,
    ) -> None:
        self.name, self.known = name, dict[Architecture, Evaluation]()
        self._measure, self._journal = measure, journal
        self._screening, self._show = screening, show

    def __call__(self, architectures: Iterable[Architecture]) -> list[Evaluation]:
        """The evaluation of each architecture's network, in order."""
        names = list(map(self.name, architectures))
        fresh = [network for network in dict.fromkeys(names) if network not in self.known]
        found = list(self._shown(fresh))
        if self._screening is not None:
            found = self._screening(found)
        for network, evaluation in zip(fresh, found, strict=True):
            assert evaluation.architecture == network, "evaluations are out of order"
            self.known[network] = evaluation
        return [self.known[network] for network in names]

    def _shown(self, networks: Sequence[Architecture]) -> Iterator[Evaluation]:
        for evaluation in self._journalled(networks):
            if self._show is not None:
                self._show(evaluation)
            yield evaluation

    def _journalled(self, networks: Sequence[Architecture]) -> Iterator[Evaluation]:
        """Measured, or read from the journal; what is measured is written there at once."""
        if self._journal is None:
            yield from self._shared(networks)
            return
        measured = self._shared([n for n in networks if n not in self._journal])
        for network in networks:
            if network not in self._journal:
                self._journal.append(next(measured))
            yield self._journal[network]

    def _shared(self, networks: Sequence[Architecture]) -> Iterator[Evaluation]:
        """Measured by all processes: each measures its part of some, then tells the others."""
        if size() == 1 and networks:
            yield from self._measure(networks)
            return
        together = PER_MESSAGE * size()
        for start in range(0, len(networks), together):
            part = networks[start : start + together]
            found = [e.record() for e in self._measure(mine(part))]
            for network, row in zip(part, spread(found, "in the search"), strict=True):
                yield Evaluation.of(row, network.space)
