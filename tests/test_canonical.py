"""Two architectures that differ in nothing that their network has are one network."""

import operator
from itertools import product

import pytest
import torch
from tests.small import few_digits, mobilenet
from tests.spaces import SPACES, images, seeded, supernet
from torch import nn
from torch.nn import functional as F

from boundnas import SearchSettings, Supernet, TrainSettings, calibrate, elastic, fit, search
from boundnas.cost import Cost, MACs, Parameters
from boundnas.randomness import stream
from boundnas.search import Evaluator, canonical
from boundnas.search.bench import Bench
from boundnas.search.canonical import Canonical
from boundnas.search.genetic import IDLE_DRAWS, genetic_search, population
from boundnas.search.journal import Evaluation
from boundnas.search.sampled import METHODS, sampled_search
from boundnas.space import Architecture, Dimension, SearchSpace
from boundnas.space.polynomial import amount
from boundnas.supernet.trail import Watched


class PerLayer(Supernet):
    """Kernels of their own for three layers, of which depth cuts off two: 28 networks of 48."""

    def __init__(self):
        super().__init__((1, 8, 8))
        width = self.dimension("width", [2, 4])
        depth = self.dimension("depth", [1, 2, 3], "depth")
        kernels = [self.dimension(f"kernel{i}", [1, 3], "kernel") for i in range(3)]
        self.stem = elastic.Conv2d(1, width, 3)
        self.stage = elastic.Stage([elastic.Conv2d(width, width, k) for k in kernels], depth)
        self.head = elastic.Linear(width, 10)

    def forward(self, x, arch):
        x = F.relu(self.stage(self.stem(x, arch), arch))
        return self.head(x.mean((2, 3)), arch)


class Curious(PerLayer):
    """Looks at every value at once: whatever it does with them, no two names are one network."""

    def forward(self, x, arch):
        assert len(arch.values) == 5
        return super().forward(x, arch)


class Switch(Supernet):
    """A hidden width that only squeeze-and-excite has, and an activation that may be left out."""

    def __init__(self):
        super().__init__((1, 8, 8))
        self.switch = self.dimension("switch", (False, True), "se")
        hidden = self.dimension("hidden", [2, 4])
        activation = self.dimension("activation", ("relu", "swish"), "activation")
        self.conv = elastic.Conv2d(1, 4, 3)
        self.inner = elastic.Linear(4, hidden)
        self.outer = elastic.Linear(hidden, 4)
        self.activation = elastic.Activation(activation)
        self.head = elastic.Linear(4, 10)

    def forward(self, x, arch):
        x = self.conv(x, arch).mean((2, 3))
        if arch[self.switch]:
            x = self.outer(self.activation(self.inner(x, arch), arch), arch)
        return self.head(x, arch)


class Rounded(Supernet):
    """A width that is the same for several options, and of two dimensions their product."""

    def __init__(self):
        super().__init__((1, 8, 8))
        ratio = self.dimension("ratio", (1.0, 1.1, 2.0))
        one, other = (self.dimension(name, (1, 2)) for name in ("one", "other"))
        width = ratio.map(lambda r: int(3 * r))
        both = one.map(operator.mul, other)
        self.conv, self.inner = elastic.Conv2d(1, width, 3), elastic.Linear(width, both)
        self.head = elastic.Linear(both, 10)

    def forward(self, x, arch):
        return self.head(self.inner(self.conv(x, arch).mean((2, 3)), arch).relu(), arch)


class Optional(Supernet):
    """Takes one of two activations, by the place of an option, also within another architecture."""

    def __init__(self):
        super().__init__((1, 8, 8))
        self.which = self.dimension("which", ("first", "second"))
        kinds = [self.dimension(name, ("relu", "swish"), "activation") for name in ("a", "b")]
        self.conv, self.head = elastic.Conv2d(1, 4, 3), elastic.Linear(4, 10)
        self.activations = nn.ModuleList(elastic.Activation(kind) for kind in kinds)

    def forward(self, x, arch):
        chosen = self.activations[arch.option(self.which)]
        within = arch.with_option(self.which, 0)
        return self.head(chosen(self.conv(x, arch), within).mean((2, 3)), arch)


