"""Accuracy from a sample of images: unbiased, precise; and a front that is measured on all."""

import math
from dataclasses import replace

import pytest
import torch

from boundnas.randomness import stream
from boundnas.search import Evaluation
from boundnas.search.genetic import pareto_front
from boundnas.search.screening import PILOTS, Sample, Screening
from boundnas.space import Architecture, Dimension, SearchSpace

IMAGES = 400


def answers(networks, seed=0):
    """Which images some networks classify correctly: most are easy, some hard, some in between."""
    easy = torch.rand(IMAGES, generator=stream(seed, "easy"))
    chance = torch.where(easy < 0.6, 1.0, torch.where(easy < 0.7, 0.0, (easy - 0.7) / 0.3))
    return torch.rand(networks, IMAGES, generator=stream(seed, "answers")) < chance


def samples(pilots, size, count):
    return [Sample.draw(pilots, size, stream(s, "sample")) for s in range(count)]


@pytest.mark.parametrize("size", [1, 7, 50, 399, 400])
def test_a_sample_has_the_size_asked_for(size):
    for sample in samples(answers(PILOTS), size, 20):
        assert len(sample.images) == size
        assert sample.images.tolist() == sorted(set(sample.images.tolist()))


def test_the_mean_estimate_is_the_accuracy_whatever_the_pilots_are():
    network = answers(PILOTS + 1)[-1]
    for pilots in (answers(PILOTS), torch.zeros(PILOTS, IMAGES, dtype=torch.bool)):
        estimates = torch.tensor([s.score(network[s.images]) for s in samples(pilots, 50, 2000)])
        error = float(estimates.std()) / 2000**0.5
        assert abs(float(estimates.mean()) - float(network.float().mean())) < 4 * error + 1e-6
        assert error < 2e-3


def test_all_images_give_the_accuracy_itself():
    network = answers(PILOTS + 1)[-1]
    (sample,) = samples(answers(PILOTS), IMAGES, 1)
    assert sample.score(network) == pytest.approx(float(network.double().mean()), abs=1e-12)


def test_an_estimate_errs_less_than_that_of_a_plain_sample():
    networks = answers(PILOTS + 30)
    pilots, rest = networks[:PILOTS], networks[PILOTS:]
    truth = rest.double().mean(1)
    errors, plain = [], []
    for seed, sample in enumerate(samples(pilots, 50, 300)):
        found = torch.tensor([sample.score(c[sample.images]) for c in rest])
        errors.append(found - truth)
        uniform = torch.randperm(IMAGES, generator=stream(seed, "uniform"))[:50]
        plain.append(rest[:, uniform].double().mean(1) - truth)
    rms, plain_rms = (float(torch.stack(e).square().mean().sqrt()) for e in (errors, plain))
    assert rms < 0.75 * plain_rms


SPACE = SearchSpace([Dimension(name, tuple(range(1, 9))) for name in "abc"])


class World:
    """Networks whose accuracy grows with cost, known exactly or as an estimate that errs."""

    def __init__(self, offset, noise):
        self.measured = []
        self.pilots = set()
        generator = stream(0, "world")
        self.offset = offset
        self.noise = noise * torch.randn(8, 8, 8, generator=generator, dtype=torch.float64)
        self.luck = 0.02 * torch.rand(8, 8, 8, generator=generator, dtype=torch.float64)

    def exact(self, arch):
        macs = math.prod(arch.values.values())
        accuracy = 0.1 * math.log(macs) + float(self.luck[arch.indices])
        return Evaluation(arch, {"macs": macs}, accuracy, images=1000)

    def estimate(self, batch):
        for arch in batch:
            e = self.exact(arch)
            error = self.offset + float(self.noise[arch.indices])
            estimate = replace(e, score=e.score + error, images=100)
            yield e if arch in self.pilots else estimate

    def measure(self, batch):
        self.measured += batch
        return map(self.exact, batch)


def batches():
    generator = stream(0, "batches")
    order = torch.randperm(512, generator=generator).tolist()
    every = [Architecture(SPACE, (i // 64, i // 8 % 8, i % 8)) for i in order]
    return [every[start : start + 32] for start in range(0, 320, 32)]


@pytest.mark.parametrize("offset", [-0.05, 0.0, 0.05])
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_the_front_is_measured_and_dominates_every_estimate(offset, noise):
    world, known = World(offset, noise), []
    screening = Screening(world.measure, pareto_front, 1000)
    for batch in batches():
        found = screening(list(world.estimate(batch)))
        assert [e.architecture for e in found] == batch
        known += found
        assert screening.front == pareto_front(known)
        assert {e.images for e in screening.front} == {1000}
        for e in known:
            assert e.images == 100 or e == world.exact(e.architecture)
    assert len(world.measured) == len(set(world.measured)) < len(known) / 2


def screened(world):
    """A screening that has seen all batches."""
    screening = Screening(world.measure, pareto_front, 1000)
    for batch in batches():
        screening(list(world.estimate(batch)))
    return screening


@pytest.mark.parametrize("offset", [-0.05, 0.0, 0.05])
def test_pilots_are_not_measured_again_and_may_be_on_the_front(offset):
    world = World(offset, noise=0.002)
    world.pilots = {SPACE.largest, SPACE.smallest}
    world.pilots.update(a for a in batches()[0] if world.exact(a).costs["macs"] > 100)
    screening = Screening(world.measure, pareto_front, 1000)
    batch = [*world.pilots, *(a for a in batches()[0] if a not in world.pilots)]
    found = screening(list(world.estimate(batch)))
    assert world.measured
    assert not world.pilots & set(world.measured)
    assert world.pilots & {e.architecture for e in screening.front}
    for e in found:
        assert e.architecture not in world.pilots or e == world.exact(e.architecture)


def test_estimates_without_noise_miss_nothing_whatever_they_have_in_common():
    for offset in (-0.05, 0.05):
        world = World(offset, noise=0.0)
        screening = screened(world)
        assert screening.front == pareto_front([world.exact(a) for b in batches() for a in b])


def test_what_estimates_have_in_common_costs_few_measurements_more():
    counts = []
    for offset in (0.0, 0.05):
        world = World(offset, noise=0.002)
        screened(world)
        counts.append(len(world.measured))
    assert counts[1] < 1.2 * counts[0]


def test_scores_of_any_size_are_sampled_alike():
    pilots, network = answers(PILOTS).float() * 2 - 1, answers(PILOTS + 1)[-1].float() * 2 - 1
    pilots[:, :50] *= torch.linspace(0.1, 1, 50)
    large = Sample.draw(-1000 * pilots, 50, stream(0, "sample"))
    small = Sample.draw(-pilots, 50, stream(0, "sample"))
    assert torch.equal(large.images, small.images)
    scores = -network[small.images]
    assert large.score(1000 * scores) == pytest.approx(1000 * small.score(scores), rel=1e-5)
    estimates = [s.score(network[s.images]) for s in samples(pilots, 50, 2000)]
    error = float(torch.tensor(estimates).std()) / 2000**0.5
    assert abs(sum(estimates) / 2000 - float(network.mean())) < 4 * error + 1e-6
    deviation = pilots.double().std(0, correction=0)
    sure = deviation.argmin()  # it is drawn least, and counts most
    drawn = [s for s in samples(pilots, 50, 400) if sure in s.images]
    assert max(float(s.weights.max()) for s in drawn) == pytest.approx(
        float(drawn[0].weights[drawn[0].images == sure])
    )
