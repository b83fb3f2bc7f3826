"""Comparisons of runs, and the runs that the paper's figures are made of."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from matplotlib import rc_context, rcParams
from studies import reproduce
from studies.__main__ import app
from studies.figures import FIGURES, configuration
from typer.testing import CliRunner

from boundnas.app import pipeline
from boundnas.config import RunConfig, read_config
from boundnas.errors import ConfigError, RunError
from boundnas.report.compare import compare
from boundnas.report.comparison import Comparison
from boundnas.report.interval import t_interval
from boundnas.report.tables import markdown, numbers
from boundnas.search.pareto import chosen, mean_over_log_cost
from boundnas.store.files import canonical_json
from boundnas.store.vouched import vouched

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
    return front["networks"] + front["outside"]


def test_scores_and_budgets_are_those_of_the_fronts(runs, tmp_path):
    compare([runs / n for n in NAMES], tmp_path)
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert [g["label"] for g in numbers["groups"]] == ["learn none", "learn both"]
    for group, learn in zip(numbers["groups"], ("none", "both"), strict=True):
        assert list(group["seeds"]) == ["0", "1"]
        for seed, found in group["seeds"].items():
            networks = held(runs, f"{learn}{seed}")
            costs = [n["costs"]["macs"] for n in networks]
            both = [[n[on] for n in networks] for on in ("validation", "test")]
            score = mean_over_log_cost(costs, *both, LOWER * 1e6, UPPER * 1e6)
            assert found["score"] == score
            for budget, accuracy in zip(numbers["budgets"], found["at"], strict=True):
                i = chosen(costs, both[0], budget, LOWER * 1e6)
                assert accuracy == (None if i is None else both[1][i])


def test_differences_are_paired_by_seed(runs, tmp_path):
    compare([runs / n for n in NAMES], tmp_path)
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    first, other = (g["seeds"] for g in numbers["groups"])
    (difference,) = numbers["differences"]
    by_seed = [other[s]["score"] - first[s]["score"] for s in ("0", "1")]
    assert difference["score"]["by_seed"] == by_seed
    assert difference["score"]["mean"] == pytest.approx(mean(by_seed))
    low, high = difference["score"]["low"], difference["score"]["high"]
    reach = 12.7062047 * abs(by_seed[1] - by_seed[0]) / 2  # Student's t of one degree of freedom
    assert (low, high) == pytest.approx((mean(by_seed) - reach, mean(by_seed) + reach))


# Student's t at 97.5 % from printed tables, times the deviation over the root of the number.
INTERVALS = [
    ([1.0], None),
    ([1.0, 3.0], (2 - 12.7062, 2 + 12.7062)),
    ([1.0, 2.0, 3.0], (2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5)),
    ([0.0, 1.0, 2.0, 3.0, 4.0], (2 - 2.77645 * 0.5**0.5, 2 + 2.77645 * 0.5**0.5)),
    ([2.0, 2.0], (2, 2)),
]


@pytest.mark.parametrize(("values", "ends"), INTERVALS)
def test_an_interval_of_few_seeds_is_students(values, ends):
    assert t_interval(values) == (None if ends is None else pytest.approx(ends, abs=1e-4))


def test_a_single_seed_has_a_difference_and_no_interval(runs, tmp_path):
    compare([runs / "none0", runs / "both0"], tmp_path)
    (difference,) = json.loads((tmp_path / "comparison.json").read_text())["differences"]
    assert (difference["score"]["low"], difference["score"]["high"]) == (None, None)
    row = (tmp_path / "comparison.md").read_text().split("| learn both | learn none | 1 |")[1]
    assert " to " not in row.splitlines()[0]


def test_tables_are_made_again_from_the_raw_numbers_of_a_comparison(runs, tmp_path):
    whole = compare([runs / n for n in NAMES], tmp_path / "whole")
    stale = tmp_path / "stale.json"  # as another release, with another score, would have left it
    held = json.loads((whole / "comparison.json").read_text())
    for group in held["groups"]:
        for seed in group["seeds"].values():
            seed.update(score=0.5, at=[])
    stale.write_text(json.dumps({k: held[k] for k in ("metric", "cost_range", "groups")}))
    again = compare([stale], tmp_path / "again")
    for name in ("comparison.json", "fronts.svg"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    tables = [(f / "comparison.md").read_text().partition("![")[0] for f in (whole, again)]
    assert tables[0] == tables[1]


def test_a_comparison_shows_labels_as_they_are(runs, tmp_path):
    whole = compare([runs / n for n in NAMES], tmp_path / "whole")
    held = json.loads((whole / "comparison.json").read_text())
    label = "folder <img src=x> a|b $x$ `y`"
    held["groups"][1]["label"] = label
    (tmp_path / "named.json").write_text(
        json.dumps({k: held[k] for k in ("metric", "cost_range", "groups")})
    )
    tables = (compare([tmp_path / "named.json"], tmp_path / "again") / "comparison.md").read_text()
    assert tables.count(r"| folder &lt;img src=x&gt; a\|b \$x\$ \`y\` | ") == 2
    assert "<img" not in tables
    assert "<img" not in (tmp_path / "again" / "comparison.html").read_text()


COMMITTED = sorted((Path(__file__).parents[1] / "docs/results").glob("*/comparison*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_committed_comparisons_are_what_their_fronts_come_to(path):
    assert json.loads(path.read_text()) == json.loads(
        canonical_json(numbers(Comparison.read(path)))
    )


def test_there_are_committed_comparisons():
    assert len(COMMITTED) == 17


ERROR = {"name": "error", "unit": "mm", "scale": -1.0}


def test_a_metric_of_ones_own_is_named_with_its_unit_and_the_worst_counts_where_nothing_is():
    def group(label, *fronts):
        return {"label": label, "seeds": {str(i): {"front": f} for i, f in enumerate(fronts)}}

    rows = [(1, -4.0, -3.0), (4, -2.0, -2.5)]
    groups = [group("one", rows, rows), group("other", rows[1:], rows[1:])]
    held = numbers(
        Comparison.model_validate({"metric": ERROR, "cost_range": (1.0, 16.0), "groups": groups})
    )
    one, other = (g["seeds"]["0"]["score"] for g in held["groups"])
    assert one == other == pytest.approx((-3.0 - 2.5) / 2)  # the largest error stands for none
    said = markdown(held)
    assert "and its test error, averaged over log cost" in said
    assert "Differences in error, mm, paired by seed" in said
    assert "| one | 2 | 2.75 ± 0 mm | 3 ± 0 mm |" in said
    assert "| other | 2 | 2.75 ± 0 mm | none |" in said


def test_runs_of_different_metrics_are_not_compared(runs, tmp_path):
    shutil.copytree(runs / "none0", tmp_path / "other")
    path = tmp_path / "other" / "front.json"
    held = json.loads(path.read_text())
    del held["sum"]
    path.write_text(json.dumps(vouched({**held, "metric": ERROR})))
    with pytest.raises(RunError, match="these runs are scored by accuracy, % and error, mm"):
        compare([runs / "both0", tmp_path / "other"], tmp_path / "out")


ROW = [5000, 0.5, 0.4]
METRIC = {"name": "accuracy", "unit": "%", "scale": 100.0}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([], "Input should be an object"),
        ({"metric": METRIC, "cost_range": [1, 2]}, "groups: Field required"),
        ({"metric": METRIC, "cost_range": [2, 1],
          "groups": [{"label": "a", "seeds": {"0": {"front": [ROW]}}}]},
         "cost_range: a cost range is 0 < lower < upper, found 2 to 1"),
        ({"metric": METRIC, "cost_range": [1, 2],
          "groups": [{"label": "a", "seeds": {"0": {"front": [["x"]]}}}]},
         "groups.0.seeds.0.front.0"),
        ({"metric": METRIC, "cost_range": [1, 2], "groups": []},
         "groups: List should have at least 1 item"),
    ],
)  # fmt: skip
def test_a_damaged_comparison_is_refused_by_name(held, said, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(held))
    with pytest.raises(RunError, match=re.escape(f"{path}: {said}")):
        compare([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_drawn_and_the_same_again(runs, tmp_path):
    one, again = (compare([runs / n for n in NAMES], tmp_path / n) for n in ("one", "again"))
    names = sorted(p.name for p in one.iterdir())
    assert {"fronts.svg", "sub-networks.svg", "boundaries.svg"} < set(names)
    for name in names:
        assert (one / name).read_bytes() == (again / name).read_bytes(), name
    assert (one / "comparison.html").read_text().count("<svg") == 3
    assert "learn both" in (one / "fronts.svg").read_text()


def test_a_comparison_is_drawn_alike_whatever_matplotlib_is_told(runs, tmp_path, monkeypatch):
    one = compare([runs / name for name in NAMES], tmp_path / "one")
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    with rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        other = compare([runs / name for name in NAMES], tmp_path / "other")
        assert rcParams["font.size"] == 30
    assert os.environ["MPLBACKEND"] == "nonsense"
    for path in one.glob("*.svg"):
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_what_cannot_be_compared_is_refused_before_anything_is_written(runs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"none0: an earlier run has the same .* seed 0"):
        compare([runs / "none0", runs / "none0"], out)
    unfinished = shutil.copytree(runs / "none0", tmp_path / "unfinished")
    (unfinished / "front.json").unlink()
    with pytest.raises(RunError, match=r"unfinished: has no front\.json yet; finish it with"):
        compare([unfinished], out)
    pipeline.run(tiny("wider", 0, "none", upper=0.01), tmp_path)
    with pytest.raises(RunError, match=r"different cost ranges: .*4,000 to 10,000 macs"):
        compare([runs / "none0", tmp_path / "wider"], out)
    assert not out.exists()


LOGS = {
    "missing": lambda rows: None,
    "empty": lambda rows: [],
    "without its first row": lambda rows: rows[1:],
    "without one between": lambda rows: rows[:1] + rows[2:],
    "without its last row": lambda rows: rows[:-1],
    "with a row twice": lambda rows: rows[:2] + rows[1:],
    "of another space": lambda rows: [
        {**row, "max": {"other": [1.0, 0.0]}} if "max" in row else {**row, "step": 0}
        for row in rows
    ],
}


@pytest.mark.parametrize("change", LOGS.values(), ids=LOGS)
@pytest.mark.parametrize("log", ["metrics.jsonl", "boundaries.jsonl"])
def test_a_log_with_other_rows_than_training_wrote_is_refused(log, change, runs, tmp_path):
    spoilt = shutil.copytree(runs / "both0", tmp_path / "both0")
    rows = change([json.loads(line) for line in (spoilt / log).read_text().splitlines()])
    (spoilt / log).unlink()
    if rows is not None:
        (spoilt / log).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(RunError, match=rf"both0/{log.replace('.', '[.]')}"):
        compare([spoilt, runs / "both1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_logs_that_nothing_vouches_for_are_refused(runs, tmp_path):
    spoilt = shutil.copytree(runs / "both0", tmp_path / "both0")
    (spoilt / "bounds.json").unlink()
    with pytest.raises(RunError, match=r"both0/bounds\.json: is missing; put back"):
        compare([spoilt, runs / "both1"], tmp_path / "out")


MADE_WITH = [("torch", "2.0.0"), ("boundnas", "0.0.1"), ("cpu_capability", "NONE")]


@pytest.mark.parametrize(("name", "value"), MADE_WITH)
def test_runs_made_with_something_else_are_no_seeds_of_one_group(name, value, runs, tmp_path):
    other = shutil.copytree(runs / "none1", tmp_path / "none1")
    held = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps(held | {name: value}))
    compare([runs / "none0", other], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["groups"]
    assert [list(g["seeds"]) for g in found] == [["0"], ["1"]]
    assert f"{name} {value}" in found[1]["label"]


def test_a_range_edited_after_the_search_is_refused(runs, tmp_path):
    other = shutil.copytree(runs / "none0", tmp_path / "none0")
    config = (other / "config.yaml").read_text()
    edited = re.sub(r"upper: \S+", "upper: 0.02", config)
    assert edited != config
    (other / "config.yaml").write_text(edited)
    with pytest.raises(
        RunError, match=r"asks for 4,000 to 20,000 macs, but .* 4,000 to 9,000 macs"
    ):
        compare([other], tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [(r"seed: 0", "seed: 3", "seed = 0, this one has 3"),
     (r"tau: \S+", "tau: 0.4", r"train\.tau = 0.5, this one has 0.4"),
     (r"initial: \S+", "initial: 9", r"search\.initial = \d+, this one has 9")],
)  # fmt: skip
def test_a_configuration_edited_after_the_run_is_refused(old, new, name, runs, tmp_path):
    other = shutil.copytree(runs / "none0", tmp_path / "none0")
    config = (other / "config.yaml").read_text()
    assert re.search(old, config)
    (other / "config.yaml").write_text(re.sub(old, new, config))
    with pytest.raises(RunError, match=f"was edited after the run, which was made with {name}"):
        compare([other], tmp_path / "out")


def test_figures_that_share_a_run_agree_on_it():
    for scale in ("small", "paper"):
        seen = {}
        for name, figure in FIGURES.items():
            for variant in figure.variants:
                for data_set in figure.sets if scale == "paper" else (figure.small,):
                    config = configuration(name, variant, 3, scale, data_set, None)
                    assert seen.setdefault(config.name, config) == config
                    assert config.seed == 3


def test_a_comparison_of_the_paper_goes_on_after_a_failure(tmp_path, monkeypatch):
    module = importlib.import_module("studies.reproduce")

    def configured(figure, variant, seed, *_):
        learn = {"fixed": "none", "boundaries": "both"}[variant]
        return tiny(f"{variant}-{seed}", seed, learn)

    monkeypatch.setattr(module, "configuration", configured)
    two = replace(FIGURES["fig3"], variants=("fixed", "boundaries"))
    monkeypatch.setitem(FIGURES, "fig3", two)
    in_a_process = module._Children.run

    def in_this_one(children, command, output):
        file, folder = Path(command[4]), Path(command[6])
        if (tmp_path / "runs" / file.stem / "config.yaml").exists():  # which will be refused
            return in_a_process(children, command, output)
        pipeline.run(read_config(file), folder)
        return 0

    monkeypatch.setattr(module._Children, "run", in_this_one)
    broken = tmp_path / "runs" / "boundaries-0"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text("name: other\n")
    with pytest.raises(RunError, match=r"boundaries-0: the run ended with code 1 .*another config"):
        reproduce("fig3", tmp_path, seeds=1)
    shutil.rmtree(broken)
    (folder,) = reproduce("fig3", tmp_path, seeds=1)
    assert "| learn both | learn none | 1 |" in (folder / "comparison.md").read_text()
    monkeypatch.setattr(module._Children, "run", None)  # nothing is run again
    assert reproduce("fig3", tmp_path, seeds=1) == [folder]


@pytest.mark.parametrize(
    ("figure", "scale", "message"),
    [
        ("fig1", "small", "no comparison 'fig1'; there are fig2"),
        ("fig4", "big", "no scale 'big'"),
        ("controls-harm", "paper", "controls-harm has no space of the paper's; run it at the"),
    ],
)
def test_unknown_figures_and_scales_are_refused(figure, scale, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        reproduce(figure, tmp_path / "out", scale)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["~", "~/runs", "~root/runs"])
def test_a_home_that_the_shell_did_not_expand_never_becomes_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["fig3", "--out", name])
    assert refused.exit_code == 2
    assert f"the shell did not expand {name.split('/')[0]}" in refused.output
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_as_boundnas_does(tmp_path):
    command = [sys.executable, "-m", "studies", "fig1", "--out", str(tmp_path / "out")]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ConfigError: no comparison 'fig1'; there are fig2, ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
