"""The HTML report: what it reads, what it says, and how it behaves in a browser."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, sync_playwright
from tests.small import ACCURACY

from boundnas.errors import RunError
from boundnas.report import write_report
from boundnas.report.content import moving_mean, thin
from boundnas.store.lines import JsonLines
from boundnas.store.vouched import vouched

STEPS, EVALUATIONS, ON_FRONT, OUTSIDE = 300, 400, 10, 6
RANGE = [10e6, 90e6]
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


def mobilenet_like_dimensions() -> list[dict[str, Any]]:
    def dimension(name: str, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {"name": name, "kind": kind, "choices": choices}

    def eighths(width: int) -> list[int]:
        return [width * k // 8 for k in range(1, 9)]

    dimensions = [
        dimension("head.width", "width", eighths(32)),
        dimension("head.kernel", "kernel", [3, 5]),
    ]
    for stage, width in enumerate((24, 32, 64, 96, 160), 2):
        dimensions += [
            dimension(f"stage{stage}.layer{layer}.width", "width", eighths(6 * width))
            for layer in (1, 2, 3, 4)
        ]
        dimensions += [
            dimension(f"stage{stage}.width", "width", eighths(width)),
            dimension(f"stage{stage}.depth", "depth", [2, 3, 4]),
            dimension(f"stage{stage}.kernel", "kernel", [3, 5]),
        ]
    return [
        *dimensions,
        dimension("stage7.width", "width", eighths(320)),
        dimension("stage7.kernel", "kernel", [3, 5]),
        dimension("stage7.se", "se", [False, True]),
        dimension("stage7.activation", "activation", ["relu", "swish"]),
        dimension("last.width", "width", [1280]),
        dimension("classifier.hidden", "width", [64, 128, 256]),
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


ORIGIN = {"identity": {"weights": "those of the run"}, "metric": ACCURACY.model_dump()}


def write_journal(folder: Path, rows: list[dict[str, Any]]) -> None:
    written = [vouched(ORIGIN)]
    for row in rows:
        written.append(vouched(row, written[-1]["sum"]))
    write_rows(folder / "search" / "evaluations.jsonl", written)


def write_front(folder: Path, front: dict[str, Any]) -> None:
    for exported in front["networks"]:
        if exported["folder"] is not None:
            (folder / exported["folder"]).mkdir(parents=True, exist_ok=True)
    said = {name: value for name, value in front.items() if name != "sum"}
    lines = (folder / "search" / "evaluations.jsonl").read_text().splitlines()
    origin = {**ORIGIN, "journal": json.loads(lines[-1])["sum"]}
    (folder / "front.json").write_text(json.dumps(vouched(origin | said)))


def write_bounds(folder: Path, dimensions: list[dict[str, Any]]) -> None:
    """As at the end of a training that wrote the logs which are there now."""
    logs = {}
    for name in ("metrics", "boundaries"):
        with JsonLines(folder / f"{name}.jsonl") as log:
            logs[name] = log.sync()
    start = {"p_largest": 0.91, "p_smallest": 0.9}
    identity = {"cost_range": str(tuple(RANGE)), "cost": "MACs macs"}
    start |= {"identity": identity, "logs": logs}
    held = {**start, "dimensions": dimensions, **ORIGIN["identity"]}
    (folder / "bounds.json").write_text(json.dumps(vouched(held)))


def write_run(
    folder: Path,
    dimensions: list[dict[str, Any]] | None = None,
    steps: int = STEPS,
    evaluations: int = EVALUATIONS,
) -> Path:
    """A run folder as training and search leave it, made up."""
    draw = random.Random(0)
    dimensions = dimensions or mobilenet_like_dimensions()
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\nboundaries:\n  learn: both\n  tau: 0.5\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "threads": 2}))
    (folder / "space.json").write_text(json.dumps(dimensions))
    write_rows(
        folder / "metrics.jsonl", [metrics(step, steps, draw) for step in range(1, steps + 1)]
    )
    write_rows(
        folder / "boundaries.jsonl",
        [
            {
                "step": step,
                **{side: moments(dimensions, side, step / steps) for side in ("max", "min")},
            }
            for step in range(1, steps + 1)
        ],
    )
    write_bounds(folder, [bound(d) for d in dimensions])
    searched = sorted(
        (evaluation(dimensions, draw) for _ in range(evaluations)),
        key=lambda row: row["costs"]["macs"],
    )
    write_journal(folder, searched)
    chosen = [network(searched[i * (evaluations - 1) // 15], i) for i in range(16)]
    inside = [n for n in chosen if RANGE[0] <= n["costs"]["macs"] <= RANGE[1]]
    outside = [{**n, "folder": None} for n in chosen if n not in inside]
    front = {"ranges": {"macs": RANGE}, "networks": inside, "outside": outside}
    write_front(folder, front)
    return folder


def metrics(step: int, steps: int, draw: random.Random) -> dict[str, Any]:
    loss = 0.6 + 1.7 * math.exp(-3 * step / steps)
    return {
        "step": step,
        "loss_max": loss + draw.gauss(0, 0.05),
        "loss_min": loss + 0.5 + draw.gauss(0, 0.08),
        "loss_random": loss + 0.25 + draw.gauss(0, 0.1) if step > 20 else None,
        "score_max": 0.5,
        "cost_max": {"macs": round(1.5e8 - 2e7 * draw.random())},
        "cost_min": {"macs": round(3e6 + 1e7 * step / steps * draw.random())},
        "penalty_max": 0.0,
        "penalty_min": 0.1,
        "learning_rate": 0.05 * (1 + math.cos(math.pi * step / steps)),
    }


def numbers(dimension: dict[str, Any]) -> list[float]:
    return [float(i if isinstance(c, str) else c) for i, c in enumerate(dimension["choices"])]


def moments(dimensions: list[dict[str, Any]], side: str, progress: float) -> dict[str, Any]:
    moved = {}
    for i, dimension in enumerate(dimensions):
        low, high = numbers(dimension)[0], numbers(dimension)[-1]
        drift = (
            0.6 * progress * abs(math.sin(i))
            if side == "min"
            else 1 - 0.2 * progress * (i % 3 == 0)
        )
        moved[dimension["name"]] = [
            low + (high - low) * drift,
            (high - low) * 0.15 * (1.1 - progress),
        ]
    return moved


def bound(dimension: dict[str, Any]) -> dict[str, Any]:
    count = len(dimension["choices"])
    weights = [2.0**i for i in range(count)]
    upward = [w / sum(weights) for w in weights]
    return {
        **dimension,
        "max": upward,
        "min": upward[::-1],
        "allowed": dimension["choices"][count // 3 :],
    }


def evaluation(dimensions: list[dict[str, Any]], draw: random.Random) -> dict[str, Any]:
    macs = 10 ** draw.uniform(6.6, 8.1)
    return {
        "architecture": {d["name"]: draw.choice(d["choices"]) for d in dimensions},
        "costs": {"macs": round(macs), "parameters": round(macs / 30)},
        "images": 1000,
        "score": 0.76 - 0.35 * math.exp(-macs / 2e7) - abs(draw.gauss(0, 0.03)),
    }


def network(row: dict[str, Any], i: int) -> dict[str, Any]:
    return {
        **{key: row[key] for key in ("architecture", "costs")},
        "validation": row["score"],
        "test": 0.45 + 0.02 * ((7 * i) % 16),
        "folder": f"networks/{row['costs']['macs']}",
    }


def embedded(report: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', report.read_text(), re.DOTALL
    )
    assert found
    return json.loads(found[1])


def words(report: Path) -> str:
    """What the page says without its script."""
    return re.sub(
        r"<[^>]*>", "", re.sub(r"<(script|style)\b.*?</\1>", "", report.read_text(), flags=re.S)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "mobilenet-demo")
    write_report(folder)
    return folder


# ---- the file ----


def test_the_space_of_these_tests_is_as_large_as_that_of_the_paper():
    assert len(mobilenet_like_dimensions()) == 43


def test_the_report_is_one_file_in_the_run_folder_and_leaves_no_litter(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    before = set(folder.rglob("*"))
    assert write_report(folder) == folder / "report.html"
    assert set(folder.rglob("*")) - before == {folder / "report.html"}


def test_the_same_run_gives_the_same_bytes(run):
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_report_names_no_address_outside_itself(run):
    page = (run / "report.html").read_text()
    addresses = set(re.findall(r"https?://[^\s\"'`$]*", page))
    assert addresses <= {"http://www.w3.org/"}  # namespaces of elements, never fetched
    assert not re.search(r"@import|\bfetch\(|XMLHttpRequest|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_five_thousand_evaluations_and_long_training_stay_well_under_one_megabyte(tmp_path):
    folder = write_run(tmp_path / "run", steps=2_000, evaluations=5_000)
    assert write_report(folder).stat().st_size < 800_000


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "report.html").mkdir()
    with pytest.raises(RunError, match=r"report\.html: is a folder, where a regular file"):
        write_report(folder)
    assert not list(folder.glob(".*"))


# ---- what it says ----


def test_the_summary_names_the_front_its_range_the_best_network_and_the_training(run):
    said = words(run / "report.html")
    front = embedded(run / "report.html")["front"]["networks"]
    assert f"a front of {ON_FRONT} networks inside the range asked for, from" in said
    best = max(front, key=lambda n: n[1])  # of validation, though test data says another
    assert best[3] < max(n[3] for n in front)
    reached = [ACCURACY.shown(best[i]) for i in (1, 3)]
    said_of_it = f"MMACs, which reaches {reached[0]} there and {reached[1]} on test data"
    assert f"validation data chooses that of {best[0][0] / 1e6:.3g} {said_of_it}" in said
    assert "trained for 301 steps, learning both boundaries of the search space" in said
    assert f"{OUTSIDE} networks outside the range are drawn hollow" in said


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        ("learn: both", "learning both boundaries"),
        ("train:\n  learn: 'min'  # only this one", "learning the lower boundary"),
        ("learn: max", "learning the upper boundary"),
        ("learn: none", "with the boundaries of the search space fixed"),
        ("{learn: [", "for 6 steps. There"),
        ("learn: sometimes", "for 6 steps. There"),
    ],
)
def test_the_learn_mode_is_told_when_the_config_tells_it(tmp_path, config, phrase):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "front.json").unlink()
    (folder / "config.yaml").write_text(config)
    assert phrase in words(write_report(folder))


def test_every_evaluation_is_in_the_page_and_its_architecture_can_be_read_back(run):
    data = embedded(run / "report.html")
    lines = (run / "search" / "evaluations.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    unpacked = [
        {d["name"]: d["choices"][ord(c) - 48] for d, c in zip(data["space"], e[2], strict=True)}
        for e in data["evaluated"]
    ]
    assert unpacked == [row["architecture"] for row in rows]
    assert [e[0] for e in data["evaluated"]] == [[*row["costs"].values()] for row in rows]


def searched_by(folder: Path, *names: str) -> Path:
    """A run that was searched for these costs, each of them half a dozen times the MACs."""
    write_run(folder, steps=5, evaluations=20)
    rows = [json.loads(t) for t in (folder / "search/evaluations.jsonl").read_text().splitlines()]
    front = json.loads((folder / "front.json").read_text())
    networks = sorted(front["networks"] + front["outside"], key=lambda n: n["costs"]["macs"])
    for held in (*rows[1:], *networks):
        held["costs"] |= {name: 6 * held["costs"]["macs"] for name in names if name != "macs"}
    write_journal(folder, [{k: v for k, v in row.items() if k != "sum"} for row in rows[1:]])
    limits = {name: sorted(n["costs"][name] for n in networks)[2:-2] for name in names}
    front = {
        "ranges": {name: [found[0], found[-1]] for name, found in limits.items()},
        "networks": networks[2:-2],
        "outside": [{**n, "folder": None} for n in networks[:2] + networks[-2:]],
    }
    write_front(folder, front)
    return folder


AXES = {  # costs that were searched for, and of the first the title, the label, the unit
    ("macs",): ("MACs", "MMACs", 1e6, r"from {:.3g} to {:.3g} MMACs\. .* that of [\d.]+ MMACs, "),
    ("latency",): (
        "latency", "latency, ms", 1e6,
        r"from {:.4g} ms to {:.4g} ms latency\. .* that of [\d.]+ ms latency and [\d.]+ MMACs, "
    ),
    ("bytes",): ("bytes", "million bytes", 1e6, r"from [\d,]+ to [\d,]+ bytes\. "),
    ("peak_memory", "latency"): (
        "peak_memory", "million bytes of peak memory", 1e6,
        r"that of [\d,]+ peak_memory and [\d.]+ ms latency and [\d.]+ MMACs, ",
    ),
    ("parameters",): ("parameters", "million parameters", 1e6, r"to [\d,]+ parameters\. Of these"),
    ("my energy",): ("my energy", "million my energy", 1e6, r"to [\d,]+ my energy\. Of these"),
}  # fmt: skip


@pytest.mark.parametrize("names", AXES, ids=" ".join)
def test_networks_are_shown_by_the_cost_that_they_were_searched_for_in_its_unit(tmp_path, names):
    title, label, unit, said = AXES[names]
    report = write_report(searched_by(tmp_path / "run", *names))
    data = embedded(report)
    shown = [cost["name"] for cost in data["costs"]]
    assert shown == list(dict.fromkeys((*names, "macs", "parameters")))
    ranges = json.loads((tmp_path / "run/front.json").read_text())["ranges"]
    assert [cost["range"] for cost in data["costs"]] == [ranges.get(name) for name in shown]
    assert {k: data["costs"][0][k] for k in ("title", "label", "unit")} == {
        "title": title, "label": label, "unit": unit
    }  # fmt: skip
    if "parameters" not in names:
        assert data["costs"][-1]["unit"] == 1
    front = json.loads((tmp_path / "run/front.json").read_text())["networks"]
    inside = [[n["costs"][name] for name in shown] for n in front]
    assert [n[0] for n in data["front"]["networks"]] == inside
    ends = [row[0] / unit for row in (inside[0], inside[-1])]
    assert re.search(said.format(*ends), words(report))


def test_before_a_search_networks_are_shown_by_what_was_trained_for(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "front.json").unlink()
    (cost, parameters) = embedded(write_report(folder))["costs"]
    assert (cost["name"], cost["range"], parameters["range"]) == ("macs", list(RANGE), None)


def test_boundaries_are_fractions_of_the_largest_choice(run):
    data = embedded(run / "report.html")
    last = json.loads((run / "boundaries.jsonl").read_text().splitlines()[-1])
    for d, dimension in enumerate(data["space"]):
        largest = numbers(dimension)[-1]
        for side in ("max", "min"):
            means, _ = data["boundaries"][side][d]
            assert means[-1] == pytest.approx(last[side][dimension["name"]][0] / largest, abs=1e-3)
            assert all(0 <= mean <= 1 for mean in means)


def test_options_inside_the_learned_bounds_are_marked(run):
    data = embedded(run / "report.html")
    for dimension, bounds in zip(data["space"], data["bounds"], strict=True):
        count = len(dimension["choices"])
        assert bounds["allowed"] == [j >= count // 3 for j in range(count)]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["search/evaluations.jsonl", "front.json"], "Not there yet: search/evaluations.jsonl"),
        (["front.json"], "Not there yet: front.json"),
        (["boundaries.jsonl"], "Not there yet: boundaries.jsonl"),
        (["bounds.json"], "Not there yet: bounds.json"),
        (["config.yaml"], "Not there: config.yaml"),
        (["environment.json"], "Not there: environment.json"),
    ],
)
def test_a_section_says_which_file_is_not_there_yet(tmp_path, gone, said):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    for name in gone:
        (folder / name).unlink()
    assert said in words(write_report(folder))


# ---- what it refuses ----


@pytest.mark.parametrize("name", ["metrics.jsonl", "space.json"])
def test_a_missing_file_that_every_run_has_is_named(tmp_path, name):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"{re.escape(name)} is missing: .* train it first"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        write_report(tmp_path / "nowhere")


def test_a_run_without_a_step_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match=r"metrics\.jsonl holds no step yet"):
        write_report(folder)


COSTS = '"costs": {"macs": 1, "parameters": 1}'
NETWORK = f'{{"architecture": {{}}, {COSTS}, "validation": 0, "test": 0}}'
METRIC = '{"name": "accuracy", "unit": "%", "scale": 100}'
IDENTITY = f'"identity": {{"weights": "those"}}, "metric": {METRIC}, "journal": ""'
HEAD = json.dumps(vouched({"identity": {"weights": "those"}, "metric": json.loads(METRIC)}))
FRONT = f'{{{IDENTITY}, "ranges": {{"macs": [1, 2]}}, "networks": [{NETWORK}], "outside": []}}'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"step": 1}\n', r"metrics\.jsonl line 1: loss_max: Field required"),
        ("space.json", "[", r"space\.json: Invalid JSON"),
        ("space.json", "[]", r"space\.json: a search space needs at least one dimension"),
        ("front.json", '{"ranges": {"macs": [1, 2]}}', r"front\.json: identity: Field required"),
        (
            "bounds.json",
            '{"p_largest": 1, "p_smallest": 1, "dimensions": []}',
            r"bounds\.json: identity: Field required",
        ),
        (
            "boundaries.jsonl",
            '{"step": 1, "max": {}, "min": {}}\n',
            r"head\.width is in space\.json",
        ),
        (
            "search/evaluations.jsonl",
            f'{{"architecture": {{}}, {COSTS}, "score": 0.5, "images": 9}}\n',
            r"line 1: identity: Field required",
        ),
        (
            "search/evaluations.jsonl",
            f"{HEAD.replace('those', 'others')}\n",
            r"line 1: is not what was written there by its sum",
        ),
        (
            "search/evaluations.jsonl",
            f'{HEAD}\n{{"architecture": {{}}, {COSTS}, "score": 0.5, "images": 0}}\n',
            r"line 2: images: Input should be greater than or equal to 1",
        ),
        (
            "front.json",
            FRONT,
            r"front\.json: is not what was written there by its sum",
        ),
        (
            "search/evaluations.jsonl",
            f'{HEAD}\n{{"architecture": {{}}, {COSTS}, "score": NaN, "images": 9}}\n',
            r"line 2: score: Input should be a finite number",
        ),
        (
            "search/evaluations.jsonl",
            f"{HEAD}\n"
            '{"architecture": {}, "costs": {"macs": 1}, "score": 0.5, "images": 9}\n',
            r"line 2: costs: no parameters among the costs",
        ),
        (
            "front.json",
            FRONT.replace('{"macs": [', '{"latency": ['),
            r"front\.json: a network has no latency, a cost of this front",
        ),
        *(
            ("front.json", FRONT.replace(old, new), message)
            for old, new, message in [
                (FRONT, "null", r"front\.json: Input should be an object"),
                (FRONT, "[]", r"front\.json: Input should be an object"),
                (f"[{NETWORK}]", "null", r"networks: Input should be a valid (list|array)"),
                ('"macs": 1,', '"macs": "1",', r"networks\.0\.costs\.macs: .* valid integer"),
                ('"macs": 1,', '"macs": true,', r"networks\.0\.costs\.macs: .* valid integer"),
                ('"macs": 1,', '"macs": -1,', r"costs: macs and .* are above 0"),
                ('test": 0}', 'test": "0"}', r"test: Input should be a valid number"),
                ('test": 0}', 'test": NaN}', r"test: Input should be a finite number"),
                ('test": 0}', 'test": null}', r"test: Input should be a valid number"),
                (METRIC, "null", r"metric: Input should be an object"),
                ("[1, 2]", "[2, 1]", r"ranges\.macs: .* found 2 to 1"),
                ("[1, 2]", '["1", 2]', r"ranges\.macs\.0: Input should be a valid number"),
                ("[1, 2]", "[2, 3]", r"a network of 1 macs stands among those inside 2 to 3"),
                ('"outside": []', f'"outside": [{NETWORK}]', r"among those outside 1 to 2"),
                (f"[{NETWORK}]", "[]", r"there is no network"),
            ]
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, name, text, message):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    if name == "boundaries.jsonl":
        (folder / "bounds.json").unlink()  # which knows that it was another
    (folder / name).write_text(text)
    with pytest.raises(RunError, match=message):
        write_report(folder)


def test_scores_are_named_before_there_is_a_front_too(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "front.json").unlink()
    assert embedded(write_report(folder))["metric"] == ACCURACY.model_dump()
    (folder / "search" / "evaluations.jsonl").unlink()
    assert embedded(write_report(folder))["metric"] is None


def test_evaluations_of_another_space_are_named(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "front.json").unlink()
    costs = {"macs": 1, "parameters": 1}
    write_journal(folder, [{"architecture": {}, "costs": costs, "score": 0.5, "images": 9}])
    message = r"does not fit the run's space\.json: .*missing: head\.width"
    with pytest.raises(RunError, match=message):
        write_report(folder)


@pytest.mark.parametrize(
    ("name", "found"), [("front.json", "front.json"), ("bounds.json", "search/evaluations.jsonl")]
)
def test_what_was_measured_of_other_weights_is_not_shown(tmp_path, name, found):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    held = json.loads((folder / name).read_text())
    del held["sum"]
    changed = {"identity": {"weights": "others"}}
    changed |= {"weights": "others"} if name == "bounds.json" else {}
    (folder / name).write_text(json.dumps(vouched(held | changed)))
    with pytest.raises(RunError, match=f"{found} is of other weights than the training ended"):
        write_report(folder)


@pytest.mark.parametrize("name", ["metrics.jsonl", "boundaries.jsonl"])
def test_logs_of_a_finished_training_are_shown_as_they_were_written(tmp_path, name):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    rows = (folder / name).read_text().splitlines(keepends=True)
    for others in (rows[:-1], [*rows[:-1], rows[-1].replace("5", "6", 1)], rows[::-1]):
        (folder / name).write_text("".join(others))
        with pytest.raises(RunError, match=rf"{name}.* by bounds\.json; restore the file"):
            write_report(folder)


def test_a_space_that_the_training_did_not_have_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    space = (folder / "space.json").read_text()
    (folder / "space.json").write_text(space.replace('"head.width"', '"head.breadth"'))
    with pytest.raises(RunError, match=r"space\.json: is not the space of bounds\.json"):
        write_report(folder)


def test_a_front_that_is_a_folder_is_named(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    (folder / "front.json").unlink()
    (folder / "front.json").mkdir()
    with pytest.raises(RunError, match=r"front\.json: is a folder"):
        write_report(folder)


def test_a_front_with_nothing_inside_the_range_says_so_and_names_the_nearest(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    held = json.loads((folder / "front.json").read_text())
    networks = sorted(held["networks"] + held["outside"], key=lambda n: n["costs"]["macs"])
    cheapest = networks[0]["costs"]["macs"]
    held |= {"networks": [], "outside": networks, "ranges": {"macs": [1000, 2000]}}
    write_front(folder, held)
    said = words(write_report(folder))
    assert "lies inside the range asked for, 1,000 to 2,000 macs" in said
    assert f"the nearest of its front has {cheapest:,} macs." in said


def test_a_journal_cut_at_any_byte_is_never_fatal(tmp_path):
    folder = write_run(tmp_path / "run", mobilenet_like_dimensions()[:2], steps=5, evaluations=20)
    journal = folder / "search" / "evaluations.jsonl"
    (folder / "front.json").unlink()  # which says how much of it there was
    whole = journal.read_bytes()
    end = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(end, len(whole)):
        journal.write_bytes(whole[:cut])
        assert len(embedded(write_report(folder))["evaluated"]) == 19


def test_losses_that_are_not_finite_leave_a_gap(tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[2]["loss_max"] = math.nan
    (folder / "bounds.json").unlink()  # which vouches for the rows
    write_rows(folder / "metrics.jsonl", rows)
    raw, smooth = embedded(write_report(folder))["training"]["loss_max"]
    assert raw[2] is None
    assert all(math.isfinite(value) for value in smooth)


# ---- thinning and smoothing ----


@given(length=st.integers(1, 10_000), limit=st.integers(2, 700))
def test_thinning_keeps_the_ends_the_order_and_the_limit(length, limit):
    kept = thin(length, limit)
    assert len(kept) == min(length, limit)
    assert kept[0] == 0
    assert kept[-1] == length - 1
    assert kept == sorted(set(kept))


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=50), st.integers(0, 60))
def test_a_moving_mean_stays_between_its_neighbours(values, reach):
    for i, mean in enumerate(moving_mean(values, reach)):
        near = [v for v in values[max(0, i - reach) : i + reach + 1] if v is not None]
        if mean is None:
            assert not near
        else:
            assert min(near) - 1e-6 <= mean <= max(near) + 1e-6


# ---- nothing from a file is markup ----


def hostile_run(folder: Path) -> Path:
    dimensions = [
        {"name": HOSTILE, "kind": HOSTILE, "choices": ["<!--<script>", HOSTILE]},
        {"name": "${data}.$script", "kind": "__proto__", "choices": [1, 2]},
    ]
    write_run(folder, dimensions, steps=5, evaluations=20)
    (folder / "config.yaml").write_text(f"</pre>{HOSTILE}$data")
    (folder / "environment.json").write_text(json.dumps({HOSTILE: [HOSTILE]}))
    front = json.loads((folder / "front.json").read_text())
    front["networks"][0]["folder"] = f"javascript:alert(1)//{HOSTILE}"
    front["ranges"] = {HOSTILE: [1, 2]}
    for cost, key in ((1, "networks"), (3, "outside")):
        for held in front[key]:
            held["costs"][HOSTILE] = cost
    write_front(folder, front)
    return folder


def test_names_that_look_like_markup_stay_text(tmp_path):
    page = write_report(hostile_run(tmp_path / "<b>run & co")).read_text()
    assert "<img" not in page
    assert "<b>run" not in page
    assert page.count("<script") == page.count("</script>") == 2


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("the report's browser tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test on an error, a console message or a request but for its file."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(5_000)
    faults: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    opened = page.url
    page.close()
    assert faults == []
    assert [url for url in requests if not url.startswith("data:,")] == [opened]


def open_report(page: Page, folder: Path) -> None:
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector("#training svg")


@pytest.mark.browser
def test_every_network_dimension_and_option_is_drawn(page, run):
    open_report(page, run)
    space = mobilenet_like_dimensions()
    expected = {
        "circle.evaluated": EVALUATIONS,
        "circle.front": ON_FRONT,
        "circle.outside": OUTSIDE,
        ".networks tbody tr": ON_FRONT + OUTSIDE,
        ".networks tr.outside": OUTSIDE,
        ".networks a[href^='./networks/']": ON_FRONT,
        "#boundaries figure": len({d["kind"] for d in space}),
        "#boundaries .line.line": 2 * len(space) + 2,  # and two in the legend
        ".bounds tbody tr": len(space),
        ".bounds .option": sum(len(d["choices"]) for d in space),
        "#training path.smooth": 6,
        "#front .limit": 2,
        "#training .limit": 2,
    }
    assert {selector: page.locator(selector).count() for selector in expected} == expected


@pytest.mark.browser
@pytest.mark.parametrize("names", [("latency",), ("latency", "bytes")], ids=" ".join)
def test_each_cost_that_was_searched_for_has_its_figure_in_its_unit(page, tmp_path, names):
    folder = searched_by(tmp_path / "run", *names)
    write_report(folder)
    open_report(page, folder)
    labels = {"latency": "Latency, ms (log scale)", "bytes": "Million bytes (log scale)"}
    drawn = page.locator("#front .plot svg")
    assert [drawn.nth(i).locator(".label").nth(1).text_content() for i in range(drawn.count())] == [
        labels[name] for name in names
    ]
    assert page.locator("#front .limit").count() == 2 * len(names)
    assert page.locator("circle.front").count() == 12 * len(names)
    lower, upper = json.loads((folder / "front.json").read_text())["ranges"]["latency"]
    said = page.locator("#front .legend").inner_text()
    found = re.search(r"range of interest \(latency, ms\): ([\d.,]+) to ([\d.,]+)", said).groups()
    assert [float(x.replace(",", "")) for x in found] == pytest.approx(
        [lower / 1e6, upper / 1e6], rel=0.01
    )
    head = page.locator(".networks th").all_inner_texts()
    assert head[: len(names)] == [labels[name].partition(" (")[0] for name in names]
    assert head[len(names) :] == ["MMACs", "Parameters", "Validation", "Test", "Exported"]
    page.locator(".networks tbody tr").nth(3).hover()
    network = json.loads((folder / "front.json").read_text())["networks"][3]
    details = page.locator(".details").inner_text()
    assert f"{network['costs']['parameters']:,}" in details
    assert ACCURACY.shown(network["test"]) in details
    ring = page.locator("#front .plot svg").last.locator(".ring").get_attribute("cx")
    dot = page.locator("#front .plot svg").last.locator("circle.front").nth(3).get_attribute("cx")
    assert float(ring) == pytest.approx(float(dot), abs=0.1)


@pytest.mark.browser
def test_hovering_a_point_shows_its_numbers_and_its_architecture(page, run):
    open_report(page, run)
    networks = json.loads((run / "front.json").read_text())["networks"]
    for i in (0, ON_FRONT - 1):
        page.locator("circle.front").nth(i).hover(force=True)
        shown = page.locator(".details").inner_text()
        assert f"{ACCURACY.shown(networks[i]['test'])}" in shown
        assert f"{ACCURACY.shown(networks[i]['validation'])}" in shown
        assert f"{networks[i]['costs']['parameters']:,}" in shown
        architecture = networks[i]["architecture"]
        for stage in (2, 6):
            widths = [architecture[f"stage{stage}.layer{layer}.width"] for layer in (1, 2, 3, 4)]
            assert f"layer1\N{EN DASH}4.width {' '.join(map(str, widths))}" in shown
            assert f"depth {architecture[f'stage{stage}.depth']}" in shown
        assert f"se {'on' if architecture['stage7.se'] else 'off'}" in shown


@pytest.mark.browser
def test_the_keyboard_reaches_every_series_of_the_front(page, run):
    open_report(page, run)
    page.locator("#front svg").focus()
    networks = json.loads((run / "front.json").read_text())["networks"]
    details = page.locator(".details")
    page.keyboard.press("Home")
    assert ACCURACY.shown(networks[0]["test"]) in details.inner_text()
    page.keyboard.press("ArrowRight")
    assert ACCURACY.shown(networks[1]["test"]) in details.inner_text()
    titles = set()
    for _ in range(3):
        titles.add(details.locator("h3").inner_text())
        page.keyboard.press("ArrowUp")
    assert titles == {"Network of the front", "Evaluated network", "Outside the range asked for"}


@pytest.mark.browser
def test_pointing_at_a_table_row_shows_its_network(page, run):
    open_report(page, run)
    page.locator(".networks tbody tr").nth(2).hover()
    networks = json.loads((run / "front.json").read_text())["networks"]
    assert f"{networks[2]['costs']['parameters']:,}" in page.locator(".details").inner_text()


@pytest.mark.browser
def test_pointing_at_a_boundary_names_its_dimension(page, run):
    open_report(page, run)
    page.locator("#boundaries svg").first.focus()
    page.keyboard.press("End")
    said = page.locator("#boundaries .readout").first.inner_text()
    assert re.fullmatch(r"head\.width, max policy, step 300: \d\.\d\d ± \d\.\d\d", said)


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen_and_no_labels_overlap(page, run, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_report(page, run)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overlapping = page.evaluate(
        """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
            const frame = svg.getBoundingClientRect();
            const labels = [...svg.querySelectorAll("text")].map(
                (text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
            const cut = ({ box }) => box.left < frame.left - 1 || box.right > frame.right + 1;
            const meet = ({ box: a }, { box: b }) =>
                a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
            const faulty = (label, i) =>
                cut(label) || labels.slice(0, i).some((other) => meet(label, other));
            return labels.filter(faulty).map(({ text }) => text);
        })"""
    )
    assert overlapping == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_of_at_least_four_and_a_half(page, run, scheme):
    page.emulate_media(color_scheme=scheme)
    open_report(page, run)
    ratios = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const luminance = (name) => {
                const hex = style.getPropertyValue(name).trim();
                const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
                    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return ["--text", "--muted", "--max", "--min", "--random", "--front"].flatMap((ink) =>
                ["--page", "--wash"].map((paper) => contrast(luminance(ink), luminance(paper))));
        }"""
    )
    assert len(ratios) == 12
    assert min(ratios) >= 4.5


