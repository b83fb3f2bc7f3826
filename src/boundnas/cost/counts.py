"""What is counted of every network: multiply-accumulates and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from boundnas.cost.base import COSTS, Cost
from boundnas.elastic import ElasticLayer
from boundnas.errors import CostError
from boundnas.space.polynomial import Polynomial, amount
from boundnas.supernet.paths import paths
from boundnas.supernet.supernet import Supernet


class MACs(Cost):
    """Multiply-accumulates for one image: of layers, and of what `forward` multiplies itself."""

    name, unit, per_unit = "macs", "MMACs", 10**6

    def _polynomial(self, model: Supernet) -> Polynomial:
        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.macs(positions)
            return amount(positions if module is None else 0)

        return total(model, own)


class Parameters(Cost):
    """Trained parameters of the layers in use."""

    name, unit, per_unit = "parameters", "million parameters", 10**6

    def _polynomial(self, model: Supernet) -> Polynomial:
        owners = _owners(model)

        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if isinstance(module, ElasticLayer):
                return module.parameter_count()
            held = () if module is None else module.parameters(recurse=False)
            return amount(sum(p.numel() for p in held if owners[p] is module))

        return total(model, own)


def _owners(model: Supernet) -> dict[nn.Parameter, nn.Module]:
    """The plain module that each parameter is counted with, as a tied one lies in several.

    Raises:
        CostError: Which of them are used depends on the architecture.
    """
    found, modules = paths(model), dict(model.named_modules())
    holders: dict[nn.Parameter, list[str]] = {}
    for name in found.uses:
        module = modules.get(name)
        if module is not None and not isinstance(module, ElasticLayer):
            for parameter in module.parameters(recurse=False):
                holders.setdefault(parameter, []).append(name)
    owners = {}
    for parameter, names in holders.items():
        sure = [n for n in names if not found.presence[n] and not found.uses[n].dimensions]
        if len(names) > 1 and not sure:
            raise CostError(
                f"{' and '.join(names)} have one parameter in common and are not in every network, "
                "so that it is not known how often it counts; tie layers that always are"
            )
        owners[parameter] = modules[(sure or names)[0]]
    return owners


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


def total(model: Supernet, own: Own) -> Polynomial:
    """The own costs of all modules, each where it is present and used."""
    found = paths(model)
    summed, modules = amount(0), dict(model.named_modules())
    for name, use in found.uses.items():
        cost = Polynomial(())
        for positions, condition in use.cases():
            cost += own(modules.get(name), positions).given(condition)
        for condition in reversed(found.presence[name]):
            cost = cost.given(condition)
        summed += cost
    return summed
