"""Best-up and worst-up: candidates of like cost, and the one that is trained."""

from functools import partial

import pytest
import torch
from tests.small import batch, mobilenet
from tests.test_sandwich import SEED, drawn, sandwich
from torch.nn.functional import cross_entropy

from boundnas.cost import MACs
from boundnas.method.variants.attentivenas import CLOSE, candidates
from boundnas.randomness import stream
from boundnas.space import Dimension, SearchSpace
from boundnas.task import kl_divergence


def argmin(values):
    return values.index(min(values))


def argmax(values):
    return values.index(max(values))


def test_candidates_cost_about_what_the_first_uniform_draw_costs():
    model = mobilenet()
    space, cost = model.space, MACs(model)
    firsts, spread = [], []
    for step in range(100):
        draw = partial(space.sample, stream(0, "test", step), space.whole)
        found = candidates(4, draw, cost)
        assert len(found) == 4
        assert found[0] == space.sample(stream(0, "test", step), space.whole)
        firsts.append(cost(found[0]))
        spread += [abs(cost(a) / cost(found[0]) - 1) for a in found[1:]]
        assert len(set(found)) > 1
    assert sum(s <= CLOSE for s in spread) > 0.9 * len(spread)
    assert max(firsts) > 2 * min(firsts), "targets range over the space"


def test_where_no_cost_is_alike_the_nearest_is_taken():
    space = SearchSpace([Dimension("a", tuple(10**i for i in range(8)))])
    numbers = iter([3, *[0, 1, 7] * 100])

    def draw():
        return space.architecture({"a": 10 ** next(numbers)})

    first, other = candidates(2, draw, lambda arch: arch.values["a"])
    assert (first.values["a"], other.values["a"]) == (1000, 10)


@pytest.mark.parametrize(("choice", "of"), [("best_up", argmin), ("worst_up", argmax)])
def test_the_candidate_of_least_or_most_loss_on_the_labels_is_trained(choice, of):
    images, labels = batch()
    differs = 0
    for step in range(6):
        s = sandwich(random_choice=choice, candidates=5, random_networks=1)
        scalars = s.step(images, labels, step)
        arch = drawn(s, "max", step)
        with torch.no_grad():
            noise = stream(SEED, "dropout", step)
            teacher = s.model(images, arch.plain.carrying(noise=noise))
            generator = stream(SEED, "random_policy", step)
            draw = partial(s.model.space.sample, generator, s.boundaries.allowed)
            found = candidates(5, draw, s.budgets[0].cost)
            outputs = [s.model(images, a) for a in found]
        losses = [float(cross_entropy(each, labels)) for each in outputs]
        distances = [float(kl_divergence(each, teacher)) for each in outputs]
        assert len(set(losses)) > 2
        assert float(scalars["loss_random"]) == pytest.approx(distances[of(losses)], rel=1e-4)
        differs += of(losses) != of(distances)
    assert differs, "the distance to the teacher would have chosen another one"
