"""Every task: its metric against scikit-learn, its loss and distance against their formulas."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics
from tests.foreign_networks import foreign
from tests.small import few_digits, mobilenet
from torch.nn import functional as F

from boundnas import tasks
from boundnas.errors import DataError, TaskError
from boundnas.fit import identity
from boundnas.fit.match import fitted
from boundnas.fit.tried import fits, try_functions
from boundnas.randomness import stream

SAMPLES = 60


def normal(name, *shape):
    return torch.randn(SAMPLES, *shape, generator=stream(0, name))


def classes(name, count, *shape):
    return torch.randint(count, (SAMPLES, *shape), generator=stream(0, name))


def with_ignored(targets, ignore):
    """A fifth of the targets, and all of the first sample, count nowhere."""
    ignored = torch.rand(targets.shape, generator=stream(0, "ignored")) < 0.2
    ignored[0] = True
    return targets.masked_fill(ignored, ignore)


LABELS = (normal("labels", 5).mul(2).round().div(2), classes("there", 2, 5).float())  # with ties
NUMBERS = (normal("answers", 3), 40 + 7 * normal("numbers", 3))
NUMBER = (normal("answer", 1), 40 + 7 * normal("number"))
PIXELS = (normal("pixels", 4, 3, 5), with_ignored(classes("pixels", 4, 3, 5), 255))
TOKENS = (normal("tokens", 7, 6), with_ignored(classes("tokens", 6, 7), -100))
REGRESSION = {
    m: tasks.Regression(m).fitted([NUMBERS[1][:20], NUMBERS[1][20:]]) for m in ("R²", "MAE", "RMSE")
}
ALONE = tasks.Regression("RMSE").fitted([NUMBER[1]])


def in_their_unit(outputs, targets):
    targets = targets.double().reshape(SAMPLES, -1)
    return outputs.double() * targets.std(0, correction=0) + targets.mean(0), targets


def counted(outputs, targets, axis, ignore):
    logits, targets = outputs.movedim(axis, -1).flatten(0, -2), targets.flatten()
    return logits[targets != ignore].double(), targets[targets != ignore]


def iou():
    logits, targets = counted(*PIXELS, 1, 255)
    return metrics.jaccard_score(targets, logits.argmax(-1), average="macro")


def bits():
    logits, targets = counted(*TOKENS, -1, -100)
    return metrics.log_loss(targets, logits.softmax(-1), labels=range(6)) / math.log(2)


def error(name, given=NUMBERS):
    answers, targets = in_their_unit(*given)
    return getattr(metrics, name)(targets, answers)


# A task, what it is measured on, and what scikit-learn makes of that; higher is better.
MEASURED = {
    "accuracy": (
        tasks.Classification(),
        (normal("logits", 4), classes("classes", 4)),
        lambda: metrics.accuracy_score(classes("classes", 4), normal("logits", 4).argmax(1)),
    ),
    "mAP": (
        tasks.MultiLabel(),
        LABELS,
        lambda: metrics.average_precision_score(LABELS[1], LABELS[0], average="macro"),
    ),
    "R²": (REGRESSION["R²"], NUMBERS, lambda: error("r2_score")),
    "MAE": (REGRESSION["MAE"], NUMBERS, lambda: -error("mean_absolute_error")),
    "RMSE": (REGRESSION["RMSE"], NUMBERS, lambda: -math.sqrt(error("mean_squared_error"))),
    "RMSE of one": (ALONE, NUMBER, lambda: -math.sqrt(error("mean_squared_error", NUMBER))),
    "mean IoU": (tasks.Segmentation(), PIXELS, iou),
    "bits": (tasks.NextToken(), TOKENS, lambda: -bits()),
    "perplexity": (tasks.NextToken("perplexity"), TOKENS, lambda: -(2 ** bits())),
}


def measured(task, outputs, targets, batch=7):
    """The metric, over batches, the last of them shorter."""
    parts = list(zip(outputs.split(batch), targets.split(batch), strict=True))
    meter = task.meter()
    if meter is None:
        return float(torch.cat([task.score(*part) for part in parts]).double().mean())
    for part in parts:
        meter.update(*part)
    return float(meter.compute())


@pytest.mark.parametrize(("task", "given", "expected"), MEASURED.values(), ids=MEASURED)
def test_a_metric_is_what_another_library_says(task, given, expected):
    for batch in (7, SAMPLES):
        assert measured(task, *given, batch) == pytest.approx(expected(), rel=1e-6)


@pytest.mark.parametrize(("task", "given", "expected"), MEASURED.values(), ids=MEASURED)
def test_a_task_accepts_what_it_is_for_and_is_told_apart(task, given, expected):
    task.check(*given, "toys")
    others = [identity.of_task(other) for other, *_ in MEASURED.values() if other is not task]
    assert identity.of_task(task) not in others


def softmax(logits):
    return logits.double().softmax(-1)


def kl(p, q):
    return float((p * (p / q).log()).sum(-1).mean())


def per_place(axis, ignore, outputs, targets):
    """The mean over samples of the mean over their places that count."""
    losses = []
    for o, t in zip(outputs.double().movedim(axis, -1), targets, strict=True):
        chosen = [
            -math.log(softmax(o[at])[c]) for at, c in np.ndenumerate(t.numpy()) if c != ignore
        ]
        losses.append(sum(chosen) / max(1, len(chosen)))
    return sum(losses) / len(losses)


def binary(outputs, targets):
    p = outputs.double().sigmoid()
    return float(-(targets * p.log() + (1 - targets) * (1 - p).log()).mean())


def standardized(outputs, targets):
    answers, targets = in_their_unit(outputs, targets)
    return float(((answers - targets) / targets.std(0, correction=0)).square().mean())


def sigmoid_kl(student, teacher):
    p, q = (torch.stack([x.sigmoid(), 1 - x.sigmoid()], -1) for x in (teacher, student))
    return kl(p.double(), q.double())


LOSSES = {
    "mAP": (binary, sigmoid_kl),
    "R²": (standardized, lambda s, t: float((s - t).square().mean())),
    "RMSE of one": (standardized, lambda s, t: float((s - t).square().mean())),
    "mean IoU": (
        lambda o, t: per_place(1, 255, o, t),
        lambda s, t: kl(softmax(t.movedim(1, -1)), softmax(s.movedim(1, -1))),
    ),
    "bits": (lambda o, t: per_place(-1, -100, o, t), lambda s, t: kl(softmax(t), softmax(s))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_distance_are_what_their_formulas_say(name):
    task, (outputs, targets), _ = MEASURED[name]
    loss, distance = LOSSES[name]
    assert float(task.loss(outputs, targets)) == pytest.approx(loss(outputs, targets), rel=1e-5)
    teacher = outputs.roll(1, 0).requires_grad_()
    student = outputs.clone().requires_grad_()
    found = task.distance(student, teacher)
    assert float(found.detach()) == pytest.approx(distance(outputs, teacher.detach()), rel=1e-4)
    found.backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None
    assert float(task.distance(outputs, outputs)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_mean_of_those_of_any_equal_parts(name):
    task, (outputs, targets), _ = MEASURED[name]
    parts = zip(outputs.split(20), targets.split(20), strict=True)
    whole = float(task.loss(outputs, targets))
    assert sum(float(task.loss(*part)) for part in parts) / 3 == pytest.approx(whole, rel=1e-5)


def test_an_extreme_teacher_gives_finite_distances():
    sure = torch.tensor([[200.0, -200.0, 0.0]])
    for task in (tasks.MultiLabel(), tasks.Classification()):
        assert math.isfinite(task.distance(sure, -sure))
    assert math.isfinite(tasks.Segmentation().distance(sure[:, :, None], -sure[:, :, None]))


# What does not fit: a task, outputs, targets, and what is said.
MISFITS = {
    "labels of another number": (tasks.MultiLabel(), LABELS[0], LABELS[1][:, 1:], r"\(60, 4\)"),
    "one logit": (
        tasks.Classification(),
        NUMBER[0],
        classes("yes", 2),
        "a logit for each class, and this model gives one; for yes and no give it two",
    ),
    "labels as whole numbers": (
        tasks.MultiLabel(),
        LABELS[0],
        LABELS[1].long(),
        "found int64; give",
    ),
    "labels of other numbers": (
        tasks.MultiLabel(),
        LABELS[0],
        LABELS[1] * 2,
        "found float32 with 2.0",
    ),
    "labels that are no number": (tasks.MultiLabel(), LABELS[0], LABELS[1] * math.nan, "with nan"),
    "numbers of another shape": (ALONE, NUMBERS[0], NUMBER[1], r"gives \(60, 3\) .*are \(60,\)"),
    "numbers of one mean": (
        tasks.Regression(mean=(40.0,), std=(2.0,)),
        NUMBERS[0],
        NUMBERS[1],
        "targets hold 3 numbers, and the task has mean and std of 1; give one of each",
    ),
    "numbers as classes": (ALONE, NUMBER[0], NUMBER[1].long(), r"found int64; give float\(target"),
    "numbers that are none": (ALONE, NUMBER[0], NUMBER[1] / 0, "of which 60 not finite; leave"),
    "maps of another size": (
        tasks.Segmentation(),
        PIXELS[0],
        PIXELS[1][:, :2],
        r"\(60, 3, 5\) for 60 .*\(60, 2, 5\)",
    ),
    "maps with too many classes": (
        tasks.Segmentation(),
        PIXELS[0][:, :3],
        PIXELS[1],
        "gives 3 logits, .*0 to 2; found 0 to 3",
    ),
    "maps that ignore another number": (
        tasks.Segmentation(ignore=0),
        PIXELS[0],
        PIXELS[1],
        "found 1 to 255",
    ),
    "no maps": (tasks.Segmentation(), LABELS[0], PIXELS[1], r"gives \(60, 5\)"),
    "tokens beyond": (tasks.NextToken(), TOKENS[0][..., :5], TOKENS[1], "5 logits, .*found 0 to 5"),
    "tokens of another length": (tasks.NextToken(), TOKENS[0][:, 1:], TOKENS[1], r"\(60, 6\) for"),
    "one answer a sequence": (tasks.NextToken(), LABELS[0], TOKENS[1], r"gives \(60, 5\) for"),
}


@pytest.mark.parametrize(("task", "outputs", "targets", "message"), MISFITS.values(), ids=MISFITS)
def test_targets_that_do_not_fit_are_refused_by_name(task, outputs, targets, message):
    with pytest.raises(DataError, match=f"^toys: .*{message}"):
        task.check(outputs, targets, "toys")


UNDEFINED = {
    "a label that nobody has": (
        tasks.MultiLabel(),
        LABELS[0],
        LABELS[1] * torch.tensor([1, 0, 1, 1, 0]),
        "none of 60 .* 1, 4;",
    ),
    "equal numbers": (
        REGRESSION["R²"],
        NUMBERS[0],
        torch.full((SAMPLES, 3), 40.5),
        "all 60 targets",
    ),
    "one number equal": (
        REGRESSION["R²"],
        NUMBERS[0],
        NUMBERS[1] * torch.tensor([1, 0, 1]),
        "same",
    ),
    "maps without a class": (tasks.Segmentation(), PIXELS[0], PIXELS[1] * 0 + 255, "all .*255"),
    "no tokens": (tasks.NextToken(), TOKENS[0], TOKENS[1] * 0 - 100, "all targets are -100"),
}


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "message"), UNDEFINED.values(), ids=UNDEFINED
)
def test_a_metric_that_is_not_defined_is_an_error(task, outputs, targets, message):
    task.check(outputs, targets, "toys")
    with pytest.raises(DataError, match=message):
        measured(task, outputs, targets)


@pytest.mark.parametrize("name", ["mAP", "R²", "RMSE", "bits", "MAE"])
def test_answers_that_are_no_numbers_give_no_number(name):
    task, (outputs, targets), _ = MEASURED[name]
    outputs = outputs.clone()
    outputs[3] = math.nan
    assert math.isnan(measured(task, outputs, targets))


def test_targets_are_standardized_by_those_of_training():
    task = REGRESSION["R²"]
    np.testing.assert_allclose(task.mean, NUMBERS[1].double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(task.std, NUMBERS[1].double().numpy().std(0), rtol=1e-12)
    assert task.fitted([NUMBERS[1] * 5]) is task
    assert f"std {list(task.std)} and mean {list(task.mean)}" in task.output
    with pytest.raises(DataError, match=r"means 40\.5 and the deviations 0; they must"):
        tasks.Regression().fitted([torch.full((9,), 40.5)])


FAULTS = {
    "a unit of R²": (lambda: tasks.Regression(unit="kg"), "R² has no unit, found 'kg'"),
    "nothing measured": (lambda: tasks.Own(F.l1_loss, F.l1_loss), "give score, .* or metric"),
    "no meter": (lambda: tasks.Own(F.l1_loss, F.l1_loss, metric=F.l1_loss), "has no update"),
    "a class in place of a metric": (
        lambda: tasks.Own(F.l1_loss, F.l1_loss, metric=Largest),
        r"Largest'> is a class; give an instance",
    ),
    "a metric as the loss": (
        lambda: tasks.Own(Largest(), F.l1_loss, close),
        "loss is the metric <.*Largest.*, which keeps what it was called with",
    ),
    "a metric as the distance": (
        lambda: tasks.Own(F.l1_loss, Largest(), close),
        "distance is the metric <.*Largest",
    ),
    "no direction": (
        lambda: tasks.Own(F.l1_loss, F.l1_loss, metric=Largest(None)),
        "Largest does not say",
    ),
    "two directions": (
        lambda: tasks.Own(F.l1_loss, F.l1_loss, metric=Largest(True), lower_is_better=True),
        "Largest says higher_is_better = True, and lower_is_better is True",
    ),
}


@pytest.mark.parametrize(("make", "message"), FAULTS.values(), ids=FAULTS)
def test_a_task_that_cannot_be_is_refused(make, message):
    with pytest.raises(TaskError, match=message):
        make()


class Largest:
    """The largest error, with the interface of torchmetrics."""

    def __init__(self, higher_is_better=False):
        self.higher_is_better, self.value = higher_is_better, 99.0

    def reset(self):
        self.value = 0.0

    def update(self, preds, target):
        self.value = max(self.value, float((preds - target).abs().max()))

    def compute(self):
        return torch.tensor(self.value)


def test_a_metric_of_another_library_is_copied_for_every_network():
    outputs, targets = NUMBERS
    largest = float((outputs - targets).abs().max())
    task = tasks.Own(F.mse_loss, F.mse_loss, metric=Largest())
    assert [measured(task, outputs, targets) for _ in range(2)] == [pytest.approx(-largest)] * 2
    one, other = task.meter(), task.meter()  # as of two networks that are measured at a time
    one.update(outputs, targets)
    other.update(outputs, outputs)
    assert (one.compute(), other.compute()) == (pytest.approx(-largest), 0)
    assert (task.metric, task.shown(-largest)) == ("Largest", f"{largest:.4g}")
    task = tasks.Own(F.mse_loss, F.mse_loss, metric=Largest(None), lower_is_better=False)
    assert measured(task, outputs, targets) == pytest.approx(largest)


def torchmetrics_task():
    metric = foreign("torchmetrics").MeanSquaredError()
    return tasks.Own(F.mse_loss, F.mse_loss, metric=metric, unit="mm²")


def test_torchmetrics_are_taken_as_they_are():
    outputs, targets = NUMBERS
    expected = -float((outputs - targets).square().mean())
    assert measured(torchmetrics_task(), outputs, targets) == pytest.approx(expected, rel=1e-5)


def own(score, **options):
    return tasks.Own(F.mse_loss, F.mse_loss, score, **options)


def close(outputs, targets):
    return ((outputs - targets).abs() < 3).float().mean(1)


def closer(outputs, targets):
    return ((outputs - targets).abs() < 2).float().mean(1)


def within(limit):
    return lambda outputs, targets: ((outputs - targets).abs() < limit).float().mean(1)


def test_three_functions_are_a_task():
    outputs, targets = NUMBERS
    task = own(close, unit="of 1")
    assert (task.metric, task.shown(0.25)) == ("close", "0.25 of 1")
    assert torch.equal(task.score(outputs, targets), close(outputs, targets))
    assert torch.equal(
        own(close, lower_is_better=True).score(outputs, targets), -close(outputs, targets)
    )
    teacher = outputs.clone().requires_grad_()
    assert not task.distance(outputs, teacher).requires_grad
    assert float(task.loss(outputs, targets)) == pytest.approx(
        float((outputs - targets).square().mean())
    )


def test_the_code_of_functions_tells_tasks_apart():
    different = [
        own(close),
        own(closer, name="close"),
        own(within(2)),
        own(within(3)),
        own(close, unit="m"),
    ]
    different += [
        own(lambda o, t: (o + t)[:, 0], name="x"),
        own(lambda o, t: (o - t)[:, 0], name="x"),
    ]
    found = [str(identity.of_task(task)) for task in different]
    assert len(set(found)) == len(found)
    assert identity.of_task(own(within(2))) == identity.of_task(own(within(2)))


class Faulty(tasks.Task):
    """Classes, with the fault that a test asks for."""

    metric = "accuracy"

    def __init__(self, **parts):
        self.parts = parts

    def loss(self, outputs, targets):
        return self.parts.get("loss", F.cross_entropy)(outputs, targets)

    def distance(self, student, teacher):
        return self.parts.get("distance", lambda s, t: F.mse_loss(s, t.detach()))(student, teacher)

    def score(self, outputs, targets):
        return self.parts.get("score", lambda o, t: (o.argmax(-1) == t).float())(outputs, targets)

    def meter(self):
        return self.parts.get("meter", lambda: None)()

    def check(self, outputs, targets, where):
        pass


def rows(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


FAULTY = {
    "a loss of each sample": ({"loss": rows}, r"Faulty.loss must give a scalar .* of shape \(2,\)"),
    "a loss as a number": ({"loss": lambda o, t: 3.0}, "it gives a float"),
    "a loss without a gradient": ({"loss": lambda o, t: rows(o, t).mean().detach()}, r"shape \(\)"),
    "a loss that fails": (
        {"loss": lambda o, t: F.mse_loss(o, t[:, :2])},
        r"Faulty.loss fails on float32 of shape \(2, 10\) and int64 of shape \(2,\): IndexError",
    ),
    "a taught teacher": ({"distance": F.mse_loss}, r"into it; use teacher.detach\(\)"),
    "one score": ({"score": lambda o, t: (o.argmax(-1) == t).float().mean()}, r"shape \(2,\); for"),
    "a score that is no number": (
        {"meter": lambda: Broken(math.nan)},
        "of the untrained model on validation data is nan",
    ),
}


SAID = {
    "no metric": ({"metric": None}, "Faulty.metric must be a text, such as 'accuracy', found None"),
    "a blank metric": ({"metric": " "}, "Faulty.metric must be a text, .*found ' '"),
    "no unit": ({"unit": None}, "Faulty.unit must be a text, such as 'mm', found None"),
    "no words for outputs": ({"output": None}, "Faulty.output must be a text"),
    "a scale of zero": ({"scale": 0.0}, "Faulty.scale must be what .*, found 0.0"),
    "an endless scale": ({"scale": math.inf}, "Faulty.scale must be what .*, found inf"),
    "a truth as scale": ({"scale": True}, "Faulty.scale must be what .*, found True"),
    "no task that fits": (
        {"fitted": lambda self, targets: None},
        "Faulty.fitted must give a Task, such as itself, found a NoneType",
    ),
}


@pytest.mark.parametrize(("parts", "message"), SAID.values(), ids=SAID)
def test_a_task_that_does_not_say_what_it_measures_is_refused(parts, message):
    with pytest.raises(TaskError, match=message):
        fits(type("Faulty", (Faulty,), parts)(), iter(()))


class Broken:
    def __init__(self, value):
        self.value = value

    def update(self, outputs, targets):
        assert len(outputs) == len(targets)

    def compute(self):
        return self.value


@pytest.mark.parametrize(("parts", "message"), FAULTY.values(), ids=FAULTY)
def test_a_task_whose_functions_are_wrong_is_refused_before_training(parts, message):
    with pytest.raises(TaskError, match=message):
        fitted(Faulty(**parts), few_digits(), mobilenet())
    assert isinstance(fitted(Faulty(), few_digits(), mobilenet()), Faulty)


class Right:
    """The part of answers that is right, with the fault that a test asks for."""

    higher_is_better = True
    shared = []  # noqa: RUF012, which is the fault

    def __init__(self, **parts):
        self.parts, self.seen = parts, []

    def update(self, outputs, targets):
        self.parts.get("update", lambda seen, o, t: seen.append(o.argmax(-1) == t))(
            self.parts.get("seen", self.seen), outputs, targets
        )

    def compute(self):
        seen = self.parts.get("seen", self.seen)
        return self.parts.get("compute", lambda seen: torch.cat(seen).float().mean())(seen)

    def __deepcopy__(self, memo):
        return self.parts.get("copy", lambda: Right(**self.parts))()


def no_copy():
    raise ValueError("held open")


METERS = {
    "one that is not copied": ({"copy": no_copy}, "Own.meter fails: ValueError: held open"),
    "one of other outputs": (
        {"update": lambda seen, o, t: o.view(-1, 3)},
        r"Right.update fails on float32 of shape \(287, 10\) and int64 of shape \(287,\): Run",
    ),
    "one that fails at its end": (
        {"compute": lambda seen: {}[3]},
        "Right.compute fails: KeyError: 3",
    ),
    "several numbers": ({"compute": torch.cat}, "Right.compute must give one number, found tensor"),
    "a truth": ({"compute": lambda seen: True}, "must give one number, found True"),
    "a text": ({"compute": lambda seen: "0.7"}, "must give one number, found '0.7'"),
    "a complex number": (
        {"compute": lambda seen: torch.tensor(1 + 0j)},
        r"must give one number, found tensor\(1",
    ),
    "no number": ({"compute": lambda seen: torch.tensor(math.nan)}, "on validation data is nan"),
    "what copies share": (
        {"seen": Right.shared},
        "Right of the same answers is .* for one network and .* for the next: it draws at random",
    ),
    "what is drawn": (
        {"compute": lambda seen: torch.rand((), generator=DRAWN)},
        "Right of the same answers is .* for one network and .* for the next: it draws at random",
    ),
    "a mean of means of batches": (
        {"compute": lambda seen: torch.stack([part.float().mean() for part in seen]).mean()},
        "Right of 256 samples is .* where they come in one batch and .* in several: it would",
    ),
    "the last batches": (
        {"compute": lambda seen: torch.cat(seen[-5:]).float().mean()},
        "where they come in one batch and .* in several: it would follow the batch size",
    ),
}
DRAWN = torch.Generator().manual_seed(0)


def own_meter(**parts):
    distance = Faulty().distance
    return fitted(
        tasks.Own(F.cross_entropy, distance, metric=Right(**parts)), few_digits(), mobilenet()
    )


@pytest.mark.parametrize(("parts", "message"), METERS.values(), ids=METERS)
def test_a_metric_that_is_wrong_is_refused_before_training(parts, message):
    with pytest.raises(TaskError, match=message):
        own_meter(**parts)


GIVEN = {
    "what looks at answers in another shape": {
        "update": lambda seen, o, t: seen.append(o.view(-1) > 0),
    },
    "what is not defined where all answers are the same": {
        "update": lambda seen, o, t: seen.append(o[:, 0]),
        "compute": lambda seen: 1 / (torch.cat(seen).max() - torch.cat(seen).min()),
    },
    "what is not defined on a few samples": {
        "compute": lambda seen: torch.cat(seen).float().mean() if len(torch.cat(seen)) > 256 else {}
    },
}  # fmt: skip


@pytest.mark.parametrize("parts", GIVEN.values(), ids=GIVEN)
def test_a_metric_is_tried_on_answers_as_networks_give_them(parts, caplog):
    own_meter(**parts)
    assert not caplog.messages


def test_a_metric_may_change_what_it_is_given():
    data = few_digits()
    before = [part.clone() for part in data.targets("validation")]

    def update(seen, o, t):
        seen.append(o.argmax(-1) == t)
        o.zero_(), t.zero_()

    task = tasks.Own(F.cross_entropy, Faulty().distance, metric=Right(update=update))
    fitted(task, data, mobilenet())
    assert all(map(torch.equal, before, data.targets("validation")))


def test_a_metric_that_is_the_same_whatever_is_answered_is_told(caplog):
    own_meter(update=lambda seen, o, t: seen.append(o.argmax(-1) == -1 - t))
    assert caplog.messages == [
        f"Right of {split} data is 0 for each of 8 guesses; see that it is a metric of these "
        "outputs and targets, for a sample (10,) and ()"
        for split in ("validation", "test")
    ]
    caplog.clear()
    own_meter()
    assert not caplog.messages


def away(o, t):
    return (o[:, 0] - t).abs()


SILENT = {  # functions of outputs (N, 1) and targets (N,) that fail nowhere
    "a loss of all pairs": (
        {"loss": lambda o, t: (o - t).square().mean()},
        "loss is the same whichever sample a target belongs to: outputs (N, 1) and targets (N,) "
        "are broadcast to all pairs of samples; bring them to one shape, as outputs[:, 0]",
    ),
    "a robust loss of all pairs": (
        {"loss": lambda o, t: F.smooth_l1_loss(o, t)},
        "loss is the same whichever sample a target belongs to",
    ),
    "a sum of losses": (
        {"loss": lambda o, t: away(o, t).sum()},
        "loss is a sum over the samples: twice the samples give 22.55 in place of 11.27; take the",
    ),
    "a sum of distances": (
        {"distance": lambda s, t: F.mse_loss(s, t, reduction="sum")},
        "distance is a sum over the samples: twice the samples give ",
    ),
    "a score of all pairs": (
        {"score": lambda o, t: (o - t).abs().mean(1)},
        "score of a sample is -3.067 beside others and -0.4007 alone; a score follows from the ",
    ),
    "a score by the batch's largest": (
        {"score": lambda o, t: away(o, t) / away(o, t).max()},
        "alone; a score follows from the sample's own output and target, compared in one shape",
    ),
    "a score that loses a single sample": (
        {"score": lambda o, t: (o.squeeze() - t.squeeze()).abs()},
        "score must give one number for each sample, also of a single one: shape (1,); for outputs "
        "(1, 1) it gives float32 of shape ()",
    ),
}
RIGHT = {
    "a mean": {"loss": lambda o, t: away(o, t).mean()},
    "a mean by the batch's scale": {"loss": lambda o, t: away(o, t).mean() / t.std()},
    "nothing": {"loss": lambda o, t: (0 * o).sum(), "distance": lambda s, t: (0 * s).sum()},
    "without targets": {"loss": lambda o, t: o.square().mean()},
    "weighted by targets": {"loss": lambda o, t: (away(o, t) * t).sum() / t.sum()},
}


def tried(parts, targets):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own of broadcast shapes
        given = {"loss": lambda o, t: away(o, t).mean(), "distance": F.mse_loss, "score": away}
        task = tasks.Own(**given | parts, name="error", lower_is_better=True)
        try_functions(task, torch.zeros(2, 1), targets)


@pytest.mark.parametrize("name", SILENT)
def test_a_function_that_is_wrong_without_failing_is_refused_before_training(name):
    parts, message = SILENT[name]
    with pytest.raises(TaskError) as found:
        tried(parts, torch.tensor([1.0, 1.0, 1.0, 1.0, 9.0]))
    assert message in str(found.value)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("targets", [[1.0, 4.0, 9.0], [2.0, 2.0, 3.0], [5.0]])
def test_a_function_that_is_right_is_taken_whatever_the_targets(name, targets):
    tried(RIGHT[name], torch.tensor(targets))


def test_iou_is_averaged_over_the_classes_of_the_targets_whatever_is_answered():
    targets = torch.tensor([[0, 0, 1, 1]])
    answers = F.one_hot(torch.tensor([[0, 2, 1, 1]]), 4).float().movedim(-1, 1)
    assert measured(tasks.Segmentation(), answers, targets) == (1 / 2 + 1) / 2


def test_a_metric_of_regression_rests_on_the_targets_that_are_measured():
    task = tasks.Regression().fitted([NUMBERS[1]])
    outputs, targets = NUMBERS[0][:25], NUMBERS[1][:25] + 100
    answers = outputs * torch.tensor(task.std) + torch.tensor(task.mean)
    expected = metrics.r2_score(targets.double(), answers.double())
    assert measured(task, outputs, targets) == pytest.approx(expected, rel=1e-5)
