"""Tasks as values: their losses, distances and scores against values worked out otherwise."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tests.small import COST_RANGE, few_digits, mobilenet, trained
from torch.nn import functional as F

from boundnas import SearchSettings, TrainSettings, fit
from boundnas.data.handed import handed
from boundnas.errors import DataError, TaskError
from boundnas.fit import identity
from boundnas.randomness import stream
from boundnas.search import Evaluator
from boundnas.store.records import Metric
from boundnas.task import Classification, Task
from boundnas.tasks import Regression

LOGITS = torch.randn(12, 4, generator=stream(0, "logits"))
CLASSES = torch.arange(12) % 4


def smoothed(part):
    soft = F.one_hot(CLASSES, 4) * (1 - part) + part / 4
    return float(-(soft * LOGITS.log_softmax(-1)).sum(-1).mean())


def weighted(weights):
    chosen = LOGITS.log_softmax(-1)[torch.arange(12), CLASSES]
    return float(-(torch.tensor(weights)[CLASSES] * chosen).sum() / 12)


LOSSES = {
    "plain": (Classification(), smoothed(0)),
    "smoothed": (Classification(label_smoothing=0.3), smoothed(0.3)),
    "weighted": (Classification(class_weights=(0.5, 1, 2, 0.5)), weighted([0.5, 1, 2, 0.5])),
}


@pytest.mark.parametrize(("task", "expected"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_what_its_formula_says(task, expected):
    assert float(task.loss(LOGITS, CLASSES)) == pytest.approx(expected, rel=1e-6)
    halves = [task.loss(LOGITS[i::2], CLASSES[i::2]) for i in range(2)]  # as two processes do
    assert float(sum(halves) / 2) == pytest.approx(expected, rel=1e-6)


FAULTS = {
    "smoothing": (lambda: Classification(label_smoothing=1), "without 1.*found 1"),
    "negative smoothing": (lambda: Classification(label_smoothing=-0.1), "found -0.1"),
    "a weight of nothing": (lambda: Classification(class_weights=(1, 0)), r"above 0, found \(1, 0"),
    "no weights": (lambda: Classification(class_weights=()), r"above 0, found \(\)"),
    "infinite": (lambda: Classification(class_weights=(1, math.inf)), r"above 0, found \(1, inf"),
    "one weight": (lambda: Classification(class_weights=2.0), "above 0, found 2.0"),
    "weights of text": (lambda: Classification(class_weights="heavy"), "above 0, found heavy"),
    "a mean without a deviation": (lambda: Regression(mean=(1.0,)), r"mean \(1.0,\) and std None"),
    "no deviation": (lambda: Regression(mean=(1.0,), std=(0.0,)), r"above 0; found .* \(0.0,\)"),
    "two means": (lambda: Regression(mean=(1.0, 2.0), std=(1.0,)), "for each that is learned"),
    "no means": (lambda: Regression(mean=(), std=()), "for each that is learned"),
    "an infinite mean": (lambda: Regression(mean=(math.inf,), std=(1.0,)), "a finite number"),
}


@pytest.mark.parametrize(("make", "message"), FAULTS.values(), ids=FAULTS)
def test_a_task_that_cannot_be_is_refused(make, message):
    with pytest.raises(TaskError, match=message):
        make()


MISFITS = {
    "from one": (CLASSES + 1, r"lie in 0 to 3; found 1 to 4; these count from 1, give target - 1"),
    "negative": (CLASSES - 1, r"lie in 0 to 3; found -1 to 2"),
    "one-hot": (F.one_hot(CLASSES, 4), r"found int64, \(12, 4\); several numbers a sample"),
    "real": (CLASSES.float(), r"int64, \(12,\) for 12 samples; found float32.*as Regression"),
    "int32": (CLASSES.int(), "found int32"),
    "a column": (CLASSES[:, None], r"found int64, \(12, 1\); give each sample its class"),
}


@pytest.mark.parametrize(("targets", "message"), MISFITS.values(), ids=MISFITS)
def test_targets_that_do_not_fit_are_refused_by_name(targets, message):
    with pytest.raises(DataError, match=f"toys: train: .*{message}"):
        Classification().check(LOGITS, targets, "toys: train")


def test_outputs_that_do_not_fit_are_refused_by_name():
    with pytest.raises(DataError, match=r"logits of shape \(N, classes\), this model \(12, 4, 1\)"):
        Classification().check(LOGITS[:, :, None], CLASSES, "toys")
    with pytest.raises(DataError, match="3 class_weights, and the model gives 4 logits"):
        Classification(class_weights=(1, 2, 3)).check(LOGITS, CLASSES, "toys")


class Coarse(Task):
    """Odd digits against even ones; scores of other numbers than 0 and 1."""

    metric, scale = "oddity", 1000.0

    def __init__(self, score=2.5):
        self.right = score

    def loss(self, outputs, targets):
        return F.cross_entropy(outputs, targets % 2)

    def distance(self, student, teacher):
        return F.mse_loss(student, teacher.detach())

    def score(self, outputs, targets):
        return (outputs[:, :2].argmax(-1) == targets % 2) * self.right - 0.5

    def check(self, outputs, targets, where):
        assert len(outputs) == len(targets)


class Overall(Coarse):
    """The same, whose metric is one over all samples: the square of the mean score."""

    def meter(self):
        return Square(self)


class Square:
    def __init__(self, task):
        self.task, self.seen = task, []

    def update(self, outputs, targets):
        self.seen.append(self.task.score(outputs, targets))

    def compute(self):
        return torch.cat(self.seen).double().mean().square()


SETTINGS = SearchSettings(calibration_images=64, batch_size=16)


def evaluator(task, **settings):
    run = trained()
    settings = SETTINGS.model_copy(update=settings)
    return Evaluator(run.model, run.data, settings, 0, task=task)


def scores_by_hand(task, arch):
    run = trained()
    found = evaluator(task)
    images, labels = run.data.validation.take(torch.arange(len(run.data.validation)))
    with torch.no_grad():
        outputs = run.model(handed(run.model, run.data, images), found.calibrated(arch))
    return task.score(outputs, labels).double()


def test_a_candidate_is_worth_the_mean_of_its_scores_or_the_metric_over_all():
    arch = trained().model.space.smallest
    mean = float(scores_by_hand(Coarse(), arch).mean())
    assert mean != 0
    assert evaluator(Coarse())(arch).score == pytest.approx(mean, rel=1e-9)
    assert evaluator(Overall())(arch).score == pytest.approx(mean**2, rel=1e-9)


@pytest.mark.parametrize("use", [Evaluator.__call__, Evaluator.validated])
def test_outputs_that_are_no_numbers_are_worth_nothing(use):
    model = copy.deepcopy(trained().model)
    with torch.no_grad():
        model.classifier.bias[3] = float("nan")
    found = Evaluator(model, trained().data, SETTINGS, 0)
    with pytest.raises(TaskError, match="its outputs hold NaN, of which a score would be"):
        use(found, model.space.smallest)


def test_screening_by_a_sample_is_for_scores_of_samples_only():
    with pytest.raises(TaskError, match=r"search\.screen estimates a mean .*oddity is a metric"):
        evaluator(Overall(), screen=0.25)
    assert evaluator(Coarse(), screen=0.25).task.metric == "oddity"


@pytest.mark.parametrize("task", [Coarse(math.nan), Overall(math.nan), Coarse(math.inf)])
def test_a_score_that_is_no_number_is_an_error_not_a_candidate(task):
    with pytest.raises(TaskError, match=r"oddity of .* is (nan|inf); look for samples or targets"):
        evaluator(task)(trained().model.space.smallest)


def test_the_sandwich_trains_by_the_loss_and_the_distance_of_its_task():
    settings = TrainSettings(steps=2, batch_size=16)

    def losses(task):
        run = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, task=task)
        return [(row["loss_max"], row["loss_min"], row.get("score_max")) for row in run.metrics]

    plain, smooth = losses(None), losses(Classification(label_smoothing=0.2))
    assert plain == losses(Classification())
    assert plain[0][0] != smooth[0][0]
    assert plain[0][1:] == smooth[0][1:]  # distance and score of the first step are the same
    assert losses(Overall())[0][2] is None
    assert -0.5 <= losses(Coarse())[0][2] <= 2


def test_a_divergence_of_class_logits_is_for_classes_only():
    settings = TrainSettings(steps=1, batch_size=16, distillation="adaptive_alpha")
    with pytest.raises(TaskError, match=r"adaptive_alpha compares class logits, .*task is Coarse"):
        fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=settings, task=Coarse())


def test_two_tasks_are_two_identities():
    tasks = [Classification(), Classification(0.1), Classification(class_weights=(1, 2))]
    found = [identity.of_task(task) for task in (*tasks, Coarse(), Coarse(3.0), Overall())]
    assert len({str(each) for each in found}) == len(found)
    assert identity.of_task(Coarse()) == identity.of_task(Coarse(2.5))
    assert identity.of_task(tasks[1]) == identity.of_task(replace(tasks[0], label_smoothing=0.1))


def test_a_score_is_shown_with_its_unit():
    assert Metric.of(Classification()).shown(0.9786) == "97.86 %"
    assert Metric.of(Coarse()).shown(0.0123456) == "12.35"
