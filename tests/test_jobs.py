"""Real jobs: what the page says is what was measured, and a job is measured as it says."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from studies.jobs import __main__ as jobs
from studies.jobs import images, tables, words
from studies.jobs.problem import Samples

import boundnas as bn
from boundnas.errors import DataError

PAGE = Path(__file__).parents[1] / "docs" / "results" / "jobs.md"


@pytest.fixture
def short(monkeypatch):
    """Every job in a few steps, without other methods."""
    for name, job in jobs.JOBS.items():
        train = job.train.model_copy(update={"steps": 3})
        search = job.search.model_copy(update={"rounds": 0, "initial": 4})
        made = replace(job, train=train, search=search, baselines=lambda *_: {"other": 0.25})
        monkeypatch.setitem(jobs.JOBS, name, made)
    with torch.random.fork_rng(devices=[]):
        yield


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["jobs", *arguments])
    jobs.main()


def test_the_page_has_the_table_of_the_raw_numbers():
    assert jobs.table(jobs.OUT) in PAGE.read_text()


@pytest.mark.parametrize("name", ["wine", "diabetes", "segmentation"])
def test_a_job_chooses_by_validation_and_is_measured_once(
    name, short, tmp_path, monkeypatch, capsys
):
    arguments = ("--jobs", name, "--seeds", "1", "--out", str(tmp_path))
    run(monkeypatch, *arguments)
    first = capsys.readouterr().out
    path = tmp_path / f"{name}-0.json"
    found = json.loads(path.read_text())
    assert found["chosen"]["validation"] == max(n["validation"] for n in found["front"])
    assert found["chosen"] in found["front"]
    assert found["baselines"] == {"other": 0.25}
    monkeypatch.setattr(jobs, "measured", None)  # what is there is not measured again
    run(monkeypatch, *arguments)
    assert capsys.readouterr().out.strip() in first


def test_the_network_that_is_trained_alone_has_the_size_of_the_chosen_one(short, monkeypatch):
    made = []

    def net(data, options):
        made.append(tables.Perceptron(data, options, 3))
        return made[-1]

    job = replace(jobs.JOBS["wine"], net=net)
    found = jobs.measured("wine", job, 0)
    alone = made[1]
    assert alone.space.largest.values == found["chosen"]["architecture"]
    assert bn.cost.MACs(alone).reach == (found["chosen"]["costs"]["macs"],) * 2


def test_spread_is_over_seeds_and_every_best_mean_is_bold(tmp_path):
    for seed, (ours, other) in enumerate([(0.5, 0.7), (0.7, 0.7)]):
        chosen = {"costs": {"macs": 100 * (seed + 1)}, "test": ours}
        row = {"job": "wine", "seed": seed, "chosen": chosen, "plain": 0.25, "seconds": 2.0}
        text = json.dumps({**row, "baselines": {"trees": other, "grid": 0.9 - 0.4 * seed}})
        (tmp_path / f"wine-{seed}.json").write_text(text)
    assert jobs.table(tmp_path).splitlines()[2:] == [
        "| `wine`, accuracy | family, chosen on validation | 60.0 ± 14.1 % | 150 | 2 | 2 |",
        "|  | its size, trained alone | 25.0 ± 0.0 % | 150 | 2 |  |",
        "|  | trees | **70.0 ± 0.0 %** |  | 2 |  |",
        "|  | grid | **70.0 ± 28.3 %** |  | 2 |  |",
    ]


@pytest.mark.parametrize("name", tables.JOBS)
def test_no_sample_lies_in_two_splits_and_seeds_split_anew(name):
    one, same, other = (jobs.JOBS[name].samples(seed) for seed in (0, 0, 1))
    rows = {s: {x.tobytes() for x in inputs} for s, inputs in one.inputs.items()}
    assert len(set.union(*rows.values())) == sum(len(x) for x in one.inputs.values())
    assert all(np.array_equal(one.inputs[s], same.inputs[s]) for s in rows)
    assert not np.array_equal(one.inputs["test"], other.inputs["test"])


def test_a_digit_lies_on_one_canvas_only(monkeypatch):
    digits = SimpleNamespace(images=np.ones((1797, 8, 8)) * 16 * np.arange(2, 1799)[:, None, None])
    monkeypatch.setattr(images, "load_digits", lambda: digits)
    inputs = images.canvases(0).inputs
    seen = np.concatenate([np.round((x.max((1, 2, 3)) - 0.2) / 0.7) for x in inputs.values()])
    assert sorted(seen) == list(range(2, 1799))


def test_columns_are_standardized_by_the_training_rows_alone():
    x = jobs.JOBS["wine"].samples(0).inputs
    assert np.allclose(x["train"].mean(0), 0)
    assert np.allclose(x["train"].std(0), 1)
    assert not np.allclose(x["test"].mean(0), 0, atol=1e-3)


def test_the_grid_is_chosen_on_validation_and_its_first_are_the_defaults(monkeypatch):
    class Trees:
        def __init__(self, max_depth, learning_rate, n_estimators, random_state):
            self.values = max_depth, learning_rate, n_estimators

        def fit(self, x, y):
            assert (x, y) == ("train", "train targets")
            return self

        def score(self, x, y):
            if x == "validation":
                return float(self.values == (1, 0.03, 300))
            return {(3, 0.1, 100): 0.5, (1, 0.03, 300): 0.4}.get(self.values, 0.9)

    monkeypatch.setattr(tables, "GradientBoostingClassifier", Trees)
    splits = ("train", "validation", "test")
    samples = Samples({s: s for s in splits}, {s: f"{s} targets" for s in splits})
    found = tables.boosting(samples, 0, classes=True)
    assert found == {"gradient boosting": 0.5, "gradient boosting, grid": 0.4}


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """Short lists in the place of Debian's, one in Latin-1."""
    monkeypatch.setattr(words, "FOLDER", tmp_path)
    for i, name in enumerate(words.LISTS):
        own = [f"{'abcdefghij'[i]}{c}{c}" for c in "klmn"]
        raw = "\n".join([*own, "Shared", "it's", "no", "x" * 13]).encode()
        (tmp_path / name).write_bytes(raw if i else raw.replace(b"akk", b"\xe5kk"))
    words.lists.cache_clear()
    yield tmp_path
    words.lists.cache_clear()


