"""Comparisons of runs, and the runs that the paper's figures are made of."""

import importlib
import json
import shutil
import subprocess
from dataclasses import replace
from statistics import mean

import pytest

from boundnas import pipeline
from boundnas.config import RunConfig
from boundnas.errors import ConfigError, RunError
from boundnas.pareto import mean_over_log_cost
from boundnas.studies import compare, reproduce
from boundnas.studies.figures import FIGURES, configuration

LOWER, UPPER = 0.004, 0.009
SPACE = {
    "last_width": 16,
    "stem": {"width": [2, 4], "stride": 1},
    "stages": [{"intermediate": [4, 8], "output": [2, 4], "depth": [1, 2], "stride": 2}],
}


def tiny(name, seed, learn, **cost):
    return RunConfig.model_validate(
        {
            "name": name,
            "seed": seed,
            "threads": 1,
            "space": SPACE,
            "cost": {"lower": LOWER, "upper": UPPER, **cost},
            "train": {"steps": 4, "learn": learn, "policy_learning_rate": 0.1},
            "search": {"initial": 12, "rounds": 0, "calibration_images": 128},
            "export": {"formats": []},
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds with learned and two with fixed boundaries."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for learn in ("none", "both"):
            pipeline.run(tiny(f"{learn}{seed}", seed, learn), folder)
    return folder


NAMES = ["none0", "both0", "both1", "none1"]


def held(runs, name):
    front = json.loads((runs / name / "front.json").read_text())
    return front["networks"] + front["dominated_on_test"]


def test_scores_and_budgets_are_those_of_the_fronts(runs, tmp_path):
    compare([runs / n for n in NAMES], tmp_path)
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert [g["label"] for g in numbers["groups"]] == ["learn none", "learn both"]
    for group, learn in zip(numbers["groups"], ("none", "both"), strict=True):
        assert list(group["seeds"]) == ["0", "1"]
        for seed, found in group["seeds"].items():
            networks = held(runs, f"{learn}{seed}")
            costs = [n["macs"] for n in networks]
            accuracies = [n["test_accuracy"] for n in networks]
            score = mean_over_log_cost(costs, accuracies, LOWER * 1e6, UPPER * 1e6)
            assert found["score"] == score
            for budget, accuracy in zip(numbers["budgets"], found["at"], strict=True):
                affordable = [n for n in networks if n["macs"] <= budget]
                chosen = max(affordable, key=lambda n: n["validation_accuracy"], default=None)
                assert accuracy == (chosen and chosen["test_accuracy"])


def test_differences_are_paired_by_seed(runs, tmp_path):
    compare([runs / n for n in NAMES], tmp_path)
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    first, other = (g["seeds"] for g in numbers["groups"])
    (difference,) = numbers["differences"]
    by_seed = [other[s]["score"] - first[s]["score"] for s in ("0", "1")]
    assert difference["score"]["by_seed"] == by_seed
    assert difference["score"]["mean"] == pytest.approx(mean(by_seed))
    low, high = difference["score"]["low"], difference["score"]["high"]
    assert (low, high) == pytest.approx((min(by_seed), max(by_seed)))  # all there is with two seeds


def test_a_comparison_is_drawn_and_the_same_again(runs, tmp_path):
    one, again = (compare([runs / n for n in NAMES], tmp_path / n) for n in ("one", "again"))
    names = sorted(p.name for p in one.iterdir())
    assert {"fronts.svg", "sub-networks.svg", "boundaries.svg"} < set(names)
    for name in names:
        assert (one / name).read_bytes() == (again / name).read_bytes(), name
    assert (one / "comparison.html").read_text().count("<svg") == 3
    assert "learn both" in (one / "fronts.svg").read_text()


def test_what_cannot_be_compared_is_refused_before_anything_is_written(runs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"none0: an earlier run has the same .* seed 0"):
        compare([runs / "none0", runs / "none0"], out)
    unfinished = shutil.copytree(runs / "none0", tmp_path / "unfinished")
    (unfinished / "front.json").unlink()
    with pytest.raises(RunError, match=r"unfinished: has no front\.json yet; finish it with"):
        compare([unfinished], out)
    pipeline.run(tiny("wider", 0, "none", upper=0.01), tmp_path)
    with pytest.raises(RunError, match=r"different cost ranges: .*0\.004 to 0\.01 million"):
        compare([runs / "none0", tmp_path / "wider"], out)
    assert not out.exists()


def test_figures_that_share_a_run_agree_on_it():
    for scale, sets in (("small", {"fashion_mnist"}), ("paper", None)):
        seen = {}
        for name, figure in FIGURES.items():
            for variant in figure.variants:
                for data_set in sets or figure.sets:
                    config = configuration(name, variant, 3, scale, data_set, None)
                    assert seen.setdefault(config.name, config) == config
                    assert config.seed == 3


def test_a_comparison_of_the_paper_goes_on_after_a_failure(tmp_path, monkeypatch):
    module = importlib.import_module("boundnas.studies.reproduce")

    def configured(figure, variant, seed, *_):
        learn = {"fixed": "none", "boundaries": "both"}[variant]
        return tiny(f"{variant}-{seed}", seed, learn)

    monkeypatch.setattr(module, "configuration", configured)
    two = replace(FIGURES["fig3"], variants=("fixed", "boundaries"))
    monkeypatch.setitem(FIGURES, "fig3", two)
    broken = tmp_path / "runs" / "boundaries-0"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text("name: other\n")
    with pytest.raises(RunError, match=r"boundaries-0: the run ended with code 1 .*another config"):
        reproduce("fig3", tmp_path, seeds=1)
    shutil.rmtree(broken)
    (folder,) = reproduce("fig3", tmp_path, seeds=1)
    assert "| learn both | learn none | 1 |" in (folder / "comparison.md").read_text()
    monkeypatch.setattr(subprocess, "run", None)  # nothing is run again
    assert reproduce("fig3", tmp_path, seeds=1) == [folder]


@pytest.mark.parametrize(
    ("figure", "scale", "message"),
    [("fig1", "small", "no comparison 'fig1'; there are fig2"), ("fig4", "big", "no scale 'big'")],
)
def test_unknown_figures_and_scales_are_refused(figure, scale, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        reproduce(figure, tmp_path / "out", scale)
    assert not (tmp_path / "out").exists()
