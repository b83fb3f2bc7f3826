"""The size of the weights file that an export writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from boundnas.cost.base import COSTS, Cost
from boundnas.cost.counts import total
from boundnas.elastic import BatchNorm, ElasticLayer, Linear
from boundnas.errors import CostError
from boundnas.space import Architecture
from boundnas.space.polynomial import Polynomial, amount
from boundnas.supernet.calibrate import calibrate
from boundnas.supernet.extract import extract, random_inputs
from boundnas.supernet.paths import paths
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import free
from boundnas.supernet.weights_file import AROUND, entry_size

Tensors = Mapping[str, Tensor]


class Bytes(Cost):
    """Bytes of the weights file of the extracted network, ``bn.export(net, "x.safetensors")``.

    Weights and BatchNorm statistics in the precision of the model, with their names, shapes and
    places (see `boundnas.supernet.weights_file`). ONNX files hold the graph besides.

    Raises:
        CostError: A layer keeps tensors whose size is not known at every width.
    """

    name, unit, per_unit = "bytes", "MB", 10**6
    polynomial: Polynomial

    def _polynomial(self, model: Supernet) -> Polynomial:
        names = {module: name for name, module in model.named_modules()}
        samples = list(_samples(model))
        read = {free(name) for name in paths(model).reads}
        held: dict[str, Tensors] = {}
        single: dict[str, Tensor] = {}
        for _, tensors in samples:
            layers = {key: tensor for key, tensor in tensors.items() if key not in read}
            held |= _by_module(layers, set(names.values()))
            single |= tensors

        def own(module: nn.Module | None, positions: int) -> Polynomial:
            if module is None:
                return amount(0)
            found = held.get(names[module], {})
            entries = sum(map(entry_size, found))
            return amount(entries) + _values(module, found)

        def of_parameter(name: str) -> Polynomial:
            key = free(name)
            return amount(_entry(key, single[key]) if key in single else 0)

        polynomial = total(model, own, of_parameter) + AROUND
        for arch, tensors in samples:
            said, size = polynomial.value(arch), _size(tensors)
            if said != size:
                raise CostError(
                    f"bytes: a file of {size:,} bytes is counted as {said:,}, so a layer keeps "
                    "tensors that are no parameters, or has other names at other widths; take "
                    "the cost parameters, or a cost of your own"
                )
        return polynomial


COSTS[Bytes.name] = Bytes


def _values(module: nn.Module, found: Tensors) -> Polynomial:
    """Bytes of the values of a module's own tensors."""
    if not isinstance(module, ElasticLayer):
        return amount(sum(t.numel() * t.element_size() for t in found.values()))
    widths = {t.element_size() for t in found.values() if t.is_floating_point()}
    if len(widths) != 1:
        return amount(0)
    numbers = module.parameter_count()
    if isinstance(module, Linear) and module.is_tied:  # which the file holds once more
        numbers += amount(module.in_features) * amount(module.out_features)
    values = widths.pop() * numbers
    # Mean and variance are as many as scale and shift; a counter of steps is beside them.
    return 2 * values + 8 if isinstance(module, BatchNorm) else values


def _size(tensors: Tensors) -> int:
    return AROUND + sum(_entry(name, tensor) for name, tensor in tensors.items())


def _entry(name: str, tensor: Tensor) -> int:
    return entry_size(name) + tensor.numel() * tensor.element_size()


def _samples(model: Supernet) -> Iterator[tuple[Architecture, Tensors]]:
    """Architectures that have, together, every option and every layer, and their tensors."""
    space, inputs, found = model.space, random_inputs(model), paths(model)
    several = [
        Architecture(space, tuple(min(j, len(d) - 1) for d in space.dimensions))
        for j in range(max(map(len, space.dimensions)))
    ]
    for name in found.uses:
        if not any(found.positions(name, arch) for arch in several):
            several += [arch for arch in found.probes if found.positions(name, arch)][:1]
    for arch in several:
        yield arch, extract(model, calibrate(model, arch, [inputs])).state_dict()


def _by_module(tensors: Tensors, names: set[str]) -> dict[str, Tensors]:
    """Each module's own tensors: those of no module inside it."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        owner = key.rpartition(".")[0]
        while owner not in names:  # what extraction put around a layer has names of its own
            owner = owner.rpartition(".")[0]
        found.setdefault(owner, {})[key] = tensor
    return dict(found)
