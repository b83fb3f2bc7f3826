import json
import string

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.spaces import SPACES, images, supernet

from boundnas import Supernet, calibrate
from boundnas.errors import ArgumentError, SpaceError
from boundnas.method.policy import initial_policy
from boundnas.randomness import stream
from boundnas.space import Architecture, Dimension, Joined, SearchSpace, choices, largest

names = st.text(string.ascii_lowercase + ".0123456789", min_size=1, max_size=12)
ascending = st.one_of(
    st.lists(st.integers(-9, 999), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(-9, 9), min_size=1, max_size=4, unique=True).map(sorted),
    st.lists(
        st.text(min_size=1, max_size=4).filter(str.isprintable), min_size=1, max_size=4, unique=True
    ),
    st.sampled_from([[False, True], [True], [False]]),
)
dimensions = st.builds(Dimension, names, ascending.map(tuple), st.sampled_from(["width", "depth"]))
spaces = st.lists(dimensions, min_size=1, max_size=6, unique_by=lambda d: d.name).map(SearchSpace)
seeds = st.integers(0, 2**63 - 1)


@st.composite
def restricted(draw):
    """A space and a part of the options of each of its dimensions."""
    space = draw(spaces)
    allowed = tuple(
        tuple(sorted(draw(st.sets(st.integers(0, len(d) - 1), min_size=1))))
        for d in space.dimensions
    )
    return space, allowed


def inside(arch, allowed):
    return all(i in options for i, options in zip(arch.indices, allowed, strict=True))


@given(spaces, seeds)
def test_an_architecture_survives_json(space, seed):
    arch = space.sample(stream(seed, "architecture"))
    values = json.loads(json.dumps(arch.values))
    assert space.architecture(values) == arch
    assert space.architecture(dict(reversed(values.items()))) == arch


@given(spaces)
def test_a_space_survives_json(space):
    read = json.loads(json.dumps(space.to_json()))
    twin = SearchSpace([Dimension(d["name"], tuple(d["choices"]), d["kind"]) for d in read])
    assert twin == space
    assert hash(twin) == hash(space)
    assert twin.largest == space.largest
    assert len(twin) == len(space.dimensions)


@given(restricted(), seeds)
def test_samples_stay_within_the_allowed_options(restriction, seed):
    space, allowed = restriction
    generator = stream(seed, "architecture")
    assert all(inside(space.sample(generator, allowed), allowed) for _ in range(5))


@given(restricted(), seeds, st.floats(0, 1))
def test_mutants_change_only_to_other_allowed_options(restriction, seed, probability):
    space, allowed = restriction
    generator = stream(seed, "mutation")
    parent = space.sample(generator)
    child = space.mutate(parent, generator, probability, allowed)
    for old, new, options in zip(parent.indices, child.indices, allowed, strict=True):
        assert new == old or new in options


@given(restricted(), seeds)
def test_mutation_with_probability_zero_changes_nothing_and_one_everything(restriction, seed):
    space, allowed = restriction
    parent = space.sample(stream(seed, "parent"))
    assert space.mutate(parent, stream(seed, "mutation"), 0.0, allowed) == parent
    child = space.mutate(parent, stream(seed, "mutation"), 1.0, allowed)
    for old, new, options in zip(parent.indices, child.indices, allowed, strict=True):
        assert (new == old) == (set(options) <= {old})


@given(spaces, seeds)
def test_children_take_every_dimension_from_a_parent(space, seed):
    generator = stream(seed, "crossover")
    a, b = space.sample(generator), space.sample(generator)
    child = space.crossover(a, b, generator)
    assert all(i in pair for i, *pair in zip(child.indices, a.indices, b.indices, strict=True))
    assert space.crossover(a, a, generator) == a


SPACE = SearchSpace(
    [Dimension("a.width", (8, 16, 24)), Dimension("b", ("relu", "swish")), Dimension("c", (True,))]
)
OTHER = SearchSpace([*SPACE.dimensions[:2], Dimension("c", (False,))])


def test_samples_and_mutants_are_uniform():
    draws, generator = 6000, stream(0, "architecture")
    sampled = [space_sample.indices for space_sample in draw(SPACE.sample, draws, generator)]
    parent = SPACE.architecture({"a.width": 16, "b": "relu", "c": True})
    mutants = draw(lambda g: SPACE.mutate(parent, g, 0.25), draws, generator)
    for option in range(3):
        share = sum(indices[0] == option for indices in sampled) / draws
        assert share == pytest.approx(1 / 3, abs=0.025)  # four standard deviations
    shares = [sum(m.indices[0] == option for m in mutants) / draws for option in range(3)]
    assert shares == pytest.approx([0.125, 0.75, 0.125], abs=0.025)


