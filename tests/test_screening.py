"""Accuracy from a sample of images: unbiased, more precise than a plain sample."""

import pytest
import torch

from boundnas.randomness import stream
from boundnas.search.screening import PILOTS, Sample

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
        estimates = torch.tensor([s.accuracy(network[s.images]) for s in samples(pilots, 50, 2000)])
        error = float(estimates.std()) / 2000**0.5
        assert abs(float(estimates.mean()) - float(network.float().mean())) < 4 * error + 1e-6
        assert error < 2e-3


def test_all_images_give_the_accuracy_itself():
    network = answers(PILOTS + 1)[-1]
    (sample,) = samples(answers(PILOTS), IMAGES, 1)
    assert sample.accuracy(network) == pytest.approx(float(network.double().mean()), abs=1e-12)


def test_an_estimate_errs_less_than_that_of_a_plain_sample():
    networks = answers(PILOTS + 30)
    pilots, rest = networks[:PILOTS], networks[PILOTS:]
    truth = rest.double().mean(1)
    errors, plain = [], []
    for seed, sample in enumerate(samples(pilots, 50, 300)):
        found = torch.tensor([sample.accuracy(c[sample.images]) for c in rest])
        errors.append(found - truth)
        uniform = torch.randperm(IMAGES, generator=stream(seed, "uniform"))[:50]
        plain.append(rest[:, uniform].double().mean(1) - truth)
    rms, plain_rms = (float(torch.stack(e).square().mean().sqrt()) for e in (errors, plain))
    assert rms < 0.75 * plain_rms
