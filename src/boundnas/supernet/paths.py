"""What ``forward`` does in each architecture: which layers it calls, where, and what it looks up.

The forward of a user may branch on ``arch``, on shapes, resize maps or repeat layers. It is run on
a set of architectures in which every option of every dimension occurs; where they differ,
`boundnas.supernet.uses` finds out what a layer's use depends on.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Iterator, Sequence

from torch import nn

from boundnas.elastic import ElasticLayer, ElasticModule
from boundnas.elastic.choice import Wholes
from boundnas.errors import CostError
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, SearchSpace, combinations, followed
from boundnas.space.polynomial import Polynomial
from boundnas.supernet.supernet import Supernet
from boundnas.supernet.tracing import is_plain, read_by_functions
from boundnas.supernet.trail import Trail, follow
from boundnas.supernet.uses import TOGETHER, Uses, with_options

SMALL = 32
"""Spaces of so many architectures are tried whole; of a dimension, so many options."""

RANDOM = 4
"""Random architectures that are tried beside those in which every option occurs."""


class Paths:
    """The forward of a model over its whole space.

    Args:
        model: The supernet.

    Raises:
        CostError: A layer is used by no architecture, or its use depends on too much.
    """

    def __init__(self, model: Supernet) -> None:
        self.space = model.space
        self._model = weakref.ref(model)
        self._trails: dict[Architecture, Trail] = {}
        self.presence = presence_of(model)
        """For every module, the conditions that the elastic modules around it set."""
        probes = list(_probes(self.space))
        self.probes = list(dict.fromkeys([*probes, *map(self._with_all, probes)]))
        self._try_what_is_looked_up()
        self._try_choices(model)
        called = {n: None for t in self._trails.values() for n in t.positions}
        functions = [name for name in called if name.endswith(")")]
        parameters = read_by_functions(model)
        read = [name for name in parameters if name in called]
        self.layers = {**_layers(model, set(called)), **{n: n for n in (*functions, *read)}}
        self.presence.update((n, self.presence[n.rpartition("(")[0]]) for n in functions)
        self.presence.update((name, self.presence[name.rpartition(".")[0]]) for name in read)
        self._whole = self._of_weights(model, functions)
        found = Uses(self.space, self.presence, self.positions).find(self.layers, self.probes)
        self.uses = {name: use for name, use in found.items() if name not in parameters}
        """Of layers and functions."""
        self.reads = {name: found[name] for name in read}
        """Of parameters that are no layer's."""

    def _try_what_is_looked_up(self) -> None:
        """Add all combinations of what ``forward`` itself looks up, where they are few."""
        known: set[Dimension] = set()
        while True:
            found = {d for arch in self.probes for d in self.trail(arch).looked_up}
            if found == known or math.prod(map(len, found)) > TOGETHER:
                return
            known = found
            dimensions = sorted(found, key=self.space.position)
            options = itertools.product(*(range(len(d)) for d in dimensions))
            further = [with_options(self.space.largest, dimensions, indices) for indices in options]
            self.probes = list(dict.fromkeys([*self.probes, *further]))

    def _try_choices(self, model: Supernet) -> None:
        """Add all combinations that choices of several dimensions follow: one may be used once."""
        for name, module in model.named_modules():
            dimensions = followed(module.setting) if isinstance(module, Wholes) else ()
            if len(dimensions) < 2:
                continue
            if math.prod(map(len, dimensions)) > TOGETHER:
                raise CostError(
                    f"{name} chooses by {', '.join(d.name for d in dimensions)} together, in more "
                    f"than {TOGETHER} combinations, so its cost is not known; choose by fewer"
                )
            options = (tuple(each.values()) for each in combinations(dimensions))
            further = [with_options(self.space.largest, dimensions, each) for each in options]
            self.probes = list(dict.fromkeys([*self.probes, *further]))

    def _of_weights(self, model: Supernet, functions: Sequence[str]) -> frozenset[str]:
        """Functions that multiply weights alone, as often for one image as for many.

        Raises:
            CostError: Products whose number does not follow that of the images, nor stays.
        """
        multiply = [
            name
            for name, module in model.named_modules()
            if isinstance(module, ElasticLayer) and module.macs(1).value(self.space.largest)
        ]
        found, further = set(), {}
        for name in (*functions, *multiply):
            having = (a for a in self.probes if self.trail(a).uses(name))
            arch = next(having, None)
            if arch is None:
                continue  # which is refused elsewhere, if it matters
            if arch not in further:
                further[arch] = follow(model, arch, 3)
            two, three = self.trail(arch), further[arch]
            if two.products.get(name, 0) == three.products.get(name, 0) > 0:
                found.add(name)
            elif two.positions.get(name) != three.positions.get(name):
                where = name.partition("(")[0] or "forward"
                raise CostError(
                    f"{where} multiplies images with one another, or weights where it "
                    "multiplies images too, so that the MACs of one image are not known; put "
                    "what multiplies weights alone into a module of its own, of plain layers"
                )
        return frozenset(found)

    def trail(self, arch: Architecture) -> Trail:
        """What an architecture does; each is run once."""
        if arch not in self._trails:
            model = self._model()
            assert model is not None
            self._trails[arch] = follow(model, arch)
        return self._trails[arch]

    def positions(self, name: str, arch: Architecture) -> int:
        """Output positions of a layer in an architecture, or multiply-accumulates of functions."""
        trail, name = self.trail(arch), self.layers[name]
        return (trail.products if name in self._whole else trail.positions).get(name, 0)

    def differ(self, a: Architecture, b: Architecture) -> list[str]:
        """Modules whose own ``forward`` does something else in one architecture than in another."""
        one, other = self.trail(a).steps, self.trail(b).steps
        return [name for name in one if name in other and one[name] != other[name]]

    def between(self, a: Architecture, b: Architecture) -> list[Dimension]:
        """The dimensions that change what is done on the way from one architecture to another.

        Each is changed in turn; if every step does the same, all that differ count.
        """
        found, here = [], a
        for dimension, index in zip(self.space.dimensions, b.indices, strict=True):
            there = here.with_option(dimension, index)
            if self.differ(here, there):
                found.append(dimension)
            here = there
        changed = zip(self.space.dimensions, a.indices, b.indices, strict=True)
        return found or [d for d, old, new in changed if old != new]

    def _with_all(self, arch: Architecture) -> Architecture:
        """With the dimensions that cut modules off at their largest, so that all are seen."""
        conditions = {c for each in self.presence.values() for c in each}
        cutting = {f.dimension for c in conditions for _, term in c.terms for f in term}
        for dimension in cutting:
            arch = arch.with_option(dimension, len(dimension) - 1)
        return arch