@pytest.mark.browser
def test_a_run_that_was_not_searched_opens(page, tmp_path):
    folder = write_run(tmp_path / "run", steps=1, evaluations=20)
    for name in ("front.json", "search/evaluations.jsonl", "bounds.json", "boundaries.jsonl"):
        (folder / name).unlink()
    write_report(folder)
    open_report(page, folder)
    assert page.locator("#front svg").count() == 0
    assert page.locator("#training svg").count() == 3


@pytest.mark.browser
def test_a_short_run_counts_its_steps_in_whole_numbers(page, tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    write_report(folder)
    open_report(page, folder)
    ticks = page.locator("#training svg").first.locator("text[text-anchor=middle]")
    assert ticks.all_text_contents() == ["1", "2", "3", "4", "5"]


@pytest.mark.browser
def test_a_front_of_one_network_opens(page, tmp_path):
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    front = json.loads((folder / "front.json").read_text())
    front |= {
        "networks": front["networks"][:1],
        "outside": [],
        "ranges": {"latency_ms": [1, 10]},
    }
    front["networks"][0]["costs"]["latency_ms"] = 8
    write_front(folder, front)
    (folder / "search" / "evaluations.jsonl").unlink()
    write_report(folder)
    open_report(page, folder)
    assert page.locator("circle.front").count() == 1
    limits = [page.locator(f"{part} .limit").count() for part in ("#front", "#training")]
    assert limits == [2, 2], "those that were searched for, and those that were trained for"


@pytest.mark.browser
def test_hostile_names_are_inert_in_the_browser(page, tmp_path):
    folder = hostile_run(tmp_path / "run")
    write_report(folder)
    open_report(page, folder)
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0
    assert "[object" not in page.locator("body").inner_text()
    assert HOSTILE in page.locator(".bounds").inner_text()
    assert HOSTILE in page.locator(".details").inner_text()
    assert HOSTILE in page.locator("pre").inner_text()
    assert page.locator(".networks a").first.get_attribute("href").startswith("./javascript%3A")
