"""Mixup and cutmix: what is mixed and how much of it, soft targets, and where it has no meaning."""

import math

import pytest
import torch
from tests.small import batch
from tests.spaces import seeded
from tests.test_sandwich import SEED, STEP, sandwich
from torch.nn import functional as F

import boundnas as bn
from boundnas import TrainSettings, elastic, fit, tasks
from boundnas.engine import ranks
from boundnas.errors import ConfigError, DataError, TaskError
from boundnas.fit import loop
from boundnas.method.batch import parts_of
from boundnas.method.mixing import Mixture, check_mixing, mixture
from boundnas.task import kl_divergence


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def drawn(steps=400, **options):
    settings = TrainSettings(steps=1, **options)
    return [mixture(settings, SEED, step) for step in range(steps)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_shares_follow_the_beta_distribution(way, alpha):
    found = drawn(**{way: alpha})
    shares = torch.tensor([each.share for each in found])
    deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * deviation / math.sqrt(len(shares)))
    assert float(shares.std()) == pytest.approx(deviation, rel=0.1)
    assert all((each.place is not None) == (way == "cutmix") for each in found)


def test_of_two_ways_each_comes_half_of_the_time_and_with_its_own_alpha():
    found = drawn(mixup=50.0, cutmix=0.05)
    cut = [each.place is not None for each in found]
    assert 150 < sum(cut) < 250
    inside = [0.2 < each.share < 0.8 for each in found]
    assert all(whole == (not part) for whole, part in zip(inside, cut, strict=True) if not part)
    assert sum(i for i, c in zip(inside, cut, strict=True) if c) < 40


def test_a_draw_depends_on_seed_and_step_alone():
    settings = TrainSettings(steps=1, mixup=1.0, cutmix=1.0)
    assert drawn(mixup=1.0, cutmix=1.0) == drawn(mixup=1.0, cutmix=1.0)
    assert len({each.share for each in drawn(mixup=1.0)}) == 400
    assert mixture(settings, SEED, 1) != mixture(settings, SEED + 1, 1)
    assert drawn() == [None] * 400


def test_mixup_adds_the_neighbours_of_every_tensor_by_their_share():
    x, y = noise(6, 3), noise(6, 2, 4, 4)
    (mixed, other), share = Mixture(0.3).of((x, y))
    assert share == 0.3
    for whole, found in ((x, mixed), (y, other)):
        for i, j in ((0, 1), (1, 0), (4, 5), (5, 4)):
            torch.testing.assert_close(found[i], 0.3 * whole[i] + 0.7 * whole[j])


@pytest.mark.parametrize(
    ("share", "place", "rows", "columns"),
    [
        (0.75, (0.0, 0.0), range(4), range(5)),
        (0.75, (1.0, 1.0), range(4, 8), range(5, 10)),
        (0.75, (0.5, 0.2), range(2, 6), range(1, 6)),
        (0.0, (0.3, 0.6), range(8), range(10)),
        (1.0, (0.3, 0.6), range(0), range(0)),
        (0.999, (0.3, 0.6), range(0), range(0)),
    ],
)
def test_cutmix_puts_a_rectangle_of_the_neighbour_in_and_counts_its_pixels(
    share, place, rows, columns
):
    images = noise(4, 2, 8, 10)
    kept = images.clone()
    mixed, exact = Mixture(share, place).of(images)
    inside = torch.zeros(8, 10, dtype=torch.bool)
    for row in rows:
        inside[row, list(columns)] = True
    assert exact == 1 - len(rows) * len(columns) / 80
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert torch.equal(mixed[i], torch.where(inside, images[j], images[i]))
    assert torch.equal(images, kept)


def test_images_keep_their_memory_format():
    images = noise(4, 3, 8, 8).to(memory_format=torch.channels_last)
    for mix in (Mixture(0.4), Mixture(0.4, (0.5, 0.5))):
        assert mix.of(images)[0].is_contiguous(memory_format=torch.channels_last)