def draw(function, number, generator):
    return [function(generator) for _ in range(number)]


@given(spaces, seeds)
def test_equal_architectures_are_one_key_whatever_travels_with_them(space, seed):
    policy = initial_policy(space, "max", stream(seed, "start"))
    sampled = policy.sample(stream(seed, "gumbel"))
    plain = Architecture(space, sampled.indices)
    assert sampled == plain
    assert plain == sampled
    assert hash(sampled) == hash(plain)
    assert type(sampled.plain) is Architecture
    assert sampled.plain == plain
    assert {plain: "found"}[sampled] == "found"
    assert plain != space.to_json()


def test_architectures_of_different_spaces_differ():
    other = SearchSpace([Dimension("a.width", (8, 16, 25)), *SPACE.dimensions[1:]])
    assert other.smallest != SPACE.smallest
    assert other != SPACE
    assert SPACE.dimensions != SPACE


@given(spaces)
def test_the_edges_of_a_space_are_its_first_and_last_options(space):
    assert space.smallest.values == {d.name: d.choices[0] for d in space.dimensions}
    assert space.largest.values == {d.name: d.choices[-1] for d in space.dimensions}
    for dimension in space.dimensions:
        assert space.largest[dimension] == dimension.choices[-1]
        assert space.largest.value(dimension) == dimension.choices[-1]


def test_sizes_count_the_architectures():
    assert SPACE.size == 6
    assert repr(SPACE) == "SearchSpace(3 dimensions, 6 architectures)"
    assert str(SPACE.largest) == "a.width=24 b=swish c=True"