def paths(model: Supernet) -> Paths:
    """The paths of a model, found once for the modules that it has."""
    key = tuple((name, id(module)) for name, module in model.named_modules())
    held = _FOUND.get(model)
    if held is None or held[0] != key:
        held = _FOUND[model] = key, Paths(model)
    return held[1]


_FOUND: weakref.WeakKeyDictionary[Supernet, tuple[object, Paths]] = weakref.WeakKeyDictionary()


def _probes(space: SearchSpace) -> Iterator[Architecture]:
    """All of a small space, else the extremes, every option of every dimension, and chance."""
    sizes = [len(d) for d in space.dimensions]
    yield space.largest
    yield space.smallest
    if space.size <= SMALL:
        yield from (Architecture(space, i) for i in itertools.product(*map(range, sizes)))
        return
    for turn in range(min(max(sizes), SMALL)):
        yield Architecture(space, tuple((turn + i) % n for i, n in enumerate(sizes)))
    generator = stream(0, "paths")
    yield from (space.sample(generator) for _ in range(RANDOM))


def presence_of(model: Supernet) -> dict[str, tuple[Polynomial, ...]]:
    """For every module, when the elastic modules around it use it; nothing if it has two places."""
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, list[tuple[Polynomial, ...]]] = {"": [()]}

    def visit(module: nn.Module, conditions: tuple[Polynomial, ...]) -> None:
        for child_name, child in module._modules.items():
            if child is None:
                continue
            own = conditions
            if isinstance(module, ElasticModule):
                own = (*conditions, module.presence(child_name))
            found.setdefault(names[child], []).append(own)
            visit(child, own)

    visit(model, ())
    return {name: ways[0] if len(ways) == 1 else () for name, ways in found.items()}


def _layers(model: Supernet, called: set[str]) -> dict[str, str]:
    """Modules with weights, and the module whose calls say when they are used."""
    layers, unused = {}, []
    for name, module in model.named_modules():
        if not isinstance(module, ElasticLayer) and not list(module.parameters(recurse=False)):
            continue
        holder = name
        while holder not in called:
            holder = holder.rpartition(".")[0]
        layers[name] = holder
        # Only what PyTorch calls otherwise, and lists of parameters, go uncalled in use.
        inside = is_plain(module) and is_plain(model.get_submodule(holder))
        is_layer = isinstance(module, ElasticLayer) or is_plain(module)
        if holder != name and is_layer and not inside:
            unused.append(name)
    if unused:
        raise CostError(
            f"no architecture that was tried uses {', '.join(unused)}, so the cost is not known; "
            "forward calls every layer in some architecture, or the model does not have it"
        )
    return layers
