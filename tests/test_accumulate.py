"""A batch in parts: the gradients, losses and draws of the whole batch, with less memory."""

import pytest
import torch
from tests.small import batch, few_digits
from tests.test_ranks import without_norm
from tests.test_sandwich import SEED, STEP, sandwich_of

from boundnas import TrainSettings, fit
from boundnas.engine import ranks
from boundnas.errors import ConfigError, DataError, TrainingError
from boundnas.fit.guard import Guard

VARIANTS = {
    "Algorithm 1": {},
    "fixed boundaries": {"learn": "none"},
    "random networks teach the policies": {"grad_from_random": True},
    "conflicts projected": {"conflict": "project"},
    "the best of several": {"random_choice": "best_up", "candidates": 4},
    "score function": {"estimator": "score_function"},
    "measure-valued": {"estimator": "measure_valued"},
}
RANGES = {"both penalties": (1e4, 3e5), "no penalty": (3e5, 3.1e5)}


def steps_of(parts, cost_range=RANGES["both penalties"], **options):
    """A sandwich in double precision, with a flat start."""
    settings = TrainSettings(
        steps=12,
        batch_size=8,
        start_std=1e-3,
        start_temperature=1.0,
        ghost_fraction=1,  # of a part of the batch, parts take other samples
        accumulate=parts,
        **options,
    )
    found = sandwich_of(without_norm().double(), settings, cost_range, SEED)
    for _, policy in found.boundaries.items():
        policy.double()
    return found


def gradients(s):
    held = Guard(s, None).parameters
    return {name: p.grad for name, p in held.items() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_gradients_and_losses_of_a_batch_in_parts_are_those_of_the_batch(options, parts):
    images, labels = batch()
    for cost_range in RANGES.values():
        whole, s = steps_of(1, cost_range, **options), steps_of(parts, cost_range, **options)
        expected = whole.step(images.double(), labels, STEP)
        found = s.step(images.double(), labels, STEP)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14, msg=name)
        assert gradients(s).keys() == gradients(whole).keys()
        assert ("max_policy" in gradients(s)) == (options.get("learn") != "none")
        for name, gradient in gradients(whole).items():
            torch.testing.assert_close(gradients(s)[name], gradient, rtol=1e-10, atol=1e-13)


def passes(s, parts):
    """The architectures and the batches of every pass of a step."""
    seen = []
    s.model.register_forward_pre_hook(lambda _, given: seen.append((given[1].indices, given[0])))
    images, labels = batch()
    s.step(images.double(), labels, STEP)
    return seen


def test_an_architecture_is_drawn_once_a_step_and_sees_every_part():
    whole, seen = passes(steps_of(1), 1), passes(steps_of(4), 4)
    assert len(seen) == 4 * len(whole) == 16
    for number, (indices, images) in enumerate(whole):
        of_one = seen[4 * number : 4 * number + 4]
        assert [drawn for drawn, _ in of_one] == [indices] * 4
        assert [len(part) for _, part in of_one] == [2] * 4
        assert torch.equal(torch.cat([part for _, part in of_one]), images)


def test_every_part_has_noise_of_its_own_the_first_that_of_the_whole_batch():
    def seeds(parts):
        s, seen = steps_of(parts), []
        s.model.register_forward_pre_hook(lambda _, given: seen.append(given[1].noise))
        images, labels = batch()
        s.step(images.double(), labels, STEP)
        return [noise.initial_seed() for noise in seen if noise is not None]

    (one,), four = seeds(1), seeds(4)
    assert four[0] == one
    assert len(set(four)) == 4
    assert four == seeds(4)


def test_a_training_in_parts_sees_the_samples_of_the_whole_batches():
    runs = []
    for parts in (1, 2):
        settings = TrainSettings(steps=4, batch_size=16, accumulate=parts)
        runs.append(fit(without_norm(), few_digits(), cost_range=(1e4, 3e5), settings=settings))
    for one, other in zip(runs[0].metrics, runs[1].metrics, strict=True):
        assert one["cost_max"] == other["cost_max"]
        assert one["loss_max"] == pytest.approx(other["loss_max"], rel=1e-4)
        assert one["score_max"] == other["score_max"]
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [3, 8, 16])
def test_parts_that_are_not_equal_or_of_one_image_are_refused(parts):
    with pytest.raises(ConfigError, match=f"accumulate .* found {parts} beside batch_size = 8"):
        TrainSettings(steps=1, batch_size=8, accumulate=parts)


def test_parts_that_several_processes_cannot_share_are_refused(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 2)
    assert ranks.share(16, 4) == slice(0, 8)
    with pytest.raises(DataError, match=r"12, which 2 processes .* 4 parts each .* multiple of 8"):
        ranks.share(12, 4)


def test_what_is_not_finite_in_a_later_part_is_found_and_named():
    s, (images, labels) = steps_of(4), batch()
    images = images.double()
    images[-1] = torch.inf
    scalars = s.step(images, labels, STEP)
    with pytest.raises(TrainingError, match="the loss of the max network is nan"):
        Guard(s, None).check(images, labels, STEP, scalars)