def test_what_follows_a_dimension_takes_its_option():
    width = SPACE.dimensions[0]
    quarter = width.map(lambda c: c // 4)
    arch = SPACE.architecture({"a.width": 16, "b": "swish", "c": True})
    assert arch.size(quarter) == 4
    assert arch.size(width) == 16
    assert arch.size(7) == 7
    assert choices(quarter) == (2, 4, 6)
    assert choices("relu") == ("relu",)
    assert largest(quarter) == 6


def test_numbers_of_text_are_positions_and_of_switches_zero_and_one():
    assert Dimension("b", ("swish", "relu")).numbers == (0, 1)
    assert Dimension("s", (True,)).numbers == (1,)
    assert Dimension("w", (8, 16)).numbers == (8, 16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dimension("", (1,)), "a dimension needs a name, a text .*, found ''"),
        (lambda: Dimension("w", ()), "w: needs at least one choice, found none"),
        (lambda: Dimension(3, (1,)), "a dimension needs a name, a text .*, found 3"),
        (lambda: Dimension("w", 4), "w: choices are a tuple or list, in order, found 4"),
        (lambda: Dimension("w", "ab"), "w: choices are a tuple or list, in order, found 'ab'"),
        (lambda: Dimension("w", {"a", "b"}), "w: choices are a tuple or list, in order, found {"),
        (
            lambda: Dimension("w", (2, 4)).map(lambda w: 1 // (w - 4)),
            "w = 4: what follows it fails, ZeroDivisionError: integer division",
        ),
        (lambda: Dimension("a\nb", (1,)), r"needs a name, .* that can be seen, found 'a\\nb'"),
        (lambda: Dimension("w\udcff", (1,)), r"that can be seen, found 'w\\udcff'"),
        (lambda: Dimension("w", (1,), 3), "w: a kind is a text that can be seen, found 3"),
        (lambda: Dimension("w", ("a", "b\n| 99 %")), r"switches or text, found a, 'b\\n\| 99 %'"),
        (lambda: Dimension("w", (1, 1)), "w: every choice must differ, found 1, 1"),
        (lambda: Dimension("w", (24, 16)), "w: choices must be .* ascending numbers, found 24, 16"),
        (lambda: Dimension("w", (1, "a")), "w: choices must be all text or .*, found 1, a"),
        (lambda: Dimension("w", (True, False)), "ascending numbers, found True, False"),
        (lambda: Dimension("w", (8, 16)).index(12), "w: 12 is not a choice; allowed are 8, 16"),
        (lambda: Dimension("w", (0, 1)).index(True), "w: True is not a choice; allowed are 0, 1"),
        (lambda: SearchSpace([]), "at least one dimension, found none"),
        (
            lambda: SearchSpace([Dimension("w", (1,)), Dimension("v", (1,)), Dimension("w", (2,))]),
            "dimension names must differ, found twice: w",
        ),
        (lambda: Architecture(SPACE, (0, 0)), "has 3 indices, found 2"),
        (lambda: Architecture(SPACE, (0, 2, 0)), "b: index 2 is outside 0 to 1"),
        (lambda: Architecture(SPACE, (0.5, 0, 0)), r"tuple of whole numbers, .*found \(0\.5, 0, 0"),
        (lambda: Architecture(SPACE, "000"), "tuple of whole numbers, .*found '000'"),
        (lambda: Architecture(SPACE, None), "tuple of whole numbers, .*found None"),
        (lambda: SPACE.largest["b"], r"as arch\[self\.width\], found 'b'; by their names"),
        (lambda: SPACE.largest[1], "is asked for a dimension itself, .*found 1"),
        (lambda: SPACE.sample(0), "sample: generator must be Generator, found int 0"),
        (
            lambda: SPACE.mutate(OTHER.smallest, torch.Generator()),
            "mutate: this architecture is of another space .* where the other has c .* True; take",
        ),
        (
            lambda: OTHER.crossover(OTHER.smallest, SPACE.smallest, torch.Generator()),
            "crossover: this architecture is of another space",
        ),
        (
            lambda: OTHER.crossover(SPACE.smallest, OTHER.smallest, torch.Generator()),
            "crossover: this architecture is of another space",
        ),
        (lambda: SPACE.mutate((0, 0, 0), torch.Generator()), "must be Architecture, found tuple"),
        (lambda: SPACE.architecture([8, 1]), "architecture: values must be Mapping.*, found list"),
        (
            lambda: SPACE.architecture({"a.width": 8, 1: "relu", "c": True}),
            "missing: b; unknown: 1",
        ),
        (lambda: Joined(4), "a joined width is made of a tuple of widths, found 4"),
        (lambda: Joined({4, 8}), "a tuple of widths, found {8, 4}"),
        (lambda: Supernet((1, 8, 8)).dimension("w", 8), "w: choices are a tuple .* found 8"),
        (lambda: Supernet((1, 8, 8)).dimension("w", {4, 8}), "list, in order, found {8, 4}"),
        (lambda: Architecture(SPACE, (-1, 0, 0)), r"a\.width: index -1 is outside 0 to 2"),
        (
            lambda: SPACE.architecture({"a.width": 8, "d": 1}),
            "names every dimension once; missing: b, c; unknown: d",
        ),
        (
            lambda: SPACE.architecture({"a.width": 9, "b": "relu", "c": True}),
            r"a\.width: 9 is not a choice; allowed are 8, 16, 24",
        ),
        (
            lambda: SPACE.largest[Dimension("z", (1,))],
            r"z: not a dimension of this space, which has a\.width, b, c",
        ),
        (
            lambda: SPACE.largest[Dimension("a.width", (1,))],
            r"a\.width: not a dimension of this space",
        ),
    ],
)
def test_what_cannot_exist_is_refused_with_its_reason(make, message):
    with pytest.raises((SpaceError, ArgumentError), match=message):
        make()


@pytest.mark.parametrize("indices", [[2, 0, 0], np.array([2, 0, 0]), torch.tensor([2, 0, 0])])
def test_an_architecture_is_one_key_whatever_its_numbers_are_given_as(indices):
    assert {Architecture(SPACE, indices): 1} == {Architecture(SPACE, (2, 0, 0)): 1}
    assert repr(Architecture(SPACE, indices)) == "Architecture(a.width=24 b=relu c=True)"


@pytest.mark.parametrize("name", SPACES)
def test_a_model_takes_architectures_of_equal_spaces_only(name):
    model, twin = supernet(name), supernet(name)
    x = images(model, 2)
    assert torch.equal(model(x, twin.space.smallest), model(x, model.space.smallest))
    with pytest.raises(SpaceError, match=r"another space \(SearchSpace\(3 .* from model\.space"):
        model(x, SPACE.smallest)


@pytest.mark.parametrize("name", SPACES)
def test_calibrated_architectures_survive_json(name):
    model = supernet(name)
    arch = calibrate(model, model.space.largest, [images(model, 4)])
    assert model.space.architecture(json.loads(json.dumps(arch.values))) == arch


def test_dimensions_come_before_the_space_is_used():
    model = Supernet((3, 8, 8))
    width = model.dimension("width", [4, 8])
    assert model.space.dimensions == (width,)
    with pytest.raises(SpaceError, match="depth: dimensions are created before the space is first"):
        model.dimension("depth", [1, 2], "depth")