NUMBERS = noise(8, 5)
CLASSES = torch.tensor([0, 1, 2, 3, 4, 4, 1, 0])
THERE = (NUMBERS.roll(1, 0) > 0).float()
ONE_HOT = F.one_hot(CLASSES, 5).float()
WEIGHTS = (0.5, 1.5, 1.0, 0.8, 1.2)
SOFT = {
    "classes": (tasks.Classification(), CLASSES, lambda soft: F.cross_entropy(NUMBERS, soft)),
    "smoothed": (
        tasks.Classification(label_smoothing=0.1), CLASSES,
        lambda soft: F.cross_entropy(NUMBERS, soft, label_smoothing=0.1),
    ),
    "weighed": (
        tasks.Classification(class_weights=WEIGHTS), CLASSES,
        lambda soft: -(soft * torch.tensor(WEIGHTS) * NUMBERS.log_softmax(1)).sum() / 8,
    ),
    "labels": (
        tasks.MultiLabel(), THERE, lambda soft: F.binary_cross_entropy_with_logits(NUMBERS, soft)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOFT)
def test_the_loss_of_mixed_samples_is_that_of_soft_targets(name):
    task, targets, expected = SOFT[name]
    hard = ONE_HOT if targets is CLASSES else THERE
    soft = 0.3 * hard + 0.7 * hard[[1, 0, 3, 2, 5, 4, 7, 6]]
    (part,) = parts_of(noise(8, 2), targets, 1, Mixture(0.3))
    found = part.over_targets(task.loss, NUMBERS)
    torch.testing.assert_close(found, expected(soft), rtol=1e-5, atol=1e-6)


def test_a_step_trains_on_mixed_samples_and_students_follow_the_teacher_on_them():
    images, labels = batch()
    s, seen = sandwich(mixup=1.0), []
    hook = s.model.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    scalars = s.step(images, labels, STEP)
    hook.remove()
    mix = mixture(s.settings, SEED, STEP)
    inputs, share = mix.of(images)
    assert 0 < share < 1
    assert all(torch.equal(given, inputs) for given, _ in seen)
    outputs = [out.detach() for _, out in seen]
    other = labels[[1, 0, 3, 2, 5, 4, 7, 6]]
    mixed = share * F.cross_entropy(outputs[0], labels)
    mixed += (1 - share) * F.cross_entropy(outputs[0], other)
    assert float(scalars["loss_max"]) == pytest.approx(float(mixed))
    hits = [(outputs[0].argmax(1) == each).float().mean() for each in (labels, other)]
    assert float(scalars["score_max"]) == pytest.approx(
        float(share * hits[0] + (1 - share) * hits[1])
    )
    assert float(scalars["loss_min"]) == pytest.approx(float(kl_divergence(outputs[1], outputs[0])))


def test_a_batch_in_parts_is_mixed_as_the_whole():
    images, labels = batch()
    for mix in (Mixture(0.4), Mixture(0.4, (0.5, 0.5))):
        (whole,), parts = (parts_of(images, labels, number, mix) for number in (1, 4))
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert torch.equal(torch.cat([part.others for part in parts]), whole.others)
        assert {part.share for part in parts} == {whole.share}


IMAGE, ROW, WORD = torch.zeros(1, 8, 8), torch.zeros(5), torch.zeros(5, dtype=torch.int64)
REFUSED = {
    "numbers": (tasks.Regression(), ROW, {"mixup": 1.0}, "train.mixup: Regression does not say"),
    "maps": (tasks.Segmentation(), IMAGE, {"cutmix": 1.0}, "train.cutmix: Segmentation does not"),
    "tokens": (tasks.NextToken(), WORD, {"mixup": 0.2}, "train.mixup: NextToken does not say"),
    "functions": (
        tasks.Own(F.l1_loss, F.l1_loss, lambda o, t: o[:, 0]), ROW, {"mixup": 0.2, "cutmix": 1.0},
        "train.mixup and train.cutmix: Own does not say .* set mixes = True",
    ),
    "words": (tasks.Classification(), WORD, {"mixup": 0.2}, "inputs are whole numbers .*int64"),
    "one of two": (
        tasks.Classification(), (ROW, WORD), {"mixup": 0.2}, r"inputs at \[1\] are whole numbers",
    ),
    "rows": (tasks.Classification(), ROW, {"cutmix": 1.0}, "cutmix puts a part .* no images"),
    "two images": (tasks.MultiLabel(), (IMAGE, IMAGE), {"cutmix": 1.0}, "cutmix .* no images"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_nothing_in_between_is_refused_by_name(name):
    task, example, options, message = REFUSED[name]
    with pytest.raises(TaskError, match=message):
        check_mixing(TrainSettings(steps=1, **options), task, example)
    check_mixing(TrainSettings(steps=1), task, example)


def test_what_can_be_mixed_is_not_refused():
    for task, example in ((tasks.Classification(), (ROW, IMAGE)), (tasks.MultiLabel(), IMAGE)):
        check_mixing(TrainSettings(steps=1, mixup=1.0), task, example)
    both = TrainSettings(steps=1, mixup=1.0, cutmix=1.0)
    check_mixing(both, tasks.Classification(), IMAGE)


class Table(bn.Supernet):
    def __init__(self):
        super().__init__((5,))
        width = self.dimension("width", (2, 4))
        self.hidden, self.head = elastic.Linear(5, width), elastic.Linear(width, 1)

    def forward(self, x, arch):
        return self.head(self.hidden(x, arch), arch)


def test_fit_refuses_before_training(monkeypatch):
    monkeypatch.setattr(loop.Trainer, "train", None)
    rows = [(NUMBERS[i % 8], float(i)) for i in range(40)]
    data = bn.Data(rows[:30], test=rows[30:])
    settings = TrainSettings(steps=1, batch_size=4, mixup=0.2)
    with pytest.raises(TaskError, match="Regression"):
        fit(seeded(Table), data, cost_range=(12, 24), settings=settings, task=tasks.Regression())


def test_batches_that_are_not_of_pairs_are_refused(monkeypatch):
    for batch_size, parts in ((9, 1), (12, 4)):
        with pytest.raises(
            ConfigError, match=f"found {parts} beside batch_size = {batch_size}.*pai"
        ):
            TrainSettings(steps=1, batch_size=batch_size, accumulate=parts, mixup=1.0)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    assert ranks.share(12, 3, pairs=True) == slice(0, 6)
    with pytest.raises(DataError, match=r"10, which 2 processes .* pairs .* multiple of 4"):
        ranks.share(10, pairs=True)