def every(space):
    return [Architecture(space, i) for i in product(*(range(len(d)) for d in space.dimensions))]


NETWORKS = {  # a model, and what its networks are by their values
    "kernels that depth cuts off": (
        PerLayer,
        lambda v: (v["width"], *(v[f"kernel{i}"] for i in range(v["depth"]))),
        28,
    ),
    "what a switch leaves out": (
        Switch,
        lambda v: v["switch"] and (v["hidden"], v["activation"]),
        5,
    ),
    "widths that depth cuts off": (
        mobilenet,
        lambda v: tuple(
            x for name, x in v.items() if ".layer2" not in name or v["stage1.depth"] > 1
        ),
        192,
    ),
    "options of equal values": (
        Rounded,
        lambda v: (int(3 * v["ratio"]), v["one"] * v["other"]),
        6,
    ),
    "an option that is asked for": (
        Optional,
        lambda v: (v["which"], v["a" if v["which"] == "first" else "b"]),
        4,
    ),
    "a forward that looks at everything": (Curious, lambda v: tuple(v.values()), 48),
}  # fmt: skip


@pytest.mark.parametrize(("build", "network", "number"), NETWORKS.values(), ids=NETWORKS)
def test_every_network_has_one_name(build, network, number):
    model = seeded(build)
    name = Canonical(model, model.space.whole)
    names = {}
    for arch in every(model.space):
        names.setdefault(network(arch.values), set()).add(name(arch))
    assert len(names) == number == len(set.union(*names.values()))
    assert {len(found) for found in names.values()} == {1}


@pytest.mark.parametrize("space", SPACES)
def test_a_name_stands_for_the_same_network_bit_for_bit(space, full, figure):
    model, generator = supernet(space).eval(), stream(0, "test")
    costs = MACs(model), Parameters(model)
    name, x = Canonical(model, model.space.whole, costs), images(model, 4)
    number, renamed = 40 if full else 3, 0
    for arch in [model.space.sample(generator) for _ in range(number)]:
        other = name(arch)
        assert name(other) == other
        assert [cost(other) for cost in costs] == [cost(arch) for cost in costs]
        with torch.no_grad():
            logits = [model(x, calibrate(model, a, [x])) for a in (arch, other)]
        assert torch.equal(*logits)
        renamed += other != arch
    figure(f"{space}: {number} architectures, {renamed} of them renamed, the same network each")


def test_what_follows_two_dimensions_reads_both():
    one, other, read = Dimension("one", (1, 2)), Dimension("other", (1, 2)), []
    space = SearchSpace([one, other])
    product = one.map(operator.mul, other)
    assert Watched.of(space.largest, read.extend).size(product) == 4
    assert read == [product]
    assert Watched.of(space.largest, read.extend).option(product) == 3
    assert read == [product, one, other]


def test_unread_dimensions_stand_at_the_first_option_that_is_allowed():
    model = seeded(PerLayer)
    allowed = ((0, 1), (0, 1, 2), (1,), (1,), (0, 1))
    name = Canonical(model, allowed)
    assert name(Architecture(model.space, (1, 0, 0, 0, 1))).indices == (1, 0, 0, 1, 0)


def test_of_options_of_equal_values_the_first_that_is_allowed_stands_for_all():
    model = seeded(Rounded)
    name = Canonical(model, ((1, 2), (0, 1), (0, 1)))
    space = model.space
    assert name(Architecture(space, (0, 1, 0))) == Architecture(space, (1, 0, 1))
    assert name(Architecture(space, (2, 0, 1))) == Architecture(space, (2, 0, 1))


def test_of_too_many_combinations_every_name_is_kept_apart(monkeypatch):
    monkeypatch.setattr(canonical, "COMBINATIONS", 11)
    model = seeded(Rounded)
    name = Canonical(model, model.space.whole)
    assert [name(arch) for arch in every(model.space)] == every(model.space)


class Told(Cost):
    """A cost that tells apart what no layer reads."""

    name, unit = "told", "units"

    def _polynomial(self, model):
        return amount(model.space.dimensions[-1]) + 1