def test_words_of_two_languages_and_other_signs_are_left_out(lists):
    assert words.lists()[0] == ("all", "amm", "ann", "åkk")
    assert words.lists()[9] == ("jkk", "jll", "jmm", "jnn")
    samples = words.sample(0, {"train": 2, "validation": 1, "test": 1})
    rows = [tuple(row) for x in samples.inputs.values() for row in x.tolist()]
    assert len(set(rows)) == 40
    assert samples.targets["test"].tolist() == list(range(10))


def test_a_list_that_is_missing_is_named(lists):
    (lists / "dutch").unlink()
    with pytest.raises(DataError, match=r"lacks dutch; install"):
        words.lists()


def test_clothes_of_a_canvas_are_its_labels_and_lie_in_one_split(monkeypatch):
    train = np.zeros((60_000, 14, 14), np.float32) + np.arange(60_000)[:, None, None] % 10 + 1
    parts = {"train": (train, np.arange(60_000) % 10), "t10k": (train[:10] + 10, np.arange(10))}
    monkeypatch.setattr(images, "clothes", parts.get)
    monkeypatch.setattr(images, "PAIRS", {"train": 8, "validation": 8, "test": 8})
    samples = images.pairs(0)
    for split, above in (("train", 0), ("validation", 0), ("test", 10)):
        for canvas, labels in zip(samples.inputs[split], samples.targets[split], strict=True):
            seen = {int(v) - above - 1 for v in np.unique(canvas) if v}
            assert seen == set(np.flatnonzero(labels).tolist())
            assert (canvas > 0).sum() == 2 * 14 * 14
