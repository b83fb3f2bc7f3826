"""The training loop: exact resume, same seed same bytes, schedule, logs and refusals."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tests.small import COST_RANGE, digest, few_digits, files, mobilenet

from boundnas import TrainSettings, data, fit
from boundnas.cost import MACs, Parameters
from boundnas.errors import BoundNASError, CostError, DataError, RunError, SpaceError
from boundnas.fit import loop
from boundnas.fit.run import bounds_record
from boundnas.fit.schedule import learning_rate, policy_learning_rate
from boundnas.fit.start import start_policy
from boundnas.settings import PriorSettings
from boundnas.store.folder import RunFolder
from boundnas.store.lines import JsonLines
from boundnas.store.rows import MetricsRow
from boundnas.store.vouched import check_vouched
from boundnas.supernet import weights

STEPS = 12


def options(**more):
    return TrainSettings(**{"steps": STEPS, "batch_size": 16, "checkpoint_every": 1, **more})


def run(folder=None, model=None, cost_range=COST_RANGE, cost=MACs, **more):
    model = mobilenet() if model is None else model
    settings = options(**more)
    return fit(model, few_digits(), cost_range=cost_range, cost=cost(model), settings=settings,
               folder=folder)  # fmt: skip


def with_buffer():
    """The model with a tensor more."""
    model = mobilenet()
    model.register_buffer("more", torch.zeros(1))
    return model


def new_folder(path):
    return RunFolder.create(path / "run", "name: run\n")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Files and rows of an uninterrupted run, and the state of its model."""
    folder = new_folder(tmp_path_factory.mktemp("uninterrupted"))
    finished = run(folder)
    return files(folder.path), finished.metrics, digest(finished.model)


def test_a_checkpoint_holds_weights_policies_and_both_optimizers(tmp_path):
    finished = run(new_folder(tmp_path))
    saved = loop.checkpoint.newest(finished.folder.checkpoints)
    assert saved.step == STEPS
    sections = {name.partition("/")[0] for name in saved.tensors}
    assert sections == {"model", "max_policy", "min_policy", "weights", "policies"}
    for name, value in finished.model.state_dict().items():
        assert torch.equal(saved.tensors[f"model/{name}"], value)
    assert saved.tensors["policies/0/step"] == STEPS


def test_a_finished_run_is_not_trained_again(uninterrupted, tmp_path, monkeypatch):
    folder = new_folder(tmp_path)
    run(folder)
    monkeypatch.setattr(loop.Sandwich, "step", None)
    again = run(folder)
    assert files(folder.path) == uninterrupted[0]
    assert digest(again.model) == uninterrupted[2]
    assert [row["step"] for row in again.metrics] == list(range(STEPS))


def test_logs_and_checkpoints_do_not_change_the_run(uninterrupted):
    without = run()
    assert digest(without.model) == uninterrupted[2]
    assert without.metrics == uninterrupted[1]


def test_seeds_give_different_runs(uninterrupted):
    other = fit(mobilenet(), few_digits(), cost_range=COST_RANGE, settings=options(), seed=1)
    assert digest(other.model) != uninterrupted[2]


SCHEDULE = {  # of 100 steps with 20 of warm-up from 0.02 to 0.1
    0: 0.02,
    5: 0.04,
    10: 0.06,
    20: 0.1,
    40: 0.1 * (1 + math.sqrt(0.5)) / 2,
    60: 0.05,
    80: 0.1 * (1 - math.sqrt(0.5)) / 2,
    99: 0.1 * math.sin(math.pi / 160) ** 2,
}


@pytest.mark.parametrize(("step", "rate"), SCHEDULE.items())
def test_the_learning_rate_warms_up_and_decays_as_a_cosine(step, rate):
    settings = options(warmup_fraction=0.2, warmup_start=0.02)
    assert learning_rate(step, 100, 0.1, settings) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("fraction", [0.0, 1e-3, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_the_learning_rate_exists_at_every_step(steps, fraction):
    settings = options(warmup_fraction=fraction, warmup_start=1e-5)
    rates = [learning_rate(step, steps, 0.1, settings) for step in range(steps)]
    assert all(1e-5 <= rate <= 0.1 for rate in rates)
    assert fraction > 0.5 or rates == sorted(rates, reverse=True)


def test_a_run_follows_the_schedule(uninterrupted):
    rates = [row["learning_rate"] for row in uninterrupted[1]]
    assert rates == [learning_rate(step, STEPS, 0.1, options()) for step in range(STEPS)]


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 3), (1, 5), (2.2, 11)])
def test_epochs_count_in_full_batches_of_the_training_images(epochs, steps):
    assert len(run(steps=None, epochs=epochs).metrics) == steps