def test_names_that_a_cost_tells_apart_stay_different():
    model = seeded(PerLayer)
    name = Canonical(model, model.space.whole, [Told(model)])
    one, other = (Architecture(model.space, (0, 0, 0, 0, i)) for i in (0, 1))
    assert (name(one), name(other)) == (one, other)


def test_one_pass_answers_for_all_names_of_a_network(monkeypatch):
    model, passes = seeded(PerLayer), []
    forward = PerLayer.forward
    monkeypatch.setattr(
        PerLayer, "forward", lambda self, x, arch: (passes.append(arch), forward(self, x, arch))[1]
    )
    name = Canonical(model, model.space.whole)
    for arch in every(model.space):
        name(arch)
    assert len(passes) == 28


@pytest.fixture
def measured(monkeypatch):
    made = []
    for step in ("judged", "screened"):
        measure = getattr(Evaluator, step)

        def noted(self, arch, *rest, measure=measure):
            made.append(arch)
            return measure(self, arch, *rest)

        monkeypatch.setattr(Evaluator, step, noted)
    return made


SMALL = SearchSettings(
    initial=48, rounds=1, crossovers=4, mutations=4, bounds="whole", calibration_images=64
)


@pytest.mark.parametrize("change", [{}, {"method": "nsga2"}, {"method": "tpe"}, {"screen": 0.5}])
def test_a_search_measures_each_network_once(change, measured):
    settings = TrainSettings(steps=2, batch_size=8, learn="none")
    run = fit(seeded(PerLayer), few_digits(), cost_range=(1e3, 1e6), settings=settings)
    front = search(run, SMALL.model_copy(update=change))
    _, network, number = NETWORKS["kernels that depth cuts off"]
    name = Canonical(run.model, run.model.space.whole)
    assert measured == [name(arch) for arch in measured]
    if change.keys() != {"screen"}:  # which measures pilots and finalists elsewhere
        assert len({network(a.values) for a in measured}) == len(measured)
        assert len(measured) == number or change
    assert all(n.arch == name(n.arch) for n in (*front.networks, *front.outside))


def test_a_first_population_of_few_networks_with_many_names_ends():
    space = SearchSpace([Dimension(f"d{i}", tuple(range(9))) for i in range(30)])
    drawn = []

    def name(arch):
        drawn.append(arch)
        return Architecture(space, (arch.indices[0] // 3, *[0] * 29))

    ends = (space.largest, space.smallest)
    assert len(population(space, ends, space.whole, 20, 0, name)) == 3
    assert len(drawn) < IDLE_DRAWS * 20 + 100
    first = list(population(space, ends, space.whole, 2, 0, name))
    assert first == list(population(space, ends, space.whole, 20, 0, name))[:2]


def test_parents_keep_the_values_that_their_network_does_not_read():
    space = SearchSpace([Dimension("read", tuple(range(8))), Dimension("unread", tuple(range(8)))])

    def name(arch):
        return Architecture(space, (arch.indices[0], 0))

    def measure(batch):
        for arch in batch:
            assert arch == name(arch)
            yield Evaluation(arch, {"macs": 1, "parameters": 1}, 0.5, 9)

    options = {"largest": space.largest, "smallest": space.smallest, "allowed": space.whole}
    found = genetic_search(Bench(measure, name=name), seed=0, initial=3, **options)
    assert len(found) == 1
    drawn = population(space, (space.largest, space.smallest), space.whole, 3, 0, name)
    assert drawn[name(space.largest)] == space.largest


@pytest.mark.parametrize("method", METHODS)
def test_a_sampler_is_told_of_every_name_what_its_network_is_worth(method):
    space = SearchSpace([Dimension("read", tuple(range(8))), Dimension("unread", tuple(range(8)))])
    batches = []

    def name(arch):
        return Architecture(space, (arch.indices[0], 0))

    def measure(batch):
        batches.append(batch)
        return [
            Evaluation(a, {"macs": 1 + a.indices[0], "parameters": 1}, a.indices[0] / 10, 9)
            for a in batch
        ]

    options = {"largest": space.largest, "smallest": space.smallest, "allowed": space.whole}
    bench = Bench(measure, name=name)
    sampled_search(bench, method=method, total=64, population=8, seed=0, **options)
    asked = [a for batch in batches for a in batch]
    assert len(asked) == len(set(asked)) == 8
