"""What is counted of every network: multiply-accumulates and parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from torch import nn

from boundnas.cost.base import COSTS, Cost
from boundnas.elastic import ElasticLayer, Embedding, Linear
from boundnas.errors import CostError
from boundnas.space.polynomial import Polynomial, amount
from boundnas.supernet.paths import paths
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import followed, read_by_functions


class MACs(Cost):
    """Multiply-accumulates for one image: of layers, and of what `forward` multiplies itself.

    What multiplies weights alone, as often for many images as for one, counts in full.
    """

    name, unit, per_unit = "macs", "MMACs", 10**6
    counts = "multiply-accumulates"
    polynomial: Polynomial

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.macs(positions)
            return amount(positions if module is None else 0)

        return total(model, own)


class Parameters(Cost):
    """Trained parameters of the layers in use, and those that ``forward`` computes with itself."""

    name, unit, per_unit = "parameters", "million parameters", 10**6
    polynomial: Polynomial

    def _polynomial(self, model: Supernet) -> Polynomial:
        counted = _counted(model)
        _check_tied(model)

        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.parameter_count()
            return amount(0 if module is None else counted.get(module, 0))

        def read(name: str) -> Polynomial:
            return amount(counted.get(name, 0))

        return total(model, own, read)


def _counted(model: Supernet) -> dict[nn.Module | str, int]:
    """Parameters that each plain layer counts, and each that functions read; a tied one once.

    Raises:
        CostError: Which of the layers that share one are used depends on the architecture.
    """
    found, modules = paths(model), dict(model.named_modules())
    uses, read = found.uses | found.reads, read_by_functions(model)
    holders: dict[nn.Parameter, list[str]] = {read[name]: [name] for name in found.reads}
    by_themselves = {name for name, _ in followed(model)}
    for name in found.uses:  # in the order of the model, which messages tell
        plain = name in modules and name not in by_themselves
        if plain and not isinstance(modules[name], ElasticLayer):
            for parameter in modules[name].parameters(recurse=False):
                holders.setdefault(parameter, []).append(name)
    counted: Counter[nn.Module | str] = Counter()
    for parameter, names in holders.items():
        sure = [n for n in names if not found.presence[n] and not uses[n].dimensions]
        if len(names) > 1 and not sure:
            raise CostError(
                f"{' and '.join(names)} have one parameter in common and are not in every network, "
                "so that it is not known how often it counts; tie layers that always are"
            )
        name = (sure or names)[0]
        counted[modules.get(name, name)] += parameter.numel()
    return counted


def _check_tied(model: Supernet) -> None:
    """Refuse a linear layer whose weight counts with a table that is not in every network.

    Raises:
        CostError: Names the layer.
    """
    found, modules = paths(model), dict(model.named_modules())
    tables = {
        modules[name].weight
        for name, use in found.uses.items()
        if isinstance(modules.get(name), Embedding) and not (found.presence[name] or use.dimensions)
    }
    for name in found.uses:
        layer = modules.get(name)
        if isinstance(layer, Linear) and layer.is_tied and layer.weight not in tables:
            raise CostError(
                f"{name} is tied to a table that is not in every network, so that it is not known "
                "how often its weight counts; look the table up in every one"
            )


Own = Callable[[nn.Module | None, int], Polynomial]
"""The cost of a module by itself, without its children, from the module and the output positions
where it is used; of the functions that a module calls, from none and their multiply-accumulates."""


def with_usual(model: Supernet, costs: Iterable[Cost] = ()) -> dict[str, Cost]:
    """MACs and parameters, which are counted for every run, and its own costs, by name."""
    usual = {name: COSTS[name](model) for name in USUAL}
    return usual | {cost.name: cost for cost in costs}


USUAL = (MACs.name, Parameters.name)
"""Costs that are counted for every run."""

COSTS.update({cost.name: cost for cost in (MACs, Parameters)})


Read = Callable[[str], Polynomial]
"""The cost of a parameter that functions compute with, from its name."""


def total(model: Supernet, own: Own, read: Read = lambda name: amount(0)) -> Polynomial:
    """The own costs of all modules and of parameters, each where it is present and used."""
    found = paths(model)
    summed, modules = amount(0), dict(model.named_modules())
    for name, use in (found.uses | found.reads).items():
        cost = Polynomial(())
        for positions, condition in use.cases():
            each = read(name) if name in found.reads else own(modules.get(name), positions)
            cost += each.given(condition)
        for condition in reversed(found.presence[name]):
            cost = cost.given(condition)
        summed += cost
    return summed