def test_metrics_have_a_row_for_every_step(uninterrupted):
    rows = uninterrupted[1]
    assert rows == [json.loads(line) for line in uninterrupted[0]["metrics.jsonl"].splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    smallest, largest = MACs(mobilenet()).reach
    for row in rows:
        numbers = [value for value in row.values() if not isinstance(value, dict)]
        assert all(map(math.isfinite, numbers))
        assert smallest <= row["cost_min"]["macs"] <= largest
        assert smallest <= row["cost_max"]["macs"] <= largest
        assert 0 <= row["score_max"] <= 1


@pytest.mark.parametrize(("rows", "steps"), [(200, range(13)), (4, range(0, 13, 3)), (1, (0, 12))])
def test_boundaries_are_logged_evenly_and_at_the_end(rows, steps, monkeypatch):
    monkeypatch.setattr(loop, "BOUNDARY_ROWS", rows)
    finished = run()
    names = [d.name for d in finished.model.space.dimensions]
    assert [row["step"] for row in finished.trajectory] == list(steps)
    assert all(list(row["max"]) == list(row["min"]) == names for row in finished.trajectory)
    for boundary in ("max", "min"):
        policy = getattr(finished.boundaries, boundary)
        last = torch.tensor(list(finished.trajectory[-1][boundary].values()))
        torch.testing.assert_close(last, torch.stack(policy.moments(), 1).float())


@pytest.mark.parametrize(("steps", "rows"), [(100, 101), (199, 200), (400, 201), (1000, 201)])
def test_about_two_hundred_rows_of_the_boundaries_are_logged(steps, rows, monkeypatch):
    numbers = [name for name in MetricsRow.model_fields if not name.startswith(("step", "cost"))]
    row = dict.fromkeys(numbers, 0.0) | {"cost_max": {}, "cost_min": {}}
    monkeypatch.setattr(
        loop.Trainer, "_step", lambda self, step, stopping: ({"step": step} | row, False)
    )
    assert len(run(steps=steps).trajectory) == rows


def test_a_prior_is_where_the_boundaries_start():
    prior = (
        PriorSettings(dimensions="*", largest=6),
        PriorSettings(dimensions="stage?.kernel", smallest=4),
        PriorSettings(dimensions="stage1.activation", smallest=1),
    )
    largest, smallest = (
        start_policy(mobilenet(), boundary, options(prior=prior), 0, ()).mode.values
        for boundary in ("max", "min")
    )
    assert {name: (smallest[name], largest[name]) for name in largest} == {
        "stem.width": (2, 4),
        "stage1.layer1.width": (4, 4),
        "stage1.layer2.width": (4, 4),
        "stage1.output": (4, 6),
        "stage1.depth": (1, 2),
        "stage1.kernel": (5, 5),
        "stage1.se": (False, True),
        "stage1.activation": ("swish", "swish"),
    }


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"dimensions": "stage9.*", "largest": 1}, r"prior\[0\].dimensions: 'stage9\.\*' names no"),
        (
            {"dimensions": "stage1.kernel", "smallest": 4, "largest": 4.5},
            r"no option of stage1\.kernel lies between 4 and 4\.5; there are 3, 5",
        ),
    ],
)
def test_a_prior_that_does_not_fit_the_space_is_refused(prior, message):
    with pytest.raises(SpaceError, match=message):
        run(prior=(PriorSettings(**prior),))


def test_bounds_say_what_each_dimension_may_be(tmp_path):
    finished = run(new_folder(tmp_path))
    bounds = json.loads(finished.folder.bounds.read_text())
    said = bounds_record(finished, bounds["identity"], bounds["weights"], bounds["logs"])
    assert bounds == said.written()
    assert bounds["weights"] == weights.digest(finished.model)
    for name in ("metrics", "boundaries"):
        with JsonLines(getattr(finished.folder, name)) as log:
            assert bounds["logs"][name] == log.sync()
    assert check_vouched(bounds) == bounds["sum"]
    for boundary, key, option in (("max", "p_largest", -1), ("min", "p_smallest", 0)):
        start = start_policy(finished.model, boundary, options(), 0, ()).probabilities.tolist()
        mean = sum(
            row[: len(d)][option]
            for row, d in zip(start, finished.model.space.dimensions, strict=True)
        ) / len(finished.model.space)
        assert bounds[key] == pytest.approx(mean)
    for row, d, allowed in zip(
        bounds["dimensions"], finished.model.space.dimensions, finished.allowed, strict=True
    ):
        assert (row["name"], row["kind"], row["choices"]) == (d.name, d.kind, list(d.choices))
        assert sum(row["max"]) == pytest.approx(1) == sum(row["min"])
        assert row["allowed"] == [d.choices[j] for j in allowed]


def test_fixed_boundaries_allow_the_whole_space():
    bounds = bounds_record(run(learn="none"), {}, "", {}).model_dump()
    assert bounds["p_largest"] == bounds["p_smallest"] == 1
    assert all(row["allowed"] == row["choices"] for row in bounds["dimensions"])


def test_a_checkpoint_of_other_images_is_refused_and_kept(tmp_path):
    folder = new_folder(tmp_path)
    run(folder)
    kept = files(folder.path)
    images, labels = few_digits().train.take(torch.arange(80))
    images[3, 0, 2, 2] ^= 1  # one grey level of one pixel
    other = replace(few_digits(), train=data.InMemory(images, labels))
    settings = options(steps=STEPS)
    with pytest.raises(RunError, match=r"step 12 is of a run with images of data\.train = "):
        fit(mobilenet(), other, cost_range=COST_RANGE, settings=settings, folder=folder)
    assert files(folder.path) == kept


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"model": mobilenet(last_width=12)}, "is of a run with module last.conv = .*; go on"),
        ({"model": with_buffer()}, "is of a run with shape of .* = missing, this one has float32"),
        ({"learn": "max"}, 'is of a run with train.learn = "both", this one has "max"; go on'),
        ({"steps": 14}, "is of a run with train.steps = 12, this one has 14; go on"),
        ({"cost_range": (12e3, 41e3)}, r"is of a run with cost_range = \(12000.0, 40000.0\), this"),
        (
            {"cost": Parameters, "cost_range": (500, 1000)},
            "is of a run with cost = MACs macs, this one has Parameters parameters; 3 more",
        ),
    ],
    ids=[
        "other layers",
        "another state",
        "other boundaries",
        "another schedule",
        "another range",
        "another cost",
    ],
)
def test_a_checkpoint_of_another_model_is_refused_and_kept(other, found, tmp_path):
    folder = new_folder(tmp_path)
    run(folder)
    kept = files(folder.path)
    with pytest.raises(RunError, match=rf"checkpoint of step 12 {found}"):
        run(folder, **other)
    assert files(folder.path) == kept


REFUSED = {
    "a range above the space": (
        {"cost_range": (1e6, 2e6)}, CostError, "costs 1 to 2 MMACs: .* 0.01032 to 0.045584 MMACs",
    ),
    "a range below the space": ({"cost_range": (1, 10)}, CostError, "from 0.01032 to 0.045584"),
    "a range upside down": ({"cost_range": (3e4, 2e4)}, CostError, "0 < lower < upper"),
    "a batch above the data set": ({"batch_size": 81}, DataError, "1 to 80.*found 81"),
}  # fmt: skip


@pytest.mark.parametrize(("faulty", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_is_created(
    faulty, kind, message, tmp_path
):
    folder, model = new_folder(tmp_path), mobilenet()
    before = digest(model)
    assert issubclass(kind, BoundNASError)
    with pytest.raises(kind, match=message):
        run(folder, model, **faulty)
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]
    assert digest(model) == before


def test_a_batch_may_be_the_whole_data_set():
    assert len(run(steps=None, epochs=1, batch_size=80).metrics) == 1
    assert len(data.digits().train) > 80


@pytest.mark.parametrize(
    ("steps", "every", "rate"), [(12, 1, 0.05), (4500, 1, 0.01), (4500, 3, 0.03), (900, 2, 0.1)]
)
def test_by_default_adam_may_carry_a_logit_by_45_in_a_run(steps, every, rate):
    held = options(steps=steps, policy_every=every)
    assert policy_learning_rate(steps, held) == pytest.approx(rate, rel=1e-12)
    asked = options(steps=steps, policy_every=every, policy_learning_rate=0.007)
    assert policy_learning_rate(steps, asked) == 0.007


def test_the_gradients_of_weights_and_policies_are_cut_off(tmp_path):
    limit = 1e-5
    folder = new_folder(tmp_path)
    run(folder, steps=1, clip_value=limit, momentum=0.9, weight_decay=0.0)
    saved = loop.checkpoint.newest(folder.checkpoints).tensors
    # After one step SGD remembers the gradient itself, and Adam a tenth of it (beta_1 = 0.9).
    remembered = {"weights": ("momentum_buffer", 1.0), "policies": ("exp_avg", 0.1)}
    for optimizer, (name, factor) in remembered.items():
        found = [v for k, v in saved.items() if k.startswith(optimizer) and k.endswith(name)]
        assert max(float(v.abs().max()) for v in found) == pytest.approx(factor * limit)


def test_the_accuracy_logged_is_the_max_networks_on_its_batch(monkeypatch):
    seen = []
    step = loop.Sandwich.step

    def watched(sandwich, images, labels, number, *after):
        logits = []
        hook = sandwich.model.register_forward_hook(lambda *a: logits.append(a[-1]))
        scalars = step(sandwich, images, labels, number, *after)
        hook.remove()
        seen.append(int((logits[0].argmax(1) == labels).sum()) / len(labels))
        return scalars

    monkeypatch.setattr(loop.Sandwich, "step", watched)
    rows = run(steps=6).metrics
    assert [row["score_max"] for row in rows] == seen
    assert len(set(seen)) > 2
